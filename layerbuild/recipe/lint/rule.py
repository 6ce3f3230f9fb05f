"""What a rule is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from layerbuild.errors import RecipeWarning, Span
from layerbuild.frozen import frozen
from layerbuild.recipe.syntax import Statement

if TYPE_CHECKING:
    from layerbuild.recipe.lint.facts import Facts

_PAGES = "https://docs.docker.com/go/dockerfile/rule/"


@frozen
class Finding:
    """One place that breaks a rule: ``statement``, or only its line ``line``. ``partner`` is another statement that
    has a part in it, so that a comment above either silences it."""

    statement: Statement
    detail: str
    line: int | None = None
    partner: Statement | None = None

    @property
    def span(self) -> Span:
        whole = self.statement.span
        return whole if self.line is None else whole.at(self.line)


@frozen
class Rule:
    """``page`` is the last part of the address of its documentation, empty: it has none. An experimental rule speaks
    only where it is asked for."""

    name: str
    description: str
    page: str
    check: Callable[[Facts], Iterator[Finding]]
    experimental: bool = False

    @property
    def url(self) -> str:
        return f"{_PAGES}{self.page}/" if self.page else ""

    def warning(self, finding: Finding) -> RecipeWarning:
        """The finding as people are told of it."""
        return RecipeWarning(self.name, self.description, self.url, finding.detail, finding.span)
