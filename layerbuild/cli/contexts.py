"""From what the command line names to folders, trees and a recipe: the context, and the named contexts."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerbuild.cli.options.platforms import this_platform
from layerbuild.cli.place import inside, reading
from layerbuild.cli.recipes import parse_recipe
from layerbuild.errors import RecipeError, UsageError
from layerbuild.frozen import frozen
from layerbuild.steps import ContextRoot, GitSource, UrlSource

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from layerbuild.build.context import ContextTree
    from layerbuild.build.credentials import Credentials
    from layerbuild.build.origins import Origin, Origins
    from layerbuild.build.remote import Remote
    from layerbuild.cli.options.sources import Request
    from layerbuild.image.config import Platform
    from layerbuild.recipe.contexts import NamedContexts
    from layerbuild.recipe.ignore import IgnoreRules
    from layerbuild.recipe.syntax import Recipe
    from layerbuild.store.digests import Digests
    from layerbuild.store.store import Store

_IMAGE, _LAYOUT = "docker-image://", "oci-layout://"
_LAYOUT_PLACE = re.compile(r"(?P<path>.+?)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>[^@/]+))?")
_PATH = re.compile(r"[./~]|.*/$")
_RECIPES = ("Dockerfile", "dockerfile")


@frozen
class Place:
    """A context as a folder. ``recipe`` is its path, None: it comes on standard input; ``name`` is what messages call
    it. ``origin`` is what was unpacked or checked out from elsewhere, None: the folder is the caller's own."""

    folder: Path
    recipe: Path | None
    name: str
    origin: Origin | None = None

    def read_recipe(self) -> Recipe:
        """Read and parse it. One in the context is as foreign as the context: its links lead nowhere outside."""
        if self.recipe is None:
            return parse_recipe(None)
        path = _resolved(self.folder, self.recipe)
        if not path.exists() and os.path.lexists(self.recipe):
            hint = "a link of the context leads nowhere outside it; name the file itself with -f"
            raise RecipeError(f"the recipe {self.name} is a link that leads to no file in the context", hint=hint)
        return parse_recipe(path, name=self.name)

    @property
    def rules(self) -> IgnoreRules:
        """What its ignore file says."""
        from layerbuild.build.context import ignore_rules

        return ignore_rules(self.folder, self.recipe, confined=self.origin is not None)

    @property
    def tree(self) -> ContextTree:
        """Its files, less what the ignore file leaves out."""
        return self.tree_with(None)

    def tree_with(self, known: Digests | None) -> ContextTree:
        """The same; digests in ``known`` need no reading."""
        from layerbuild.build.context import ContextTree

        return ContextTree(self.folder, self.rules, known=known)


@frozen
class Opened:
    """All that a build reads besides images. ``trees`` are the files of the context, called "", and of the named
    contexts; ``named`` is what the planner is to know of those; ``origins`` tell when those that came from elsewhere
    were last changed."""

    place: Place
    trees: Mapping[str, ContextTree]
    named: NamedContexts
    remote: Remote
    origins: Mapping[str, Origin]

    def modified(self, source: ContextRoot | UrlSource | GitSource) -> int | None:
        """When ``source`` was last changed, in seconds since 1970; None: it does not say, as a folder or an image."""
        if not isinstance(source, ContextRoot):
            return self.remote.modified(source)
        origin = self.origins.get(source.name)
        return None if origin is None else origin.modified


def is_local(request: Request) -> bool:
    """Whether the context is a folder of the caller's, and no other is named: then no store is needed to look at it."""
    return not request.named and Path(request.context).is_dir()


def store_for(request: Request) -> AbstractContextManager[Store]:
    """The store, opened so that the contexts of ``request`` can be brought in by a command that builds nothing."""
    layouts = any(value.startswith(_LAYOUT) for _, value in request.named)
    return _inside() if layouts else reading()


@contextmanager
def _inside() -> Iterator[Store]:
    with inside() as (store, _):
        yield store


@contextmanager
def opened(request: Request, store: Store, credentials: Credentials | None = None) -> Iterator[Opened]:
    """Everything that ``request`` names, as long as the context lasts; what had to be unpacked for it goes then.
    ``credentials`` are lent to git."""
    from layerbuild.build.credentials import Credentials
    from layerbuild.build.origins import Origins
    from layerbuild.build.remote import Remote
    from layerbuild.recipe.contexts import context_key

    with ExitStack() as cleaning:
        remote = Remote(store, dict(os.environ), credentials or Credentials())
        origins = Origins(store, remote, cleaning, stdin=sys.stdin.buffer)
        place = local_place(request) if Path(request.context).is_dir() else _remote_place(request, origins)
        trees, named, known = {"": place.tree_with(store.digests)}, {}, {}
        if place.origin is not None:
            known[""] = place.origin
        for name, value in request.named:
            key, platform = context_key(name, default=this_platform())
            # A build for other platforms than this machine's may want several of a layout's images.
            one = key.endswith(f"::{platform}") or request.platforms in ((), (platform,))
            named[key] = _image(value, store, platform if one else None)
            if named[key] is None:
                known[key] = origins.open(value)
                trees[key] = _files(known[key], value, name=f"the context {name}", digests=store.digests)
        yield Opened(place, trees, named, remote, known)


@contextmanager
def opened_place(request: Request) -> Iterator[Place]:
    """The context alone, for a command that only looks at it: a folder needs no store."""
    if is_local(request):
        yield local_place(request)
        return
    with store_for(request) as store, opened(request, store) as found:
        yield found.place


# -- the context -------------------------------------------------------------------------------------------------------


def local_place(request: Request) -> Place:
    """A folder of the caller's; ``-f`` names a file, in it or anywhere else."""
    folder = Path(request.context)
    _refuse_url(request.recipe)
    if request.recipe == "-":
        return Place(folder, None, "stdin")
    if request.recipe is not None:
        return Place(folder, Path(request.recipe), request.recipe)
    candidates = [folder / name for name in _RECIPES]
    recipe = next((path for path in candidates if path.is_file()), candidates[0])
    if recipe.is_fifo():
        raise RecipeError(f"the recipe {recipe} is a pipe", hint="to read from a pipe, name it with -f")
    return Place(folder, recipe, str(recipe))


def _remote_place(request: Request, origins: Origins) -> Place:
    """A context from elsewhere; ``-f`` names a file in it."""
    _refuse_url(request.recipe)
    if request.context == request.recipe == "-":
        hint = "name the recipe's path in the tar, or a folder as the context"
        raise UsageError("standard input can't be both the context and the recipe", hint=hint)
    keep = request.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "") in ("1", "true")
    origin = origins.open(request.context, keep_git_dir=keep)
    if request.recipe == "-":
        return Place(origin.folder, None, "stdin", origin=origin)
    if origin.recipe is not None:
        if request.recipe is not None:
            raise UsageError(f"{origin.name} is itself a recipe: there is no other one in it", hint="leave -f out")
        return Place(origin.folder, origin.recipe, origin.name, origin=origin)
    names = _RECIPES if request.recipe is None else (request.recipe,)
    recipe = origin.find(*names)
    if recipe is None:
        raise RecipeError(f"{origin.name} has no recipe {names[0]}", hint="name one in it with -f FILE")
    return Place(origin.folder, recipe, f"{origin.name}:{recipe.relative_to(origin.folder)}", origin=origin)


def _resolved(folder: Path, recipe: Path) -> Path:
    """``recipe`` with its links resolved as in a container whose root is ``folder``, if it lies there."""
    top, path = os.path.abspath(folder), os.path.abspath(recipe)
    if os.path.commonpath((top, path)) != top:
        return recipe
    inside = os.path.relpath(path, top)
    if os.path.realpath(path) == os.path.join(os.path.realpath(top), inside):
        return recipe  # no link is on the way, as nearly always
    from layerbuild.build.context import ContextTree
    from layerbuild.recipe.ignore import IgnoreRules

    return folder / os.fsdecode(ContextTree(folder, IgnoreRules()).resolve(os.fsencode(inside)))


def _refuse_url(recipe: str | None) -> None:
    if recipe is not None and recipe.startswith(("http://", "https://")):
        raise UsageError("-f takes a file, and no URL", hint="give the URL as the context, or pipe it into -f -")


# -- named contexts ----------------------------------------------------------------------------------------------------


def _image(value: str, store: Store, platform: Platform | None) -> str | None:
    """The image that a named context is, None: it is files."""
    from layerbuild.build.origins import is_url, repository

    if value.startswith(_IMAGE):
        return value.removeprefix(_IMAGE)
    if value.startswith(_LAYOUT):
        return _layout_image(value.removeprefix(_LAYOUT), store, platform)
    if os.path.exists(value) or _PATH.match(value) or is_url(value) or repository(value) is not None:
        return None
    return value


def _layout_image(place: str, store: Store, platform: Platform | None) -> str:
    from layerbuild.intake.load import load_layout_image

    form = _LAYOUT_PLACE.fullmatch(place)
    if form is None:
        raise UsageError(f"{_LAYOUT}{place} names no layout", hint=f"{_LAYOUT}PATH[:TAG][@DIGEST]")
    found: dict[str, Any] = form.groupdict("")
    image = load_layout_image(store, Path(found["path"]), platform=platform, tag=found["tag"], digest=found["digest"])
    return image.digest


def _files(origin: Origin, value: str, *, name: str, digests: Digests) -> ContextTree:
    from layerbuild.build.context import ContextTree, ignore_rules

    if origin.recipe is not None:
        raise UsageError(f"{origin.name} is no tar, so {name} has no files", hint="name a folder, a tar or an image")
    rules = ignore_rules(origin.folder, None, confined=not os.path.isdir(value))
    return ContextTree(origin.folder, rules, name=name, known=digests)
