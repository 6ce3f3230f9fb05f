"""Why the order of a recipe decides what runs again."""

from __future__ import annotations

from layerbuild.lessons.lesson import BASE, N_, Ask, Lesson, Run, Say, Write

LESSON = Lesson(
    "cache-order",
    N_("The order of a recipe decides what runs again"),
    (
        Say(
            N_(
                "A step is taken from the cache if all that it depends on is the same: its own text, the files "
                "it reads, and the stack below it."
            )
        ),
        BASE,
        Write("list.txt", "pear\napple\n"),
        Write("app.txt", "version 1\n"),
        Write("Dockerfile", "FROM base\nCOPY . /app/\nRUN cat /app/list.txt > /installed\n"),
        Run("layerbuild build -q -t order ."),
        Say(N_("Think of the RUN as a long installation of what list.txt names. Now the application changes.")),
        Write("app.txt", "version 2\n"),
        Ask(
            N_("list.txt is as it was. Will the RUN be taken from the cache?"),
            (N_("Yes: what it reads has not changed"), N_("No: the layer below it has changed")),
            1,
            N_(
                "Nobody knows which files a command reads, so the whole stack below it counts. COPY brings the "
                "new app.txt, its layer is another one, and the RUN stands on it."
            ),
            "layerbuild plan . --format yaml | grep -A 5 'instruction: RUN' | grep -q 'cache: miss'",
        ),
        Run("layerbuild plan ."),
        Say(N_("So what changes rarely should come first.")),
        Write(
            "Dockerfile",
            "FROM base\nCOPY list.txt /app/\nRUN cat /app/list.txt > /installed\nCOPY app.txt /app/\n",
        ),
        Run("layerbuild build -q -t order ."),
        Write("app.txt", "version 3\n"),
        Ask(
            N_("And now?"),
            (N_("The RUN is taken from the cache"), N_("The RUN runs again")),
            0,
            N_("Up to the RUN nothing has changed. Only the last COPY, a matter of milliseconds, is done again."),
            "layerbuild plan . --format yaml | grep -A 5 'instruction: RUN' | grep -q 'cache: hit'",
        ),
        Run("layerbuild plan ."),
    ),
)
