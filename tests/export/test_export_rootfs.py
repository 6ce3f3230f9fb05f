"""All layers in one: whiteouts have done their work, links and owners are right."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from export_samples import Sample, file, folder, link, make_image, whiteout

from layerbuild.errors import MachineError
from layerbuild.layer.entry import Entry, Kind
from layerbuild.store.store import Store

# bin/a, the first name of the file, was deleted above: bin/b is the file now.
TREE = ["bin", "bin/b", "bin/c", "etc", "etc/link", "etc/name", "pipe", "tmp"]


def opened(sample: Sample) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(sample.stream("tar")))


def content(tar: tarfile.TarFile, name: str) -> bytes:
    found = tar.extractfile(name)
    assert found is not None
    return found.read()


def test_the_tree(sample: Sample) -> None:
    with opened(sample) as tar:
        assert tar.getnames() == TREE
        assert (content(tar, "etc/name"), content(tar, "bin/b"), content(tar, "bin/c")) == (
            b"top",
            b"shared",
            b"shared",
        )
        assert tar.getmember("bin/b").isreg()
        assert (tar.getmember("bin/c").islnk(), tar.getmember("bin/c").linkname) == (True, "bin/b")
        assert (tar.getmember("etc/link").linkname, tar.getmember("tmp").mode) == ("name", 0o1777)
        assert tar.getmember("bin/b").mode == 0o4755
        assert tar.getmember("pipe").isfifo()


def test_owners_come_from_the_layers(store: Store, tmp_path: Path) -> None:
    image = make_image(store, [("COPY a /", [file("a", "x", uid=12, gid=34)])])
    with opened(Sample(store, image, tmp_path)) as tar:
        assert (tar.getmember("a").uid, tar.getmember("a").gid) == (12, 34)


def test_an_opaque_folder_hides_what_is_below(store: Store, tmp_path: Path) -> None:
    opaque = (Entry(b"d", Kind.DIRECTORY, 0o700, opaque=True), None)
    bottom = [folder("d"), file("d/hidden", "x"), folder("d/deep"), file("d/deep/hidden", "x"), file("e", "e")]
    image = make_image(store, [("one", bottom), ("two", [opaque, file("d/new", "y")])])
    with opened(Sample(store, image, tmp_path)) as tar:
        assert tar.getnames() == ["d", "d/new", "e"]
        assert tar.getmember("d").mode == 0o700


def test_a_folder_gives_way_to_a_file_and_back(store: Store, tmp_path: Path) -> None:
    image = make_image(
        store,
        [
            ("one", [folder("x"), file("x/below", "1"), file("y", "2")]),
            ("two", [file("x", "3"), folder("y"), file("y/below", "4")]),
        ],
    )
    with opened(Sample(store, image, tmp_path)) as tar:
        assert tar.getnames() == ["x", "y", "y/below"]
        assert content(tar, "x") == b"3"


def test_a_link_whose_file_was_replaced_above_keeps_the_old_content(store: Store, tmp_path: Path) -> None:
    bottom = [file("a", "old"), link("b", "a", Kind.HARDLINK), link("c", "a", Kind.HARDLINK)]
    image = make_image(store, [("one", bottom), ("two", [file("a", "new")])])
    with opened(Sample(store, image, tmp_path)) as tar:
        assert [content(tar, name) for name in "abc"] == [b"new", b"old", b"old"]
        assert (tar.getmember("b").isreg(), tar.getmember("c").linkname) == (True, "b")


def test_an_empty_image_is_an_empty_tree(store: Store, tmp_path: Path) -> None:
    sample = Sample(store, make_image(store, [("LABEL a=b", None)]), tmp_path)
    assert sample.stream("tar") == bytes(1024)
    sample.export("type=local,dest=out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_whose_unpacked_layer_was_lost_is_made_again(sample: Sample) -> None:
    whole = sample.stream("tar")
    shutil.rmtree(sample.store.snapshots.stack(sample.image.top)[0].diff)
    assert sample.stream("tar") == whole


# -- as a folder -------------------------------------------------------------------------------------------------------


def test_a_folder_has_the_same_tree(sample: Sample, tmp_path: Path) -> None:
    sample.export("type=local,dest=out")
    out = tmp_path / "out"
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == sorted(TREE)
    assert (out / "etc/name").read_text() == "top"
    assert (out / "bin/b").stat().st_ino == (out / "bin/c").stat().st_ino
    assert (out / "bin/b").stat().st_mode & 0o7777 == 0o4755
    assert (out / "etc/link").readlink() == Path("name")
    assert [(out / name).lstat().st_mtime for name in ("etc/name", "bin", "etc/link")] == [1000, 2000, 3000]
    assert out.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_is_there_is_added_to(sample: Sample, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "etc").mkdir(parents=True)
    (out / "etc/mine").write_text("mine")
    (out / "etc/name").write_text("old")
    (tmp_path / "outside").mkdir()
    (out / "bin").symlink_to(tmp_path / "outside")
    sample.export("type=local,dest=out")
    assert ((out / "etc/mine").read_text(), (out / "etc/name").read_text()) == ("mine", "top")
    assert not (out / "bin").is_symlink()
    assert list((tmp_path / "outside").iterdir()) == []
    assert not list(out.glob(".layerbuild-*"))


def test_a_folder_of_the_users_does_not_give_way_to_a_file(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "out/etc/name").mkdir(parents=True)
    with pytest.raises(MachineError, match=r"etc/name is a folder"):
        sample.export("type=local,dest=out")
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")) == [
        "etc",
        "etc/name",
    ]


def test_what_only_root_can_do_is_said(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    device = (Entry(b"null", Kind.CHARACTER, 0o666, device=(1, 3)), None)
    sample = Sample(store, make_image(store, [("one", [file("a", "x", uid=12, gid=34)])]), tmp_path)
    devices = Sample(store, make_image(store, [("one", [device])]), tmp_path)
    for name in ("chown", "fchown", "mknod"):
        monkeypatch.setattr(os, name, refuse)
    assert sample.export("type=local,dest=out").notes == ("all files belong to you: only root can give them to others",)
    assert "/null" in devices.export("type=local,dest=other").notes[0]
    assert not (tmp_path / "other" / "null").exists()
    assert os.listxattr(tmp_path / "out" / "a") == []


def test_whiteouts_of_nothing_are_nothing(store: Store, tmp_path: Path) -> None:
    image = make_image(store, [("one", [folder("a"), whiteout("a/b"), whiteout("c")])])
    with opened(Sample(store, image, tmp_path)) as tar:
        assert tar.getnames() == ["a"]
