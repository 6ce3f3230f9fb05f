"""WORKDIR and USER: where, and as whom, the steps after them run."""

from __future__ import annotations

import posixpath
from typing import Self

from layerbuild.frozen import frozen
from layerbuild.recipe.arguments import whole
from layerbuild.recipe.instructions import flags
from layerbuild.recipe.instructions.base import Instruction, Lowered, exactly_one
from layerbuild.recipe.scope import Scope
from layerbuild.recipe.syntax import Statement
from layerbuild.recipe.words import Word
from layerbuild.steps import ContextRoot, CopyStep, EmptyDirectory


@frozen(kw_only=True)
class Workdir(Instruction):
    """``WORKDIR PATH``. The directory is made if it is absent, and then belongs to the current USER."""

    path: Word

    shape = whole

    @classmethod
    def parse(cls, statement: Statement) -> Self:
        flags.read(statement)
        return cls(statement=statement, path=exactly_one(statement, whole))

    def lower(self, scope: Scope) -> Lowered:
        path = directory(scope.expander(self.statement)(self.path), scope.working_dir)
        if "\0" in path:
            raise self.statement.error("a path can't hold a NUL byte", at=self.path)
        scope = scope.with_config(working_dir=path)
        created_by = f"WORKDIR {path}"
        if not path.strip("/"):
            return self.metadata(scope, created_by)  # the root is there already
        step = CopyStep(
            origin=self.origin,
            config=scope.config,
            created_by=created_by,
            root=ContextRoot(),
            sources=(EmptyDirectory(),),
            dest=path,
            owner=scope.config.user,
        )
        return Lowered(step, scope)


def directory(path: str, current: str) -> str:
    """The working directory after WORKDIR ``path``: an absolute one is kept as written, a relative one is joined to
    the current one and cleaned, an empty one changes nothing.

    >>> directory("../b", "/a")
    '/b'
    """
    if path.startswith("/"):
        return path
    return posixpath.normpath("/" + posixpath.join(current, path).lstrip("/")) if path else current


@frozen(kw_only=True)
class User(Instruction):
    """``USER NAME[:GROUP]``: stored as it is; whether the image knows the name shows when something runs."""

    user: Word

    shape = whole

    @classmethod
    def parse(cls, statement: Statement) -> Self:
        flags.read(statement)
        return cls(statement=statement, user=exactly_one(statement, whole))

    def lower(self, scope: Scope) -> Lowered:
        user = scope.expander(self.statement)(self.user)
        return self.metadata(scope.with_config(user=user), f"USER {user}")
