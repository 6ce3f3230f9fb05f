"""Git repositories as a recipe spells them: a URL, and behind it which commit and which folder is meant.

::

    https://host/name.git#ref:folder        the old form: a fragment
    https://host/name.git?tag=v1&subdir=x   the new one: a query; both may stand together if they agree
    git@host:name.git#ref                   as scp(1) and ssh have it
    git://host/name  ssh://git@host/name    any path; over HTTP it must end in .git
    github.com/owner/name                   only as a build context: in a recipe it is a local path
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from layerbuild.errors import RecipeError
from layerbuild.frozen import frozen

_SCHEME = re.compile(r"([a-zA-Z0-9]+)://", re.ASCII)
_SCHEMES = ("http", "https", "ssh", "git")
_SCP = re.compile(r"([A-Za-z0-9_-]+@[A-Za-z0-9.-]+:[^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.ASCII | re.DOTALL)
_SWITCHES = ("submodules", "keep-git-dir", "fetch-by-commit")
_TRUE: Final = ("1", "t", "T", "TRUE", "true", "True")  # Go's strconv.ParseBool
_FALSE: Final = ("0", "f", "F", "FALSE", "false", "False")
_TIMES = ("checkout", "commit")
_KNOWN = ("ref", "tag", "branch", "subdir", "checksum", "commit", "mtime", *_SWITCHES)


@frozen
class GitRef:
    """``remote`` is what git takes; ``name`` the repository's own. ``ref`` is a branch, tag or commit, empty: the
    default branch; ``subdir`` a folder in it; ``checksum`` the commit, or a prefix of it, that the ref must be. None in
    ``keep_git_dir`` and ``submodules``: not said. ``mtime`` is checkout or commit, empty: not said. ``like_local``: it
    could as well be a local path. ``unencrypted``: nothing protects the transport.
    """

    remote: str
    name: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool | None = None
    mtime: str = ""
    fetch_by_commit: bool = False
    like_local: bool = False
    unencrypted: bool = False


def read_git(source: str) -> GitRef | None:
    """The repository that ``source`` names, None if it names none; a RecipeError, without a place, for a query that
    is wrong.

    >>> read_git("https://h/r.git#v1:sub").subdir
    'sub'
    """
    if source.startswith(("./", "../")):
        return None
    if source.startswith("github.com/"):
        found = _from_url(f"https://{source}", any_path=True)
        return found and replace(found, remote=found.remote.removeprefix("https://"), like_local=True)
    if _SCHEME.match(source):
        return _from_url(source, any_path=False)
    scp = _SCP.fullmatch(source)
    return _complete(scp[1], scp[2] or "", scp[3] or "") if scp else None


def _from_url(source: str, *, any_path: bool) -> GitRef | None:
    url = _split(source)
    if url is None or url.scheme not in _SCHEMES:
        return None
    if url.scheme.startswith("http") and not any_path and not unquote(url.path).endswith(".git"):
        return None
    remote = url._replace(query="", fragment="").geturl()
    found = _complete(remote, url.query, unquote(url.fragment))
    return replace(found, unencrypted=url.scheme in ("http", "git"))


def _split(source: str) -> SplitResult | None:
    try:
        url = urlsplit(source)
        url.port  # noqa: B018  (reading it checks it)
    except ValueError:
        return None
    return url


def _complete(remote: str, query: str, fragment: str) -> GitRef:
    ref, _, subdir = fragment.partition(":")
    name = remote.rpartition("/")[2].removesuffix(".git")
    return _with_query(GitRef(remote, name, ref, subdir), query)


def _with_query(found: GitRef, query: str) -> GitRef:
    values = _values(query)
    if "tag" in values and "branch" in values:
        raise RecipeError("branch conflicts with tag", hint="keep one of the two")
    for key, prefix in (("ref", ""), ("tag", "refs/tags/"), ("branch", "refs/heads/")):
        if key in values:
            wanted = prefix + values[key].removeprefix(prefix)
            found = replace(found, ref=_agreeing("ref", found.ref, wanted))
    if "subdir" in values:
        found = replace(found, subdir=_agreeing("subdir", found.subdir, values["subdir"]))
    mtime = values.get("mtime", "")
    if mtime and mtime not in _TIMES:
        raise RecipeError(f'invalid mtime value: "{mtime}" (must be "checkout" or "commit")')
    return replace(
        found,
        checksum=values.get("checksum") or values.get("commit", ""),
        keep_git_dir=_switch(values, "keep-git-dir"),
        submodules=_switch(values, "submodules"),
        mtime=mtime,
        fetch_by_commit=_switch(values, "fetch-by-commit") is True,
    )


def _values(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, texts in parse_qs(query, keep_blank_values=True).items():
        if key not in _KNOWN:
            raise RecipeError(f'unexpected query "{key}"', hint=f"known are {', '.join(_KNOWN)}")
        if len(texts) > 1:
            raise RecipeError(f'query "{key}" has multiple values', hint="keep one of them")
        if not texts[0] and key not in _SWITCHES:
            raise RecipeError(f'query "{key}" has no value', hint=f"write {key}=VALUE")
        found[key] = texts[0]
    return found


def _switch(values: dict[str, str], key: str) -> bool | None:
    value = values.get(key)
    if value is None:
        return None
    if value and value not in (*_TRUE, *_FALSE):
        raise RecipeError(f'invalid {key} value: "{value}"', hint=f"write {key}, {key}=true or {key}=false")
    return not value or value in _TRUE


def _agreeing(what: str, one: str, other: str) -> str:
    if one and one != other:
        raise RecipeError(f'{what} conflicts: "{one}" vs "{other}"', hint="say it once")
    return other
