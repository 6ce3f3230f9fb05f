"""Pulling: what comes, what need not come, what breaks on the way, and that no bad blob is ever in the store."""

from __future__ import annotations

import io
import json
import re
import socket
import stat
import tarfile
import threading
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest
from loopback import Asked, Reply, Web
from registry_clients import PATIENCE, client
from registry_faults import OCI, Image, Registry, layer_tar
from support import add_member

from layerbuild.build.bases import Bases
from layerbuild.digest import BlobDigest, DiffID
from layerbuild.errors import DigestMismatch, NotFoundError, RegistryError
from layerbuild.image.config import Platform
from layerbuild.layer.index import IndexWriter
from layerbuild.reference import Reference
from layerbuild.registry.client import Client
from layerbuild.registry.credentials import Keychain
from layerbuild.registry.hosts import Hosts
from layerbuild.registry.pull import Puller
from layerbuild.registry.transport import Transport
from layerbuild.store.images import StoredImage
from layerbuild.store.layers import BlobRecord, LayerRecord
from layerbuild.store.prune import prune
from layerbuild.store.store import Store

AMD64 = Platform("linux", "amd64")
TARS = (layer_tar(1), layer_tar(2), layer_tar(3))


class Pulling:
    """A puller that remembers what it told."""

    def __init__(self, store: Store, own: Client | None = None) -> None:
        self.told: list[tuple[str, int, int]] = []
        self.notes: list[str] = []
        self.store = store
        self.puller = Puller(store, own or client(), tell=self._tell, note=self.notes.append)
        store.supplier = self.puller

    def _tell(self, digest: BlobDigest, place: str, done: int, size: int) -> None:
        self.told.append((digest, done, size))

    def __call__(self, name: str, platform: Platform = AMD64) -> StoredImage:
        image = self.puller.pull(Reference.parse(name), platform)
        self.store.ensure_unpacked(image.top)
        return image


def whole(store: Store) -> None:
    """Nothing false is in the store, and nothing unclaimed either once it was pruned."""
    assert [found for found in store.verify(contents=True) if "no row" not in found.text] == []
    prune(store)
    assert store.verify(contents=True) == ()
    assert not store.arrivals.parts()


def test_an_image_comes_whole(store: Store, faulty: Registry) -> None:
    source = Image(*TARS)
    faulty.add("app", source)
    pulling = Pulling(store)
    image = pulling(f"{faulty.host}/app")
    assert image.manifest_digest == BlobDigest.of(source.manifest)
    assert [path.name for snapshot in store.snapshots.stack(image.top) for path in snapshot.diff.iterdir()] == [
        "file1",
        "file2",
        "file3",
    ]
    assert {(digest, size, size) for digest, size in ((d, len(source.blobs[d])) for d in source.layers)} <= set(
        pulling.told
    )
    assert image.names == (f"{faulty.host}/app:latest",)
    whole(store)


def test_what_nobody_needs_does_not_come(store: Store, faulty: Registry) -> None:
    source = Image(*TARS)
    faulty.add("app", source)
    image = Pulling(store).puller.pull(Reference.parse(f"{faulty.host}/app"), AMD64)
    assert len(faulty.asked("/blobs/")) == 1  # the configuration
    assert not store.is_here(image.top) and store.layers.all() == ()
    assert store.sources.of_blob(BlobDigest(source.layers[0]))[0].repository == f"{faulty.host}/app"
    whole(store)
    store.require_blobs(image)
    assert store.is_here(image.top)
    whole(store)


def test_an_image_that_never_came_goes(store: Store, faulty: Registry) -> None:
    faulty.add("app", Image(*TARS))
    Pulling(store).puller.pull(Reference.parse(f"{faulty.host}/app"), AMD64)
    store.images.remove(f"{faulty.host}/app")
    whole(store)
    for table in ("image", "layer", "source", "snapshot", "variant"):
        assert store.database.rows(f"SELECT * FROM {table}") == []


def test_what_was_begun_on_a_base_that_had_not_come(store: Store, faulty: Registry) -> None:
    """The root of a mounted stack is that of its topmost layer, so each must look like the one below."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        add_member(tar, "./", tarfile.DIRTYPE, mode=0o711)
    faulty.add("app", Image(out.getvalue()))
    image = Pulling(store).puller.pull(Reference.parse(f"{faulty.host}/app"), AMD64)
    sealed = store.workspaces.begin(image.top)
    index, data = store.layers.temporary_index(), b"the tar of a layer"
    with IndexWriter(index) as writer:
        writer.finish()
    blob = BlobRecord(store.blobs.add(data), len(data), "none")
    store.layers.adopt_index(index, DiffID.of(data))
    snapshot = store.workspaces.commit(sealed, LayerRecord(DiffID.of(data), len(data), 0, (blob,)))
    begun = store.workspaces.begin(snapshot.chain)
    last = store.workspaces.begin(begun)
    store.ensure_below(last)
    roots = [*(folder.diff for folder in store.snapshots.stack(snapshot.chain)), begun.diff, last.diff]
    assert [stat.S_IMODE(root.stat().st_mode) for root in roots] == [0o711] * 4


def test_a_damaged_blob_is_brought_again(store: Store, faulty: Registry) -> None:
    source = Image(TARS[0])
    faulty.add("app", source)
    pulling = Pulling(store)
    image = pulling(f"{faulty.host}/app")
    store.blobs.path(BlobDigest(source.layers[0])).unlink()
    store.require_blobs(image)
    whole(store)


def test_stages_side_by_side_unpack_once(store: Store, faulty: Registry) -> None:
    faulty.add("app", Image(*TARS))
    image = Pulling(store).puller.pull(Reference.parse(f"{faulty.host}/app"), AMD64)
    threads = [threading.Thread(target=store.ensure_unpacked, args=(image.top,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(faulty.asked("/blobs/")) == 4
    assert len(list(store.overlay.iterdir())) == len(TARS) + 1
    whole(store)


def test_a_configuration_comes_once(store: Store, faulty: Registry) -> None:
    source = Image(*TARS)
    faulty.add("app", source)
    config = json.loads(source.manifest)["config"]["digest"]
    for _ in range(2):
        Pulling(store)(f"{faulty.host}/app")
    assert len(faulty.asked(config)) == 1


def test_nothing_comes_twice(store: Store, faulty: Registry, tmp_path: Path) -> None:
    faulty.add("one", Image(TARS[0], TARS[1], TARS[0]))
    faulty.add("two", Image(TARS[0], TARS[2]))
    pulling = Pulling(store)
    pulling(f"{faulty.host}/one")
    pulling(f"{faulty.host}/two")
    pulling(f"{faulty.host}/two")
    paths = [asked.path.rpartition("/")[2] for asked in faulty.asked("/blobs/")]
    layers = {*Image(*TARS).layers}
    assert sorted(path for path in paths if path in layers) == sorted(layers)
    whole(store)


def test_nothing_comes_twice_to_two_at_once(store: Store, faulty: Registry) -> None:
    source = Image(*TARS)
    faulty.add("app", source)
    slow = threading.Event()

    def waiting(asked: Asked) -> Reply:
        slow.wait(0.3)
        return Reply(source.blobs[source.layers[0]])

    faulty.first[f"/v2/app/blobs/{source.layers[0]}"] = [waiting]
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with Store.open(store.root, user_xattr=store.user_xattr) as other:
                Pulling(other)(f"{faulty.host}/app")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for layer in source.layers:
        assert len(faulty.asked(layer)) == 1
    whole(store)


def test_a_part_that_a_killed_process_left_is_used(store: Store, faulty: Registry) -> None:
    source = Image(TARS[0])
    faulty.add("app", source)
    data = source.blobs[source.layers[0]]
    store.arrivals.folder.mkdir()
    (store.arrivals.folder / BlobDigest(source.layers[0]).hex).write_bytes(data[:100_000])
    Pulling(store)(f"{faulty.host}/app")
    (asked,) = faulty.asked(source.layers[0])
    assert asked.headers["range"].startswith("bytes=100000-")
    whole(store)


# -- platforms ---------------------------------------------------------------------------------------------------------


def indexed(faulty: Registry, name: str, *platforms: str, unknown: bool = False) -> dict[str, Image]:
    """An index with an image for each of ``platforms``, which are called as in OCI's platform strings."""
    images: dict[str, Image] = {}
    entries = []
    for number, text in enumerate(platforms):
        system, architecture, *variant = text.split("/")
        images[text] = Image(layer_tar(number, size=10), architecture=architecture, variant="".join(variant))
        faulty.add(name, images[text], tag=f"only{number}")
        told = {"os": system, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
        entries.append(described(images[text]) | {"platform": told})
    if unknown:
        entries.insert(0, described(Image()) | {"platform": {"os": "unknown", "architecture": "unknown"}})
    index = {"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": entries}
    faulty.document(name, json.dumps(index).encode(), OCI + "index.v1+json", "latest")
    return images


def described(image: Image) -> dict[str, object]:
    digest = BlobDigest.of(image.manifest)
    return {"mediaType": OCI + "manifest.v1+json", "digest": digest, "size": len(image.manifest)}


@pytest.mark.parametrize(
    ("there", "wanted", "chosen"),
    [
        ("linux/arm64 linux/amd64", "linux/amd64", "linux/amd64"),
        ("linux/arm/v5 linux/arm/v6 linux/arm/v7", "linux/arm/v7", "linux/arm/v7"),
        ("linux/arm/v5 linux/arm/v6", "linux/arm/v7", "linux/arm/v6"),
        ("linux/arm/v5 linux/arm/v7", "linux/arm/v6", "linux/arm/v5"),
        ("linux/arm/v7 linux/arm64", "linux/arm64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64", "linux/arm64/v8"),
        ("linux/amd64 linux/amd64/v2 linux/amd64/v3", "linux/amd64", "linux/amd64"),
        ("linux/amd64 linux/amd64/v2 linux/amd64/v4", "linux/amd64/v3", "linux/amd64/v2"),
        ("linux/amd64/v2 windows/amd64", "linux/amd64", None),
        ("linux/arm/v6", "linux/amd64", None),
    ],
)
def test_the_best_platform(store: Store, faulty: Registry, there: str, wanted: str, chosen: str | None) -> None:
    images = indexed(faulty, "many", *there.split(), unknown=True)
    platform = Platform(*wanted.split("/"))
    if chosen is None:
        with pytest.raises(RegistryError, match=f"no image for {wanted}") as refused:
            Pulling(store)(f"{faulty.host}/many", platform)
        assert there.split()[0] in refused.value.hint
        return
    assert Pulling(store)(f"{faulty.host}/many", platform).manifest_digest == BlobDigest.of(images[chosen].manifest)


def test_what_is_there_is_told_of_all_indexes(store: Store, faulty: Registry) -> None:
    indexed(faulty, "many", "linux/arm64", "linux/s390x")
    inner = faulty.web.answer(Asked("/v2/many/manifests/latest", {})).body
    kind = OCI + "index.v1+json"
    nested = {"mediaType": kind, "digest": BlobDigest.of(inner), "size": len(inner)}
    faulty.document("outer", inner, kind, "inner")
    other = described(Image()) | {"platform": {"os": "linux", "architecture": "riscv64"}}
    for entries, said in (
        ([other, nested], "linux/arm64, linux/riscv64, linux/s390x;"),
        ([nested, nested], "2 without a platform.*/outer@DIGEST"),
    ):
        faulty.document("outer", json.dumps({"schemaVersion": 2, "manifests": entries}).encode(), kind, "latest")
        with pytest.raises(RegistryError, match="no image for linux/amd64") as refused:
            Pulling(store)(f"{faulty.host}/outer")
        assert re.search(said, refused.value.hint)


def test_bases_for_several_platforms(store: Store, faulty: Registry) -> None:
    """The name stays with this machine's platform; another platform's image is found again without asking."""
    images = indexed(faulty, "many", "linux/amd64", "linux/arm64")
    manifests = {text: BlobDigest.of(image.manifest) for text, image in images.items()}
    name, arm64 = f"{faulty.host}/many", Platform("linux", "arm64")
    puller = Pulling(store).puller
    for _ in range(2):
        bases = Bases(store, puller=puller, own=AMD64)
        assert bases.image(name, arm64).manifest_digest == manifests["linux/arm64"]
        assert bases.image(name, AMD64).manifest_digest == manifests["linux/amd64"]
    assert store.images.resolve(name).manifest_digest == manifests["linux/amd64"]
    assert len(faulty.asked("/manifests/latest")) == 2
    offline = Bases(store, puller=puller, policy="never", own=AMD64)
    assert offline.image(name, arm64).manifest_digest == manifests["linux/arm64"]
    always = Bases(store, puller=puller, policy="always", own=AMD64)
    assert always.image(name, AMD64) and len(faulty.asked("/manifests/latest")) == 3
    faulty.page("/v2/many/manifests/latest", Reply(b"", 404))
    with pytest.raises(RegistryError, match=r"base image '[^']*' can't be pulled: .* answered 404") as refused:
        Bases(store, puller=puller, policy="always", own=AMD64).image(name, AMD64)
    assert "the store has one, which --pull=missing takes" in refused.value.hint
    with pytest.raises(NotFoundError, match="base image 'absent' is not in the store"):
        offline.image("absent", AMD64)


def test_a_base_of_another_platform_only(store: Store, faulty: Registry) -> None:
    faulty.add("alone", Image(TARS[0], architecture="arm64"))
    pulling = Pulling(store)
    assert Bases(store, puller=pulling.puller, own=AMD64).image(f"{faulty.host}/alone", AMD64)
    assert pulling.notes == [f"{faulty.host}/alone:latest is for linux/arm64, not for linux/amd64; there is no other"]


def test_a_pinned_digest(store: Store, faulty: Registry) -> None:
    source = Image(TARS[0])
    faulty.add("app", source)
    pulling, digest = Pulling(store), BlobDigest.of(source.manifest)
    assert pulling(f"{faulty.host}/app@{digest}").manifest_digest == digest
    faulty.page(f"/v2/app/manifests/{digest}", Reply(Image(TARS[1]).manifest))
    with pytest.raises(RegistryError, match=f"{faulty.host} sent sha256:.* as the manifest {digest}"):
        pulling(f"{faulty.host}/app:latest@{digest}")
    whole(store)


# -- what is refused ---------------------------------------------------------------------------------------------------

SCHEMA1 = json.dumps({"schemaVersion": 1, "name": "app", "tag": "latest", "fsLayers": [], "signatures": []}).encode()
CHART = Image()
CHART.manifest = CHART.manifest.replace(b"image.config", b"helm.config")


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (Reply(SCHEMA1), "schema 1"),
        (Reply(CHART.manifest), "it is no image"),
        (Reply(b"{}"), "no valid"),
        (Reply(b"<html>sign in here"), "no valid"),
        (Reply(b" " * ((4 << 20) + 1)), "the manifest latest is too large: 4194305 bytes"),
        (Reply(b" " * ((4 << 20) + 1), chunked=True), "more than the 4194304 bytes"),
        (Reply(Image().manifest, headers={"Docker-Content-Digest": "sha256:" + "0" * 64}), "as the manifest sha256:00"),
        (Reply(b"", 404), "answered 404"),
    ],
)
def test_no_such_manifest(store: Store, faulty: Registry, page: Reply, said: str) -> None:
    faulty.page("/v2/app/manifests/latest", page)
    with pytest.raises(RegistryError, match=said) as refused:
        Pulling(store)(f"{faulty.host}/app")
    assert faulty.host in refused.value.message
    whole(store)


def test_a_layer_that_is_another_than_was_said(store: Store, faulty: Registry) -> None:
    source, other = Image(TARS[0]), Image(TARS[1])
    document = json.loads(source.manifest) | {"layers": json.loads(other.manifest)["layers"]}
    source.manifest, source.blobs = json.dumps(document).encode(), source.blobs | other.blobs
    faulty.add("app", source)
    with pytest.raises(DigestMismatch, match=r"holds the layer sha256:.* instead of"):
        Pulling(store)(f"{faulty.host}/app")
    whole(store)


# -- what breaks -------------------------------------------------------------------------------------------------------


def halved(reply: Reply) -> Reply:
    """Half of what it declares."""
    return Reply(reply.body[: len(reply.body) // 2], reply.status, {"Content-Length": str(len(reply.body))})


def part(data: bytes, start: int, end: int) -> Reply:
    """Of whatever part was asked for: this one."""
    return Reply(data[start:end], 206, {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})


def blob_fault(faulty: Registry, *pages: Callable[[bytes], Reply]) -> tuple[Image, str]:
    """An image whose only layer comes with faults, and the path of that layer."""
    source = Image(TARS[0])
    faulty.add("app", source)
    path = f"/v2/app/blobs/{source.layers[0]}"
    faulty.first[path] = [page(source.blobs[source.layers[0]]) for page in pages]
    return source, path


PASSING: dict[str, list[Callable[[bytes], Reply]]] = {
    "429": [lambda data: Reply(b"", 429, {"Retry-After": "0"})],
    "503": [lambda data: Reply(b"", 503), lambda data: Reply(b"", 502)],
    "cut": [lambda data: halved(Reply(data))],
    "cut at once": [lambda data: Reply(b"", headers={"Content-Length": str(len(data))})],
    "stalled": [lambda data: Reply(data, stall=True)],
    "no ranges": [lambda data: halved(Reply(data)), lambda data: Reply(data)],
    "no length": [lambda data: Reply(data[:1000], chunked=True)],
    "no such range": [lambda data: halved(Reply(data)), lambda data: Reply(b"", 416)],
    "ranges are refused": [lambda data: halved(Reply(data)), lambda data: Reply(b"<Error>", 400)],
    "ranges are unknown": [lambda data: halved(Reply(data)), lambda data: Reply(b"", 501)],
    "another part": [lambda data: halved(Reply(data)), lambda data: part(data, 0, len(data))],
    "an unnamed part": [lambda data: halved(Reply(data)), lambda data: Reply(data, 206)],
    "a short part": [lambda data: halved(Reply(data)), lambda data: part(data, len(data) // 2, len(data) // 2 + 10)],
}


@pytest.mark.parametrize("pages", PASSING.values(), ids=PASSING)
def test_what_passes(store: Store, faulty: Registry, pages: list[Callable[[bytes], Reply]]) -> None:
    _, path = blob_fault(faulty, *pages)
    image = Pulling(store)(f"{faulty.host}/app")
    assert store.is_here(image.top) and not faulty.first[path]
    whole(store)


def test_the_rest_is_asked_for(store: Store, faulty: Registry) -> None:
    source, path = blob_fault(faulty, lambda data: halved(Reply(data)))
    Pulling(store)(f"{faulty.host}/app")
    size = len(source.blobs[source.layers[0]])
    assert [asked.headers.get("range") for asked in faulty.asked(path)] == [None, f"bytes={size // 2}-{size - 1}"]


LASTING: dict[str, tuple[Callable[[bytes], Reply], str]] = {
    "another content": (lambda data: Reply(data[:-1] + b"?"), "has digest sha256:.* thrown away"),
    "too long": (lambda data: Reply(data + b"?"), r"has \d+ bytes as the blob"),
    "too long, undeclared": (lambda data: Reply(data + b"?", chunked=True), "has more bytes as the blob"),
    "too short": (lambda data: Reply(data[:-1]), r"has \d+ bytes as the blob"),
    "a length that is none": (
        lambda data: Reply(data[:-1] + b"?", headers={"Content-Length": "9" * 5000}),
        "thrown away",
    ),
    "a nested error": (lambda data: Reply(b"[" * 60000, 404), "answered 404 to GET"),
    "always cut": (
        lambda data: Reply(b"", headers={"Content-Length": str(len(data))}),
        "can't be reached for .*/blobs",
    ),
    "always 500": (lambda data: Reply(b"", 500), "answered 500 to GET"),
    "gone": (lambda data: Reply(b"", 404), "answered 404 to GET"),
    "another part": (
        lambda data: Reply(data, 206, {"Content-Range": f"bytes 0-{len(data)}/{len(data)}"}),
        "answered 206|another part",
    ),
}


@pytest.mark.parametrize("fault", LASTING.values(), ids=LASTING)
def test_what_lasts(store: Store, faulty: Registry, fault: tuple[Callable[[bytes], Reply], str]) -> None:
    page, said = fault
    source, _ = blob_fault(faulty, *[page] * PATIENCE.tries)
    with pytest.raises(RegistryError, match=said) as refused:
        Pulling(store)(f"{faulty.host}/app")
    assert faulty.host in refused.value.message
    assert not store.blobs.has(BlobDigest(source.layers[0]))
    whole(store)


def test_a_server_is_waited_for_as_it_asks(faulty: Registry) -> None:
    waited: list[float] = []
    transport = Transport({}, patience=PATIENCE, sleep=waited.append)
    soon = formatdate(time() + 1.5, usegmt=True)
    replies = iter([Reply(b"", 429, {"Retry-After": "1"}), Reply(b"", 503, {"Retry-After": soon}), Reply(b"here")])
    faulty.web.pages["/x"] = lambda asked: next(replies)
    with transport.send("GET", faulty.web.url("x")) as answer:
        assert answer.small() == b"here"
    assert waited[0] == 1 and 0 < waited[1] <= 1.5


def test_a_name_that_was_found_before_is_looked_up_again(faulty: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A push at the end of a long build does not fail for one lost packet; a name that nobody knows fails at once."""
    faulty.add("app", Image())
    host = faulty.host.replace("127.0.0.1", "localhost")
    there = client().push(Reference.parse(f"{host}/app"))
    assert there.manifest("latest").data
    found, lost = socket.getaddrinfo, iter([socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")])

    def look_up(*arguments: Any, **options: Any) -> Any:
        error = next(lost, None)
        if error is not None:
            raise error
        return found(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert there.manifest("latest").data
    assert next(lost, None) is None


def test_a_server_that_wants_too_much_patience(store: Store, faulty: Registry) -> None:
    faulty.page("/v2/app/manifests/latest", Reply(b"", 429, {"Retry-After": "3600"}))
    with pytest.raises(RegistryError, match="answered 429") as refused:
        Pulling(store)(f"{faulty.host}/app")
    assert "3600 seconds" in refused.value.hint
    assert len(faulty.asked("/manifests/")) == 1
    faulty.page("/v2/app/manifests/latest", Reply(b"", 429, {"Retry-After": formatdate(time() + 3600, usegmt=True)}))
    with pytest.raises(RegistryError, match="answered 429") as refused:
        Pulling(store)(f"{faulty.host}/app")
    assert re.search("3[56][0-9]{2} seconds", refused.value.hint)


def test_another_blob_fails_and_the_rest_stays(store: Store, faulty: Registry) -> None:
    source = Image(*TARS)
    faulty.add("app", source)
    faulty.page(f"/v2/app/blobs/{source.layers[2]}", Reply(b"", 404))
    pulling = Pulling(store)
    with pytest.raises(RegistryError, match="answered 404"):
        pulling(f"{faulty.host}/app")
    faulty.page(f"/v2/app/blobs/{source.layers[2]}", Reply(source.blobs[source.layers[2]]))
    pulling(f"{faulty.host}/app")
    assert [len(faulty.asked(layer)) for layer in source.layers] == [1, 1, 2]
    whole(store)


# -- redirects and mirrors ---------------------------------------------------------------------------------------------


def test_storage_elsewhere(store: Store, faulty: Registry, tmp_path: Path) -> None:
    source, path = blob_fault(faulty)
    with Web(tmp_path) as storage:
        storage.pages["/signed"] = Reply(source.blobs[source.layers[0]])
        faulty.page(path, Reply(b"", 307, {"Location": storage.url("signed?X-Signature=hidden")}))
        Pulling(store)(f"{faulty.host}/app")
        assert storage.asked[0].path == "/signed?X-Signature=hidden"
    whole(store)


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("/v2/app/blobs/again", "redirects more than 10 times"),
        ("file:///etc/passwd", "which is not HTTP"),
        ("http://127.0.0.1:1/x?X-Signature=hidden", r"^127\.0\.0\.1:1 can't be reached for .*/v2/app/blobs/"),
        ("http://hidden@127.0.0.1:99999/x", "sends to what is no address"),
        ("http://[hidden/x", "sends to what is no address"),
    ],
)
def test_a_redirect_to_nowhere(store: Store, faulty: Registry, location: str, said: str) -> None:
    _, path = blob_fault(faulty)
    for place in (path, "/v2/app/blobs/again"):
        faulty.page(place, Reply(b"", 302, {"Location": location}))
    with pytest.raises(RegistryError, match=said) as refused:
        Pulling(store)(f"{faulty.host}/app")
    assert "hidden" not in str(refused.value)


def test_a_mirror_first_then_the_registry(store: Store, faulty: Registry, tmp_path: Path) -> None:
    source = Image(*TARS[:2])
    with Web(tmp_path) as web:
        mirror = Registry(web)
        mirror.add("copies/app", source)
        faulty.add("app", source)
        size = len(source.blobs[source.layers[1]])
        broken = Reply(source.blobs[source.layers[1]][:5000], headers={"Content-Length": str(size)})
        mirror.page(f"/v2/copies/app/blobs/{source.layers[1]}", lambda asked: next(replies, Reply(b"", 404)))
        replies = iter([broken])
        hosts = Hosts(mirrors={faulty.host: (f"{mirror.host}/copies",)})
        pulling = Pulling(store, client(hosts=hosts))
        pulling(f"{faulty.host}/app")
    (asked,) = faulty.asked("/blobs/")
    assert asked.headers["range"] == f"bytes=5000-{size - 1}"
    assert "the next place goes on" in pulling.notes[0]
    whole(store)


WRONG: dict[str, Callable[[bytes], bytes]] = {
    "its end": lambda data: data[:-1] + b"?",
    "its beginning": lambda data: b"??????" + data[6:],
    "all of it": lambda data: bytes(len(data)),
    "another codec": lambda data: b"\xfd7zXZ\x00" + data[6:],
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_mirror_that_sends_something_else(
    store: Store, faulty: Registry, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    source = Image(*TARS[:2])
    blob = source.blobs[source.layers[0]]
    with Web(tmp_path) as web:
        mirror = Registry(web)
        mirror.add("copies/app", source)
        faulty.add("app", source)
        mirror.page(f"/v2/copies/app/blobs/{source.layers[0]}", Reply(change(blob)))
        hosts = Hosts(mirrors={faulty.host: (f"{mirror.host}/copies",)})
        pulling = Pulling(store, client(hosts=hosts))
        image = pulling(f"{faulty.host}/app")
    (asked,) = faulty.asked("/blobs/")
    assert asked.path.endswith(source.layers[0]) and "range" not in asked.headers
    assert [note for note in pulling.notes if "it was thrown away, and comes again" in note] == pulling.notes
    assert store.is_here(image.top)
    whole(store)


def test_a_part_that_is_wrong_comes_again_as_a_whole(store: Store, faulty: Registry) -> None:
    """The place that goes on with it is not the one to blame."""
    source = Image(TARS[0])
    faulty.add("app", source)
    part = store.arrivals.folder / BlobDigest(source.layers[0]).hex
    part.parent.mkdir()
    part.write_bytes(bytes(1000))
    Pulling(store)(f"{faulty.host}/app")
    asked = faulty.asked(f"/blobs/{source.layers[0]}")
    assert [request.headers.get("range", "")[:11] for request in asked] == ["bytes=1000-", ""]
    whole(store)


def test_a_mirror_without_the_image(store: Store, faulty: Registry, tmp_path: Path) -> None:
    for name in ("app", "other"):
        faulty.add(name, Image(TARS[0]))
    with Web(tmp_path) as web:
        pulling = Pulling(store, client(hosts=Hosts(mirrors={faulty.host: (web.host,)})))
        pulling(f"{faulty.host}/app")
        pulling(f"{faulty.host}/other")
        assert sum("a mirror, does not have" in note for note in pulling.notes) == 2
        assert [path for path in web.paths if "/manifests/" in path] == [
            "/v2/app/manifests/latest",
            "/v2/other/manifests/latest",
        ]


def without_patience(seconds: float) -> None:
    raise AssertionError(f"{seconds} seconds are waited for what another place has")


@pytest.mark.parametrize("trouble", [None, Reply(b"", 503), Reply(b"", 429, {"Retry-After": "1"})])
def test_a_mirror_in_trouble_is_asked_once(
    store: Store, faulty: Registry, tmp_path: Path, trouble: Reply | None
) -> None:
    """Neither again for the image, nor for its blobs or the next image."""
    for name, tar in zip(("app", "other"), TARS, strict=False):
        faulty.add(name, Image(tar))
    with Web(tmp_path) as web:
        web.guard = trouble and (lambda asked: trouble)
        hosts = Hosts(mirrors={faulty.host: (web.host if trouble else "127.0.0.1:1",)})
        patient = Transport({}, patience=PATIENCE, sleep=without_patience)
        pulling = Pulling(store, Client(hosts, Keychain((), {}), patient))
        pulling(f"{faulty.host}/app")
        pulling(f"{faulty.host}/other")
        assert [path for path in web.paths if path != "/v2/"] == ["/v2/app/manifests/latest"] * bool(trouble)
    (note,) = pulling.notes
    assert "is not asked any more in this run" in note
    whole(store)


def test_a_mirror_that_has_answered_is_waited_for(store: Store, faulty: Registry, tmp_path: Path) -> None:
    """It may be the only place that can be reached."""
    source = Image(TARS[0])
    with Web(tmp_path) as web:
        mirror = Registry(web)
        mirror.add("app", source)
        mirror.first[f"/v2/app/blobs/{source.layers[0]}"] = [Reply(b"", 503)]
        pulling = Pulling(store, client(hosts=Hosts(mirrors={"127.0.0.1:1": (web.host,)})))
        pulling("127.0.0.1:1/app")
    assert pulling.notes == []
    whole(store)
