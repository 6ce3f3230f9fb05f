"""Where state lives, and how a command gets at it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from layerbuild.cli.console import observer
from layerbuild.cli.registries import Bringer
from layerbuild.errors import MachineError

if TYPE_CHECKING:
    from layerbuild.build.drivers.table import Choice
    from layerbuild.isolate.namespaces import Identity
    from layerbuild.store.store import Store


def default_root() -> Path:
    """``/var/lib/layerbuild`` for root, ``$XDG_DATA_HOME/layerbuild`` for everybody else."""
    if os.geteuid() == 0:
        return Path("/var/lib/layerbuild")
    data = os.environ.get("XDG_DATA_HOME")
    return Path(data if data else Path.home() / ".local/share") / "layerbuild"


def settings_root() -> Path:
    """The root that the global options chose."""
    root: Path = click.get_current_context().find_root().obj.root
    return root


def write_whole(path: Path, text: str) -> None:
    """Write a file so that who looks for it finds all of it or nothing; a device or a pipe (/dev/null) is written to as
    it is. MachineError where it can't be."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if is_special(path):
            path.write_text(text)
            return
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        raise MachineError(f"can't write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def is_special(path: Path) -> bool:
    """Whether it is a device, a pipe or the like, which takes what is written and must not be replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


def settings_driver() -> str | None:
    """The driver that the global options name; None: whichever works."""
    name: str | None = click.get_current_context().find_root().obj.driver
    return name


def global_options() -> list[str]:
    """The global options, spelled for another process that shall do as this one."""
    chosen = click.get_current_context().find_root().obj
    words = ["--root", str(chosen.root)]
    words += ["--driver", chosen.driver] if chosen.driver else []
    words += [word for host in chosen.insecure for word in ("--insecure-registry", host)]
    return words + [word for mirror in chosen.mirrors for word in ("--registry-mirror", mirror)]


def invocation() -> str:
    """How to call this program again for the same store."""
    context = click.get_current_context().find_root()
    if context.get_parameter_source("root") is click.core.ParameterSource.COMMANDLINE:
        return f"layerbuild --root {shlex.quote(str(settings_root()))}"
    return "layerbuild"


@contextmanager
def reading(*, contents: bool = False) -> Iterator[Store]:
    """The store, for a command that reads or changes names and records, but touches no layer's folder.

    ``contents``: it opens files of layers. Those of a user with ranges of ids are other users', and open to it in its
    namespace alone, which must be entered before any thread exists.
    """
    from layerbuild.cli.options.platforms import this_platform
    from layerbuild.store.ownership import has_ranges
    from layerbuild.store.store import Store

    outside = os.geteuid() != 0
    closed = has_ranges(settings_root())
    if contents and outside and closed:
        from layerbuild.isolate.namespaces import enter_build_namespaces

        enter_build_namespaces()
    with Store.open(settings_root(), user_xattr=outside or closed, platform=this_platform()) as store:
        yield store


@contextmanager
def inside() -> Iterator[tuple[Store, Identity]]:
    """The store, from inside the private namespaces in which layer folders are written. Call it before any thread
    exists: a process with threads can't enter a user namespace (unshare(2)).
    """
    from layerbuild.cli.options.platforms import this_platform
    from layerbuild.isolate.namespaces import enter_build_namespaces, id_maps
    from layerbuild.store.ownership import wants_one_id
    from layerbuild.store.store import Store

    identity = enter_build_namespaces(one_id=wants_one_id(settings_root()))
    with Store.open(settings_root(), user_xattr=identity.user_xattr, platform=this_platform()) as store:
        store.claim(id_maps())
        store.supplier = Bringer(store, observer("auto"))
        yield store, identity


def driver(store: Store, identity: Identity) -> Choice:
    """How commands get the layers as their root: what the global options or the environment say, else what works."""
    from layerbuild.build.drivers.table import choose

    return choose(settings_driver(), store.root, identity)
