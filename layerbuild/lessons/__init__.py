"""Short lessons that run the real thing: how layers work, seen on this machine.

What enters: a lesson (its scenes as plain values), a folder to play it in, a person at a terminal. Nothing leaves: the
folder is thrown away at the end, and kept if the person stops halfway, so that the lesson goes on there.

::

    lesson     scenes as values: say, write a file, run a line, ask
    world      the throw-away store and folder in which lines run; where a lesson stands
    player     shows the scenes one by one, asks before it shows
    words      the texts in the person's language (gettext)
    table      all lessons, each in a module of its own

A question is asked before its answer is shown, and the answer is what the next lines really print. Each question
carries a shell condition that holds on the machine if and only if the answer is right; a test tries them all.
"""
