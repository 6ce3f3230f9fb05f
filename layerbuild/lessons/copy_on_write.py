"""What it costs to change a file that a layer below brought."""

from __future__ import annotations

from layerbuild.lessons.lesson import BASE, N_, Ask, Lesson, Run, Say, Write

LESSON = Lesson(
    "copy-on-write",
    N_("Copy-on-write: what it costs to change a file of a layer below"),
    (
        Say(N_("An image is a stack of layers, and a layer is never changed once it is made. First we need a base.")),
        BASE,
        Say(N_("This recipe makes a file of one megabyte, and in a step of its own changes who may read it.")),
        Write(
            "Dockerfile",
            "FROM base\nRUN head -c 1000000 /dev/zero > /big\nRUN chmod 600 /big\n",
        ),
        Run("layerbuild build -q -t cow ."),
        Ask(
            N_("The second RUN changed nothing but the permission of the file. How large is its layer's tar?"),
            (
                N_("A few kilobytes: the new permission, and which file it is for"),
                N_("One megabyte: the whole file"),
                N_("Nothing: permissions are kept in the image's configuration"),
            ),
            1,
            N_(
                "A layer holds whole files only. Before a file of a lower layer can be changed in any way, "
                "overlay copies it up into the upper folder, and that copy is what becomes the layer. The column "
                "TAR tells."
            ),
            "layerbuild layers cow --format yaml | grep tar_size | tail -n 1 | grep -q '10[0-9][0-9][0-9][0-9][0-9]$'",
        ),
        Run("layerbuild layers cow"),
        Run('ls -l "$(layerbuild where cow --layer 3)"'),
        Ask(
            N_("And the file with the old permission, in layer 2?"),
            (N_("It is still there, and still shipped"), N_("It was replaced, so it is gone")),
            0,
            N_(
                "Layers below are only read. The copy on top hides the one below: two megabytes are shipped, "
                "one is seen."
            ),
            'test "$(wc -c < "$(layerbuild where cow --layer 2)/big")" = 1000000',
        ),
        Run('ls -l "$(layerbuild where cow --layer 2)"'),
        Say(
            N_(
                "So a file gets its mode and its owner where it is made: in the same RUN, or with COPY --chmod "
                "and --chown. This recipe does it, and its layer holds the file once."
            )
        ),
        Write("Dockerfile", "FROM base\nRUN head -c 1000000 /dev/zero > /big && chmod 600 /big\n"),
        Run("layerbuild build -q -t cow ."),
        Run("layerbuild layers cow"),
    ),
)
