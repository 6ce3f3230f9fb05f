"""Git: which commit a ref means, and what git is let know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from loopback import EPOCH, Web, commit, git, publish

from layerbuild.build.credentials import Credentials
from layerbuild.build.repositories import Commit, Repositories, address, shown
from layerbuild.errors import SourceError
from layerbuild.recipe.git import GitRef, read_git

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "GIT_DIR": "/nowhere", "GIT_CONFIG_GLOBAL": "/nowhere"}


@pytest.fixture
def web(tmp_path: Path, program: Callable[[str], str]) -> Iterator[Web]:
    program("git")
    (tmp_path / "www").mkdir()
    with Web(tmp_path / "www") as web:
        yield web


def ref(text: str) -> GitRef:
    found = read_git(text)
    assert found is not None
    return found


def test_what_a_ref_means(web: Web, tmp_path: Path) -> None:
    work = tmp_path / "work"
    first = commit(work, {"f": "1"}, tag="v1")
    git(work, "tag", "light")
    git(work, "branch", "old")
    second = commit(work, {"f": "2"})
    git(work, "tag", "main")  # a branch comes before a tag of its name
    commit(work, {"f": "3"})
    git(work, "branch", "-f", "same", second)
    url = publish(work, web, "work")
    head = git(work, "rev-parse", "refs/heads/main")
    repositories = Repositories(ENVIRONMENT, Credentials())
    means = {
        "": head,
        "#main": head,
        "?tag=main": second,
        "#refs/tags/main": second,
        "#v1": first,
        "#light": first,
        "#old": first,
        f"#{first}": first,
        "?branch=same": second,
    }
    assert {text: repositories.commit(ref(url + text)).name for text in means} == means
    annotated = git(work, "rev-parse", "v1")
    for checksum in (first, first[:7], annotated):
        assert repositories.commit(ref(f"{url}#v1"), checksum=checksum).name == first
    with pytest.raises(SourceError, match=f"expected checksum to match {second[:7]}, got {first}"):
        repositories.commit(ref(f"{url}#v1"), checksum=second[:7])
    assert repositories.commit(ref(f"{url}?fetch-by-commit"), checksum=first).name == first
    assert repositories.commit(ref(f"{url}?commit={first}"), checksum=first).name == first
    with pytest.raises(SourceError, match=f"expected checksum to match {first[:7]}, got {head}"):
        repositories.commit(ref(f"{url}?commit={first[:7]}"), checksum=first[:7])
    with pytest.raises(SourceError, match=f"expected checksum to match {first}, got {head}"):
        repositories.commit(ref(url), checksum=first)
    assert repositories.commit(ref(url)).name == head


def test_a_ref_is_looked_up_once(web: Web, tmp_path: Path) -> None:
    commit(tmp_path / "work", {"f": "1"})
    url = publish(tmp_path / "work", web, "work")
    repositories = Repositories(ENVIRONMENT, Credentials())
    first = repositories.commit(ref(url))
    asked = len(web.asked)
    commit(tmp_path / "work", {"f": "2"})
    publish(tmp_path / "work", web, "work")
    assert repositories.commit(ref(url)) == first and len(web.asked) == asked


@pytest.mark.parametrize("keep", [False, True])
def test_a_checkout_depends_on_the_commit_alone(web: Web, tmp_path: Path, keep: bool) -> None:
    work = tmp_path / "work"
    commit(work, {"f": "text\n", "d/g": "", ".gitattributes": "f text eol=crlf\n"})
    git(work, "config", "core.autocrlf", "true")
    url = publish(work, web, "work")
    trees = []
    for number in range(2):
        repositories = Repositories({**ENVIRONMENT, "GIT_CONFIG_COUNT": "nonsense"}, Credentials())
        folder = tmp_path / f"out{number}"
        folder.mkdir()
        repositories.checkout(ref(url), repositories.commit(ref(url)), folder, keep_git_dir=keep)
        assert {int(path.lstat().st_mtime) for path in folder.rglob("*")} == {EPOCH}
        assert (folder / ".git").exists() is keep
        trees.append({path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")})
    assert trees[0] == trees[1]
    assert trees[0][Path("f")] == b"text\r\n", "the repository's own attributes do count"


def test_credentials_are_no_argument_and_stay_nowhere(web: Web, tmp_path: Path) -> None:
    commit(tmp_path / "work", {"f": "1"})
    publish(tmp_path / "work", web, "work")
    repositories = Repositories(ENVIRONMENT, Credentials())
    secret = ref(web.url("work.git", "me:hunter2"))
    (tmp_path / "out").mkdir()
    repositories.checkout(secret, repositories.commit(secret), tmp_path / "out", keep_git_dir=True)
    assert {asked.headers.get("authorization") for asked in web.asked} == {"Basic bWU6aHVudGVyMg=="}
    kept = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"hunter2" not in kept and b"bWU6aHVudGVyMg" not in kept and web.url("work.git").encode() in kept
    assert "hunter2" not in shown(secret)


def test_what_begins_with_a_dash_is_no_option(web: Web, tmp_path: Path) -> None:
    work = tmp_path / "work"
    commit(work, {"f": "1"})
    url = publish(work, web, "work")
    seen = tmp_path / "seen"
    repositories = Repositories(ENVIRONMENT, Credentials())
    with pytest.raises(SourceError, match="does not contain ref --upload-pack=touch"):
        repositories.commit(ref(f"{url}#--upload-pack=touch {seen};"))
    # git would take this address for an option, and the ref behind it for the repository.
    with pytest.raises(SourceError, match="strange hostname '-o@h' blocked"):
        repositories.commit(ref(f"-o@h:x#{url}"))
    (tmp_path / "new").mkdir()
    with pytest.raises(SourceError, match="strange hostname '-o@h' blocked"):
        repositories.checkout(ref("-o@h:x"), Commit("1" * 40), tmp_path / "new", keep_git_dir=False)
    assert not seen.exists()


def test_addresses() -> None:
    assert address(ref("github.com/a/b#x")) == "https://github.com/a/b"
    assert address(ref("git@host:a/b.git")) == "git@host:a/b.git"
    assert shown(replace(ref("ssh://git@host/a"), ref="x", subdir="y")) == "ssh://git@host/a#x:y"


def test_submodules_of_this_machine_are_refused(web: Web, tmp_path: Path) -> None:
    work = tmp_path / "work"
    head = commit(tmp_path / "private", {"secret": "1"})
    commit(work, {".gitmodules": f'[submodule "s"]\n\tpath = s\n\turl = file://{tmp_path}/private\n'})
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{head},s")
    git(work, "commit", "--quiet", "-m", "s")
    url = publish(work, web, "work")
    (tmp_path / "out").mkdir()
    repositories = Repositories(ENVIRONMENT, Credentials())
    with pytest.raises(SourceError, match="transport 'file' not allowed"):
        repositories.checkout(ref(url), repositories.commit(ref(url)), tmp_path / "out", keep_git_dir=False)
