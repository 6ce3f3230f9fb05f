"""Which instruction makes a layer."""

from __future__ import annotations

from layerbuild.lessons.lesson import BASE, N_, Ask, Lesson, Run, Say, Write

LESSON = Lesson(
    "metadata",
    N_("Metadata makes no layer: which instructions do"),
    (
        Say(
            N_(
                "An image is a stack of layers and one configuration: variables, labels, the command of a "
                "container. Each instruction of a recipe changes files, or the configuration."
            )
        ),
        BASE,
        Write(
            "Dockerfile",
            "FROM base\nLABEL by=me\nRUN echo hello > /hello\nENV WHO=world\nRUN true\nWORKDIR /work\nCMD cat /hello\n",
        ),
        Ask(
            N_("The base has one layer. How many more will this recipe make?"),
            (
                N_("6: one for each instruction"),
                N_("3: one for each RUN, and one for WORKDIR"),
                N_("2: for the RUN that writes a file, and for WORKDIR"),
                N_("1: for the RUN that writes a file"),
            ),
            2,
            N_(
                "LABEL, ENV and CMD change the configuration. RUN true changes no file, so it has nothing to "
                "say: other builders make an empty layer there. WORKDIR makes one only because the folder has "
                "to be made."
            ),
            "layerbuild build -q -t meta . && "
            "test \"$(layerbuild layers meta --format yaml | grep -c 'empty_layer: false')\" = 3",
        ),
        Run("layerbuild plan ."),
        Run("layerbuild build -q -t meta ."),
        Run("layerbuild layers meta"),
        Say(
            N_(
                "Each instruction has left a line in the image's history all the same. Those without a layer "
                "are marked empty_layer in the configuration, so that history and layers can be matched."
            )
        ),
        Run("layerbuild history meta"),
    ),
)
