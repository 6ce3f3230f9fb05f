"""Recipes by chance whose point is the text: variables in all their forms, quotes, escapes, arrays, here-documents."""

from __future__ import annotations

from random import Random

from differential_cases import Case

_NAMES = ("A", "B", "C", "N", "P", "TARGETARCH")
_PLAIN = ("a", "b", "c", "x.y", "80", "/", "/a/b", "é", "-", ",", "#", "=")


def wording_case(seed: int) -> Case:
    """Always the same one for a seed."""
    return _Maker(Random(seed)).case(f"wording-{seed}")


class _Maker:
    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def case(self, name: str) -> Case:
        heads = [f"ARG {self._name()}={self._words(1)}" for _ in range(self._chance.randint(0, 1))]
        count = self._chance.randint(1, 2)
        stages = [line for number in range(count) for line in self._stage(number)]
        given = [f"--build-arg={self._name()}={self._chance.choice(('', 'given', '$A'))}"] * self._chance.randint(0, 1)
        return Case(name, "\n".join((*heads, *stages)) + "\n", options=tuple(given))

    def _stage(self, number: int) -> list[str]:
        base = self._chance.choice(("busybox", *(f"s{other}" for other in range(number))))
        makes = (self._pairs, self._pairs, self._argument, self._place, self._command, self._document, self._trigger)
        lines = [self._chance.choice(makes)() for _ in range(self._chance.randint(2, 6))]
        return [f"FROM {base} AS s{number}", *lines]

    # Words.

    def _name(self) -> str:
        return self._chance.choice(_NAMES)

    def _words(self, count: int, depth: int = 0) -> str:
        return "".join(self._word(depth) for _ in range(count))

    def _word(self, depth: int) -> str:
        inner = self._words(self._chance.randint(0, 2), depth + 1) if depth < 3 else "w"
        return self._chance.choice(
            (
                *(self._chance.choice(_PLAIN),) * 3,
                f"${self._name()}",
                f"${{{self._name()}}}",
                f"${{{self._name()}{self._chance.choice((':-', '-', ':+', '+'))}{inner}}}",
                f"${{{self._name()}{self._chance.choice(('#', '##', '%', '%%'))}{self._pattern()}}}",
                f"${{{self._name()}{self._chance.choice(('/', '//'))}{self._pattern()}/{inner}}}",
                "\\" + self._chance.choice("a$\"' \\"),
                '"' + self._chance.choice(("a b", "$A", "${B:-c d}", '\\"', "\\$A", "\\a", "'")) + '"',
                "'" + self._chance.choice(("a b", "$A", "\\", '"')) + "'",
            )
        )

    def _pattern(self) -> str:
        return "".join(self._chance.choice(("a", "b", "*", "?", ".", "\\/", "\\*", "$A")) for _ in range(2))

    def _array(self) -> str:
        items = [self._chance.choice(('"a"', '"b c"', '"$A"', '"\\u00e9"', '""', '"\\""')) for _ in range(2)]
        return f"[{', '.join(items)}]" + self._chance.choice(("", "", "", " x"))

    # Instructions.

    def _pairs(self) -> str:
        keyword = self._chance.choice(("ENV", "ENV", "LABEL"))
        if self._chance.random() < 0.15:
            return f"{keyword} {self._name()}  {self._words(2)} {self._words(1)}"
        pairs = [f"{self._name()}={self._words(self._chance.randint(0, 3))}" for _ in range(self._chance.randint(1, 3))]
        return f"{keyword} " + self._chance.choice((" ", "  ", " \\\n  ", " \\\n# c\n")).join(pairs)

    def _argument(self) -> str:
        return f"ARG {self._name()}" + self._chance.choice(("", f"={self._words(2)}"))

    def _place(self) -> str:
        return self._chance.choice(
            (
                f"WORKDIR {self._chance.choice(('', '/'))}w{self._words(1)}",
                f"USER ${{{self._name()}:-7}}:8",
                f"VOLUME {self._chance.choice((self._array(), '/v $A'))}",
                f"EXPOSE {self._chance.choice(('80 81/udp', '${N:-90}', '70-72', '$A'))}",
                f"STOPSIGNAL {self._chance.choice(('9', 'SIGTERM', '${N:-15}', 'term'))}",
            )
        )

    def _command(self) -> str:
        keyword = self._chance.choice(("CMD", "ENTRYPOINT", "SHELL", "HEALTHCHECK --interval=90s CMD"))
        plain = () if keyword == "SHELL" else ("echo $A  b",)
        return f"{keyword} {self._chance.choice((self._array(), *plain))}"

    def _document(self) -> str:
        mark = self._chance.choice(("E", "-E", '"E"', "-'E'"))
        lines = [self._chance.choice(("", "\t")) + self._words(2) for _ in range(self._chance.randint(0, 2))]
        return "\n".join((f"COPY <<{mark} /{self._chance.choice('de')}/", *lines, "E"))

    def _trigger(self) -> str:
        return f"ONBUILD {self._chance.choice((self._pairs, self._argument, self._command))()}"
