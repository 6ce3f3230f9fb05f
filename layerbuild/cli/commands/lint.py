"""``lint``, and what ``build`` has of it: what works in a recipe, but should not be written so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from layerbuild.cli import recipes
from layerbuild.cli.console import emit, observer
from layerbuild.cli.contexts import Opened, Place, is_local, local_place, opened, store_for
from layerbuild.cli.credentials import lent
from layerbuild.cli.failures import quoted
from layerbuild.cli.options import sources
from layerbuild.cli.options.command import Command
from layerbuild.cli.options.platforms import this_platform
from layerbuild.cli.place import settings_root
from layerbuild.errors import NotFoundError, RecipeError

if TYPE_CHECKING:
    from layerbuild.cli.options.sources import Request
    from layerbuild.events import Observer
    from layerbuild.image.config import ImageConfig, Platform
    from layerbuild.recipe.contexts import NamedContexts
    from layerbuild.recipe.ignore import IgnoreRules
    from layerbuild.recipe.lint.linter import Report
    from layerbuild.recipe.planner import Bases
    from layerbuild.recipe.syntax import Recipe

FORMATS = ("text", "json", "yaml", "sarif")


@click.command(cls=Command)
@sources.options
@click.option(
    "--format", "output_format", type=click.Choice(FORMATS), default="text", help="How to print the warnings."
)
def lint(request: Request, output_format: str) -> None:
    """Check the recipe in CONTEXT against BuildKit's rules of good writing: all stages, or those that --target needs.

    The exit code is 0 whatever is found, unless the recipe says `# check=error=true`.
    """
    check(request, output_format=output_format)


def check(request: Request, *, output_format: str = "text") -> None:
    """Print the warnings. RecipeError if the recipe is wrong, BuildError if it wants warnings to count as errors."""
    from layerbuild.views import lint as view

    file, report = _report(request)
    failure = report.failure or report.violation
    if output_format == "sarif":
        sarif = view.as_sarif(report.warnings, file=file, failure=report.failure, strict=report.strict)
        emit("json", sarif, str)
    else:
        data = view.as_json(report.warnings, file=file, failure=failure)
        emit(output_format, data, lambda: view.as_text(report.warnings, quote_lines=quoted))
    if failure is not None:
        raise failure


def warn(request: Request, found: Opened, recipe: Recipe, bases: Bases, observe: Observer) -> None:
    """Tell a build's observer how many warnings there are for what it is about to build; BuildError as ``check``."""
    from layerbuild.events import Note
    from layerbuild.views.lint import count

    report = _lint(request, recipe, bases, found.place.rules, named=found.named, every=False)
    if report.violation is not None:
        raise report.violation
    if report.warnings:
        rules = ", ".join(dict.fromkeys(warning.rule for warning in report.warnings))
        observe(Note(f"{count(report.warnings)} ({rules}): `layerbuild lint` tells where and why"))


def _report(request: Request) -> tuple[str, Report]:
    """What the recipe is called, and what is to be said of it."""
    from layerbuild.recipe.lint.linter import Report

    with _surroundings(request) as (place, named, bases):
        try:
            recipe = place.read_recipe()
        except RecipeError as error:
            return place.name, Report((), failure=error)
        every = request.target is None
        return place.name, _lint(request, recipe, bases, place.rules, named=named, every=every)


def _lint(
    request: Request, recipe: Recipe, bases: Bases, rules: IgnoreRules, *, named: NamedContexts, every: bool
) -> Report:
    from layerbuild.recipe.lint.facts import Setting
    from layerbuild.recipe.lint.linter import lint

    setting = Setting(
        bases=bases,
        platform=request.platforms[0] if request.platforms else this_platform(),
        build_platform=this_platform(),
        build_args=request.build_args,
        target=request.target,
        every=every,
        named_contexts=named,
        ignore=rules,
    )
    return lint(recipe, setting)


@contextmanager
def _surroundings(request: Request) -> Iterator[tuple[Place, NamedContexts, Bases]]:
    """The context, the named contexts, and the bases. Where there is no store, none is made and no registry is asked,
    unless the context has to be brought in: a linter only reads."""
    if is_local(request) and not os.path.isdir(settings_root()):
        yield local_place(request), {}, _no_base
        return
    with (
        lent(request.secrets, request.agents) as credentials,
        store_for(request) as store,
        opened(request, store, credentials) as found,
    ):
        yield found.place, found.named, recipes.make_bases(request, store, observer("auto")).config


def _no_base(name: str, platform: Platform) -> ImageConfig:
    raise NotFoundError(f"base image {name!r} is not in the store for {platform}")
