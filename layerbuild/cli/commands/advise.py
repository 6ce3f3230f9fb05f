"""``advise``: what an image wastes, and how to mend it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from layerbuild.cli.console import emit, format_option
from layerbuild.cli.failures import trouble
from layerbuild.cli.operands import Seen, seen
from layerbuild.cli.options.platforms import chosen_platform, platform_option
from layerbuild.cli.place import reading
from layerbuild.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from layerbuild.store.builds import BuildRecord
    from layerbuild.views.advise import Advice, Lines
    from layerbuild.views.efficiency import Rules

_RECIPES = ("Dockerfile", "dockerfile")


@click.command()
@click.argument("image")
@click.option(
    "--rules",
    "rules_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="End with 1 if the image breaks a rule of this .dive-ci file.",
)
@platform_option()
@format_option
@click.pass_context
def advise(ctx: click.Context, image: str, rules_file: Path | None, platform: str | None, output_format: str) -> None:
    """Show what IMAGE wastes, measured, and what would mend it, with the line of the recipe.

    IMAGE is a name in the store, an OCI layout or docker archive on the disk, an image named with its registry, or a
    folder with a recipe: then it is what that recipe's last build made.
    """
    from layerbuild.views import advise as view
    from layerbuild.views.efficiency import efficiency
    from layerbuild.views.versions import versions

    with trouble(ctx), ExitStack() as cleaning:
        rules = _rules(rules_file)
        (found,) = cleaning.enter_context(seen(_image_of(image), platform=chosen_platform(platform)))
        rows = found.layers()
        every = versions(found.indexes(cleaning))
        build = found.store.builds.of_image(found.image.manifest_digest)
        lines = view.Lines(rows, build)
        told = [*_secrets(found, lines), *view.advise(every, lines), *_order(found, build)]
        measure = efficiency(every)
    broken = rules.broken(measure) if rules else []
    emit(output_format, view.as_json(told, measure, broken), lambda: view.as_text(told, measure, broken))
    ctx.exit(1 if broken else 0)


def _image_of(text: str) -> str:
    """The image that ``text`` names; of a folder with a recipe, the one that its last build made."""
    from layerbuild.store.builds import recipe_name

    recipe = next((Path(text, name) for name in _RECIPES if Path(text, name).is_file()), None)
    if recipe is None:
        return text
    with reading() as store:
        for build in store.builds.of_recipe(recipe_name(str(recipe))):
            if build.image is not None:
                return build.image
    raise NotFoundError(f"no build of {recipe} is recorded", hint="build it, then ask again")


def _rules(file: Path | None) -> Rules | None:
    from layerbuild.views.efficiency import Rules

    if file is None:
        return None
    try:
        return Rules.parse(file.read_text("utf-8", "replace"), file=str(file))
    except OSError as error:
        raise UsageError(f"can't read the rules {str(file)!r}: {error.strerror}") from error


def _secrets(found: Seen, lines: Lines) -> list[Advice]:
    from layerbuild.build.guard import in_config, scanned
    from layerbuild.views.advise import advise_secrets

    layers = {
        number: scanned(found.store, diff_id) for number, diff_id in enumerate(found.image.config.diff_ids, start=1)
    }
    return advise_secrets({0: tuple(in_config(found.image.config)), **layers}, lines)


def _order(found: Seen, build: BuildRecord | None) -> list[Advice]:
    from layerbuild.views.advise import advise_order
    from layerbuild.views.text import shorten

    if build is None:
        return []
    builds = tuple(found.store.builds.of_recipe(build.recipe))
    return advise_order(builds, lambda step: f"line {step.line} ({shorten(step.instruction, 60)})")
