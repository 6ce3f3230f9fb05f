"""Values: what ``dataclasses.dataclass(frozen=True, slots=True)`` makes, made in a quarter of the time.

There are some three hundred of these classes, and a command that has nothing to do is over when it has imported them.
The standard decorator writes up to seven methods for each class as text and compiles them: 0.45 ms, 130 ms in all of a
cached build (Python 3.11). Here one is compiled, and only for a class of which many objects are made: the constructor,
which has to be fast then. The others are the same functions for all classes, over ``operator.attrgetter``; that takes
0.05 ms. Fields, defaults, slots and what ``match`` needs are still the standard module's, so ``fields``, ``replace``
and ``asdict`` know these classes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NoReturn, TypeVar, cast, dataclass_transform, overload

T = TypeVar("T")

# As dataclasses does: past the __setattr__ that refuses.
_SET = object.__setattr__
_FEW = 20  # objects


@overload
def frozen(cls: type[T], /) -> type[T]: ...


@overload
def frozen(*, kw_only: bool = False, eq: bool = True) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def frozen(cls: Any = None, /, *, kw_only: bool = False, eq: bool = True) -> Any:
    """A class decorator. ``eq`` False: an object equals itself alone. Compared and hashed are the fields that say so;
    a class may bring its own ``__repr__``."""
    freeze = functools.partial(_freeze, kw_only=kw_only, eq=eq)
    return freeze if cls is None else freeze(cls)


def _freeze(cls: type[T], *, kw_only: bool, eq: bool) -> type[T]:
    cls.__doc__ = cls.__doc__ or cls.__name__  # the standard decorator would work out a signature
    told = cls.__annotations__
    # The standard decorator reads each annotation that is a text, three times: it might be a ClassVar.
    cls.__annotations__ = {name: text if _is_of_class(text) else object for name, text in told.items()}
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(cls)
    made.__annotations__ = told
    fields = dataclasses.fields(made)
    for field in fields:
        field.type = told.get(field.name, field.type)
    made.__init__ = _first(made)
    made.__setattr__ = made.__delattr__ = _refuse
    if "__repr__" not in cls.__dict__:
        made.__repr__ = _repr
    if eq:
        made.__eq__, made.__hash__ = _comparison([field.name for field in fields if field.compare])
    return cast(type[T], made)


def _is_of_class(annotation: object) -> bool:
    return isinstance(annotation, str) and annotation.startswith("ClassVar")


def _first(cls: Any) -> Callable[..., None]:
    """The constructor of the first objects: in a cached build most classes have none or a few, and to compile one takes
    as long as to make twenty objects without."""
    left = _FEW

    def construct(self: Any, *arguments: Any, **named: Any) -> None:
        nonlocal left
        left -= 1
        if left and _construct(self, dataclasses.fields(cls), arguments, named):
            return
        cls.__init__ = _constructor(dataclasses.fields(cls))
        cls.__init__(self, *arguments, **named)  # of what does not fit, it tells as any function does

    return construct


def _construct(
    self: Any, fields: tuple[dataclasses.Field[Any], ...], arguments: tuple[Any, ...], named: dict[str, Any]
) -> bool:
    """Whether the arguments fit; if not, the object is as good as not made."""
    given = iter(arguments)
    used = 0
    for field in fields:
        name = field.name
        value = dataclasses.MISSING if field.kw_only else next(given, dataclasses.MISSING)
        if value is not dataclasses.MISSING:
            if name in named:
                return False
        elif name in named:
            value = named[name]
            used += 1
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            value = field.default
            if value is dataclasses.MISSING:
                return False
        _SET(self, name, value)
    return used == len(named) and next(given, dataclasses.MISSING) is dataclasses.MISSING


def _constructor(fields: tuple[dataclasses.Field[Any], ...]) -> Callable[..., None]:
    names: dict[str, Any] = {"_set": _SET}
    parameters, lines = ["self"], ["pass"]
    keywords: list[str] = []
    for field in fields:
        name, default = field.name, ""
        value = name
        if field.default is not dataclasses.MISSING:
            names[f"_{name}"], default = field.default, f"=_{name}"
        elif field.default_factory is not dataclasses.MISSING:
            names[f"_{name}"], names["_absent"], default = field.default_factory, dataclasses.MISSING, "=_absent"
            value = f"_{name}() if {name} is _absent else {name}"
        (keywords if field.kw_only else parameters).append(name + default)
        lines.append(f"_set(self, {name!r}, {value})")
    signature = ", ".join([*parameters, "*", *keywords] if keywords else parameters)
    exec(f"def __init__({signature}):\n " + "\n ".join(lines), names)
    constructor: Callable[..., None] = names["__init__"]
    return constructor


def _comparison(names: list[str]) -> tuple[Callable[[Any, Any], bool], Callable[[Any], int]]:
    key: Callable[[Any], object] = attrgetter(*names) if names else type

    def equal(self: Any, other: Any) -> bool:
        return key(self) == key(other) if other.__class__ is self.__class__ else NotImplemented

    def digest(self: Any) -> int:
        return hash(key(self))

    return equal, digest


def _repr(self: Any) -> str:
    shown = (f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _refuse(self: Any, name: str, value: object = None) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot change field {name!r}")
