"""The instructions of the language: one class per keyword, listed in ``table``.

What enters: a Statement. ``parse`` checks flags and arguments and keeps them as written. What leaves: ``lower`` expands
them in a Scope and gives a step of one of the three kinds, and the scope that holds behind the instruction.

To add a keyword, write its class in a module of its own and add it to the table.
"""
