"""Recipes, contexts and ADD sources that come from elsewhere: URLs, repositories, archives, standard input, named
contexts. SEMANTICS C31 to C39, S16, I1 to I8, K7."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import pytest
from loopback import EPOCH, Asked, Reply, Web, commit, git, publish, ssh_server
from support import Layerbuild, missing

pytestmark = pytest.mark.memory


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    (tmp_path / "www").mkdir()
    with Web(tmp_path / "www") as web:
        yield web


@pytest.fixture
def needs_git(program: Callable[[str], str]) -> None:
    program("git")


def tar_of(files: Mapping[str, str], *, mtime: int = 0) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), mtime
            tar.addfile(member, io.BytesIO(content.encode()))
    return out.getvalue()


def fill(folder: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def files_of(layerbuild: Layerbuild, image: str, context: Path) -> dict[str, tarfile.TarInfo]:
    """The members of what ``image`` holds, by name."""
    out = context.parent / f"{context.name}.out.tar"
    data = layerbuild.start("build", "-o", "type=tar,dest=-", "-", stdin=-1, stdout=-1, stderr=-1)
    out.write_bytes(data.communicate(f"FROM {image}\n".encode())[0])
    with tarfile.open(out) as tar:
        members = {member.name: member for member in tar}
    out.unlink()
    return members


# -- ADD https://… -----------------------------------------------------------------------------------------------------


def test_add_a_url(layerbuild: Layerbuild, web: Web, context: Path) -> None:
    web.put("dir/tool.bin", "content", modified=1000)
    url = web.url("dir/tool.bin")
    recipe = f"FROM busybox\nADD {url}?x=1 /bin/\nADD --chmod=755 --chown=1:2 {url} /t\n"
    layerbuild.build(context, recipe + "RUN [ $(cat /bin/tool.bin) = content ]\n", "-t", "made", "--timestamp", "keep")
    found = files_of(layerbuild, "made", context)
    assert (found["bin/tool.bin"].mode, found["bin/tool.bin"].mtime) == (0o600, 1000)
    assert (found["bin/tool.bin"].uid, found["bin/tool.bin"].gid) == (0, 0)
    assert (found["t"].mode, found["t"].uid, found["t"].gid) == (0o755, 1, 2)


def test_an_unchanged_url_is_a_hit_and_no_download(layerbuild: Layerbuild, web: Web, context: Path) -> None:
    url = web.put("file", "one", modified=7)
    recipe = f"FROM busybox\nADD {url} /file\nRUN echo ran-after\n"
    layerbuild.build(context, recipe)
    assert layerbuild.build(context).count("cached") == 2
    assert layerbuild.json("plan", context)["steps"][0]["cache"] == "hit"
    assert [bool(asked.headers.get("if-none-match")) for asked in web.asked] == [False, True, True]
    web.put("file", "two", modified=7)
    assert "| ran-after" in layerbuild.build(context)
    again = layerbuild.json("plan", context)["steps"][0]
    assert again["cache"] == "hit" and again["makes"] == "layer"


def test_no_cache_uses_what_was_downloaded(rooted: Layerbuild, web: Web, context: Path) -> None:
    rooted.build(context, f"FROM scratch\nADD {web.put('file', 'one')} /file\n")
    rooted.build(context, None, "--no-cache")
    assert web.asked[1].headers["if-none-match"]


def test_a_checksum_needs_no_server(rooted: Layerbuild, web: Web, context: Path) -> None:
    digest = "sha256:" + hashlib.sha256(b"content1").hexdigest()
    url = web.put("foo", "content1")
    recipe = f"FROM scratch\nARG D={digest}\nADD --checksum=$D {url} /tmp/foo\n"
    rooted.build(context, recipe)
    rooted.build(context)
    assert web.paths == ["/foo"]
    wrong = recipe.replace(digest, "sha256:" + "0" * 64)
    assert f"Dockerfile:3:1: digest mismatch for {url}: it has {digest}" in rooted.build(context, wrong, code=1)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("--checksum=md5:7e55db001d319a94b0b713529a756623 URL", "unsupported digest algorithm"),
        ("--checksum=d0b425e00e15a0d36b9b361f02bab63563aed6cb URL", "invalid checksum digest format"),
        ("--checksum=sha256:00 foo", "checksum requires HTTP(S) or Git sources"),
    ],
)
def test_bad_checksums(rooted: Layerbuild, context: Path, source: str, says: str) -> None:
    recipe = f"FROM scratch\nADD {source.replace('URL', 'http://127.0.0.1:1/x')} /x\n"
    assert says in rooted.build(context, recipe, code=3)


def test_a_failing_server_is_told_with_its_place(rooted: Layerbuild, web: Web, context: Path) -> None:
    said = rooted.build(context, f"FROM scratch\n\nADD {web.url('gone')} /x\n", code=1)
    assert f"Dockerfile:3:1: can't fetch {web.url('gone')}: the server answered 404 Not Found" in said
    assert f"Dockerfile:3:1: can't fetch {web.url('gone')}" in rooted.run("plan", context, code=1).stderr


def test_archives_behind_urls_are_unpacked_on_demand(layerbuild: Layerbuild, web: Web, context: Path) -> None:
    url = web.put("a.tgz", gzip.compress(tar_of({"d/f": "inside"})))
    recipe = f"FROM busybox\nADD {url} /kept/\nADD --unpack=true {url} /open\nRUN [ -f /kept/a.tgz ] && cat /open/d/f\n"
    assert "| inside" in layerbuild.build(context, recipe)


def test_credentials_stay_out_of_sight(rooted: Layerbuild, web: Web, context: Path) -> None:
    def reply(asked: object) -> Reply:
        return Reply(b"secret file") if web.asked[-1].headers.get("authorization") else Reply(b"", 401)

    web.pages["/file"] = reply
    url = web.url("file", "me:hunter2")
    said = rooted.build(
        context, f"FROM scratch\nARG U={url}\nADD {url} /a\nADD $U /b\n", "-t", "made", "--progress=rawjson"
    )
    layers = rooted("layers", "--no-trunc", "made") + rooted("history", "--no-trunc", "made")
    for text in (said, layers, rooted("plan", context)):
        # What an ARG says is its writer's affair: only what ADD fetches is masked.
        assert "hunter2" not in "\n".join(line for line in text.splitlines() if "ARG" not in line)
    assert "ADD http://xxxxx:xxxxx@" in layers
    web.pages["/file"] = Reply(b"", 404)
    assert "hunter2" not in rooted.build(context, f"FROM scratch\nADD {url} /a\n", code=1)


def test_proxies_of_the_environment_are_used(rooted: Layerbuild, web: Web, context: Path) -> None:
    web.pages["http://far.example/file"] = Reply(b"by proxy")
    recipe = "FROM busybox\nADD http://far.example/file /f\nRUN cat /f\n"
    (context / "Dockerfile").write_text(recipe)
    said = rooted.run("build", context, env={"http_proxy": web.url("")}).stderr
    assert "| by proxy" in said


# -- ADD git ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("needs_git")
def test_add_a_repository(layerbuild: Layerbuild, web: Web, context: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    first = commit(work, {"f": "one", "dir/g": "deep"}, tag="v1")
    commit(work, {"f": "two"})
    url = publish(work, web, "work")
    recipe = f"""\
FROM busybox
ADD {url} /head
ADD {url}#v1 /tag
ADD {url}#{first}:dir /commit
ADD --keep-git-dir {url}?branch=main /kept
RUN cat /head/f /tag/f /commit/g && [ -d /kept/.git ] && [ ! -e /head/.git ] && [ ! -e /commit/f ]
"""
    said = layerbuild.build(context, recipe, "-t", "made", "--timestamp", "keep")
    assert "| twoonedeep" in said
    found = files_of(layerbuild, "made", context)
    assert {found[name].mtime for name in ("head/f", "tag/dir", "kept/f")} == {EPOCH}
    assert (found["head/f"].uid, found["head/f"].mode) == (0, 0o644)


@pytest.mark.usefixtures("needs_git")
def test_a_repository_is_known_by_its_commit(rooted: Layerbuild, web: Web, context: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    head = commit(work, {"f": "one"})
    url = publish(work, web, "work")
    (context / "Dockerfile").write_text(f"FROM scratch\nADD --keep-git-dir {url} /r\n")
    first = rooted("build", context)
    before = len(web.asked)
    assert rooted.build(context).count("cached") == 1
    assert len(web.asked) - before <= 2, "the commit is asked for, and nothing else"
    assert rooted("build", "--no-cache", context) == first, "even .git is the same"
    rooted.build(context, f"FROM scratch\nADD --checksum={head[:12]} {url} /r\n")
    commit(work, {"f": "two"})
    publish(work, web, "work")
    told = rooted("explain", "--plan", context, "-f", _added(context, url))
    assert f"commit of {url} {head[:12]} → " in told
    said = rooted.build(context, code=1)
    assert f"digest mismatch for {url}: expected checksum to match {head[:12]}" in said


def _added(context: Path, url: str) -> Path:
    """The recipe that adds the whole repository, as it was built first."""
    recipe = context / "Dockerfile.first"
    recipe.write_text(f"FROM scratch\nADD --keep-git-dir {url} /r\n")
    return recipe


@pytest.mark.usefixtures("needs_git")
def test_submodules(rooted: Layerbuild, web: Web, context: Path, tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    head = commit(inner, {"i": "inner"})
    url = publish(inner, web, "inner")
    commit(outer, {".gitmodules": f'[submodule "sub"]\n\tpath = sub\n\turl = {url}\n'})
    git(outer, "update-index", "--add", "--cacheinfo", f"160000,{head},sub")
    git(outer, "commit", "--quiet", "-m", "sub")
    url = publish(outer, web, "outer")
    recipe = f"FROM busybox\nADD {url} /w\nADD {url}?submodules=false /n\nRUN cat /w/sub/i; ls -A /w/sub /n/sub\n"
    said = rooted.build(context, recipe)
    assert "| inner" in said and "| .git" not in said


@pytest.mark.usefixtures("needs_git")
def test_a_submodule_of_this_machine_is_refused(rooted: Layerbuild, web: Web, context: Path, tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    head = commit(inner, {"i": "inner"})
    commit(outer, {".gitmodules": f'[submodule "sub"]\n\tpath = sub\n\turl = file://{inner}\n'})
    git(outer, "update-index", "--add", "--cacheinfo", f"160000,{head},sub")
    git(outer, "commit", "--quiet", "-m", "sub")
    said = rooted.build(context, f"FROM scratch\nADD {publish(outer, web, 'outer')} /w\n", code=1)
    assert "transport 'file' not allowed" in said


@pytest.mark.usefixtures("needs_git")
def test_what_a_repository_lacks(rooted: Layerbuild, web: Web, context: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    commit(work, {"f": "one"})
    (work / "out").symlink_to("/etc")
    commit(work, {})
    url = publish(work, web, "work")
    for ref, says in (
        ("#nope", f"repository {url} does not contain ref nope"),
        ("#:nope", f"repository {url}#:nope has no folder 'nope'"),
        ("#:f", f"repository {url}#:f has no folder 'f'"),
        ("#:out", f"repository {url}#:out has no folder 'out'"),
        (f"#{'0' * 40}", f"can't fetch {url}#{'0' * 40}: "),
    ):
        said = rooted.build(context, f"FROM scratch\nADD {url}{ref} /x\n", code=1)
        assert f"Dockerfile:2:1: {says}" in said
    said = rooted.build(context, f"FROM scratch\nADD {web.url('none.git', 'u:hunter2')} /x\n", code=1)
    assert "git ls-remote of http://xxxxx:xxxxx@" in said and "hunter2" not in said


@pytest.mark.usefixtures("needs_git")
def test_tokens_for_git(rooted: Layerbuild, web: Web, context: Path, tmp_path: Path) -> None:
    commit(tmp_path / "work", {"f": "guarded", "Dockerfile": "FROM busybox\nCOPY f /\nRUN cat /f\n"})
    url = publish(tmp_path / "work", web, "work")
    token = "hunter2-token"

    def guarded(asked: Asked) -> Reply:
        file = web.folder / asked.path.partition("?")[0].lstrip("/")
        if asked.headers.get("authorization", "").lower() not in allowed:
            return Reply(b"", 401)
        return Reply(file.read_bytes()) if file.is_file() else Reply(b"", 404)

    allowed = [f"basic {b64encode(f'x-access-token:{token}'.encode()).decode()}".lower(), "bearer whole"]
    web.guard = guarded
    (context / "Dockerfile").write_text(f"FROM busybox\nADD {url} /r\nRUN cat /r/f\n")
    said = rooted.run("build", context, code=1).stderr
    assert "could not read Username" in said and "--secret id=GIT_AUTH_TOKEN" in said
    for number, (name, value) in enumerate(
        [
            ("GIT_AUTH_TOKEN", f"{token}\n"),
            (f"GIT_AUTH_TOKEN.{web.host}", token),
            ("GIT_AUTH_HEADER", "Bearer whole"),
        ]
    ):
        secret = ("--secret", f"id={name},env=GIVEN")
        options = (*secret, "--build-arg", f"N={number}", "--no-cache", "--progress=rawjson")
        said = rooted.run("build", *options, context, env={"GIVEN": value}).stderr
        assert "guarded" in said and token not in said
        assert "guarded" in rooted.run("build", *secret, url, "--no-cache", env={"GIVEN": value}).stderr
        assert rooted.run("plan", *secret, context, env={"GIVEN": value}).stdout
    wrong = ("--secret", f"id=GIT_AUTH_TOKEN.{web.host},env=GIVEN", "--secret", "id=GIT_AUTH_TOKEN,env=OTHER")
    given = {"GIVEN": "wrong", "OTHER": token}
    assert "failed" in rooted.run("build", *wrong, url, env=given, code=1).stderr, "the host's own comes first"
    kept = [path for path in rooted.root.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert kept == []


@pytest.mark.usefixtures("needs_git")
def test_a_repository_over_ssh(
    layerbuild: Layerbuild, context: Path, tmp_path: Path, program: Callable[[str], str]
) -> None:
    if os.geteuid() != 0:
        missing("not run as root: only root can let root in")
    key = context / "key"
    keygen = (program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key)
    subprocess.run(keygen, check=True, stdin=subprocess.DEVNULL)
    key.chmod(0o644)  # whoever builds reads it
    commit(tmp_path / "work", {"f": "by ssh", "Dockerfile": "FROM busybox\nCOPY f /\nRUN cat /f\n"}, tag="v1")
    (home := context / "home").mkdir()
    (home / ".ssh").mkdir()
    home.chmod(0o755)
    (home / ".ssh").chmod(0o777)
    (tmp_path / "ssh").mkdir()
    with ssh_server(program, tmp_path / "ssh", lets_in=context / "key.pub") as port:
        url = f"ssh://root@127.0.0.1:{port}{tmp_path}/work"
        (context / "Dockerfile").write_text(f"FROM busybox\nADD {url}#v1 /r\nRUN cat /r/f\n")
        lent = ("--ssh", f"default={key}")
        env = {"HOME": str(home), "SSH_AUTH_SOCK": ""}
        said = layerbuild.run("build", context, env=env, code=1).stderr
        assert f"git ls-remote of {url} failed" in said and "Permission denied (publickey)" in said
        assert "| by ssh" in layerbuild.run("build", *lent, context, env=env).stderr
        assert "| by ssh" in layerbuild.run("build", *lent, f"{url}#v1", env=env).stderr
        host_key = (tmp_path / "ssh/host.pub").read_text().split()[1]
        assert host_key in (home / ".ssh/known_hosts").read_text(), "a server is remembered"
        (home / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{port} {(context / 'key.pub').read_text()}")
        said = layerbuild.run("build", *lent, "--no-cache", context, env=env, code=1).stderr
        assert "Host key verification failed" in said, "and may not become another one"


def test_without_git(rooted: Layerbuild, context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nADD https://127.0.0.1:1/x.git /x\n")
    said = rooted.run("build", context, env={"PATH": str(tmp_path)}, code=77).stderr
    assert "Dockerfile:2:1: a git repository needs the program git" in said and "apt-get install git" in said


# -- contexts ----------------------------------------------------------------------------------------------------------

PROJECT = {
    "Dockerfile": "FROM busybox\nCOPY . /x\nRUN cd /x && ls -A\n",
    ".dockerignore": "*.log\n",
    "a.txt": "a",
    "b.log": "b",
    "other/Dockerfile": "FROM busybox\nRUN echo the-other-one\n",
}


def test_one_context_in_many_forms_is_one_image(layerbuild: Layerbuild, web: Web, context: Path) -> None:
    data = tar_of(PROJECT)
    (context / "context.tar").write_bytes(data)
    folder = fill(context / "folder", PROJECT)
    images = {
        layerbuild("build", folder),
        layerbuild("build", context / "context.tar"),
        layerbuild("build", "-", stdin=gzip.compress(data)),
        layerbuild("build", web.put("context.tar", data)),
        layerbuild("build", "-f", "-", folder, stdin=PROJECT["Dockerfile"].encode()),
    }
    assert len(images) == 1
    assert not list((layerbuild.root / "tmp").iterdir())


@pytest.mark.usefixtures("needs_git")
def test_a_git_context(layerbuild: Layerbuild, web: Web, context: Path, tmp_path: Path) -> None:
    commit(tmp_path / "work", PROJECT, tag="v1")
    commit(tmp_path / "work", {"Dockerfile": "nonsense"})
    url = publish(tmp_path / "work", web, "work")
    assert layerbuild("build", f"{url}#v1") == layerbuild("build", fill(context / "folder", PROJECT))
    assert "| the-other-one" in layerbuild.run("build", f"{url}#v1:other").stderr
    assert "RUN echo the-other-one" in layerbuild.run("build", "-f", "other/Dockerfile", f"{url}#v1").stderr
    assert f"{url}#main:Dockerfile:1:1: unknown instruction" in layerbuild.run("build", f"{url}#main", code=3).stderr
    kept = layerbuild.run("build", "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", f"{url}#v1").stderr
    assert "| .git\n" in kept
    assert not list((layerbuild.root / "tmp").iterdir())


def test_a_recipe_alone(layerbuild: Layerbuild, web: Web) -> None:
    recipe = "FROM busybox\nCOPY . /empty\nRUN ls -A /empty | wc -l; exit 3\n"
    for words, stdin in ((("-",), recipe.encode()), ((web.put("Dockerfile.txt", recipe),), b"")):
        done = layerbuild.run("build", *words, stdin=stdin, code=1)
        assert "| 0" in done.stderr and ":3:1: process" in done.stderr


@pytest.mark.parametrize(
    ("words", "stdin", "code", "says"),
    [
        (("-",), b"", 2, "nothing came in on standard input"),
        (("-f", "-", "-"), b"FROM scratch\n", 2, "can't be both the context and the recipe"),
        (("-f", "https://h/Dockerfile", "."), b"", 2, "-f takes a file, and no URL"),
        (("-f", "other", "-"), b"FROM scratch\n", 2, "stdin is itself a recipe"),
        (("-",), gzip.compress(b"FROM scratch\n", mtime=0), 1, "stdin is neither a tar nor a recipe"),
        (("-",), tar_of({"x": ""}), 3, "stdin has no recipe Dockerfile"),
        (("nowhere",), b"", 2, "the context 'nowhere' is not a folder"),
        (("https://h/x.git?nope=1",), b"", 2, 'unexpected query "nope"'),
        (("http://127.0.0.1:1/x",), b"", 1, "can't fetch http://127.0.0.1:1/x"),
    ],
)
def test_contexts_that_are_none(rooted: Layerbuild, words: tuple[str, ...], stdin: bytes, code: int, says: str) -> None:
    done = rooted.run("build", *words, stdin=stdin, code=code)
    assert says in done.stderr
    assert not list((rooted.root / "tmp").iterdir())


def test_an_archive_leads_nowhere_outside(rooted: Layerbuild, context: Path) -> None:
    (context / "secret").write_text("FROM nosuch-secret\n")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("Dockerfile", ".dockerignore"):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, f"{context}/secret"
            tar.addfile(member)
    assert "stdin has no recipe Dockerfile" in rooted.run("build", "-", stdin=out.getvalue(), code=3).stderr


@pytest.mark.parametrize("target", ["../outside/Dockerfile", "{outside}/Dockerfile", "../../../outside/Dockerfile"])
@pytest.mark.parametrize("named", [False, True])
def test_a_recipe_that_is_a_link_leads_nowhere_outside(
    rooted: Layerbuild, context: Path, tmp_path: Path, target: str, named: bool
) -> None:
    outside = fill(tmp_path / "outside", {"Dockerfile": "nosuch-secret\n"})
    (context / "Dockerfile").symlink_to(target.format(outside=outside))
    words = ("-f", context / "Dockerfile") if named else ()
    for command in ("build", "plan", "lint"):
        said = rooted.run(command, *words, context, code=3).stderr
        assert "a link of the context leads nowhere outside it" in said and "secret" not in said


@pytest.mark.parametrize(("link", "target"), [("Dockerfile", "/sub/real"), ("other/Dockerfile", "../../../sub/real")])
def test_a_recipe_that_is_a_link_inside_the_context(rooted: Layerbuild, context: Path, link: str, target: str) -> None:
    """The ignore file is that of the name, not of what it leads to."""
    files = {
        "sub/real": "FROM scratch\nCOPY a /\n",
        "a": "",
        f"{link}.dockerignore": "a\n",
        "sub/real.dockerignore": "",
    }
    fill(context, files)
    (context / link).symlink_to(target)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(context, arcname=".")
    for words in (("-f", context / link, context), ("-f", link, "-")):
        said = rooted.run("build", *words, stdin=packed.getvalue(), code=1).stderr
        assert "Dockerfile.dockerignore line 1 (`a`) leaves it out" in said


# -- named contexts (S16, I8) ------------------------------------------------------------------------------------------


def test_a_folder_in_place_of_a_stage_and_of_a_source(layerbuild: Layerbuild, context: Path) -> None:
    fill(context / "lib", {"f": "from the folder", "g.log": "", ".dockerignore": "*.log\n.dockerignore\n"})
    recipe = """\
FROM busybox AS lib
RUN exit 9
FROM busybox
COPY --from=lib . /copied
COPY --from=src f /f
RUN ls -A /copied; cat /f
"""
    said = layerbuild.build(
        context, recipe, "--build-context", f"lib={context}/lib", "--build-context", f"SRC={context}/lib"
    )
    assert "       | f\n       | from the folder" in said and "g.log" not in said


def test_from_a_folder(layerbuild: Layerbuild, context: Path) -> None:
    fill(context / "root", {"etc/motd": "hello"})
    said = layerbuild.build(
        context, "FROM tree\nCOPY Dockerfile /\n", "-t", "made", "--build-context", f"tree={context}/root"
    )
    assert "FROM tree" in said
    assert layerbuild.layers("made")[0]["instruction"].startswith("FROM tree # files")
    assert layerbuild.names("made", 0) == ["etc/", "etc/motd"]


@pytest.mark.parametrize("value", ["docker-image://busybox", "busybox", "docker.io/library/busybox:latest"])
def test_an_image_in_place_of_another(layerbuild: Layerbuild, context: Path, value: str) -> None:
    recipe = "FROM docker.io/library/nosuch\nRUN [ -x /bin/busybox ]\nCOPY --from=nosuch:latest /etc/group /g\n"
    layerbuild.build(context, recipe, "-t", "made", "--build-context", f"nosuch={value}")
    assert [row["instruction"] for row in layerbuild.layers("made")][1:] == ["COPY /etc/group /g # buildkit"]


def test_a_stage_called_like_a_context_loses_its_instructions(layerbuild: Layerbuild, context: Path) -> None:
    recipe = "FROM nosuch AS parent\nFROM parent AS base\nRUN exit 9\nFROM base\nRUN [ -x /bin/busybox ]\n"
    layerbuild.build(context, recipe, "--build-context", "base=docker-image://busybox")


def test_scratch_as_a_context_and_in_place_of_an_image(rooted: Layerbuild, context: Path) -> None:
    rooted.build(
        context, "FROM nosuch\nCOPY Dockerfile /\n", "-t", "a", "--build-context", "nosuch=docker-image://scratch"
    )
    assert len(rooted.layers("a")) == 1
    said = rooted.build(context, "FROM scratch\nCOPY Dockerfile /\n", "-t", "b", "--build-context", "scratch=busybox")
    assert len(rooted.layers("b")) == 1 and "scratch keeps its meaning" in said


def test_an_oci_layout(layerbuild: Layerbuild, context: Path) -> None:
    layout = context.parent / f"{context.name}-layout"
    layerbuild.build(context, "FROM busybox\nENV WHO=layout\n", "-t", "made:v1")
    process = layerbuild.start("build", "-t", "made:v1", "-o", "type=oci,dest=-", context, stdout=-1, stderr=-1)
    layout.write_bytes(process.communicate()[0])
    with tarfile.open(layout) as tar:
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
    layerbuild("rmi", "made:v1")
    digest = index["manifests"][0]["digest"]
    (context / "Dockerfile").write_text("FROM other\nARG N\nRUN echo who=$WHO\n")
    for number, form in enumerate(("", ":v1", f":v1@{digest}", f"@{digest}")):
        named = ("--build-context", f"other=oci-layout://{layout}{form}")
        said = layerbuild.run("build", *named, "--build-arg", f"N={number}", context).stderr
        assert "| who=layout" in said
    assert "made" not in layerbuild("images"), "the layout's names stay in it"
    assert "hit" in layerbuild.run("plan", *named, "--build-arg", f"N={number}", context).stdout
    layout.unlink()


def test_archives_and_urls_as_named_contexts(layerbuild: Layerbuild, web: Web, context: Path) -> None:
    data = tar_of({"f": "packed", "x.log": "", ".dockerignore": "*.log"})
    (context / "c.tgz").write_bytes(gzip.compress(data))
    recipe = "FROM busybox\nCOPY --from=one f /1\nCOPY --from=two . /2\nRUN cat /1; ls /2\n"
    contexts = ("--build-context", f"one={context}/c.tgz", "--build-context", f"two={web.put('c.tar', data)}")
    assert "| packedf\n" in layerbuild.build(context, recipe, *contexts)


@pytest.mark.parametrize(
    ("value", "code", "says"),
    [
        ("x", 2, "is not NAME=WHAT"),
        ("x=./nowhere", 2, "the context './nowhere' is not a folder"),
        ("x=nowhere/", 2, "the context 'nowhere/' is not a folder"),
        ("unused=nowhere/", 2, "the context 'nowhere/' is not a folder"),
        ("x=oci-layout:///nowhere", 1, "there is no file /nowhere"),
        ("x=docker-image://nosuch", 69, "base image 'nosuch' is not in the store"),
        ("x=/etc/passwd", 2, "is no tar, so the context x has no files"),
    ],
)
def test_named_contexts_that_are_none(rooted: Layerbuild, context: Path, value: str, code: int, says: str) -> None:
    assert says in rooted.build(context, "FROM x\n", "--build-context", value, code=code)


# -- SOURCE_DATE_EPOCH that names a source (E1) ------------------------------------------------------------------------


def created(layerbuild: Layerbuild, context: object, *words: object, stdin: bytes = b"") -> str:
    """When the image of ``context`` was made, in seconds since 1970."""
    layerbuild.run("build", "-t", "dated", *words, context, stdin=stdin)
    return created_at(layerbuild)


def created_at(layerbuild: Layerbuild) -> str:
    said = json.loads(layerbuild("inspect", "dated"))[0]["Created"]
    return str(int(datetime.fromisoformat(said).timestamp()))


@pytest.mark.usefixtures("needs_git")
def test_an_epoch_of_a_stage(rooted: Layerbuild, web: Web, context: Path, tmp_path: Path) -> None:
    commit(tmp_path / "work", {"f": "one"})
    dated = {
        web.put("file", "one", modified=77): "77",
        web.put("undated.tar", gzip.compress(tar_of({"a": ""}, mtime=55)), etag=False): "55",
        publish(tmp_path / "work", web, "work"): str(EPOCH),
        web.put("undated", "two"): "9",  # nobody knows, so the environment's counts
    }
    for url, seconds in dated.items():
        (context / "Dockerfile").write_text(
            f"ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nARG U={url}\nADD $U /\n"
            "FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN echo told=$SOURCE_DATE_EPOCH\n"
        )
        done = rooted.run("build", "-t", "dated", context, env={"SOURCE_DATE_EPOCH": "9"})
        assert f"| told={seconds}\n" in done.stderr
        assert created_at(rooted) == seconds


def test_an_epoch_of_a_stage_that_is_not_there(rooted: Layerbuild, web: Web, context: Path) -> None:
    recipe = f"FROM scratch AS src\nADD {web.url('gone')} /\nFROM busybox\nRUN true\n"
    said = rooted.build(context, recipe, "--build-arg", "SOURCE_DATE_EPOCH=src", code=1)
    assert f"can't fetch {web.url('gone')}: the server answered 404" in said


@pytest.mark.usefixtures("needs_git")
def test_an_epoch_of_a_context(rooted: Layerbuild, web: Web, context: Path, tmp_path: Path) -> None:
    files = {"Dockerfile": "ARG SOURCE_DATE_EPOCH=context\nFROM busybox\nRUN touch /x\n"}
    commit(tmp_path / "work", files)
    repository = publish(tmp_path / "work", web, "work")
    packed = tar_of(files, mtime=33)
    assert created(rooted, repository) == str(EPOCH)
    assert created(rooted, web.put("c.tar", packed, modified=44)) == "44"
    assert created(rooted, web.put("d.tar", packed)) == "33"
    assert created(rooted, "-", stdin=packed) == "33"
    folder = fill(context / "c", files)
    assert created(rooted, folder) == "315532800", "a folder does not say"
    words = ("--build-arg", "SOURCE_DATE_EPOCH=src", "--build-context")
    assert created(rooted, folder, *words, f"src={repository}") == str(EPOCH)
    assert created(rooted, folder, *words, f"src::linux/{_ours(rooted)}={web.url('d.tar')}") == "33"
    assert created(rooted, folder, *words, "src=docker-image://busybox") == "315532800", "nor does an image"


def _ours(layerbuild: Layerbuild) -> str:
    return str(json.loads(layerbuild("inspect", "busybox"))[0]["Architecture"])


# -- layerbuild context ------------------------------------------------------------------------------------------------


def test_the_context_is_listed(layerbuild: Layerbuild, context: Path) -> None:
    fill(context, {**PROJECT, "dir/keep.log": "kept", "dir/no.log": ""})
    (context / ".dockerignore").write_text("\ufeff# logs\n*.log\ndir\n!dir/keep.log\n")
    (context / "link").symlink_to("a.txt")
    listed = layerbuild.json("context", context)
    paths = {entry["path"]: (entry["kind"], entry["size"]) for entry in listed["entries"]}
    assert paths["dir/keep.log"] == ("file", 4) and paths["link"][1] == 0
    assert "dir" in paths and "b.log" not in paths and "dir/no.log" not in paths
    assert listed["files"] == len([kind for kind, _ in paths.values() if kind == "file"])
    assert listed["bytes"] == sum(size for _, size in paths.values())
    assert "3 patterns in the ignore file" in layerbuild("context", context)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("a.txt", "a.txt: sent; nothing hides it"),
        ("b.log", "b.log: left out by .dockerignore line 2 (`*.log`)"),
        ("/dir/no.log", "dir/no.log: left out by .dockerignore line 3 (`dir`)"),
        ("./dir/keep.log", "dir/keep.log: sent; .dockerignore line 4 (`!dir/keep.log`) takes it back in"),
        (
            "dir",
            "dir: sent, though .dockerignore line 3 (`dir`) matches it: it leads to what another line takes back in",
        ),
        ("to/keep.log", "to/keep.log: sent; nothing hides it"),
        ("absent", "absent: not in the context's folder"),
        ("absent.log", "absent.log: not in the context's folder; .dockerignore line 2 (`*.log`) would leave it out"),
    ],
)
def test_why(rooted: Layerbuild, context: Path, path: str, says: str) -> None:
    fill(context, {**PROJECT, "dir/keep.log": "kept", "dir/no.log": ""})
    (context / "to").symlink_to("dir")
    (context / ".dockerignore").write_text("# logs\n*.log\ndir\n!dir/keep.log\n")
    assert rooted("context", context, "--why", path) == f"{says}\n"


def test_the_recipes_own_ignore_file_comes_first(rooted: Layerbuild, context: Path) -> None:
    fill(context, {**PROJECT, "my.Dockerfile": "FROM busybox\n", "my.Dockerfile.dockerignore": "a.txt\n"})
    assert "my.Dockerfile.dockerignore line 1" in rooted(
        "context", context, "-f", context / "my.Dockerfile", "--why", "a.txt"
    )
    assert "nothing hides it" in rooted("context", context, "-f", context / "my.Dockerfile", "--why", "b.log")


def test_looking_at_a_folder_makes_no_store(rooted: Layerbuild, context: Path, tmp_path: Path) -> None:
    alone = Layerbuild(tmp_path / "none")
    fill(context, PROJECT)
    assert "a.txt" in alone("context", context)
    assert not alone.root.exists()


def test_a_bad_pattern_is_told_with_its_place(rooted: Layerbuild, context: Path) -> None:
    (context / ".dockerignore").write_text("ok\n[a\n")
    for words in (("build",), ("context",)):
        (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
        assert ".dockerignore:2:1: syntax error in pattern: [a" in rooted.run(*words, context, code=3).stderr


def test_sockets_and_modes_of_the_list(rooted: Layerbuild, context: Path) -> None:
    os.mkfifo(context / "pipe")
    assert stat.S_ISFIFO((context / "pipe").stat().st_mode)
    (entry,) = rooted.json("context", context)["entries"]
    assert entry["path"] == "pipe" and entry["size"] == 0
