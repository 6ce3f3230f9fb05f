"""What a container adds to an image."""

from __future__ import annotations

from layerbuild.lessons.lesson import BASE, N_, Ask, Lesson, Run, Say

LESSON = Lesson(
    "container-layer",
    N_("The container layer: what a container adds to its image"),
    (
        Say(
            N_("A container is a process that sees the layers of an image, with one more on top that it may write to.")
        ),
        BASE,
        Run("layerbuild run --keep base sh -c 'echo mine > /note && rm /etc/os-release' 2> kept && cat kept"),
        Ask(
            N_("The container wrote a file. Does another container of the same image see it?"),
            (N_("Yes: it is the same image"), N_("No: it was written to that container's own layer")),
            1,
            N_("Each container has an upper folder of its own. The layers of the image are shared, and only read."),
            "! layerbuild run --rm base cat /note",
        ),
        Run("layerbuild run --rm base cat /note", code=1),
        Say(N_("The container was kept. Enter it again, and the file is there.")),
        Run("layerbuild shell $(cut -d' ' -f3 kept | tr -d ';') cat /note"),
        Say(N_("On the disk its layer is a folder like any other: the new file, and a whiteout for the deleted one.")),
        Run('set -- root/overlay2/$(cut -d" " -f3 kept | tr -d ";")*/diff; cd .. && ls -lR $1'),
        Ask(
            N_("What would it take to make a layer of an image from that folder?"),
            (
                N_("Nothing more than a tar of it, with the whiteout in its tar form"),
                N_("A new image must be written, with all files of all layers"),
            ),
            0,
            N_(
                "That is just what each RUN of a build does: a container, whose upper folder becomes the next "
                "layer. So a build is a row of containers, each on top of what the one before left."
            ),
            'cd .. && test -c root/overlay2/$(cut -d" " -f3 work/kept | tr -d ";")*/diff/etc/os-release',
        ),
        Run("layerbuild df"),
    ),
)
