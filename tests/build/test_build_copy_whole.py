"""COPY and ADD through the command line: stages, images, archives, accounts of the image, and errors."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from support import Layerbuild

pytestmark = pytest.mark.forked


def archive(path: Path, *members: tuple[str, bytes, str]) -> None:
    """A tar of (name, type, link target or content)."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, kind, text in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid = kind, 0o755 if kind == tarfile.DIRTYPE else 0o640, 7
            data = text.encode() if kind == tarfile.REGTYPE else b""
            member.size, member.linkname = len(data), "" if data else text
            tar.addfile(member, io.BytesIO(data))


def test_from_stages_and_images(layerbuild: Layerbuild, context: Path) -> None:
    recipe = """\
FROM busybox AS first
WORKDIR /made/here
RUN echo one > file && ln -s file link && ln file again && mkdir -m 700 folder && chown -h 0:0 link
FROM scratch
COPY --from=0 made/here /by-number
COPY --from=FIRST /made/here/link /made/here/f* /by-name/
COPY --from=busybox /bin/busybox /bin/sh
COPY --from=busybox etc /etc
RUN ["/bin/sh", "-c", "cat /by-number/again /by-name/link"]
"""
    assert layerbuild.build(context, recipe, "-t", "it").count("| one") == 2
    assert layerbuild.names("it", 0) == [
        "by-number/",
        *(f"by-number/{name}" for name in ("again", "file", "folder/", "link")),
    ]
    assert layerbuild.names("it", 1) == ["by-name/", "by-name/file", "by-name/link"]


def test_owners_by_name_are_those_of_the_image(layerbuild: Layerbuild, context: Path) -> None:
    (context / "f").write_text("1")
    recipe = """\
FROM busybox
RUN echo 'app:x:1234:99::/:' >> /etc/passwd && echo 'crew:x:77:' >> /etc/group
COPY --chown=app f /one
COPY --chown=app:crew f /two
COPY --chown=42 f /three
COPY --chown=nobody-knows f /four
"""
    layerbuild.build(context, recipe, "-t", "it")
    owners = []
    for layer in (-4, -3, -2, -1):
        digest = layerbuild.layers("it")[layer]["digest"]
        with tarfile.open(layerbuild.root / "blobs" / "sha256" / digest.partition(":")[2]) as tar:
            owners += [(member.uid, member.gid) for member in tar]
    assert owners == [(1234, 99), (1234, 77), (42, 42), (0, 0)]


def test_links_of_the_image_are_followed_but_not_with_link(layerbuild: Layerbuild, context: Path) -> None:
    (context / "f").write_text("1")
    recipe = "FROM busybox\nRUN mkdir /real && ln -s /real /link\nCOPY f /link/\nCOPY --link f /link/\n"
    layerbuild.build(context, recipe, "-t", "it")
    assert layerbuild.names("it", -2) == ["real/", "real/f"]
    assert layerbuild.names("it", -1) == ["link/", "link/f"]


def test_add_unpacks_what_is_an_archive(layerbuild: Layerbuild, context: Path) -> None:
    context.mkdir(exist_ok=True)
    members = (("d/", tarfile.DIRTYPE, ""), ("d/f", tarfile.REGTYPE, "1"), ("d/g", tarfile.LNKTYPE, "d/f"))
    archive(context / "plain", *members)
    archive(context / "packed.gz", *members)
    (context / "text.tar.gz").write_text("no archive")
    (context / "cut.tar").write_bytes(bytes(1024))
    (context / "noise.gz").write_bytes(b"\x1f\x8b\x08\x00 and no more")
    recipe = """\
FROM scratch
ADD plain /plain
ADD packed.gz /packed/
ADD text.tar.gz cut.tar noise.gz /files/
ADD --unpack=false plain /kept
COPY plain /copied
ADD --chown=3:4 plain /owned
"""
    layerbuild.build(context, recipe, "-t", "it")
    for layer, name in enumerate(("plain", "packed")):
        assert layerbuild.names("it", layer) == [f"{name}/", f"{name}/d/", f"{name}/d/f", f"{name}/d/g"]
    assert layerbuild.names("it", 2) == ["files/", "files/cut.tar", "files/noise.gz", "files/text.tar.gz"]
    assert (layerbuild.names("it", 3), layerbuild.names("it", 4)) == (["kept"], ["copied"])
    digest = layerbuild.layers("it")[5]["digest"]
    with tarfile.open(layerbuild.root / "blobs" / "sha256" / digest.partition(":")[2]) as tar:
        assert {(member.uid, member.gid) for member in tar} == {(3, 4)}


def test_an_archive_follows_links_where_it_names_no_folder(layerbuild: Layerbuild, context: Path) -> None:
    context.mkdir(exist_ok=True)
    archive(context / "root.tar", ("run/", tarfile.DIRTYPE, ""), ("var/run", tarfile.SYMTYPE, "/run"))
    archive(context / "more.tar", ("var/run/act/f", tarfile.REGTYPE, "1"))
    layerbuild.build(context, "FROM scratch\nADD root.tar /\nADD more.tar /\n", "-t", "it")
    assert layerbuild.names("it", -1) == ["run/", "run/act/", "run/act/f"]


def test_a_damaged_archive_is_an_error(rooted: Layerbuild, context: Path) -> None:
    context.mkdir(exist_ok=True)
    archive(context / "cut.tar", ("f", tarfile.REGTYPE, "x" * 5000))
    os.truncate(context / "cut.tar", 2000)
    (context / "Dockerfile").write_text("FROM scratch\n\nADD cut.tar /\n")
    said = rooted.run("build", context, code=1).stderr
    assert "Dockerfile:3" in said and "archive cut.tar" in said


def test_what_changes_nothing_makes_no_layer(layerbuild: Layerbuild, context: Path) -> None:
    (context / "d").mkdir(parents=True)
    (context / "d/f").write_text("1")
    recipe = "FROM scratch\nCOPY d /d\nCOPY d /d\nCOPY --from=busybox /nothing* /\nWORKDIR /d\n"
    layerbuild.build(context, recipe, "-t", "it")
    assert len(layerbuild.layers("it")) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("COPY nothing /", "'nothing' not found: it is not in the context"),
        ("COPY secret /", "'secret' not found: .dockerignore line 1 (`secret`) leaves it out"),
        ("COPY --from=busybox /nothing /", "'nothing' not found: image busybox has no such file"),
        ("COPY --from=first /nothing /", "'nothing' not found: stage 0 has no such file"),
        ("COPY --from=elsewhere /f /", "image 'elsewhere' is not in the store"),
        ("COPY f /bin/", "/bin/f is a folder: cannot replace to directory with file"),
        ("COPY --chown=99999999999 f /", "99999999999 is no user or group id"),
        ("COPY --exclude=[ . /", "syntax error in pattern: ["),
    ],
)
def test_errors_name_the_line(rooted: Layerbuild, context: Path, line: str, said: str) -> None:
    context.mkdir(exist_ok=True)
    for name in ("f", "secret"):
        (context / name).write_text("")
    (context / ".dockerignore").write_text("secret\n")
    (context / "Dockerfile").write_text(f"FROM busybox AS first\nFROM busybox\nRUN mkdir /bin/f\n{line}\n")
    message = rooted.run("build", context, code=3 if "--exclude" in line else 69 if "elsewhere" in line else 1).stderr
    assert "Dockerfile:4:" in message and said in message
