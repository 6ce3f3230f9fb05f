"""From the arguments of ``build`` and ``plan`` to a recipe, a context and a plan."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild.errors import RecipeError, Span, UsageError
from layerbuild.steps import ContextRoot, GitSource, UrlSource

if TYPE_CHECKING:
    from layerbuild.build.bases import Bases, Policy
    from layerbuild.build.lookup import Lookup
    from layerbuild.build.times import Times
    from layerbuild.cli.contexts import Opened
    from layerbuild.events import Observer
    from layerbuild.image.config import Platform
    from layerbuild.recipe.contexts import NamedContexts
    from layerbuild.recipe.syntax import Recipe
    from layerbuild.steps import LayerPlan
    from layerbuild.store.store import Store

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
}


Modified = Callable[[ContextRoot | UrlSource | GitSource], int | None]
"""When a source was last changed, in seconds since 1970; None: it does not say."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, before anything is looked at.

    ``context`` is a path, a URL, a repository, or ``-``; ``recipe`` and ``timestamp`` are what ``-f`` and
    ``--timestamp`` say, None: nothing; ``no_cache_stages`` are names in lower case; ``named`` are the named contexts,
    ``secrets`` and ``agents`` what is lent, as they were given. ``platforms`` are those of ``--platform``, each
    once; none: this machine's, and the image may say what its base says.
    """

    context: str
    recipe: str | None
    build_args: dict[str, str]
    target: str | None
    timestamp: str | None
    no_cache: bool
    no_cache_stages: frozenset[str] = frozenset()
    named: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = ()
    policy: Policy = "missing"

    @property
    def platform(self) -> Platform:
        """The one platform to plan for. UsageError if several were asked for: only a build makes an index."""
        if len(self.platforms) > 1:
            raise UsageError("only `build` takes several platforms", hint=f"--platform {self.platforms[0]}, say")
        return self.platforms[0] if self.platforms else this_platform()


class Command(click.Command):
    """A command with these options. ``--pull`` alone means always, as in ``docker build``, and takes no further word:
    a value stands behind ``=``, which click knows no way to say."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["--pull=always" if word == "--pull" else word for word in args])


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that ``build`` and ``plan`` share, and their context."""
    return settings(click.argument("context")(command))


def settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that ``build`` and ``plan`` share, for a command that takes its context in another way."""
    shared: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = [
        click.option("-f", "--file", "recipe", metavar="FILE", help="The recipe.  [default: CONTEXT/Dockerfile]"),
        click.option("--target", help="The stage to build.  [default: the last]"),
        click.option(
            "--build-arg",
            "build_args",
            metavar="K=V",
            multiple=True,
            help="Set an ARG.",
        ),
        platform_option(multiple=True, help="What the image is for: os/arch[/variant]; several, with commas."),
        click.option("--no-cache", is_flag=True, help="Run every step."),
        click.option(
            "--no-cache-filter",
            "no_cache_stages",
            metavar="STAGE,…",
            multiple=True,
            help="Run every step of these stages.",
        ),
        click.option(
            "--timestamp",
            metavar="TIMES",
            help="Times in layers: seconds since 1970 to clamp to, or `keep`.  [env: SOURCE_DATE_EPOCH]",
        ),
        click.option(
            "--build-context",
            "named",
            metavar="NAME=WHAT",
            multiple=True,
            help="Let NAME in the recipe mean a folder, a tar, a URL, oci-layout://PATH, or an image.",
        ),
        click.option("--secret", "secrets", metavar="id=…,src=…|env=…", multiple=True, help="Lend a secret."),
        click.option("--ssh", "agents", metavar="ID[=SOCKET|KEY,…]", multiple=True, help="Lend an agent, or keys."),
        click.option(
            "--pull",
            "policy",
            default="missing",
            metavar="[=WHEN]",
            help="Ask registries for base images always (the meaning without WHEN), if missing, or never."
            "  [default: missing]",
        ),
    ]
    for option in reversed(shared):
        command = option(command)
    return command


def request(
    context: str,
    recipe: str | None,
    build_args: tuple[str, ...],
    target: str | None,
    no_cache: bool,
    timestamp: str | None,
    named: tuple[str, ...],
    no_cache_stages: tuple[str, ...] = (),
    secrets: tuple[str, ...] = (),
    agents: tuple[str, ...] = (),
    platform: tuple[str, ...] = (),
    policy: str = "missing",
) -> Request:
    """Check the shared options; UsageError."""
    if no_cache and no_cache_stages:
        raise UsageError("--no-cache is for all stages, --no-cache-filter for some", hint="leave one of them out")
    arguments = dict(_build_arg(text) for text in build_args)
    return Request(
        context=context,
        recipe=recipe,
        build_args={name: value for name, value in arguments.items() if value is not None},
        target=target,
        timestamp=timestamp,
        no_cache=no_cache,
        no_cache_stages=frozenset(name.strip().lower() for text in no_cache_stages for name in text.split(",")),
        named=tuple(_named(text) for text in named),
        secrets=secrets,
        agents=agents,
        platforms=read_platforms(platform),
        policy=_policy(policy),
    )


def noted(request: Request) -> dict[str, Any]:
    """What a build's record says of the request, so that ``recalled`` can plan it again from anywhere."""
    recipe = request.recipe if request.recipe in (None, "-") else _absolute(str(request.recipe))
    named = [(name, _absolute(value)) for name, value in request.named]
    told = {**asdict(request), "no_cache_stages": sorted(request.no_cache_stages)}
    told["platforms"] = [str(platform) for platform in request.platforms]
    return {**told, "context": _absolute(request.context), "recipe": recipe, "named": named}


def _absolute(text: str) -> str:
    scheme, found, path = text.rpartition("oci-layout://")
    return scheme + found + os.path.abspath(path) if found or os.path.exists(path) else text


def recalled(data: Mapping[str, Any]) -> Request:
    """The request that ``noted`` wrote down; UsageError for one whose context came on standard input."""
    if not data or "-" in (data["context"], data["recipe"]):
        raise UsageError("that build read its context or its recipe from standard input: it can't be planned again")
    known = {field.name: data[field.name] for field in fields(Request) if field.name in data}
    known |= {name: tuple(known.get(name, ())) for name in ("secrets", "agents")}
    known["named"] = tuple((name, value) for name, value in data["named"])
    known["platforms"] = read_platforms(tuple(known.get("platforms", ())))
    return Request(**{**known, "no_cache_stages": frozenset(known.get("no_cache_stages", ()))})


def platform_option(
    *, multiple: bool = False, help: str = "Which of the images under that name."
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--platform``; ``read_platforms`` or ``chosen_platform`` understands what it says."""
    return click.option("--platform", metavar="OS/ARCH", multiple=multiple, help=help)


def read_platforms(texts: tuple[str, ...]) -> tuple[Platform, ...]:
    """The platforms that ``--platform`` names, each once; ``local`` is this machine's. UsageError."""
    from layerbuild.image.platforms import read_platform

    found: dict[Platform, None] = {}
    for text in (part.strip() for given in texts for part in given.split(",")):
        try:
            platform = this_platform() if text == "local" else read_platform(text, default=this_platform())
        except UsageError as error:
            raise UsageError(f"--platform: {error.message}", hint=error.hint) from error
        found[platform] = None
    return tuple(found)


def chosen_platform(text: str | None) -> Platform | None:
    """The one platform that ``--platform`` names, None: nothing was said. UsageError."""
    if text is None:
        return None
    platforms = read_platforms((text,))
    if len(platforms) > 1:
        raise UsageError(f"--platform {text} names several platforms", hint=f"--platform {platforms[0]}, say")
    return platforms[0]


def make_bases(request: Request, store: Store, observe: Observer) -> Bases:
    """What resolves image names: the store, and registries as ``--pull`` says."""
    from layerbuild.build.bases import Bases
    from layerbuild.cli.registries import Bringer

    return Bases(store, puller=Bringer(store, observe), policy=request.policy, own=this_platform())


@dataclass(frozen=True, slots=True)
class Planned:
    """A recipe's plan, and what is needed to walk it."""

    plan: LayerPlan
    lookup: Lookup


def planned(
    request: Request,
    store: Store,
    found: Opened,
    observe: Observer,
    *,
    changed: tuple[str, ...] = (),
    look_only: bool = True,
) -> Planned:
    """The plan of ``request`` and its lookup, for a command that builds nothing. ``changed`` are files of the context
    that are taken to be edited; ``look_only``: no layer is brought for it."""
    from layerbuild.build.edited import edited
    from layerbuild.build.lookup import Lookup

    bases = make_bases(request, store, observe)
    recipe = found.place.read_recipe()
    times = build_times(request, recipe, named=found.named, modified=found.modified)
    plan = make_plan(request, recipe, bases, named=found.named, times=times)
    trees = {**found.trees, "": edited(found.trees[""], changed)} if changed else found.trees
    lookup = Lookup(
        store,
        bases,
        trees,
        found.remote,
        times=times,
        no_cache=request.no_cache,
        no_cache_stages=request.no_cache_stages,
        look_only=look_only,
    )
    return Planned(plan, lookup)


def parse_recipe(path: Path | None, *, name: str = "") -> Recipe:
    """Parse a recipe file (None: standard input), which messages call ``name``; RecipeError if it can't be read."""
    from layerbuild.recipe.syntax import parse

    if path is None:
        return parse(_decoded(sys.stdin.buffer.read()), file="stdin")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RecipeError(f"there is no recipe {path}", hint="name one with -f FILE") from None
    except OSError as error:
        raise RecipeError(f"can't read the recipe: {error.strerror}", span=Span(str(path), 1)) from error
    return parse(_decoded(data), file=name or str(path))


def _decoded(data: bytes) -> str:
    # The parser tells where bytes stand that are no UTF-8.
    return data.decode("utf-8", "surrogateescape")


def make_plan(
    request: Request,
    recipe: Recipe,
    bases: Bases,
    *,
    named: NamedContexts,
    times: Times,
    platform: Platform | None = None,
) -> LayerPlan:
    """The plan for ``platform``; None: for the one that was asked for."""
    from layerbuild.recipe.planner import plan

    return plan(
        recipe,
        bases=bases.config,
        build_args=request.build_args,
        target=request.target,
        platform=platform or request.platform,
        build_platform=this_platform(),
        named_contexts=named,
        epoch=times.epoch,
    )


def build_times(request: Request, recipe: Recipe, *, named: NamedContexts, modified: Modified) -> Times:
    """The times that the layers of a build get: ``--timestamp``, else what the build arguments or the recipe say of
    SOURCE_DATE_EPOCH, else the environment, else the default epoch. ``modified`` is asked where they name a source."""
    from layerbuild.recipe.planner import recipe_epoch

    if request.timestamp is not None:
        return layer_times(request.timestamp)
    said = recipe_epoch(
        recipe,
        platform=request.platforms[0] if request.platforms else this_platform(),
        build_args=request.build_args,
        target=request.target,
        build_platform=this_platform(),
        named_contexts=named,
    )
    seconds = said if isinstance(said, int | None) else modified(said)
    return layer_times(None if seconds is None else str(seconds))


def this_platform() -> Platform:
    """The platform of this machine, in OCI's words (image-spec config.md: Go's names)."""
    from layerbuild.image.config import Platform

    machine = platform.machine()
    architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)


def _named(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name or not value:
        raise UsageError(f"--build-context {text!r} is not NAME=WHAT", hint="--build-context src=../src, say")
    return name, value


def _policy(text: str) -> Policy:
    # docker build knows --pull and --pull=false, buildah the words; and a flag without a value takes no other word.
    words: dict[str, Policy] = {"true": "always", "false": "missing", "newer": "always", "ifnewer": "always"}
    known: dict[str, Policy] = {"always": "always", "missing": "missing", "never": "never", **words}
    if text not in known:
        raise UsageError(f"--pull can't be {text!r}", hint="always, missing or never, as in --pull=never")
    return known[text]


def _build_arg(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError(f"--build-arg {text!r} has no name", hint="--build-arg NAME=VALUE")
    return name, value if equals else os.environ.get(name)


def layer_times(said: str | None) -> Times:
    """The times that layers get: what was said, the environment's SOURCE_DATE_EPOCH, or the default epoch."""
    from layerbuild.build.times import DEFAULT_EPOCH, Times

    now = int(time.time())
    text = said or os.environ.get("SOURCE_DATE_EPOCH") or ""
    if text == "keep":
        return Times(None, now)
    if text and not re.fullmatch("-?[0-9]+", text):
        raise UsageError(f"{text!r} is not a time", hint="whole seconds since 1970-01-01 00:00 UTC, or `keep`")
    return Times(int(text) if text else DEFAULT_EPOCH, now)
