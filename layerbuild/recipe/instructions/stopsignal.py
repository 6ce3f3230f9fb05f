"""STOPSIGNAL: the signal that asks a container to stop."""

from __future__ import annotations

import re
from typing import Self

from layerbuild.errors import alike
from layerbuild.frozen import frozen
from layerbuild.recipe.arguments import whole
from layerbuild.recipe.instructions.base import Instruction, Lowered, exactly_one
from layerbuild.recipe.scope import Scope
from layerbuild.recipe.syntax import Statement
from layerbuild.recipe.words import Word

# signal(7): the names that Linux has. They are listed here, because the image may be for another machine than this.
NAMES = frozenset(
    (
        *("ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE"),
        *("POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU"),
        *("UNUSED", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX"),
        *(f"RTMIN+{number}" for number in range(1, 16)),
        *(f"RTMAX-{number}" for number in range(1, 15)),
    )
)

_NUMBER = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)


@frozen(kw_only=True)
class StopSignal(Instruction):
    """``STOPSIGNAL NAME`` or ``STOPSIGNAL NUMBER``; stored as written."""

    signal: Word

    shape = whole

    @classmethod
    def parse(cls, statement: Statement) -> Self:
        # STOPSIGNAL is one of the few that never look at their flags.
        return cls(statement=statement, signal=exactly_one(statement, whole))

    def lower(self, scope: Scope) -> Lowered:
        signal = scope.expander(self.statement)(self.signal)
        name = signal.upper().removeprefix("SIG")
        if not (int(signal) if _NUMBER.fullmatch(signal) else name in NAMES):
            near = alike(name, sorted(NAMES))
            hint = f"did you mean SIG{near[0]}?" if near else "write a name such as SIGTERM, or a number"
            raise self.statement.error(f"Invalid signal: {signal}", at=self.signal, hint=hint)
        return self.metadata(scope.with_config(stop_signal=signal), f"STOPSIGNAL {signal}")
