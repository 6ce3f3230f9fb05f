"""From recipe text to a layer plan. Nothing is read from a context, fetched or run here.

::

    text ─ lines ─ syntax ─▶ Recipe of Statements      logical lines, flags, heredocs; every word knows its place
                      │
                      ├─ instructions ─▶ Instruction   one class per keyword: arguments checked, nothing expanded
                      │
                      └─ planner ─▶ LayerPlan          stages picked, variables expanded, instructions lowered

What enters: the recipe's text, build arguments, and a function that knows the configuration of a base image. What
leaves: the frozen steps of ``layerbuild.steps``, or a RecipeError that names file, line and column. The patterns of
ignore files live here too, because ``COPY --exclude`` shares them.

Terms: a *statement* is a logical line, split but not understood; an *instruction* is a statement whose arguments make
sense; to *lower* an instruction is to say which step it is, given the *scope* (configuration, variables, stage names)
that holds where it stands; a *trigger* is the text that ONBUILD leaves for a child.
"""
