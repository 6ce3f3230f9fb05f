"""The tar reader against other writers, the writer against another reader, and broken archives."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerbuild.errors import FormatError
from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.tar import END, header, padding
from layerbuild.layer.tarreader import TarReader, is_tar

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
LONG = "long/" + "n" * 90 + "/" + "m" * 140


def read(data: bytes) -> list[tuple[Entry, bytes]]:
    reader = TarReader(io.BytesIO(data))
    return [(entry, reader.content()) for entry in reader]


def python_tar(
    members: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT, **options: object
) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form, **options) as tar:  # type: ignore[call-overload]
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return sink.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, **values: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in values.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize("form", FORMATS)
def test_what_python_writes_is_read(form: int) -> None:
    long = LONG if form != tarfile.USTAR_FORMAT else "p" * 90 + "/" + "n" * 99
    data = python_tar(
        [
            (member("./dir/", tarfile.DIRTYPE, mode=0o1777, mtime=5), b""),
            (member("dir/file", mode=0o4755, uid=1000, gid=7, mtime=1_700_000_000), b"content"),
            (member(long), b"x" * 1000),
            (member("link", tarfile.SYMTYPE, linkname="../dir/file", mode=0o777), b""),
            (member("hard", tarfile.LNKTYPE, linkname="./dir/file"), b""),
            (member("fifo", tarfile.FIFOTYPE), b""),
            (member("null", tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
        ],
        form,
    )
    found = read(data)
    assert [(entry.path.decode(), entry.kind) for entry, _ in found] == [
        ("dir", Kind.DIRECTORY),
        ("dir/file", Kind.FILE),
        (long, Kind.FILE),
        ("link", Kind.SYMLINK),
        ("hard", Kind.HARDLINK),
        ("fifo", Kind.FIFO),
        ("null", Kind.CHARACTER),
    ]
    by_path = {entry.path: entry for entry, _ in found}
    assert by_path[b"dir/file"] == Entry(b"dir/file", Kind.FILE, 0o4755, 1000, 7, 7, 1_700_000_000)
    assert by_path[b"link"].target == b"../dir/file"
    assert by_path[b"hard"].target == b"dir/file"
    assert by_path[b"null"].device == (1, 3)
    assert [content for _, content in found][1:3] == [b"content", b"x" * 1000]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_large_numbers_and_times_before_1970(form: int) -> None:
    data = python_tar([(member("f", uid=4_000_000_000, gid=3_000_000, mtime=-7), b"")], form)
    [(entry, _)] = read(data)
    assert (entry.uid, entry.gid, entry.mtime) == (4_000_000_000, 3_000_000, -7)


def test_pax_values_of_one_file_and_of_all() -> None:
    info = member("short")
    info.pax_headers = {"mtime": "12.25", "SCHILY.xattr.user.k": "v", "LIBARCHIVE.xattr.user.k": "dg==", "path": "é"}
    data = python_tar([(info, b""), (member("next"), b"")], pax_headers={"gid": "77"})
    [(first, _), (second, _)] = read(data)
    assert first.path == "é".encode()
    assert (first.mtime, first.mtime_ns) == (12, 250_000_000)
    assert first.xattrs == ((b"user.k", b"v"),)
    assert (first.gid, second.gid) == (77, 77)
    assert (second.path, second.xattrs) == (b"next", ())


def test_a_fraction_before_1970_counts_upwards() -> None:
    info = member("f")
    info.pax_headers = {"mtime": "-1.75"}
    [(entry, _)] = read(python_tar([(info, b"")]))
    assert (entry.mtime, entry.mtime_ns) == (-2, 250_000_000)


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_what_gnu_tar_writes_is_read(tmp_path: Path, program: Callable[[str], str], form: str) -> None:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d/f").write_bytes(b"f" * 3000)
    (tree / "d/s").symlink_to("f")
    os.link(tree / "d/f", tree / "d/g")
    packed = subprocess.run(
        [program("tar"), "-C", tree, f"--format={form}", "--sort=name", "-c", "."], check=True, capture_output=True
    )
    found = read(packed.stdout)
    kinds = [(entry.path, entry.kind) for entry, _ in found]
    assert kinds[0] == (b"", Kind.DIRECTORY)
    assert kinds[1:] == [
        (b"d", Kind.DIRECTORY),
        (b"d/f", Kind.FILE),
        (b"d/g", Kind.HARDLINK),
        (b"d/s", Kind.SYMLINK),
    ]
    assert found[2][1] == b"f" * 3000


@pytest.mark.parametrize("form", ["gnu", "0.0", "0.1", "1.0"])
@pytest.mark.parametrize("pieces", [3, 40])
def test_sparse_files_come_out_whole(tmp_path: Path, program: Callable[[str], str], form: str, pieces: int) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        for number in range(pieces):
            file.seek(number * 100_000 + 50_000)
            file.write(b"%d" % number * 50)
        file.truncate(pieces * 100_000 + 70_000)
    options = ["--format=gnu"] if form == "gnu" else ["--format=pax", f"--sparse-version={form}"]
    packed = subprocess.run(
        [program("tar"), "-C", tmp_path, "-S", *options, "-c", "sparse"], check=True, capture_output=True
    )
    assert len(packed.stdout) < path.stat().st_size
    [(entry, content)] = read(packed.stdout)
    assert (entry.path, entry.size) == (b"sparse", path.stat().st_size)
    assert content == path.read_bytes()


def test_special_members_are_refused_or_ignored() -> None:
    with pytest.raises(FormatError, match="unknown type"):
        read(python_tar([(member("x", b"M"), b"")]))
    label = header(Entry(b"label", Kind.FILE))
    assert read(relabelled(label, b"V") + END) == []


def relabelled(block: bytes, flag: bytes) -> bytes:
    changed = block[:148] + b" " * 8 + flag + block[157:]
    return changed[:148] + b"%06o\0 " % sum(changed) + changed[156:]


def test_every_truncation_is_noticed() -> None:
    data = python_tar([(member("a" * 150), b"x" * 600), (member("b"), b"y" * 10)], tarfile.GNU_FORMAT)
    ends = {0, 512 * 5, 512 * 7}  # between members nothing is missing but the end mark
    for cut in range(1, 512 * 7, 97):
        if cut not in ends:
            with pytest.raises(FormatError, match="byte"):
                read(data[:cut])


def test_a_wrong_checksum_names_the_offset() -> None:
    data = python_tar([(member("a"), b"x"), (member("b"), b"y")])
    with pytest.raises(FormatError, match="byte 1024"):
        read(data[:1030] + b"!" + data[1031:])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_a_format_error_or_harmless(data: st.DataObject) -> None:
    info = member("x" * 120)
    info.pax_headers = {"mtime": "1.5", "SCHILY.xattr.user.a": "b"}
    whole = bytearray(python_tar([(info, b"z" * 700), (member("l", tarfile.SYMTYPE, linkname="q"), b"")]))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, 3600))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(whole))
    except FormatError:
        pass


paths = st.lists(
    st.binary(min_size=1, max_size=60).filter(lambda name: not set(name) & {0, 47} and name not in (b".", b"..")),
    min_size=1,
    max_size=5,
).map(b"/".join)
written = st.builds(
    Entry,
    paths,
    st.sampled_from([Kind.FILE, Kind.DIRECTORY, Kind.FIFO]),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 1 << 40),
    gid=st.integers(0, 1 << 40),
    mtime=st.integers(-(1 << 40), 1 << 40),
    xattrs=st.dictionaries(
        st.sampled_from([b"user.a", b"user.b=c", b"security.capability"]), st.binary(max_size=300)
    ).map(lambda found: tuple(sorted((name, value) for name, value in found.items() if b"=" not in name))),
) | st.builds(
    Entry, paths, st.just(Kind.SYMLINK), target=st.binary(min_size=1, max_size=150).filter(lambda text: 0 not in text)
)


@settings(max_examples=300, deadline=None)
@given(st.lists(written, max_size=4))
def test_what_we_write_we_read(entries: list[Entry]) -> None:
    assert [entry for entry, _ in read(b"".join(map(header, entries)) + END)] == entries


def test_python_reads_what_we_write() -> None:
    entries = [
        Entry(b"d", Kind.DIRECTORY, 0o755, mtime=9),
        Entry(b"d/" + b"l" * 200, Kind.FILE, 0o4755, 3_000_000, 5, 3, -4, xattrs=((b"user.x", b"y"),)),
        Entry(b"d/n", Kind.CHARACTER, 0o666, device=(1, 3)),
        Entry(b"d/w", Kind.WHITEOUT),
    ]
    data = b"".join(header(entry) + (b"abc" + padding(3) if entry.size else b"") for entry in entries) + END
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = tar.getmembers()
        assert [info.name for info in found] == ["d", "d/" + "l" * 200, "d/n", "d/.wh.w"]
        assert (found[1].mode, found[1].uid, found[1].gid, found[1].mtime) == (0o4755, 3_000_000, 5, -4)
        assert found[1].pax_headers["SCHILY.xattr.user.x"] == "y"
        assert tar.extractfile(found[1]).read() == b"abc"  # type: ignore[union-attr]
        assert (found[2].devmajor, found[2].devminor) == (1, 3)
        assert found[3].isreg() and (found[3].size, found[3].mode, found[3].mtime) == (0, 0, 0)


def test_ordinary_entries_need_one_block_and_no_names() -> None:
    block = header(Entry(b"usr", Kind.DIRECTORY, 0o755))
    assert len(block) == 512
    assert block.startswith(b"usr/\0")
    assert block[257:265] == b"ustar\x0000"
    assert block[265:329] == bytes(64)


def test_is_tar_goes_by_the_first_header() -> None:
    assert is_tar(python_tar([(member("a"), b"")]))
    assert not is_tar(bytes(1024))
    assert not is_tar(b"plain text " * 100)
