"""The ``--flags`` of instructions: which there are, and their values."""

from __future__ import annotations

from collections.abc import Mapping

from layerbuild.errors import alike
from layerbuild.frozen import frozen
from layerbuild.recipe.syntax import Statement
from layerbuild.recipe.words import Word


@frozen
class FlagSet:
    """The flags that an instruction takes. ``texts`` have a value, ``switches`` are true or false, ``lists`` have a
    value and may be repeated."""

    texts: frozenset[str] = frozenset()
    switches: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        return self.texts | self.switches | self.lists


NONE = FlagSet()


@frozen
class Flags:
    """The values that a statement gives; the words know their places."""

    values: Mapping[str, tuple[Word, ...]]

    def word(self, name: str) -> Word | None:
        """The value of a text flag, None: it was not given (which an empty value is not)."""
        return next(iter(self.values.get(name, ())), None)

    def switch(self, name: str) -> bool | None:
        """The value of a switch, None: it was not given."""
        word = self.word(name)
        return None if word is None else word.text == "true"

    def words(self, name: str) -> tuple[Word, ...]:
        """The values of a list flag, in order."""
        return self.values.get(name, ())


def read(statement: Statement, known: FlagSet = NONE) -> Flags:
    """The statement's flags; RecipeError for one that is unknown, repeated, or has no proper value."""
    values: dict[str, tuple[Word, ...]] = {}
    for flag in statement.flags:
        name, equals, text = flag.text[2:].partition("=")
        if name not in known.names:
            raise statement.error(f"unknown flag: --{name}", at=flag, hint=_hint(statement, name, known))
        if name in values and name not in known.lists:
            raise statement.error(f"duplicate flag specified: --{name}", at=flag)
        if name in known.switches:
            text = _switch(statement, flag, name, text if equals else "true")
        elif not equals:
            raise statement.error(f"missing a value on flag: --{name}", at=flag, hint=f"write --{name}=VALUE")
        values[name] = (*values.get(name, ()), Word(text, flag.offset + len(name) + 3))
    return Flags(values)


def _switch(statement: Statement, flag: Word, name: str, text: str) -> str:
    if not text:
        raise statement.error(f"missing a value on flag: --{name}", at=flag, hint=f"write --{name} or --{name}=false")
    if text.lower() not in ("true", "false"):
        message = f"expecting boolean value for flag --{name}, not: {text}"
        raise statement.error(message, at=flag, hint=f"write --{name} or --{name}=false")
    return text.lower()


def _hint(statement: Statement, name: str, known: FlagSet) -> str:
    near = alike(name, sorted(known.names))
    if near:
        return f"did you mean --{near[0]}?"
    if not known.names:
        return f"{statement.keyword} takes no flags"
    return f"{statement.keyword} takes " + ", ".join(f"--{each}" for each in sorted(known.names))
