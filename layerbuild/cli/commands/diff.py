"""``diff``: what two images, layers or steps differ in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from layerbuild.cli.console import emit, format_option
from layerbuild.cli.failures import trouble
from layerbuild.cli.operands import place_of, seen
from layerbuild.cli.place import reading
from layerbuild.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from layerbuild.digest import ChainID, DiffID
    from layerbuild.image.config import ImageConfig
    from layerbuild.layer.union import Found, Union
    from layerbuild.store.store import Store
    from layerbuild.views.diff import Thing

_STEP = "step:"
_LAYER = re.compile(r"(?:sha256:)?[0-9a-f]{12,64}")


@dataclass(frozen=True, slots=True)
class _Side:
    """One operand: the ``kind`` of thing that it is, its paths, and an image's configuration."""

    kind: str
    things: Iterator[Thing]
    config: ImageConfig | None = None


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--times/--no-times", default=True, help="Let modification times count.  [default: times]")
@click.option("--text/--no-text", default=True, help="Show the lines that differ in small texts.  [default: text]")
@format_option
@click.pass_context
def diff(ctx: click.Context, first: str, second: str, times: bool, text: bool, output_format: str) -> None:
    """Show what A and B differ in: added, changed (mode, owner, content, link target…) and deleted paths.

    Each is an image in the store, an OCI layout or docker archive on the disk, a layer by its diff ID, or `step:N`
    (`step:STAGE:N`), the state after a step of the last build. The exit code is 0 if there is no difference, 1 if there
    is one, 2 and above if they can't be compared.
    """
    from layerbuild.views import diff as view

    with trouble(ctx), ExitStack() as cleaning:
        sides = _sides(first, second, cleaning)
        config = []
        if sides[0].config is not None and sides[1].config is not None:
            config = view.compare_config(sides[0].config, sides[1].config)
        paths = list(view.compare(sides[0].things, sides[1].things, times=times, text=text))
    emit(output_format, view.as_json(config, paths), lambda: view.as_text(config, paths))
    ctx.exit(1 if config or paths else 0)


def _sides(first: str, second: str, cleaning: ExitStack) -> tuple[_Side, _Side]:
    texts = (first, second)
    with reading() as store:
        layers = [_layer(store, text) for text in texts]
    images = [text for text, layer in zip(texts, layers, strict=True) if not layer and not text.startswith(_STEP)]
    opened = iter(cleaning.enter_context(seen(*images)) if images else ())
    store = cleaning.enter_context(reading())
    sides = []
    for text, layer in zip(texts, layers, strict=True):
        if layer:
            sides.append(_Side("a layer", _layer_things(store, layer, cleaning)))
        elif text.startswith(_STEP):
            sides.append(_Side("a whole tree", _stack_things(store, _step(store, text), cleaning)))
        else:
            found = next(opened)
            things = _stack_things(found.store, found.image.top, cleaning)
            sides.append(_Side("a whole tree", things, found.image.config))
    if sides[0].kind != sides[1].kind:
        raise UsageError(f"{first} is {sides[0].kind}, and {second} is {sides[1].kind}", hint="compare like with like")
    return sides[0], sides[1]


def _layer(store: Store, text: str) -> DiffID | None:
    """The layer that ``text`` names by its diff ID or the first 12 digits of it or more; None: it names none."""
    if not _LAYER.fullmatch(text) or place_of(text) is not None:
        return None
    digits = text.removeprefix("sha256:")
    found = [layer.diff_id for layer in store.layers.all() if layer.diff_id.hex.startswith(digits)]
    if len(found) > 1:
        raise UsageError(f"{text} is the beginning of several diff IDs", hint="give more digits")
    return found[0] if found else None


def _step(store: Store, text: str) -> ChainID | None:
    """The stack after a step of the last build."""
    build = store.builds.get()
    stage, _, number = text.removeprefix(_STEP).rpartition(":")
    wanted = (stage or build.target, number)
    chain: ChainID | None = None
    for step in build.steps:
        if step.stage == wanted[0]:
            chain = step.chain or chain
        if (step.stage, str(step.number)) == wanted:
            return chain
    raise NotFoundError(
        f"the last build has no step {text.removeprefix(_STEP)!r}", hint="`layerbuild explain` lists them"
    )


def _stack_things(store: Store, chain: ChainID | None, cleaning: ExitStack) -> Iterator[Thing]:
    union = cleaning.enter_context(store.open_stack(chain))
    return (_thing(union, found) for found in union.walk())


def _thing(union: Union, found: Found) -> Thing:
    from layerbuild.views.diff import Thing

    entry, inode = found.entry, found.inode
    if inode is entry:
        return Thing(entry, open=partial(union.content, found))
    return Thing(replace(inode, path=entry.path), inode.path, partial(union.content, replace(found, entry=inode)))


def _layer_things(store: Store, diff_id: DiffID, cleaning: ExitStack) -> Iterator[Thing]:
    from layerbuild.layer.entry import Kind
    from layerbuild.layer.index import Index
    from layerbuild.views.diff import Thing

    index = cleaning.enter_context(Index.open(store.layers.index_path(diff_id)))
    folder = next((found.diff for found in store.snapshots.all() if found.diff_id == diff_id and found.unpacked), None)
    for entry in index:
        link = entry.target if entry.kind is Kind.HARDLINK else b""
        known = entry.kind is Kind.FILE and folder is not None
        yield Thing(entry, link, partial(_open, Path(folder or ""), entry.path) if known else None)


def _open(folder: Path, path: bytes) -> BinaryIO:
    import os

    # Each of the path's parents is a folder of that very layer, so no link is followed here.
    descriptor = os.open(os.fsencode(folder) + b"/" + path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    return open(descriptor, "rb")
