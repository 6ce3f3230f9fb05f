"""How a layer deletes what it can't touch."""

from __future__ import annotations

from layerbuild.lessons.lesson import BASE, N_, Ask, Lesson, Run, Say, Write

LESSON = Lesson(
    "whiteout",
    N_("Whiteouts: how a layer deletes a file that it can't touch"),
    (
        Say(N_("A layer only ever adds to those below. How, then, does a step delete a file?")),
        BASE,
        Write("Dockerfile", "FROM base\nRUN echo secret > /key\nRUN rm /key\n"),
        Run("layerbuild build -q -t gone ."),
        Run("layerbuild run --rm gone sh -c 'test -e /key || echo there is no /key'"),
        Say(N_("A container of the image does not see the file. Let us look for it in the layers.")),
        Ask(
            N_("Can somebody who has the image still read the secret?"),
            (N_("No: the last layer deleted it"), N_("Yes: layer 2 holds it as before")),
            1,
            N_("Layer 2 was finished before the file was deleted, and it is shipped with the image."),
            'grep -q secret "$(layerbuild where gone --layer 2)/key"',
        ),
        Run('cat "$(layerbuild where gone --layer 2)/key"'),
        Ask(
            N_("What does layer 3 hold?"),
            (
                N_("Nothing: there is nothing to add"),
                N_("A mark in place of the file, which says: not here"),
                N_("A list of deleted names, in a file of its own"),
            ),
            1,
            N_(
                "The mark is called a whiteout. On the disk overlay uses a character device with the numbers 0, "
                "0 under the name of the deleted file."
            ),
            'test -c "$(layerbuild where gone --layer 3)/key"',
        ),
        Run('ls -l "$(layerbuild where gone --layer 3)"'),
        Say(
            N_(
                "In a tar such a device would be no more than a device. There a whiteout is an empty file with a name "
                "that begins .wh."
            )
        ),
        Run("layerbuild build -q -o type=layers,dest=tars . && tar -tf tars/03-*"),
        Say(
            N_(
                "So what must not be shipped has to be deleted in the RUN that made it, or should come by RUN "
                "--mount=type=secret, which belongs to no layer."
            )
        ),
    ),
)
