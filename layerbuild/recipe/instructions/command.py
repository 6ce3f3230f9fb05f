"""CMD, ENTRYPOINT and SHELL: what a container of the image starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

from layerbuild.frozen import frozen
from layerbuild.recipe.arguments import Arguments, json_or_whole
from layerbuild.recipe.instructions import flags
from layerbuild.recipe.instructions.base import Instruction, Lowered, at_least_one, shell_or_exec
from layerbuild.recipe.instructions.spelling import plain_list, quoted_list
from layerbuild.recipe.scope import Scope
from layerbuild.recipe.syntax import Statement


@frozen(kw_only=True)
class Cmd(Instruction):
    """``CMD ["exec", "form"]`` or ``CMD shell form``: the default command, or the default arguments of ENTRYPOINT."""

    arguments: Arguments

    shape = json_or_whole

    @classmethod
    def parse(cls, statement: Statement) -> Self:
        flags.read(statement)
        return cls(statement=statement, arguments=statement.arguments(json_or_whole))

    def lower(self, scope: Scope) -> Lowered:
        cmd = shell_or_exec(self.arguments, scope.shell)
        # ArgsEscaped matters on Windows only, but Docker sets it for every CMD.
        scope = replace(scope.with_config(cmd=cmd, args_escaped=True), cmd_set=True)
        return self.metadata(scope, f"CMD {quoted_list(cmd)}")


@frozen(kw_only=True)
class Entrypoint(Instruction):
    """``ENTRYPOINT ["exec", "form"]`` or ``ENTRYPOINT shell form``; ``ENTRYPOINT []`` takes an inherited one away."""

    arguments: Arguments

    shape = json_or_whole

    @classmethod
    def parse(cls, statement: Statement) -> Self:
        flags.read(statement)
        return cls(statement=statement, arguments=statement.arguments(json_or_whole))

    def lower(self, scope: Scope) -> Lowered:
        entrypoint = shell_or_exec(self.arguments, scope.shell)
        # An inherited CMD was meant for another entrypoint; one that this stage gave is meant for this one.
        cmd = scope.config.cmd if scope.cmd_set else None
        scope = scope.with_config(entrypoint=entrypoint or None, cmd=cmd)
        return self.metadata(scope, f"ENTRYPOINT {quoted_list(entrypoint)}")


@frozen(kw_only=True)
class Shell(Instruction):
    """``SHELL ["program", "argument"]``: what the shell forms of RUN, CMD and ENTRYPOINT are handed to."""

    shell: tuple[str, ...]

    shape = json_or_whole

    @classmethod
    def parse(cls, statement: Statement) -> Self:
        flags.read(statement)
        arguments = at_least_one(statement, json_or_whole)
        if not arguments.json:
            raise statement.error(
                "SHELL requires the arguments to be in JSON form",
                at=statement.rest,
                hint='write SHELL ["/bin/bash", "-c"]',
            )
        return cls(statement=statement, shell=arguments.texts)

    def lower(self, scope: Scope) -> Lowered:
        return self.metadata(scope.with_config(shell=self.shell), f"SHELL {plain_list(self.shell)}")
