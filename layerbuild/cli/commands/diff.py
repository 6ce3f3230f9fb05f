"""``diff``: what two images, layers or steps differ in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from layerbuild.cli.console import emit, format_option
from layerbuild.cli.failures import trouble
from layerbuild.cli.operands import layer_things, place_of, seen
from layerbuild.cli.options.platforms import chosen_platform, platform_option
from layerbuild.cli.place import reading
from layerbuild.errors import UsageError
from layerbuild.frozen import frozen

if TYPE_CHECKING:
    from layerbuild.digest import ChainID, DiffID
    from layerbuild.image.config import ImageConfig, Platform
    from layerbuild.layer.union import Found, Union
    from layerbuild.store.store import Store
    from layerbuild.views.diff import Thing

_STEP = "step:"
_LAYER = re.compile(r"(?:sha256:)?[0-9a-f]{12,64}")


@frozen
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
@platform_option()
@format_option
@click.pass_context
def diff(
    ctx: click.Context, first: str, second: str, times: bool, text: bool, platform: str | None, output_format: str
) -> None:
    """Show what A and B differ in: added, changed (mode, owner, content, link target…) and deleted paths.

    Each is an image in the store, an OCI layout or docker archive on the disk, an image named with its registry, a
    layer by its diff ID, or `step:N` (`step:STAGE:N`), the state after a step of the last build. The exit code is 0 if
    there is no difference, 1 if there is one, 2 and above if they can't be compared.
    """
    from layerbuild.views import diff as view

    with trouble(ctx), ExitStack() as cleaning:
        sides = _sides((first, second), chosen_platform(platform), cleaning)
        config = []
        if sides[0].config is not None and sides[1].config is not None:
            config = view.compare_config(sides[0].config, sides[1].config)
        paths = list(view.compare(sides[0].things, sides[1].things, times=times, text=text))
    emit(output_format, view.as_json(config, paths), lambda: view.as_text(config, paths))
    ctx.exit(1 if config or paths else 0)


def _sides(texts: tuple[str, str], platform: Platform | None, cleaning: ExitStack) -> tuple[_Side, _Side]:
    from layerbuild.views.explain import chain_after

    with reading(contents=True) as store:
        layers = [_layer(store, text) for text in texts]
    images = [text for text, layer in zip(texts, layers, strict=True) if not layer and not text.startswith(_STEP)]
    opened = iter(cleaning.enter_context(seen(*images, platform=platform)) if images else ())
    store = cleaning.enter_context(reading(contents=True))
    sides = []
    for text, layer in zip(texts, layers, strict=True):
        if layer:
            sides.append(_Side("a layer", layer_things(store, layer, cleaning)))
        elif text.startswith(_STEP):
            _, chain = chain_after(store.builds.get(), text.removeprefix(_STEP))
            sides.append(_Side("a whole tree", _stack_things(store, chain, cleaning)))
        else:
            found = next(opened)
            things = _stack_things(found.store, found.image.top, cleaning)
            sides.append(_Side("a whole tree", things, found.image.config))
    if sides[0].kind != sides[1].kind:
        raise UsageError(
            f"{texts[0]} is {sides[0].kind}, and {texts[1]} is {sides[1].kind}", hint="compare like with like"
        )
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


def _stack_things(store: Store, chain: ChainID | None, cleaning: ExitStack) -> Iterator[Thing]:
    union = cleaning.enter_context(store.open_stack(chain))
    return (_thing(union, found) for found in union.walk())


def _thing(union: Union, found: Found) -> Thing:
    from layerbuild.views.diff import Thing

    entry, inode = found.entry, found.inode
    if inode is entry:
        return Thing(entry, open=partial(union.content, found))
    return Thing(replace(inode, path=entry.path), inode.path, partial(union.content, replace(found, entry=inode)))
