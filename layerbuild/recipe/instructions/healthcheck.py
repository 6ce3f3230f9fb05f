"""HEALTHCHECK: how to ask a container whether it is well."""

from __future__ import annotations

from typing import Self

from layerbuild.frozen import frozen
from layerbuild.image.config import Healthcheck as Check
from layerbuild.recipe.arguments import Arguments, type_and_command
from layerbuild.recipe.instructions import flags
from layerbuild.recipe.instructions.base import Instruction, Lowered, at_least_one
from layerbuild.recipe.instructions.spelling import duration, plain_list, spell_duration
from layerbuild.recipe.scope import Scope
from layerbuild.recipe.syntax import Statement

_TIMES = ("interval", "timeout", "start-period", "start-interval")
_FLAGS = flags.FlagSet(texts=frozenset((*_TIMES, "retries")))
_SHORTEST = 10**6  # nanoseconds: a runtime takes no shorter duration


@frozen(kw_only=True)
class Healthcheck(Instruction):
    """``HEALTHCHECK [--interval=…] CMD command``, or ``HEALTHCHECK NONE``."""

    check: Check

    shape = type_and_command

    @classmethod
    def parse(cls, statement: Statement) -> Self:
        arguments = at_least_one(statement, type_and_command)
        kind, *command = arguments.words
        match kind.text.upper():
            case "NONE":
                if command:
                    raise statement.error("HEALTHCHECK NONE takes no arguments", at=command[0])
                return cls(statement=statement, check=Check(("NONE",)))
            case "CMD":
                return cls(statement=statement, check=_command(statement, arguments))
        raise statement.error(
            f'Unknown type "{kind.text}" in HEALTHCHECK (try CMD)', at=kind, hint="write HEALTHCHECK CMD command"
        )

    def lower(self, scope: Scope) -> Lowered:
        return self.metadata(scope.with_config(healthcheck=self.check), f"HEALTHCHECK {_spell(self.check)}")


def _command(statement: Statement, arguments: Arguments) -> Check:
    given = flags.read(statement, _FLAGS)
    command = arguments.texts[1:]
    if not command:
        raise statement.error("Missing command after HEALTHCHECK CMD", at=arguments.words[0])
    interval, timeout, start_period, start_interval = (_time(statement, given, name) for name in _TIMES)
    return Check(
        test=("CMD" if arguments.json else "CMD-SHELL", *command),
        interval=interval,
        timeout=timeout,
        start_period=start_period,
        start_interval=start_interval,
        retries=_retries(statement, given),
    )


def _time(statement: Statement, given: flags.Flags, name: str) -> int:
    word = given.word(name)
    if word is None or not word.text:
        return 0
    try:
        nanoseconds = duration(word.text)
    except ValueError as error:
        raise statement.error(f"--{name}: {error}", at=word, hint="write 30s, 1m30s or 500ms") from error
    if nanoseconds != 0 and nanoseconds < _SHORTEST:
        raise statement.error(f'Interval "{name}" cannot be less than 1ms', at=word)
    return nanoseconds


def _retries(statement: Statement, given: flags.Flags) -> int:
    word = given.word("retries")
    if word is None or not word.text:
        return 0
    sign, digits = word.text[:1], word.text.lstrip("+-")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 9 or len(word.text) > len(digits) + 1:
        raise statement.error(f"--retries: {word.text!r} is not a number", at=word)
    if sign == "-" and int(digits):
        raise statement.error(f"--retries cannot be negative ({word.text})", at=word)
    return int(digits)


def _spell(check: Check) -> str:
    times = {
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
    }
    spelled = " ".join(f"{name}:{spell_duration(value)}" for name, value in times.items())
    return f"{{Test:{plain_list(check.test)} {spelled} Retries:{check.retries}}}"
