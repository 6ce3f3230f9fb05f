"""What is pushed in which order, what is not sent twice, and what a registry refuses."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
from registry_clients import PATIENCE, client
from upload_server import Fault, UploadServer

from layerbuild.crew import Crew
from layerbuild.digest import BlobDigest
from layerbuild.errors import DigestMismatch, RegistryError
from layerbuild.image.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Descriptor, Index, Manifest, layer_media_type
from layerbuild.registry.hosts import Endpoint
from layerbuild.registry.push import Document, Pusher, Shipment, push
from layerbuild.registry.upload import How


@dataclass
class Shelf:
    """Blobs in memory, and who else may have them."""

    blobs: dict[BlobDigest, bytes] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    def put(self, data: bytes, media_type: str = OCI_CONFIG) -> Descriptor:
        digest = BlobDigest.of(data)
        self.blobs[digest] = data
        return Descriptor(media_type, digest, len(data))

    def open(self, digest: BlobDigest, start: int) -> io.BytesIO:
        return io.BytesIO(self.blobs[digest][start:])

    def check(self, digest: BlobDigest) -> None:
        if BlobDigest.of(self.blobs[digest]) != digest:
            raise DigestMismatch(f"blob {digest} is damaged here")

    def homes(self, digest: BlobDigest, endpoint: Endpoint) -> tuple[str, ...]:
        return self.others

    def delivered(self, digest: BlobDigest, endpoint: Endpoint) -> None:
        pass

    def image(self, seed: int = 0) -> Shipment:
        layers = [self.put(random.Random(n).randbytes(50_000), layer_media_type("none")) for n in range(seed, seed + 5)]
        config = self.put(b"{}%d" % seed)
        manifest = Manifest(config, tuple(layers))
        return Shipment.of([manifest], [Document(OCI_MANIFEST, manifest.to_json())])


@pytest.fixture
def server() -> Iterator[UploadServer]:
    with UploadServer() as running:
        yield running


@contextmanager
def pushers(server: UploadServer, shelf: Shelf, *names: str) -> Iterator[list[Pusher]]:
    opened = client(patience=replace(PATIENCE, read=60.0))
    with Crew(4, name="tests") as crew:
        yield [Pusher(opened.open(Endpoint(server.host, name)), shelf, crew) for name in names]


def test_blobs_then_the_manifest_then_tags(server: UploadServer) -> None:
    shelf = Shelf()
    image = shelf.image()
    with pushers(server, shelf, "tests/a", "tests/b") as (one, two):
        push(image, [(one, ["1", "latest"]), (two, ["1"])])
    puts = [line for line in server.asked if line.startswith("PUT")]
    assert [("manifests" in line) for line in puts] == [False] * 6 + [True] * 3
    assert server.count("mount=.*from=tests%2Fa") == 6  # the second repository borrows from the first
    for name, tag in (("tests/a", "1"), ("tests/a", "latest"), ("tests/b", "1")):
        assert server.manifests[name][tag] == (OCI_MANIFEST, image.top.data)


def test_registries_get_it_side_by_side(server: UploadServer) -> None:
    """No upload to the first one ends before one to the second has begun."""
    shelf = Shelf()
    image = shelf.image()
    begun, met = threading.Event(), []

    def wait(what: str) -> None:
        if what.startswith("PUT") and "uploads" in what:
            met.append(begun.wait(20))

    with UploadServer() as second, pushers(server, shelf, "a") as (one,), pushers(second, shelf, "b") as (two,):
        server.on_request = wait
        second.on_request = lambda what: begun.set() if what.startswith("POST") else None
        push(image, [(one, ["1"]), (two, ["1"])])
        assert len(met) == 6 and all(met)
        assert server.manifests["a"]["1"] == second.manifests["b"]["1"]


def test_configurations_go_first_and_then_the_largest_layer() -> None:
    shelf = Shelf()
    small, large, middle = (shelf.put(random.Random(size).randbytes(size), "x") for size in (100, 900, 500))
    configs = [shelf.put(b"{}%d" % number) for number in range(2)]
    manifests = [Manifest(configs[0], (small, large)), Manifest(configs[1], (small, middle))]
    assert Shipment.of(manifests, ()).blobs == (*configs, large, middle, small)


def test_again_nothing_is_sent(server: UploadServer) -> None:
    shelf = Shelf()
    image = shelf.image()
    for _ in range(2):
        before = len(server.asked)
        with pushers(server, shelf, "tests/a") as (one,):
            push(image, [(one, ["1"])])
    assert [line.partition(" ")[0] for line in server.asked[before:]] == ["GET", "HEAD", "HEAD"]


def test_by_digest(server: UploadServer) -> None:
    shelf = Shelf()
    image = shelf.image()
    with pushers(server, shelf, "tests/a") as (one,):
        push(image, [(one, ["1"])], by_digest=True)
    assert list(server.manifests["tests/a"]) == [image.top.digest]


def test_an_index_comes_behind_its_images(server: UploadServer) -> None:
    shelf = Shelf()
    images = [shelf.image(), shelf.image(3)]  # some layers are the same
    tops = tuple(Descriptor(OCI_MANIFEST, image.top.digest, len(image.top.data)) for image in images)
    blobs = {blob.digest: blob for image in images for blob in image.blobs}
    documents = (images[0].top, images[1].top, Document(OCI_INDEX, Index(tops).to_json()))
    with pushers(server, shelf, "tests/a") as (one,):
        push(Shipment(tuple(blobs.values()), documents), [(one, ["1"])])
    assert server.manifests["tests/a"]["1"][0] == OCI_INDEX
    assert server.count("PUT .*blobs") == 10


def test_what_was_begun_early_is_not_sent_again(server: UploadServer) -> None:
    shelf = Shelf()
    image = shelf.image()
    with pushers(server, shelf, "tests/a") as (one,):
        early = one.start(image.blobs[0])
        assert early.result() is How.SENT
        push(image, [(one, ["1"])])
    assert server.sent == sum(blob.size for blob in image.blobs)


def test_a_layer_that_lies_elsewhere_is_left_out(server: UploadServer) -> None:
    shelf = Shelf()
    foreign = Descriptor(layer_media_type("none"), BlobDigest.of(b"foreign"), 7, urls=("https://elsewhere.example/x",))
    manifest = Manifest(shelf.put(b"{}"), (foreign,))
    image = Shipment.of([manifest], [Document(OCI_MANIFEST, manifest.to_json())])
    with pushers(server, shelf, "tests/a") as (one,), pytest.raises(RegistryError, match="unknown content"):
        push(image, [(one, ["1"])])  # this server wants all blobs
    assert list(server.blobs["tests/a"]) == [manifest.config.digest]


def test_a_failure_leaves_no_tag(server: UploadServer) -> None:
    shelf = Shelf()
    image = shelf.image()
    server.faults.append(Fault("PUT", image.blobs[2].digest, 507, errors=(("UNKNOWN", "no room"),), times=9))
    with pushers(server, shelf, "tests/a", "tests/b") as (one, two), pytest.raises(RegistryError, match="no room"):
        push(image, [(one, ["1"]), (two, ["1"])])
    assert server.count("PUT .*manifests") == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "errors", "said"),
    [
        ("POST", "uploads", 403, ("DENIED", "requested access to the resource is denied"), "access to the resource"),
        ("POST", "uploads", 404, ("NAME_UNKNOWN", "repository name not known to registry"), "name not known"),
        ("PUT", "manifests", 400, ("TAG_INVALID", "tag 1 is immutable"), "tag 1 is immutable"),
        ("PUT", "manifests", 413, ("SIZE_INVALID", "too large"), "too large"),
    ],
)
def test_a_registry_s_own_words(
    server: UploadServer, method: str, path: str, status: int, errors: tuple[str, str], said: str
) -> None:
    shelf = Shelf()
    server.faults.append(Fault(method, path, status, errors=(errors,), times=99))
    with pushers(server, shelf, "tests/a") as (one,), pytest.raises(RegistryError) as refused:
        push(shelf.image(), [(one, ["1"])])
    assert said in refused.value.message and server.host in refused.value.message
    assert ("layerbuild login" in refused.value.hint) is (status == 403)


def test_a_blob_that_the_registry_lost_is_sent_again(server: UploadServer) -> None:
    shelf = Shelf()
    image = shelf.image()
    gone: list[bytes] = []

    def sweep(what: str) -> None:
        if what.startswith("PUT") and "manifests" in what and not gone:
            gone.append(server.blobs["tests/a"].pop(image.blobs[0].digest))

    server.on_request = sweep
    with pushers(server, shelf, "tests/a") as (one,):
        push(image, [(one, ["1"])])
    assert server.blobs["tests/a"][image.blobs[0].digest] == gone[0]
    assert server.count("PUT .*manifests") == 2


def test_a_tag_that_means_it_already_is_not_set_again(server: UploadServer) -> None:
    shelf = Shelf()
    image = shelf.image()
    with pushers(server, shelf, "tests/a") as (one,):
        push(image, [(one, ["1"])])
        server.faults.append(Fault("PUT", "manifests", 400, errors=(("TAG_INVALID", "tag 1 is immutable"),)))
        push(image, [(one, ["1"])])


def test_a_blob_that_is_damaged_here(server: UploadServer) -> None:
    shelf = Shelf()
    image = shelf.image()
    shelf.blobs[image.blobs[0].digest] = b"x" * image.blobs[0].size
    with pushers(server, shelf, "tests/a") as (one,), pytest.raises(DigestMismatch, match="damaged here"):
        push(image, [(one, ["1"])])


def test_a_push_that_is_stopped(server: UploadServer) -> None:
    shelf = Shelf()
    with pushers(server, shelf, "tests/a") as (one,):
        one.close()
        with pytest.raises(RegistryError, match="stopped"):
            one.start(shelf.image().blobs[0]).result()
    assert not server.blobs
