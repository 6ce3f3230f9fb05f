"""Who may look on while a recipe is planned. A plan is the same whether anyone does or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from layerbuild.image.config import ImageConfig, Platform
    from layerbuild.recipe.instructions.base import Instruction
    from layerbuild.recipe.instructions.stage import From
    from layerbuild.recipe.scope import Scope
    from layerbuild.recipe.stages import Stage
    from layerbuild.recipe.syntax import Statement
    from layerbuild.recipe.words import Expansion, Word


class Witness(Protocol):
    """Is told what planning meets, in the order in which it meets it. The linter is one.

    A witness only listens: it may not raise.
    """

    def named(self, start: From, word: Word, found: Expansion) -> None:
        """A word of a FROM was expanded: its base, or the value of its ``--platform``."""

    def based(self, stage: Stage, reference: str, platform: Platform, image: ImageConfig) -> None:
        """A stage starts from ``image``, for which ``reference`` and ``platform`` asked."""

    def derived(self, stage: Stage, parent: Stage) -> None:
        """A stage starts from another one."""

    def lowered(self, instruction: Instruction, scope: Scope) -> None:
        """An instruction was lowered where ``scope`` holds; ``scope.roots.current`` is its stage."""

    def expanded(self, statement: Statement, word: Word | None, found: Expansion, scope: Scope) -> None:
        """A word of an instruction (None: a heredoc) was expanded in ``scope``. The same word may come twice."""
