"""``@frozen`` held against the decorator of the standard library."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, replace
from typing import Any, ClassVar

import pytest

from layerbuild.frozen import frozen


def declare(decorator: Any, *, own: Any = None) -> tuple[Any, Any]:
    """A class with all that a field can be, and one that inherits from it."""

    @decorator
    class Base:
        """What it is."""

        first: int
        second: tuple[str, ...] = ()
        made: list[int] = field(default_factory=list)
        aside: str = field(default="", compare=False)
        hidden: str = field(default="", repr=False)

    @(own or decorator)
    class Further(Base):
        last: int = 7

    return Base, Further


OURS = declare(frozen)
THEIRS = declare(dataclass(frozen=True, slots=True))
CALLS = [((1,), {}), ((1, ("a",), [2], "b", "c"), {}), ((), {"first": 1, "hidden": "c", "made": []})]
# The first objects are made by another function than those that follow.
EARLIER = pytest.mark.parametrize("earlier", [0, 100], ids=["first", "later"])


def after(earlier: int) -> tuple[Any, Any]:
    """New classes, of which so many objects have been made."""
    made = declare(frozen)
    for each in made:
        for number in range(earlier):
            each(number)
    return made


@EARLIER
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(("args", "named"), CALLS, ids=["few", "all", "named"])
def test_an_object_is_as_the_standard_decorator_makes_it(
    number: int, args: tuple[Any], named: dict[str, Any], earlier: int
) -> None:
    ours, theirs = after(earlier)[number], THEIRS[number]
    made, model = ours(*args, **named), theirs(*args, **named)
    assert repr(made) == repr(model)
    assert asdict(made) == asdict(model)
    assert [(found.name, found.type) for found in fields(made)] == [(it.name, it.type) for it in fields(model)]
    assert ours.__annotations__ == theirs.__annotations__
    assert ours.__match_args__ == theirs.__match_args__
    assert ours.__slots__ == theirs.__slots__
    assert not hasattr(made, "__dict__")
    assert asdict(replace(made, first=9)) == asdict(replace(model, first=9))


@EARLIER
@pytest.mark.parametrize(
    ("args", "named"),
    [((), {}), ((1, (), [], "", "", 2, 3), {}), ((1,), {"other": 2}), ((1,), {"first": 2})],
    ids=["too few", "too many", "unknown", "twice"],
)
def test_a_call_that_does_not_fit_is_refused(args: tuple[Any], named: dict[str, Any], earlier: int) -> None:
    with pytest.raises(TypeError, match="__init__"):
        after(earlier)[0](*args, **named)


def test_what_is_of_the_class_is_no_field() -> None:
    @frozen
    class Thing:
        known: ClassVar[int] = 3
        name: str

    assert [found.name for found in fields(Thing("a"))] == ["name"]
    assert Thing.known == 3


def test_equality_and_hash_are_of_the_fields_that_count() -> None:
    @frozen
    class Pair:
        first: int
        second: str = field(compare=False)

    @frozen
    class Other:
        first: int
        second: str = ""

    assert Pair(1, "a") == Pair(1, "b") != Pair(2, "a")
    assert hash(Pair(1, "a")) == hash(Pair(1, "b"))
    assert Pair(1, "a") != Other(1, "a")
    assert len({Pair(1, "a"), Pair(1, "b"), Pair(2, "a")}) == 2


def test_a_class_without_fields_equals_its_like() -> None:
    @frozen
    class Nothing:
        pass

    @frozen
    class Nought:
        pass

    assert Nothing() == Nothing() != Nought()
    assert hash(Nothing()) == hash(Nothing())


def test_eq_false_leaves_identity() -> None:
    @frozen(eq=False)
    class Thing:
        name: str

    one = Thing("a")
    assert one == one != Thing("a")
    assert len({one, Thing("a")}) == 2


@EARLIER
def test_kw_only_fields_take_no_place(earlier: int) -> None:
    base, further = declare(frozen, own=frozen(kw_only=True))
    for number in range(earlier):
        further(number, last=number)
    assert asdict(further(1, last=2)) == {**asdict(base(1)), "last": 2}
    with pytest.raises(TypeError):
        further(1, (), [], "", "", 2)


def test_nothing_can_be_changed() -> None:
    made = OURS[0](1)
    with pytest.raises(FrozenInstanceError):
        made.first = 2
    with pytest.raises(FrozenInstanceError):
        del made.first
    with pytest.raises(FrozenInstanceError):
        made.new = 2
    assert made.first == 1


def test_lists_are_made_for_each_object() -> None:
    one, two = OURS[0](1), OURS[0](1)
    one.made.append(1)
    assert two.made == []


def test_match_takes_the_fields_in_order() -> None:
    @frozen
    class Pair:
        first: int
        second: str = ""

    match Pair(1, "a"):
        case Pair(first, second):
            assert (first, second) == (1, "a")
