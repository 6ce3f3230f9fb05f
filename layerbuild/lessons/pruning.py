"""What can be removed, and what can't."""

from __future__ import annotations

from layerbuild.lessons.lesson import BASE, N_, Ask, Lesson, Run, Say, Write

LESSON = Lesson(
    "pruning",
    N_("Pruning: what takes space, and what may go"),
    (
        Say(N_("Layers are shared, so an image takes less space than it seems to, and removing it frees less.")),
        BASE,
        Write("Dockerfile", "FROM base\nRUN head -c 3000000 /dev/zero > /three\n"),
        Run("layerbuild build -q -t mine ."),
        Say(N_("The recipe changes, and the name moves on to the new image.")),
        Write("Dockerfile", "FROM base\nRUN head -c 4000000 /dev/zero > /four\n"),
        Run("layerbuild build -q -t mine ."),
        Run("layerbuild images"),
        Ask(
            N_("The first image has no name any more. What will prune --all remove of it?"),
            (
                N_("Its two layers"),
                N_("Its upper layer only: other images stand on the base"),
                N_("Nothing: only images that are removed by name go"),
            ),
            1,
            N_(
                "A layer stays as long as an image with a name, or a kept container, stands on it. The base has "
                "a name too."
            ),
            "layerbuild prune --all --force > freed && layerbuild run --rm base true && "
            "layerbuild df | grep -q '^snapshots  *2 '",
        ),
        Run("layerbuild df"),
        Run("layerbuild prune --all"),
        Run("layerbuild df"),
        Say(N_("What is left is needed: the base, and the layer of four megabytes on it.")),
        Run("layerbuild run --rm mine ls -l /four"),
        Say(
            N_(
                "With --all the step cache went as well. Nothing is lost by that but time: the next build has to "
                "run its steps again. Without --all, what a cached step needs stays."
            )
        ),
    ),
)
