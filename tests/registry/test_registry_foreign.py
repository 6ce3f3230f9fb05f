"""Images that other programs made, through a registry: the same tree as ``umoci unpack`` gives of them."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from registries import Registry
from registry_clients import client
from support import add_member

from layerbuild.image.config import Platform
from layerbuild.layer.entry import kept_xattrs
from layerbuild.reference import Reference
from layerbuild.registry.pull import Puller
from layerbuild.store.store import Store

pytestmark = [
    pytest.mark.root,
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for owners and devices"),
]

D, F, S, L = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
PLATFORM = Platform("linux", "amd64")
Program = Callable[[str], str]
Tree = dict[bytes, tuple[object, ...]]


def run(*words: str | Path, **options: object) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{words}: {done.stderr}"


def described(root: Path) -> Tree:
    """All below ``root``: kind and mode, owner, size, time, content, attributes."""
    tree: Tree = {}
    top = os.fsencode(root)
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            found = os.lstat(path)
            link = stat.S_ISLNK(found.st_mode)
            content: object = os.readlink(path) if link else found.st_rdev
            if stat.S_ISREG(found.st_mode):
                with open(path, "rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
            size = found.st_size if stat.S_ISREG(found.st_mode) else 0
            attributes = () if link else kept_xattrs(path)
            owner = (found.st_uid, found.st_gid)
            tree[os.path.relpath(path, top)] = (oct(found.st_mode), owner, size, found.st_mtime, content, attributes)
    return tree


def groups(root: Path) -> set[frozenset[bytes]]:
    """Which names are one file."""
    found: dict[int, set[bytes]] = {}
    top = os.fsencode(root)
    for folder, _, files in os.walk(top):
        for name in files:
            path = os.path.join(folder, name)
            found.setdefault(os.lstat(path).st_ino, set()).add(os.path.relpath(path, top))
    return {frozenset(names) for names in found.values() if len(names) > 1}


@contextmanager
def merged(store: Store, name: str, scratch: Path) -> Iterator[Path]:
    """The pulled image ``name``, mounted as a container would see it."""
    puller = Puller(store, client(), tell=lambda *told: None, note=lambda text: None)
    store.supplier = puller
    image = puller.pull(Reference.parse(name), PLATFORM)
    stack = store.ensure_unpacked(image.top)
    assert store.verify(contents=True) == ()
    place = scratch / "merged"
    for folder in (place, scratch / "upper", scratch / "work"):
        folder.mkdir()
    lower = ":".join(snapshot.short for snapshot in reversed(stack))
    options = f"lowerdir={lower},upperdir={scratch}/upper,workdir={scratch}/work"
    run("mount", "-t", "overlay", "overlay", "-o", options, place, cwd=store.overlay)
    try:
        yield place
    finally:
        run("umount", place)


class Umoci:
    """An OCI layout that umoci makes, layer by layer."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.umoci, self.skopeo, self.folder = program("umoci"), program("skopeo"), folder
        self.image = f"{folder}/layout:image"
        run(self.umoci, "init", "--layout", folder / "layout")
        run(self.umoci, "new", "--image", self.image)

    def add(self, *members: tuple[str, bytes, str]) -> None:
        """A layer from a tar made by hand."""
        tar = self.folder / "layer.tar"
        with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as out:
            for name, kind, text in members:
                mode = 0o755 if kind == D else 0o644
                content = text.encode() if kind == F else b""
                add_member(out, name, kind, content=content, mode=mode, link="" if kind == F else text)
        run(self.umoci, "raw", "add-layer", "--image", self.image, tar)

    @contextmanager
    def changed(self) -> Iterator[Path]:
        """The root file system, to be changed: what changed becomes a layer."""
        bundle = self.folder / "bundle"
        run(self.umoci, "unpack", "--image", self.image, bundle)
        yield bundle / "rootfs"
        run(self.umoci, "repack", "--image", self.image, bundle)
        shutil.rmtree(bundle)

    def push(self, registry: Registry, name: str, *options: str) -> str:
        words = ["--dest-tls-verify=false", "--quiet", *options]
        run(self.skopeo, "copy", *words, f"oci:{self.image}", f"docker://{registry.name(name)}:image")
        return f"{registry.name(name)}:image"

    def unpacked(self) -> Path:
        run(self.umoci, "unpack", "--image", self.image, self.folder / "oracle")
        return self.folder / "oracle/rootfs"


@pytest.fixture
def umoci(program: Program, tmp_path: Path) -> Umoci:
    folder = tmp_path / "umoci"
    folder.mkdir()
    return Umoci(program, folder)


def fill(root: Path) -> None:
    """What is hard to pack: links across folders, names, attributes, owners, devices, holes."""
    for name in ("a/deep", "b", "opaque", "gone", "kept"):
        (root / name).mkdir(parents=True)
    (root / "a/file").write_text("one file")
    for name in ("b/other", "a/deep/third"):
        os.link(root / "a/file", root / name)
    for name in ("opaque/below", "gone/x", "kept/x", "kept/y"):
        (root / name).write_text(name)
    (root / ("n" * 255)).write_text("a long name")
    (root / "kept" / ("ä" * 127 + "x")).write_text("255 bytes")
    os.close(os.open(os.fsencode(root) + b"/kept/\xff\xfe not UTF-8", os.O_CREAT | os.O_WRONLY))
    os.symlink(b"\xff nowhere", os.fsencode(root) + b"/kept/link")
    os.setxattr(root / "kept/x", "user.tests", b"\0\xff value")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")  # CAP_NET_BIND_SERVICE, permitted
    os.setxattr(root / "kept/y", "security.capability", capability)
    (root / "kept/setuid").write_text("x")
    os.chown(root / "kept/setuid", 1000, 2000)
    os.chmod(root / "kept/setuid", 0o6755)
    os.mkfifo(root / "kept/fifo")
    os.mknod(root / "kept/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with (root / "kept/holes").open("wb") as file:
        file.truncate(5 << 20)
        file.seek(3 << 20)
        file.write(b"in the middle")
    os.chmod(root / "kept", 0o2770)
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, (10**9, 10**9), follow_symlinks=False)


def change(root: Path) -> None:
    """What a second layer does: delete, replace, part the names of a file."""
    shutil.rmtree(root / "gone")
    shutil.rmtree(root / "opaque")
    (root / "opaque").mkdir()
    (root / "opaque/above").write_text("above")
    (root / "b/other").unlink()
    (root / "b/other").write_text("of its own now")
    (root / "a/deep").rename(root / "moved")
    (root / "kept/y").unlink()
    (root / "kept/y").mkdir()
    (root / "kept/new").symlink_to("x")


FORMS = {
    "gzip": (),
    "zstd": ("--dest-compress", "--dest-compress-format", "zstd"),
    "docker": ("--format", "v2s2"),
}


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_umoci_and_skopeo(umoci: Umoci, registry: Registry, options: tuple[str, ...], tmp_path: Path) -> None:
    with umoci.changed() as root:
        fill(root)
    with umoci.changed() as root:
        change(root)
    name = umoci.push(registry, f"foreign/{tmp_path.name.replace('_', '-')}", *options)
    oracle = umoci.unpacked()
    with Store.open(tmp_path / "store") as store, merged(store, name, tmp_path) as found:
        assert described(found) == described(oracle)
        assert (found / "kept/holes").stat().st_size == 5 << 20
        assert (found / "kept/holes").stat().st_blocks * 512 < 3 << 20


def test_tars_made_by_hand(umoci: Umoci, registry: Registry, tmp_path: Path) -> None:
    """Facts U1 to U7: links into lower layers, whiteouts in any order, names of any spelling, duplicates."""
    umoci.add(("etc", D, ""), ("etc/passwd", F, "users"), ("etc/group", F, "groups"), ("srv", D, ""), ("srv/f", F, "f"))
    umoci.add(("l", S, "/etc"), ("opaque", D, ""), ("opaque/x", F, "x"), ("opaque/y", F, "y"), ("etc/shadow", F, "s"))
    umoci.add(
        ("./srv/passwd", L, "etc/passwd"),
        ("two", L, "/srv/passwd"),
        ("three", L, "l/group"),
        ("//absolute", F, "a"),
        ("deep/without/parents", F, "d"),
        ("twice", F, "first"),
        ("twice", F, "second, and longer"),
        ("srv/f/", D, ""),
        ("srv/f/in", F, "a folder now"),
        ("opaque/z", F, "z"),
        ("opaque/.wh..wh..opq", F, ""),
        ("opaque/w", F, "w"),
        ("etc/.wh.shadow", F, ""),
    )
    name = umoci.push(registry, "foreign/by-hand")
    oracle = umoci.unpacked()
    with Store.open(tmp_path / "store") as store, merged(store, name, tmp_path) as found:
        assert (found / "three").read_text() == "groups" and not (found / "opaque/x").exists()
        ours, theirs = described(found), described(oracle)
        assert ours.keys() == theirs.keys()
        untold = {b"deep", b"deep/without"}  # folders that no tar names: each program gives them a time of its own
        for path in ours.keys() - untold:
            assert ours[path] == theirs[path], path
        together = {frozenset(path.decode() for path in group) for group in groups(found)}
        assert together == {frozenset(("etc/passwd", "srv/passwd", "two")), frozenset(("etc/group", "three"))}


def test_a_folder_of_65536_entries(umoci: Umoci, registry: Registry, tmp_path: Path) -> None:
    tar = umoci.folder / "many.tar"
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as out:
        add_member(out, "many", D, mode=0o755)
        for number in range(65536):
            add_member(out, f"many/{number}")
    run(umoci.umoci, "raw", "add-layer", "--image", umoci.image, tar)
    name = umoci.push(registry, "foreign/many")
    with Store.open(tmp_path / "store") as store, merged(store, name, tmp_path) as found:
        assert len(os.listdir(found / "many")) == 65536


def test_buildah(registry: Registry, program: Program, tmp_path: Path) -> None:
    buildah, umoci, skopeo = program("buildah"), program("umoci"), program("skopeo")
    (tmp_path / "context").mkdir()
    fill(tmp_path / "context")
    shutil.rmtree(tmp_path / "context/gone")
    (tmp_path / "context/Dockerfile").write_text(
        "FROM scratch\nCOPY a /a\nCOPY kept /kept\nADD b /b\nLABEL by=buildah\nCOPY opaque/below /kept/x\n"
    )
    storage = ["--root", tmp_path / "root", "--runroot", tmp_path / "run", "--storage-driver", "vfs"]
    name = f"{registry.name('foreign/buildah')}:1"
    run(buildah, *storage, "bud", "--layers", "-t", name, tmp_path / "context")
    run(buildah, *storage, "push", "--tls-verify=false", name)
    layout = tmp_path / "layout"
    run(skopeo, "copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{layout}:image")
    run(umoci, "unpack", "--image", f"{layout}:image", tmp_path / "oracle")
    with Store.open(tmp_path / "store") as store, merged(store, name, tmp_path) as found:
        assert described(found) == described(tmp_path / "oracle/rootfs")
    run(buildah, *storage, "rmi", "--all", "--force")


@pytest.mark.slow
def test_eight_gigabytes_of_nothing(umoci: Umoci, registry: Registry, program: Program, tmp_path: Path) -> None:
    """A sparse file of 8 GB, as GNU tar packs it: the tar is small, its content is not."""
    size = 8 << 30
    (tmp_path / "files").mkdir()
    with (tmp_path / "files/sparse").open("wb") as file:
        file.truncate(size)
        file.seek(5 << 30)
        file.write(b"in the middle")
    tar = tmp_path / "sparse.tar"
    run(program("tar"), "--sparse", "--format=pax", "-C", tmp_path / "files", "-cf", tar, "sparse")
    run(umoci.umoci, "raw", "add-layer", "--image", umoci.image, tar)
    name = umoci.push(registry, "foreign/sparse")
    with Store.open(tmp_path / "store") as store, merged(store, name, tmp_path) as found:
        assert (found / "sparse").stat().st_size == size
        assert (found / "sparse").stat().st_blocks * 512 <= 1 << 20
        with (found / "sparse").open("rb") as file:
            file.seek(5 << 30)
            assert file.read(20) == b"in the middle" + bytes(7)
