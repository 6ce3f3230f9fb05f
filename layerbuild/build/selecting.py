"""Which files a COPY or ADD reads: its sources against a tree, and what of it counts for the cache.

A source is followed if it is a link, and keeps the link's name; links met below a folder stay links. A folder means its
contents. A pattern that matches nothing is no error, a missing literal source is. With ``--parents`` a source is a
pattern for the paths below its pivot (``/./``, or the root), and the folders that lead to a match come with it. Source:
Dockerfile reference (COPY), checked against BuildKit.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from layerbuild.build import wildcard
from layerbuild.build.tree import Node, Tree
from layerbuild.digest import BlobDigest
from layerbuild.errors import RecipeError, SourceError, Span, alike
from layerbuild.frozen import frozen
from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.paths import clean, split
from layerbuild.recipe.ignore import IgnoreRules, Pattern, read_pattern
from layerbuild.steps import CopyStep, PathSource
from layerbuild.store.digests import Digests, is_settled

_LINES = 256  # of a listing that are held before they are compressed
_LISTING_FORMAT = b"1"  # a change of what listings say makes the remembered ones others


@frozen
class Below:
    """A path below a folder that is copied, relative to it. ``leads``: a folder that only leads to what is wanted."""

    path: bytes
    node: Node
    leads: bool = False


@frozen
class Match:
    """One path that a source names. ``node`` is what is there, links followed; ``name``, the source's base name, is
    what a file is called in a destination folder. ``include`` and ``exclude`` choose below a folder."""

    tree: Tree
    node: Node
    name: bytes
    literal: bool
    exclude: IgnoreRules | None = None
    include: Pattern | None = None

    @property
    def below(self) -> Iterator[Below]:
        """For a folder: every wanted path below it, in a layer's order. Each time the tree is walked."""
        return _below(self)


def select(step: CopyStep, source: PathSource, tree: Tree) -> list[Match]:
    """What ``source`` names in ``tree``, in order. SourceError for a literal path that is not there."""
    pattern = source.pattern.encode("utf-8", "surrogateescape")
    try:
        exclude = IgnoreRules.parse("\n".join(step.exclude), file="--exclude") if step.exclude else None
        return _below_pivot(step, pattern, tree, exclude) if step.parents else _named(step, pattern, tree, exclude)
    except RecipeError as error:  # a malformed pattern, which knows no place in the recipe
        raise RecipeError(error.message, hint=error.hint, span=step.origin.span) from error


def only_folder(step: CopyStep, matches: Mapping[PathSource, list[Match]]) -> tuple[PathSource, Match] | None:
    """The one folder that ``step`` copies, and its source, if it copies nothing else: no two of its paths can meet."""
    if len(step.sources) != 1 or step.parents or len(matches) != 1:
        return None
    (source, found), *_ = matches.items()
    if len(found) != 1 or found[0].node.entry.kind is not Kind.DIRECTORY:
        return None
    return source, found[0]


def content_digest(matches: list[Match], known: Digests) -> str:
    """What the cache knows of the files behind a source: the digest of their listing. As long as no file's state has
    changed since it was made, it is not made again."""
    state = State.of(matches)
    digest = known.selection(state.signature) if state.signature else None
    if digest is None:
        digest = listing(matches, once=True).finish()[0]
        state.remember(digest, known)
    return digest


@frozen
class State:
    """In what state the files behind a source were at ``looked``. ``signature`` tells all that decides what their
    listing says, as far as that can be told without reading files, and is empty where a tree can't tell; ``latest`` is
    the time of the latest change. Times are in nanoseconds since 1970."""

    signature: str
    latest: int
    looked: int

    @classmethod
    def of(cls, matches: list[Match]) -> State:
        """Their state now."""
        looked = time.time_ns()
        return cls(*_signature(matches), looked)

    def remember(self, digest: str, known: Digests) -> None:
        """Note the digest of the listing that was made of them since."""
        known.flush()
        if self.signature and is_settled(self.latest, self.looked):
            known.remember_selection(self.signature, digest)


class Listing:
    """A text that tells the files behind a source, line by line; only its compressed form is held.

    Names, kinds, modes, owners, link targets, extended attributes, contents and which names are one file count; times
    do not, and neither does the name of a literal source (the recipe has it already).
    """

    def __init__(self) -> None:
        import zstandard

        self._text = hashlib.sha256()
        self._packer = zstandard.ZstdCompressor().compressobj()
        self._packed = bytearray()
        self._first: dict[object, bytes] = {}
        self._lines: list[bytes] = []
        self._begun = False

    def enter(self, match: Match) -> None:
        """Begin with a folder that a source names; what is below it follows."""
        self._put(b"d\t" + _escape(b"" if match.literal else match.name))
        self._first = {}

    def add(self, path: bytes, node: Node, digest: str) -> None:
        """Tell what is at ``path``; ``digest`` is that of a file's content."""
        line = _line(path, node.entry, digest)
        if node.inode is not None:
            same = self._first.setdefault(node.inode, path)
            line = line if same == path else line + b"\t=" + _escape(same)
        self._put(line)

    def finish(self) -> tuple[BlobDigest, bytes | bytearray]:
        """The digest of the text, and the text itself, compressed with zstd."""
        self._pack()
        self._packed += self._packer.flush()
        return BlobDigest("sha256:" + self._text.hexdigest()), self._packed  # of a million files 40 MB: no copy is made

    def text(self) -> tuple[BlobDigest, bytes]:
        """The digest of the text, and the text itself."""
        import zstandard

        digest, packed = self.finish()
        return digest, zstandard.ZstdDecompressor().decompressobj().decompress(packed)

    def _put(self, line: bytes) -> None:
        self._lines.append(line)
        if len(self._lines) >= _LINES:
            self._pack()

    def _pack(self) -> None:
        text = b"\n".join(self._lines)
        if self._begun and self._lines:
            text = b"\n" + text
        self._begun = self._begun or bool(self._lines)
        self._lines.clear()
        self._text.update(text)
        self._packed += self._packer.compress(text)


def listing(matches: list[Match], *, once: bool = False) -> Listing:
    """The listing of the files behind a source, all its lines told. ``once``: their digests are not asked for again."""
    made = Listing()
    for match in matches:
        tell = match.tree.digest_now if once else match.tree.digest
        if match.node.entry.kind is Kind.DIRECTORY:
            made.enter(match)
            for below in match.below:
                made.add(below.path, below.node, _digest(below.node, tell))
        else:
            name = b"" if match.literal else match.name
            made.add(name, replace(match.node, inode=None), _digest(match.node, tell))
    return made


def _digest(node: Node, tell: Callable[[Node], str]) -> str:
    return tell(node) if node.entry.kind is Kind.FILE else ""


def _signature(matches: list[Match]) -> tuple[str, int]:
    found = hashlib.sha256(_LISTING_FORMAT)
    latest = 0
    for match in matches:
        rules = match.exclude.patterns if match.exclude else ()
        include = match.include.text if match.include else None
        found.update(repr((match.name, match.literal, [rule.text for rule in rules], include)).encode())
        changed = match.tree.state(match.node, found.update)
        if changed is None:
            return "", 0
        latest = max(latest, changed)
    return found.hexdigest(), latest


def _named(step: CopyStep, pattern: bytes, tree: Tree, exclude: IgnoreRules | None) -> list[Match]:
    path = clean(pattern)
    if not wildcard.is_pattern(path):
        return [Match(tree, _literal(step, path, tree), split(path)[1], True, exclude)]
    folder, segments = wildcard.split(path)
    start = _literal(step, folder, tree).path if folder else b""
    matches = []
    for node in wildcard.expand(tree, start, segments):
        followed = tree.get(node.path) if node.entry.kind is Kind.SYMLINK else node
        if followed is None:
            raise _missing(_place(step, pattern), node.path, tree)
        matches.append(Match(tree, followed, split(node.path)[1], False, exclude))
    return matches


def _below_pivot(step: CopyStep, pattern: bytes, tree: Tree, exclude: IgnoreRules | None) -> list[Match]:
    head, pivot, tail = pattern.partition(b"/./")
    bases = _named(step, head if pivot else b"", tree, exclude)
    include = clean(tail if pivot else pattern)
    text = include.decode("utf-8", "surrogateescape")
    rule = read_pattern("\\" + text if text.startswith("!") else text, file="--parents") if text else None
    matches = []
    for base in bases:
        match = replace(base, name=b"", include=rule)
        if base.literal and rule is not None and not wildcard.is_pattern(include) and next(match.below, None) is None:
            raise _missing(_place(step, pattern), clean(base.node.path + b"/" + include), tree)
        if base.node.entry.kind is Kind.DIRECTORY:
            matches.append(match)
    return matches


def _literal(step: CopyStep, path: bytes, tree: Tree) -> Node:
    node = tree.get(path)
    if node is None:
        raise _missing(_place(step, path), path, tree)
    return node


def _place(step: CopyStep, pattern: bytes) -> Span:
    """Where the source stands in the recipe, as far as its text can be found there: variables may have made it."""
    span = step.origin.span
    column = step.origin.text.find(pattern.decode("utf-8", "surrogateescape"))
    return span.at(span.line, span.column + column) if column > 0 and span.end_line == span.line else span


def _missing(span: Span, path: bytes, tree: Tree) -> SourceError:
    shown = path.decode("utf-8", "backslashreplace") or "."
    hint = "flags stand in front of the sources" if shown.startswith("--") else _near(path, tree)
    return SourceError(f"{shown!r} not found: {tree.why_missing(path)}", hint=hint, span=span)


def _near(path: bytes, tree: Tree) -> str:
    """A hint that names what of the same folder may have been meant by ``path``."""
    top, slash, name = path.decode("utf-8", "backslashreplace").rpartition("/")
    folder = tree.get(top.encode())
    beside = () if folder is None else tree.children(folder.path)
    names = [node.path.rpartition(b"/")[2].decode("utf-8", "backslashreplace") for node in beside]
    near = [each for each in names if each.lower() == name.lower()] or alike(name, names)
    return f"did you mean {top}{slash}{near[0]}?" if near and near[0].isprintable() else ""


def _below(match: Match) -> Iterator[Below]:
    top = len(match.node.path) + 1 if match.node.path else 0
    walk = [(match.tree.children(match.node.path), b"", match.include is None)]
    held: list[Below] = []  # folders on the way to here that come only if something below them does
    while walk:
        children, folder, wanted = walk[-1]
        node = next(children, None)
        if node is None:
            walk.pop()
            if held and held[-1].path == folder:
                held.pop()
            continue
        path = node.path[top:]
        leads = not (wanted or _is_included(match, path))
        excluded = match.exclude is not None and match.exclude.verdict(path).ignored
        below = Below(path, node, leads)
        if node.entry.kind is Kind.DIRECTORY:
            if _is_pruned(match, below, excluded=excluded):
                continue
            held.append(below)
            walk.append((match.tree.children(node.path), path, not leads))
            if leads or excluded:
                continue  # but a folder that --exclude merely empties is made
        elif leads or excluded:
            continue
        else:
            held.append(below)
        yield from held
        held.clear()


def _is_included(match: Match, path: bytes) -> bool:
    return match.include is not None and match.include.matches(path.decode("utf-8", "surrogateescape"))


def _is_pruned(match: Match, folder: Below, *, excluded: bool) -> bool:
    """Whether nothing below ``folder`` can be wanted."""
    if excluded and match.exclude is not None and match.exclude.prunes(folder.path):
        return True
    if not folder.leads or match.include is None:
        return False
    return not match.include.may_match_below(folder.path.decode("utf-8", "surrogateescape"))


def _line(path: bytes, entry: Entry, digest: str) -> bytes:
    if not (entry.target or entry.xattrs) and entry.device == (0, 0):
        told = _common(entry.kind, entry.mode, entry.uid, entry.gid)  # nearly all are such, and repeat this
        return b"%b%b%d\t(0, 0)\t%b\t\t" % (_escape(path), told, _size(entry), digest.encode())
    xattrs = b",".join(key + b"=" + value.hex().encode() for key, value in entry.xattrs) if entry.xattrs else b""
    facts = f"{entry.kind.value}\t{entry.mode:o}\t{entry.uid}\t{entry.gid}\t{_size(entry)}\t{entry.device}\t{digest}"
    return b"\t".join((_escape(path), facts.encode(), _escape(entry.target), xattrs))


@lru_cache(1024)
def _common(kind: Kind, mode: int, uid: int, gid: int) -> bytes:
    return f"\t{kind.value}\t{mode:o}\t{uid}\t{gid}\t".encode()


def _size(entry: Entry) -> int:
    return entry.size if entry.kind is Kind.FILE else 0


def _escape(text: bytes) -> bytes:
    return text.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n")
