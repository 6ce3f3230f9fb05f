"""Rows whose expectation is not ours, and why. A row that stands here and passes is an error.

Facts are quoted by their ids in the semantics that the corpus comes with; a row is named by family and name, or by
family and a digest of what it says. What holds for all rows of one kind is said by a rule beside their test.
"""

from __future__ import annotations

FRACTIONS = (
    "D9, D10: size and time decide there, content decides here. A file that was written anew with what it held is no "
    "change, and one with other content is, whatever its time says (docs/differences.md)"
)

KNOWN: dict[str, str] = {
    "continuity/diff_changes#TestUpdateWithSameTime": FRACTIONS,
}
