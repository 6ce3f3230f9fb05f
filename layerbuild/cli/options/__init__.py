"""The options of ``build`` and of the commands near it: a module for each subject, with what their texts mean.

``module.options`` decorates a command, which then gets one value in place of the texts: so a command names its subjects
and not its options. The headings of ``--help`` are those of ``command.HEADINGS``. Nothing heavy is imported here: every
command line passes through.
"""
