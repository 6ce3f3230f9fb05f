"""``RUN --device``: a device of the machine, by its name in the Container Device Interface."""

from __future__ import annotations

from layerbuild.errors import RecipeError
from layerbuild.frozen import frozen

_TRUE = ("1", "t", "T", "TRUE", "true", "True")  # Go's strconv.ParseBool
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


@frozen
class Device:
    """``vendor.com/class`` or ``vendor.com/class=name``. A build without a ``required`` one must not go on."""

    name: str
    required: bool = False


def read_device(text: str) -> Device:
    """The device that ``text`` asks for: its name, or ``name=…``, and ``required``; a RecipeError, without a place, if
    it asks for none.

    >>> read_device("vendor.com/gpu=0,required")
    Device(name='vendor.com/gpu=0', required=True)
    """
    name = ""
    required = False
    for field in _fields(text):
        key, equals, value = field.partition("=")
        if key.lower() == "required":
            required = _switch(value) if equals else True
        elif key.lower() == "name" and equals:
            if name:
                raise RecipeError(f"device name already set to {name}", hint="name one device")
            name = value
        elif not name:
            name = field  # a name may hold a = of its own
        elif equals:
            raise RecipeError(f"unexpected key '{key.lower()}' in '{field}'", hint="known keys are name, required")
        else:
            raise RecipeError(f"invalid field '{field}' must be a key=value pair")
    return Device(name, required)


def _fields(text: str) -> list[str]:
    import csv

    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise RecipeError(f"failed to parse csv devices: {error}", hint="write --device=NAME,required") from error


def _switch(value: str) -> bool:
    if value not in (*_TRUE, *_FALSE):
        raise RecipeError(f"invalid value for required: {value}", hint="write required or required=false")
    return value in _TRUE
