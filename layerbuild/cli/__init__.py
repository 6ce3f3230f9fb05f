"""The command line: the only chapter that prints, reads the environment and exits.

``main`` holds the group and the table of commands; each command is a module of ``commands/`` and is imported when it is
called, so that a command pays only for what it needs. Results go to standard output, progress and errors to standard
error. ``failures`` turns an error into text and an exit code.
"""
