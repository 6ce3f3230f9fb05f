"""Writing what a COPY or ADD places: entries and files go into a layer, each file read once and held to its digest."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator

from layerbuild.build.placement import Item, Placement, link_to
from layerbuild.build.selecting import Listing, Match
from layerbuild.build.tree import Node, Tree, changed_meanwhile
from layerbuild.layer.capture import LayerWriter
from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.index import to_line

_SMALL = 1 << 18  # bytes; files up to this size are read by one call


def write_stream(placement: Placement, match: Match, writer: LayerWriter) -> tuple[int, Listing]:
    """Copy the folder that ``match`` is, in one read of each file: the number of entries, and the listing."""
    count = 0
    linked: dict[object, bytes] = {}
    listing = Listing()
    listing.enter(match)
    for below, item in placement.stream(match):
        digest = ""
        if item is not None:
            count += 1
            digest = _write_item(link_to(item, linked), writer)
        if below is not None:
            if not digest and below.node.entry.kind is Kind.FILE:  # the target has it, or it is one more name
                digest = match.tree.digest_now(below.node)
            listing.add(below.path, below.node, digest)
    return count, listing


def told_stream(placement: Placement, match: Match) -> Iterator[bytes]:
    """What ``write_stream`` would put into the layer's index, line by line; a file whose digest is remembered is not
    read."""
    linked: dict[object, bytes] = {}
    for below, item in placement.stream(match):
        if item is not None:
            entry = link_to(item, linked).entry
            is_read = below is not None and entry.kind is Kind.FILE
            yield to_line(entry, match.tree.digest_now(below.node) if below is not None and is_read else "")


def write(items: list[Item], writer: LayerWriter) -> None:
    """Write the entries of the layer. SourceError for a file whose content is not what the cache key took it for."""
    for item in items:
        _write_item(item, writer)


def _write_item(item: Item, writer: LayerWriter) -> str:
    if isinstance(item.content, tuple):
        return _write_file(item.entry, *item.content, writer)
    return writer.add(item.entry, item.content)


def _write_file(entry: Entry, tree: Tree, node: Node, writer: LayerWriter) -> str:
    looked = time.time_ns()
    found: os.stat_result | None
    if entry.size > _SMALL:
        with tree.open(node) as file:
            found = os.fstat(file.fileno()) if isinstance(file, io.FileIO) else None  # one of a blob is in memory
            digest = writer.add(entry, file)
    else:
        content, found = tree.read(node)
        digest = writer.add(entry, content) if len(content) == entry.size else ""
    if digest and not entry.digest and found is not None:
        tree.learn(found, digest, looked=looked)
    if not digest or (entry.digest and digest != entry.digest):
        raise changed_meanwhile(tree.name, node.path)
    return digest
