"""The spelling of -o, and what holds for every format."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from export_samples import Sample

from layerbuild.cli.place import write_whole
from layerbuild.errors import LayerbuildError, MachineError, UsageError
from layerbuild.export.destination import new_file
from layerbuild.export.formats import FORMATS, Output
from layerbuild.export.package import Compression, Wishes
from layerbuild.image.annotations import Annotation
from layerbuild.image.config import Platform
from layerbuild.reference import Reference

NAMES = (Reference.parse("x:1"), Reference.parse("y:2"))
ANNOTATIONS = (
    Annotation("Who", "me"),
    Annotation("k", "v", "index"),
    Annotation("k", "a=b", "manifest", Platform("linux", "arm64")),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("out", Output("local", "out")),
        ("out=1", Output("local", "out=1")),
        ("-", Output("tar", "-")),
        ("type=tar,dest=-", Output("tar", "-")),
        ("type=oci,dest=a.tar", Output("oci", "a.tar")),
        ('"dest=a,b.tar",type=oci', Output("oci", "a,b.tar")),
        ("type=oci,dest=a,tar=false", Output("oci", "a", tar=False)),
        ('type=docker,dest=a,"name=x:1,y:2"', Output("docker", "a", Wishes(NAMES))),
        ("type=docker,dest=a,name=x:1,name=y:2", Output("docker", "a", Wishes(NAMES))),
        ("type=oci,dest=a,compression=uncompressed", Output("oci", "a", Wishes(compression=Compression("none")))),
        (
            "type=layers,dest=a,compression=zstd,compression-level=9,force-compression=true",
            Output("layers", "a", Wishes(compression=Compression("zstd", 9, force=True))),
        ),
        ("type=oci,dest=a,compression-level=3", Output("oci", "a", Wishes(compression=Compression("gzip", 3)))),
        ("type=oci,dest=a,force-compression=", Output("oci", "a", Wishes(compression=Compression("gzip", force=True)))),
        ("type=oci,dest=a,oci-mediatypes=false", Output("oci", "a", Wishes(oci_types=False))),
        ("type=tar,dest=a,rewrite-timestamp=true", Output("tar", "a")),
        ("type=local,dest=a,platform-split=true", Output("local", "a", split=True)),
        (
            "type=oci,dest=a,annotation.Who=me,annotation-index.k=v,annotation-manifest[linux/arm64/v8].k=a=b",
            Output("oci", "a", Wishes(annotations=ANNOTATIONS)),
        ),
    ],
)
def test_spellings(text: str, expected: Output) -> None:
    assert Output.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "must not be empty", "oci"),
        ("type=dokcer,dest=a", "unknown format 'dokcer'", "did you mean docker?"),
        ("dest=a,name=b", "no format", "one of oci"),
        ("type=oci,dst=a", "unknown key 'dst'", "did you mean dest?"),
        ("type=tar,dest=a,compression=gzip", "unknown key 'compression'", "dest"),
        ("type=oci", "has no dest", "dest=PATH"),
        ("type=local,dest=-", "a folder can't go to standard output", "dest=PATH"),
        ("type=oci,dest=-,tar=false", "a folder can't go to standard output", "dest=PATH"),
        ("type=oci,out", "'out' is not key=value", "dest"),
        ("type=oci,dest=a,tar=maybe", "tar=maybe", ""),
        ("type=oci,dest=a,compression=lzma", "unknown compression 'lzma'", "gzip"),
        ("type=oci,dest=a,compression=gzip,compression-level=30", "levels 0 to 12", ""),
        ("type=oci,dest=a,compression-level=30", "levels 0 to 12", ""),
        ("type=oci,dest=a,rewrite-timestamp=false", "rewrite-timestamp=false", "--timestamp keep"),
        ("type=oci,dest=a,annotations.k=v", "unknown key 'annotations.k'", "annotation"),
        ("type=oci,dest=a,annotation-manifets.k=v", "unknown kind of annotation", "did you mean manifest?"),
        ("type=oci,dest=a,annotation-index[linux/arm64].k=v", "can't be for a platform", "leave it out"),
        ("type=tar,dest=a,annotation.k=v", "unknown key 'annotation'", "dest"),
        ('type=oci,"dest=a', "not a list", ""),
        ("type=oci,dest=a,name=Upper", "invalid image reference", "lower case"),
    ],
)
def test_wrong_spellings(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        Output.parse(text)
    assert hint in raised.value.hint


def test_an_oci_dest_that_is_a_folder_gets_a_folder(tmp_path: Path) -> None:
    assert Output.parse(f"type=oci,dest={tmp_path}").to_folder
    assert Output.parse("type=oci,dest=new/").to_folder
    assert not Output.parse("type=oci,dest=new").to_folder
    assert not Output.parse(f"type=oci,dest={tmp_path},tar=true").to_folder


# -- every format ------------------------------------------------------------------------------------------------------

every_format = pytest.mark.parametrize("kind", [kind for kind, row in FORMATS.items() if not row.stays])


def listing(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        for path in sorted(folder.rglob("*"))
    }


@every_format
def test_the_same_bytes_each_time(sample: Sample, tmp_path: Path, kind: str) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        sample.export(f"type={kind},dest={name}/out")
    assert listing(tmp_path / "one") == listing(tmp_path / "two")


@every_format
def test_a_second_export_takes_the_place_of_the_first(sample: Sample, tmp_path: Path, kind: str) -> None:
    sample.export(f"type={kind},dest=home/out")
    first = listing(tmp_path / "home")
    sample.export(f"type={kind},dest=home/out")
    assert listing(tmp_path / "home") == first


@every_format
def test_a_failure_leaves_nothing(sample: Sample, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {}
    if FORMATS[kind].folder is None:
        (tmp_path / "home").mkdir()
        (tmp_path / "home/out").write_text("an earlier export")
        before = listing(tmp_path / "home")
    broken = sample.store.blobs.path(sample.image.manifest.layers[1].digest)
    broken.write_bytes(broken.read_bytes()[:-1] + b"!")
    if kind in ("tar", "local"):  # they read the unpacked folders, not the blobs
        (sample.store.snapshots.stack(sample.image.top)[1].diff / "etc/name").unlink()
    with pytest.raises((LayerbuildError, OSError)):
        sample.export(f"type={kind},dest=home/out,tar=true" if kind == "oci" else f"type={kind},dest=home/out")
    assert listing(tmp_path / "home") == before


@every_format
def test_a_place_that_cannot_be_is_named(sample: Sample, tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="can't write") as raised:
        sample.export(f"type={kind},dest=file/below/out")
    assert "dest=" in raised.value.hint


@pytest.mark.parametrize("kind", [kind for kind, row in FORMATS.items() if row.file is not None])
def test_standard_output_gets_what_a_file_gets(sample: Sample, tmp_path: Path, kind: str) -> None:
    sample.export(f"type={kind},dest=out")
    assert sample.stream(kind) == (tmp_path / "out").read_bytes()
    assert os.stat(tmp_path / "out").st_mode & 0o777 == 0o644


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """/dev/null, of which root would else make a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR)
    with new_file(pipe) as file:
        file.write(b"image")
    write_whole(pipe, " and text")
    assert os.read(reader, 100) == b"image and text"
    assert pipe.is_fifo()
    os.close(reader)
