"""``context``: what of a build context a build can see, and why not the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from layerbuild.cli.console import emit, format_option, width
from layerbuild.cli.contexts import Place, opened_place
from layerbuild.cli.options import sources
from layerbuild.layer.entry import Kind
from layerbuild.steps import masked
from layerbuild.views import context as view

if TYPE_CHECKING:
    from layerbuild.build.tree import Tree


@click.command()
@click.argument("context", default=".")
@click.option(
    "-f", "--file", "recipe", metavar="FILE", help="The recipe, beside which FILE.dockerignore is looked for."
)
@click.option("--why", metavar="PATH", help="Tell which line of the ignore file decides about PATH.")
@format_option
def context(context: str, recipe: str | None, why: str | None, output_format: str) -> None:
    """List what of CONTEXT (default: this folder) COPY can take, after the ignore file."""
    with opened_place(sources.request(context, recipe=recipe)) as place:
        if why is not None:
            answer = _why(place, why)
            emit(output_format, view.why_json(answer), lambda: view.why_text(answer))
            return
        rows = list(_rows(place.tree, b""))
        patterns = len(place.rules.patterns)
    data = view.as_json(rows, context=masked(context), patterns=patterns)
    emit(output_format, data, lambda: view.as_text(rows, patterns=patterns, width=width()))


def _rows(tree: Tree, folder: bytes) -> Iterator[view.ContextRow]:
    for node in tree.children(folder):
        yield view.row(node.path, node.entry.kind, node.entry.size)
        if node.entry.kind is Kind.DIRECTORY:
            yield from _rows(tree, node.path)


def _why(place: Place, path: str) -> view.Why:
    from layerbuild.layer.paths import clean

    name = clean(os.fsencode(path))
    verdict = place.rules.verdict(name)
    there = os.path.lexists(os.path.join(os.fsencode(place.folder), name))
    sent = place.tree.get(name, follow=False) is not None if there else not verdict.ignored
    shown = os.fsdecode(name) or "."
    if verdict.rule is None:
        return view.Why(shown, sent, there)
    return view.Why(shown, sent, there, verdict.rule.file, verdict.rule.line, verdict.rule.text)
