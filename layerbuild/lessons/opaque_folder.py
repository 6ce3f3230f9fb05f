"""A folder that is deleted and made anew."""

from __future__ import annotations

from layerbuild.lessons.lesson import BASE, N_, Ask, Lesson, Run, Say, Write

LESSON = Lesson(
    "opaque-folder",
    N_("Opaque folders: a folder that is deleted and made anew"),
    (
        Say(
            N_(
                "A folder of the lower layers is merged with the one of the same name on top. What if a step "
                "wants a fresh one?"
            )
        ),
        BASE,
        Write(
            "Dockerfile",
            "FROM base\n"
            "RUN mkdir /d && echo 1 > /d/one && echo 2 > /d/two\n"
            "RUN rm -r /d && mkdir /d && echo 3 > /d/three\n",
        ),
        Run("layerbuild build -q -t fresh ."),
        Run("layerbuild run --rm fresh ls /d"),
        Ask(
            N_("Layer 3 holds /d with the file three. What else does it need, so that one and two are not seen?"),
            (
                N_("Nothing: a folder replaces the folder below"),
                N_("Something that says that one and two are gone"),
            ),
            1,
            N_(
                "Folders are merged, so without a mark one and two would shine through. While the RUN writes, "
                "the kernel sets one mark on the new folder, the attribute overlay.opaque: look no further "
                "down. In a tar the same can be said by a file .wh..wh..opq, but the OCI specification prefers "
                "a whiteout for each name, which can be read by eye. layerbuild writes those."
            ),
            'cd "$(layerbuild where fresh --layer 3)/d" && test -c one && test -c two',
        ),
        Run('ls -l "$(layerbuild where fresh --layer 3)/d"'),
        Run("layerbuild build -q -o type=layers,dest=tars . && tar -tf tars/03-*"),
        Say(N_("The files one and two are still shipped, in layer 2: deleting makes an image larger, never smaller.")),
    ),
)
