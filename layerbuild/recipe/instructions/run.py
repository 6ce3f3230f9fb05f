"""RUN: a process in an overlay of the layers so far."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

from layerbuild.errors import RecipeError
from layerbuild.frozen import frozen
from layerbuild.image.config import Pairs
from layerbuild.recipe.arguments import Arguments, json_or_whole
from layerbuild.recipe.heredoc import Heredoc, read_mark
from layerbuild.recipe.instructions import flags
from layerbuild.recipe.instructions.base import Instruction, Lowered, Reference, shell_or_exec
from layerbuild.recipe.instructions.devices import Device, read_device
from layerbuild.recipe.instructions.mounts import Surroundings, from_word, read_mount
from layerbuild.recipe.scope import EPOCH, Scope, with_default_path, with_pair
from layerbuild.recipe.syntax import Statement, placed
from layerbuild.recipe.words import Word
from layerbuild.steps import RunMount, RunStep

NETWORKS = ("default", "none", "host")
SECURITIES = ("sandbox", "insecure")
PIPES = "/dev/pipes"
HOSTNAME = "BUILDKIT_SANDBOX_HOSTNAME"  # the build argument that names the machine as RUN sees it

_FLAGS = flags.FlagSet(texts=frozenset(("network", "security")), lists=frozenset(("mount", "device")))

Files = tuple[tuple[str, bytes], ...]


@frozen(kw_only=True)
class Run(Instruction):
    """``RUN [--mount=…] [--network=…] [--security=…] [--device=…] command``, in shell or exec form, or with
    heredocs."""

    arguments: Arguments
    mounts: tuple[Word, ...]
    network: str
    security: str
    devices: tuple[Device, ...]

    shape = json_or_whole

    @classmethod
    def parse(cls, statement: Statement) -> Self:
        given = flags.read(statement, _FLAGS)
        return cls(
            statement=statement,
            arguments=statement.arguments(json_or_whole),
            mounts=given.words("mount"),
            network=_choice(statement, given.word("network"), NETWORKS, "network mode"),
            security=_choice(statement, given.word("security"), SECURITIES, "security"),
            devices=tuple(_device(statement, word) for word in given.words("device")),
        )

    @property
    def references(self) -> tuple[Reference, ...]:
        found: list[Reference] = []
        for mount in self.mounts:
            with placed(self.statement.at(mount)):
                word = from_word(mount)
            if word is not None:
                found.append(Reference(word, by_index=False))
        return tuple(found)

    def lower(self, scope: Scope) -> Lowered:
        command, files = self._command(scope)
        env = environment(scope)
        self._refuse_impossible(command, env)
        names = {name for name, _ in env}
        step = RunStep(
            origin=self.origin,
            config=scope.config,
            created_by=f"RUN {_history(command, scope)} # buildkit",
            argv=command,
            env=env,
            cwd=scope.working_dir,
            user=scope.config.user,
            mounts=self._mounts(scope),
            network=scope.inputs.defaults.network if self.network == "default" else self.network,
            security=self.security,
            proxy=tuple(pair for pair in scope.inputs.proxies if pair[0] not in names),
            files=files,
            hostname=scope.inputs.build_args.get(HOSTNAME, ""),
            hosts=scope.inputs.defaults.hosts,
        )
        return Lowered(step, scope)

    def _command(self, scope: Scope) -> tuple[tuple[str, ...], Files]:
        """What is executed. A RUN that is nothing but a heredoc hands the body over, and a body with ``#!`` is a file
        of its own; around any other heredoc stands a command, whose shell is to read it."""
        heredocs = self.statement.heredocs
        if not heredocs:
            return shell_or_exec(self.arguments, scope.shell), ()
        text = self.statement.rest.text
        if read_mark(text) is None:
            return (*scope.shell, "\n".join((text, *(heredoc.written for heredoc in heredocs)))), ()
        return _single(heredocs[0], scope)

    def _mounts(self, scope: Scope) -> tuple[RunMount, ...]:
        expand_word = scope.expander(self.statement)
        found: list[RunMount] = []
        for word in self.mounts:

            def expand(text: str, offset: int = word.offset) -> str:
                return expand_word(Word(text, offset))

            around = Surroundings(scope.working_dir, scope.roots, expand)
            around = replace(around, agents=sum(mount.kind == "ssh" for mount in found))
            with placed(self.statement.at(word)):
                found.append(read_mount(word.text, around))
        return tuple(found)

    def _refuse_impossible(self, command: tuple[str, ...], env: Pairs) -> None:
        if not command or not command[0]:
            raise self.statement.error("RUN names no program", hint="write RUN command, or RUN true")
        # execve(2) takes C strings; JSON can write what they can't hold.
        if any("\0" in text for text in (*command, *(text for pair in env for text in pair))):
            raise self.statement.error("a command and its environment can't hold a NUL byte")


def _device(statement: Statement, word: Word) -> Device:
    """A device that may be absent is: the sandbox has only those of every container (null, zero, random and such)."""
    with placed(statement.at(word)):
        device = read_device(word.text)
        if device.required:
            raise RecipeError(
                f"device {device.name} is required, and RUN is given no devices of the machine",
                hint="drop `required` if the command can do without, or build this step with `docker build`",
            )
    return device


def _choice(statement: Statement, word: Word | None, known: tuple[str, ...], what: str) -> str:
    if word is None:
        return known[0]
    if word.text not in known:
        raise statement.error(f'unsupported {what} "{word.text}"', at=word, hint=f"known are {', '.join(known)}")
    return word.text


def _single(heredoc: Heredoc, scope: Scope) -> tuple[tuple[str, ...], Files]:
    if not heredoc.content.startswith("#!"):
        return (*scope.shell, heredoc.content), ()
    name = heredoc.mark.file_name
    return (*scope.shell, f"{PIPES}/{name}"), ((name, heredoc.content.encode()),)


def environment(scope: Scope) -> Pairs:
    """The environment of a RUN, proxies aside. The epoch, where there is one, is no part of the image's history: it
    only makes tools that know SOURCE_DATE_EPOCH write reproducible files."""
    env = with_default_path(scope.env)
    if scope.inputs.epoch is not None and all(name != EPOCH for name, _ in env):
        env = with_pair(env, EPOCH, str(scope.inputs.epoch))
    return env


def _history(command: tuple[str, ...], scope: Scope) -> str:
    """The command behind its ARGs: ``|2 a=1 b= /bin/sh -c text``. Each name once, with the value that RUN sees."""
    current = scope.variables
    shown = {name: current.get(name, value or "") for name, value in scope.args}
    args = [f"|{len(shown)}", *(f"{name}={value}" for name, value in shown.items())] if shown else []
    return " ".join((*args, *command))
