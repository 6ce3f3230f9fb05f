"""What is built: the recipe, its context, and all that a plan of it depends on."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild.cli.options import command as heading
from layerbuild.cli.options.command import gathered, option
from layerbuild.cli.options.platforms import PLATFORM_VARIABLE, platform_option, read_platforms, this_platform
from layerbuild.errors import UsageError
from layerbuild.frozen import frozen

_GATEWAY = "host-gateway"
_HOST = re.compile(r"[^\s#:;=]+")

if TYPE_CHECKING:
    from layerbuild.build.bases import Policy
    from layerbuild.image.config import Platform


@frozen
class Request:
    """What was asked for, before anything is looked at.

    ``context`` is a path, a URL, a repository, or ``-``; ``recipe`` and ``timestamp`` are what ``-f`` and
    ``--timestamp`` say, None: nothing; ``no_cache_stages`` are names in lower case; ``named`` are the named contexts,
    ``secrets`` and ``agents`` what is lent, as they were given. ``platforms`` are those of ``--platform``, each
    once; none: this machine's, and the image may say what its base says. ``network``, ``hosts`` (names and addresses)
    and ``env_wins`` are what recipe/scope.py knows as RunDefaults.
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
    network: str = "default"
    hosts: tuple[tuple[str, str], ...] = ()
    env_wins: bool = False

    @property
    def platform(self) -> Platform:
        """The one platform to plan for. UsageError if several were asked for: only a build makes an index."""
        if len(self.platforms) > 1:
            raise UsageError("only `build` takes several platforms", hint=f"--platform {self.platforms[0]}, say")
        return self.platforms[0] if self.platforms else this_platform()


_source = partial(option, heading=heading.SOURCES)
_cache = partial(option, heading=heading.CACHE)
_run = partial(option, heading=heading.RUN)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options, and CONTEXT; ``command`` gets them as ``request``."""

    @functools.wraps(command)
    def asked(*arguments: Any, context: str, requested: Callable[[str], Request], **named: Any) -> Any:
        return command(*arguments, request=requested(context), **named)

    return settings(click.argument("context")(asked))


def settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options, for a command that takes its context in another way: as ``requested`` it gets what makes a request
    of a context."""
    return gathered(
        command,
        "requested",
        lambda **texts: partial(request, **texts),
        _source("-f", "--file", "recipe", metavar="FILE", help="The recipe.  [default: CONTEXT/Dockerfile]"),
        _source("--target", help="The stage to build.  [default: the last]"),
        _source(
            "--build-arg",
            "build_args",
            metavar="K[=V]",
            multiple=True,
            help="Set an ARG; K alone: to what the environment has.",
        ),
        _source(
            "--build-arg-file",
            "build_arg_files",
            metavar="FILE",
            multiple=True,
            help="Set ARGs to what its lines say, K=V each; --build-arg counts more.",
        ),
        _source(
            "--build-context",
            "named",
            metavar="NAME=WHAT",
            multiple=True,
            help="Let NAME in the recipe mean a folder, a tar, a URL, oci-layout://PATH, or an image.",
        ),
        platform_option(
            multiple=True,
            envvar=PLATFORM_VARIABLE,
            help=f"What the image is for: os/arch[/variant]; several, with commas.  [env: {PLATFORM_VARIABLE}]",
            heading=heading.SOURCES,
        ),
        _source(
            "--pull",
            "policy",
            default="missing",
            metavar="[=WHEN]",
            help="Ask registries for base images always (the meaning without WHEN), if missing, or never."
            "  [default: missing]",
        ),
        _source(
            "--timestamp",
            "--source-date-epoch",
            "timestamp",
            metavar="TIMES",
            help="Times in layers: seconds since 1970 to clamp to, or `keep`.  [env: SOURCE_DATE_EPOCH]",
        ),
        _source(
            "--env-wins",
            is_flag=True,
            help="Let an ENV count more than a later ARG of its name, as other builders than BuildKit do.",
        ),
        _cache("--no-cache", is_flag=True, help="Run every step."),
        _cache(
            "--no-cache-filter",
            "no_cache_stages",
            metavar="STAGE,…",
            multiple=True,
            help="Run every step of these stages.",
        ),
        _run("--secret", "secrets", metavar="id=…,src=…|env=…", multiple=True, help="Lend a secret."),
        _run("--ssh", "agents", metavar="ID[=SOCKET|KEY,…]", multiple=True, help="Lend an agent, or keys."),
        _run(
            "--network",
            type=click.Choice(["default", "host", "none"]),
            default="default",
            help="Network of steps that name none.",
        ),
        _run(
            "--add-host",
            "hosts",
            metavar="NAME:IP",
            multiple=True,
            help="A name that RUN knows; host-gateway: this machine's.",
        ),
    )


def request(
    context: str,
    *,
    recipe: str | None = None,
    build_args: tuple[str, ...] = (),
    build_arg_files: tuple[str, ...] = (),
    target: str | None = None,
    no_cache: bool = False,
    timestamp: str | None = None,
    env_wins: bool = False,
    named: tuple[str, ...] = (),
    no_cache_stages: tuple[str, ...] = (),
    secrets: tuple[str, ...] = (),
    agents: tuple[str, ...] = (),
    platform: tuple[str, ...] = (),
    policy: str = "missing",
    network: str = "default",
    hosts: tuple[str, ...] = (),
) -> Request:
    """What the texts of the options say; UsageError."""
    if no_cache and no_cache_stages:
        raise UsageError("--no-cache is for all stages, --no-cache-filter for some", hint="leave one of them out")
    arguments = dict(_build_arg(text) for text in (*_lines(build_arg_files), *build_args))
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
        network=network,
        hosts=tuple(pair for text in hosts for pair in _hosts(text, network)),
        env_wins=env_wins,
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
    known |= {name: tuple(map(tuple, known.get(name, ()))) for name in ("named", "hosts")}
    known["platforms"] = read_platforms(tuple(known.get("platforms", ())))
    return Request(**{**known, "no_cache_stages": frozenset(known.get("no_cache_stages", ()))})


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


def _hosts(text: str, network: str) -> Iterator[tuple[str, str]]:
    """The names of ``--add-host`` with their address: docker's ``NAME:IP`` and ``NAME=IP``, podman's ``A;B:IP``."""
    names, _, address = text.partition("=") if "=" in text else text.partition(":")
    if address == _GATEWAY:
        if network == "none":
            raise UsageError(f"--add-host {text!r}: without a network no step reaches this machine", hint="an address")
        address = "127.0.0.1"  # a RUN is in this machine's own network
    try:
        address = str(ip_address(address.removeprefix("[").removesuffix("]")))
    except ValueError:
        hint = f"--add-host NAME:ADDRESS, or NAME:{_GATEWAY}"
        raise UsageError(f"--add-host {text!r}: {address!r} is no address", hint=hint) from None
    for name in names.split(";"):
        if not _HOST.fullmatch(name):
            raise UsageError(f"--add-host {text!r}: {name!r} is no name of a host", hint="--add-host NAME:ADDRESS")
        yield name, address


def _lines(files: tuple[str, ...]) -> Iterator[str]:
    """The build arguments in ``files``: a line each, but for blank ones and those that begin with ``#``."""
    for file in files:
        try:
            text = Path(file).read_text("utf-8", "surrogateescape")
        except OSError as error:
            raise UsageError(f"can't read the build arguments {file!r}: {error.strerror}") from error
        yield from (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def _build_arg(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError(f"--build-arg {text!r} has no name", hint="--build-arg NAME=VALUE")
    return name, value if equals else os.environ.get(name)
