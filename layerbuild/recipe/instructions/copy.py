"""COPY and ADD: files from the context, a stage, an image or elsewhere."""

from __future__ import annotations

import posixpath
import re
from typing import ClassVar, Self

from layerbuild.errors import RecipeError
from layerbuild.frozen import frozen
from layerbuild.recipe.arguments import json_or_blanks
from layerbuild.recipe.git import GitRef, read_git
from layerbuild.recipe.heredoc import Heredoc, read_mark
from layerbuild.recipe.instructions import flags
from layerbuild.recipe.instructions.base import Instruction, Lowered, Reference
from layerbuild.recipe.scope import Expand, Scope
from layerbuild.recipe.syntax import Statement, placed
from layerbuild.recipe.words import Word
from layerbuild.steps import (
    ContextRoot,
    CopyStep,
    GitSource,
    InlineSource,
    PathSource,
    Root,
    UrlSource,
    masked,
)

_COMMON = frozenset(("chown", "chmod"))
_COPY_FLAGS = flags.FlagSet(_COMMON | {"from"}, frozenset(("link", "parents")), frozenset(("exclude",)))
_ADD_FLAGS = flags.FlagSet(
    _COMMON | {"checksum"}, frozenset(("link", "keep-git-dir", "unpack")), frozenset(("exclude",))
)

_OCTAL = re.compile(r"0*[0-7]{1,4}", re.ASCII)
_CLAUSE = r"[ugoa]*(?:[-+=](?:[rwxXst]*|[ugo]))+"
_SYMBOLIC = re.compile(rf"{_CLAUSE}(?:,{_CLAUSE})*", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{1,64}", re.ASCII)

_URL = re.compile(r"https?://")

Named = PathSource | InlineSource | UrlSource | GitSource


def is_git(source: str) -> bool:
    """Whether ADD takes ``source`` for a git repository. A bare ``github.com/a/b`` is a local path."""
    return _git(source) is not None


def _git(source: str) -> GitRef | None:
    found = read_git(source)
    return None if found is None or found.like_local else found


def is_url(source: str) -> bool:
    """Whether ``source`` is fetched over HTTP, a git repository or not."""
    return _URL.match(source) is not None


@frozen(kw_only=True)
class _Transfer(Instruction):
    """What COPY and ADD share. ``sources`` are the words without heredocs, ``documents`` the heredocs in order."""

    sources: tuple[Word, ...]
    documents: tuple[Heredoc, ...]
    dest: Word
    given: flags.Flags

    shape = json_or_blanks
    known: ClassVar[flags.FlagSet]

    @classmethod
    def parse(cls, statement: Statement) -> Self:
        arguments = statement.arguments(json_or_blanks)
        if len(arguments.words) < 2:
            raise statement.error(
                f"{statement.keyword} requires at least two arguments, but only one was provided. "
                "Destination could not be determined",
                hint=f"write {statement.keyword} SOURCE… DESTINATION",
            )
        *sources, dest = arguments.words
        # A JSON array holds strings, whatever they look like.
        marks = [None if arguments.json else _mark(statement, word) for word in sources]
        if not arguments.json and _mark(statement, dest):
            raise statement.error(f"{statement.keyword} cannot accept a heredoc as a destination", at=dest)
        bodies = {heredoc.mark.name: heredoc for heredoc in statement.heredocs}  # the last of equal names counts
        return cls(
            statement=statement,
            sources=tuple(word for word, mark in zip(sources, marks, strict=True) if mark is None),
            documents=tuple(bodies[mark] for mark in marks if mark is not None),
            dest=dest,
            given=flags.read(statement, cls.known),
        )

    def _step(self, scope: Scope, *, root: Root, unpack: bool | None, sources: tuple[Named, ...]) -> Lowered:
        expand_word = scope.expander(self.statement)
        owner = self._expanded("chown", expand_word)
        mode = self._mode(expand_word)
        dest = expand_word(self.dest)
        inline = tuple(self._inline(document, scope) for document in self.documents)
        named = [_spelled(source) for source in (*sources, *inline)]
        self._refuse_nul((*named, dest))
        step = CopyStep(
            origin=self.origin,
            config=scope.config,
            created_by=self._created_by(owner, mode, [*named, dest]),
            root=root,
            sources=(*sources, *inline),
            dest=destination(dest, scope.working_dir),
            owner=owner,
            mode=mode,
            keep_owner=not isinstance(root, ContextRoot),
            unpack=unpack,
            link=self.given.switch("link") is True,
            parents=self.given.switch("parents") is True,
            exclude=tuple(word.text for word in self.given.words("exclude")),
        )
        return Lowered(step, scope)

    def _inline(self, document: Heredoc, scope: Scope) -> InlineSource:
        text = document.content
        if document.mark.expand:
            text = scope.expand_document(self.statement, text)
        with placed(self.statement.span):
            return InlineSource(document.mark.file_name, text.encode())

    def _expanded(self, flag: str, expand_word: Expand) -> str:
        word = self.given.word(flag)
        return "" if word is None else expand_word(word)

    def _mode(self, expand_word: Expand) -> str:
        mode = self._expanded("chmod", expand_word)
        if mode and not _OCTAL.fullmatch(mode) and not _SYMBOLIC.fullmatch(mode):
            raise self.statement.error(
                f"invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777",
                at=self.given.word("chmod"),
                hint="write 755, or symbolically u=rwX,go=rX",
            )
        return mode

    def _refuse_nul(self, texts: tuple[str, ...]) -> None:
        if any("\0" in text for text in texts):
            raise self.statement.error("a path can't hold a NUL byte")

    def _created_by(self, owner: str, mode: str, words: list[str]) -> str:
        shown = [self.statement.keyword]
        shown += ["--parents"] if self.given.switch("parents") else []
        shown += [f"--chown={owner}"] if owner else []
        shown += [f"--chmod={mode}"] if mode else []
        return " ".join((*shown, *words, "# buildkit"))


@frozen(kw_only=True)
class Copy(_Transfer):
    """``COPY [--from=…] [--chown=…] [--chmod=…] [--link] [--parents] [--exclude=…] SOURCE… DESTINATION``."""

    known = _COPY_FLAGS

    @property
    def references(self) -> tuple[Reference, ...]:
        word = self.given.word("from")
        return () if word is None or not word.text else (Reference(word, by_index=True),)

    def lower(self, scope: Scope) -> Lowered:
        expand_word = scope.expander(self.statement)
        sources = tuple(self._source(word, expand_word(word)) for word in self.sources)
        return self._step(scope, root=self._root(scope, expand_word), unpack=False, sources=sources)

    def _source(self, word: Word, text: str) -> PathSource:
        if is_git(text) or is_url(text):
            what = "a git ref" if is_git(text) else "a URL"
            raise self.statement.error(f"source can't be {what} for COPY", at=word, hint="ADD can fetch it")
        return PathSource(text)

    def _root(self, scope: Scope, expand_word: Expand) -> Root:
        for reference in self.references:
            refuse_variables(self.statement, reference.word, expand_word)
            with placed(self.statement.at(reference.word)):
                return scope.roots.find(reference.word.text, verb="copy", by_index=True)
        return ContextRoot()


@frozen(kw_only=True)
class Add(_Transfer):
    """``ADD [--chown=…] [--chmod=…] [--link] [--checksum=…] [--unpack] [--keep-git-dir] [--exclude=…] SOURCE… DEST``:
    a COPY that also fetches, and unpacks local archives."""

    known = _ADD_FLAGS

    def lower(self, scope: Scope) -> Lowered:
        expand_word = scope.expander(self.statement)
        checksum = self._checksum(expand_word)
        sources = tuple(self._source(word, expand_word(word), checksum) for word in self.sources)
        return self._step(scope, root=ContextRoot(), unpack=self.given.switch("unpack"), sources=sources)

    def _source(self, word: Word, text: str, checksum: str) -> Named:
        with placed(self.statement.at(word)):
            git = _git(text)
            if git is not None:
                return self._repository(text, git, checksum)
        return UrlSource(text, checksum) if is_url(text) else PathSource(text)

    def _repository(self, text: str, git: GitRef, checksum: str) -> GitSource:
        """The query of a repository may say what the flags say, but not otherwise."""
        keep = self.given.switch("keep-git-dir")
        if None not in (keep, git.keep_git_dir) and keep != git.keep_git_dir:
            raise RecipeError("inconsistent keep-git-dir configuration", hint="let the flag or the query say it")
        if checksum and git.checksum and checksum != git.checksum:
            raise RecipeError(f'checksum mismatch "{checksum}" != "{git.checksum}"', hint="say it once")
        return GitSource(text, keep_git_dir=bool(keep or git.keep_git_dir), checksum=checksum or git.checksum)

    def _checksum(self, expand_word: Expand) -> str:
        word = self.given.word("checksum")
        checksum = "" if word is None else expand_word(word)
        if word is None or not checksum:
            return ""
        if len(self.sources) + len(self.documents) != 1:
            raise self.statement.error("checksum can't be specified for multiple sources", at=word)
        source = expand_word(self.sources[0]) if self.sources else ""
        if not is_git(source) and not is_url(source):
            raise self.statement.error(
                "checksum requires HTTP(S) or Git sources", at=word, hint="a file of the context needs none"
            )
        self._check_digest(checksum, word, _COMMIT if is_git(source) else _DIGEST)
        return checksum

    def _check_digest(self, checksum: str, word: Word, form: re.Pattern[str]) -> None:
        if form.fullmatch(checksum):
            return
        if form is _COMMIT:
            hint = "write the commit, or its first digits, in lower-case hexadecimal"
            raise self.statement.error(f"invalid checksum {checksum!r}", at=word, hint=hint)
        algorithm, colon, _ = checksum.partition(":")
        what = "unsupported digest algorithm" if colon and algorithm != "sha256" else "invalid checksum digest format"
        raise self.statement.error(f"{what}: {checksum!r}", at=word, hint="write sha256:<64 hex digits>")


def refuse_variables(statement: Statement, word: Word, expand_word: Expand) -> None:
    """A stage's name may not hang on a variable: which stages are needed must be known before any is lowered."""
    if word.text != expand_word(word):
        raise statement.error(
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global "
            "scope as a workaround",
            at=word,
        )


def destination(dest: str, current: str) -> str:
    """The absolute path that ``dest`` means where ``current`` is the working directory. A trailing ``/`` (or ``/.``)
    says that it is a directory and stays a trailing ``/``; empty or ``.`` is the working directory itself.

    >>> destination("../b/.", "/a/c")
    '/a/b/'
    """
    path = posixpath.normpath("/" + posixpath.join(current, dest).lstrip("/"))
    as_directory = dest in ("", ".", "..") or dest.endswith(("/", "/.", "/.."))
    return path + "/" if as_directory and path != "/" else path


def _mark(statement: Statement, word: Word) -> str | None:
    with placed(statement.at(word)):
        mark = read_mark(word.text)
    return mark.name if mark and any(mark.name == heredoc.mark.name for heredoc in statement.heredocs) else None


def _spelled(source: Named) -> str:
    match source:
        case PathSource(pattern):
            return pattern
        case InlineSource(name):
            return f"<<{name}"
        case UrlSource(url):
            return masked(url)
        case GitSource(repository):
            return masked(repository)
