"""Uploads to a server that fails: what is sent again, what is not, and what is given up."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from registries import Registry
from registry_clients import PATIENCE, client, repository
from upload_server import Fault, UploadServer

from layerbuild.digest import BlobDigest
from layerbuild.errors import RegistryError
from layerbuild.image.manifest import Descriptor
from layerbuild.registry.client import Client
from layerbuild.registry.credentials import Keychain
from layerbuild.registry.hosts import Endpoint, Hosts
from layerbuild.registry.transport import Transport
from layerbuild.registry.upload import How, Upload

DATA = random.Random(4).randbytes(3_000_000)
DIGEST = BlobDigest.of(DATA)
BLOB = Descriptor("application/octet-stream", DIGEST, len(DATA))


@pytest.fixture
def server() -> Iterator[UploadServer]:
    with UploadServer() as running:
        yield running


def upload(server: UploadServer, *, mounts: tuple[str, ...] = (), told: list[int] | None = None) -> How:
    repository = client(patience=replace(PATIENCE, pause=0.01)).open(Endpoint(server.host, "tests/new"))
    sent: list[int] = [] if told is None else told
    how = Upload(repository, BLOB, lambda start: io.BytesIO(DATA[start:]), mounts=mounts, told=sent.append).run()
    assert server.blobs["tests/new"][DIGEST] == DATA
    return how


def test_at_once(server: UploadServer) -> None:
    told: list[int] = []
    assert upload(server, told=told) is How.SENT
    assert told[-1] == len(DATA) and told == sorted(told)
    assert server.sent == len(DATA)
    assert [line.partition(" ")[0] for line in server.asked] == ["GET", "HEAD", "POST", "PUT"]  # GET: which scheme


def test_what_is_there_is_not_sent(server: UploadServer) -> None:
    server.blobs["tests/new"] = {DIGEST: DATA}
    assert upload(server) is How.EXISTING
    assert server.count("POST") == 0


def test_an_empty_blob(server: UploadServer) -> None:
    empty = Descriptor("application/octet-stream", BlobDigest.of(b""), 0)
    repository = client().open(Endpoint(server.host, "tests/new"))
    assert Upload(repository, empty, lambda start: io.BytesIO()).run() is How.SENT


def test_mounted(server: UploadServer) -> None:
    server.blobs["tests/base"] = {DIGEST: DATA}
    assert upload(server, mounts=("tests/other", "tests/base")) is How.MOUNTED
    assert server.sent == 0


@pytest.mark.parametrize("refusal", [None, 401, 403, 404, 405])
def test_a_mount_that_is_refused(server: UploadServer, refusal: int | None) -> None:
    if refusal:
        server.faults.append(Fault("POST", "mount=", refusal, times=9))
    assert upload(server, mounts=("tests/base",)) is How.SENT
    assert server.count("POST") == (2 if refusal else 1)  # the refusal of a mount begins an upload


@pytest.mark.parametrize("cut", [0, 1, 1_234_567])
def test_a_break_is_gone_on_after(server: UploadServer, cut: int) -> None:
    server.faults.append(Fault("PUT", "uploads", cut=cut))
    server.faults.append(Fault("PATCH", "uploads", cut=1_000_000))
    assert upload(server) is How.SENT
    if cut > 1:
        assert server.count("POST") == 1 and server.sent == len(DATA)


def test_a_server_that_forgets_an_upload_gets_it_anew(server: UploadServer) -> None:
    server.faults += [
        Fault("PUT", "uploads", cut=2_000_000, lost=True),
        Fault("GET", "uploads", 404, errors=(("BLOB_UPLOAD_INVALID", "blob upload invalid"),)),
    ]
    assert upload(server) is How.SENT
    assert server.count("POST") == 2 and server.sent == len(DATA) + 2_000_000


def test_an_upload_that_has_expired(server: UploadServer) -> None:
    server.faults.append(Fault("PUT", "digest=", 404, errors=(("BLOB_UPLOAD_UNKNOWN", "upload unknown"),)))
    assert upload(server) is How.SENT
    assert server.count("POST") == 2


def test_breaks_without_end(server: UploadServer) -> None:
    server.faults.append(Fault("PUT", "uploads", cut=10, lost=True, times=99))
    with pytest.raises(RegistryError, match="can't be reached"):
        upload(server)
    assert server.count("PUT") == PATIENCE.tries


def test_who_gets_on_is_not_given_up(server: UploadServer) -> None:
    server.faults += [Fault("PUT", "uploads", cut=100_000), Fault("PATCH", "uploads", cut=100_000, times=8)]
    assert upload(server) is How.SENT
    assert server.sent == len(DATA)


def test_no_pieces_then_whole_again(server: UploadServer) -> None:
    server.pieces = False
    server.faults.append(Fault("PUT", "uploads", cut=1_000_000))
    assert upload(server) is How.SENT
    assert server.count("POST") == 2


@pytest.mark.parametrize("smallest", [0, 1_200_000])
def test_too_large_at_once(server: UploadServer, smallest: int) -> None:
    server.largest, server.smallest = 1_400_000, smallest
    assert upload(server) is How.SENT
    assert server.count("PATCH") == (9 if not smallest else 4)  # one of them was too large, too


def test_in_pieces_to_a_real_registry(registry: Registry) -> None:
    there, start = repository(registry, "tests/pieces"), registry.position
    assert Upload(there, BLOB, lambda start: io.BytesIO(DATA[start:]), chunk=1 << 20).run() is How.SENT
    assert [line.partition(" ")[0] for line in registry.requests(start)][-5:] == ["POST", *["PATCH"] * 3, "PUT"]
    with there.blob(DIGEST, len(DATA)) as reader:
        assert b"".join(iter(lambda: reader.read(1 << 20), b"")) == DATA


@pytest.mark.parametrize("cut", [False, True])
def test_a_server_that_takes_pieces_only(server: UploadServer, cut: bool) -> None:
    server.whole = False
    server.faults += [Fault("PATCH", "uploads", cut=1_000_000)] * cut
    assert upload(server) is How.SENT
    assert server.count("PATCH") == 1 + cut


def test_a_server_that_takes_neither(server: UploadServer) -> None:
    server.whole = server.pieces = False
    with pytest.raises(RegistryError, match="answered 405 to PATCH"):
        upload(server)


def test_too_large_at_all(server: UploadServer) -> None:
    server.largest = 1000
    with pytest.raises(RegistryError, match=f"{server.host} answered 413") as refused:
        upload(server)
    assert refused.value.status == 413
    server.pieces, server.largest = False, 1_000_000
    with pytest.raises(RegistryError, match=r"answered 405 to PATCH.*the operation is unsupported"):
        upload(server)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_in_trouble(server: UploadServer, status: int) -> None:
    server.faults.append(Fault("PUT", "uploads", status, times=2))
    assert upload(server) is How.SENT


def test_retry_after_is_waited_for(server: UploadServer) -> None:
    server.faults.append(Fault("PUT", "uploads", 429, {"Retry-After": "1"}))
    waits: list[float] = []
    patient = Client(Hosts(), Keychain((), {}), Transport({}, patience=PATIENCE, sleep=waits.append))
    repository = patient.open(Endpoint(server.host, "tests/new"))
    assert Upload(repository, BLOB, lambda start: io.BytesIO(DATA[start:])).run() is How.SENT
    assert waits == [1.0]


def test_too_long_a_wait_is_told(server: UploadServer) -> None:
    server.faults.append(Fault("PUT", "uploads", 429, {"Retry-After": "3600"}, times=9))
    with pytest.raises(RegistryError, match="429") as refused:
        upload(server)
    assert "3600 seconds" in refused.value.hint
    assert server.count("PUT") == 1


def test_another_range_than_it_wanted(server: UploadServer) -> None:
    server.faults.append(Fault("PUT", "uploads", cut=1_000_000))

    def lose_some(what: str) -> None:
        if what.startswith("PATCH") and server.count("PATCH") == 1:
            (begun,) = server.uploads.values()
            del begun[500_000:]

    server.on_request = lose_some
    assert upload(server) is How.SENT
    assert server.count("GET .*uploads") == 2 and server.count("POST") == 1


def test_wrong_bytes_after_a_break_are_sent_anew(server: UploadServer) -> None:
    server.faults += [Fault("PUT", "uploads", cut=1_000_000), Fault("PUT", "digest=", 400)]
    assert upload(server) is How.SENT
    assert server.count("POST") == 2


def test_a_token_that_ends_in_the_middle(server: UploadServer) -> None:
    server.renew()
    told: list[str] = []

    def end_it(what: str) -> None:
        if what.startswith("PUT") and not told:
            told.append(server.renew())

    server.on_request = end_it
    assert upload(server) is How.SENT
    assert server.count("GET /token") >= 2 and server.count("PUT") == 2


def test_a_token_that_ends_with_each_piece(server: UploadServer) -> None:
    server.renew()
    server.largest = 1_400_000

    def end_it(what: str) -> None:
        if what.startswith("PATCH") and server.count("PATCH") % 2:
            server.renew()

    server.on_request = end_it
    assert upload(server) is How.SENT
    assert server.count("GET /token") > 4
