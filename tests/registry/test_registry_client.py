"""The client and a real registry: manifests, blobs, uploads, credentials."""

from __future__ import annotations

import json
import random
from base64 import b64encode
from pathlib import Path

import pytest
from registries import PASSWORD, USER, Registry
from registry_clients import client, repository

from layerbuild.digest import BlobDigest
from layerbuild.errors import RegistryError
from layerbuild.image.manifest import OCI_CONFIG, OCI_MANIFEST, Descriptor, Manifest
from layerbuild.reference import Reference
from layerbuild.registry.client import Repository
from layerbuild.registry.credentials import Credential


def upload(repository: Repository, data: bytes) -> BlobDigest:
    """The two requests of a whole upload (distribution-spec, "POST then PUT")."""
    digest = BlobDigest.of(data)
    with repository.request("POST", "blobs/uploads/", scopes=repository.pushing, expect=(202,)) as answer:
        place = answer.target(answer.headers["Location"])
    joint = "&" if "?" in place else "?"
    headers = {"Content-Type": "application/octet-stream"}
    with repository.request(
        "PUT", f"{place}{joint}digest={digest}", scopes=repository.pushing, headers=headers, body=data, expect=(201,)
    ):
        return digest


def login(folder: Path, registry: Registry) -> Path:
    file = folder / "config.json"
    pair = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    file.write_text(json.dumps({"auths": {registry.host: {"auth": pair}}}))
    return file


def test_blobs(registry: Registry) -> None:
    there = repository(registry, "tests/blobs")
    data = random.Random(1).randbytes(3 << 20)
    digest = upload(there, data)
    assert there.blob_size(digest) == len(data)
    assert there.blob_size(BlobDigest.of(b"another")) is None
    for start in (0, 2_000_000):
        with there.blob(digest, len(data), start=start) as reader:
            assert b"".join(iter(lambda reader=reader: reader.read(100_000), b"")) == data[start:]
    with there.open_blob(digest, 1_000_000, len(data)) as answer:
        assert answer.status == 206
        assert answer.read(10) == data[1_000_000:1_000_010]


def test_manifests(registry: Registry) -> None:
    there = repository(registry, "tests/manifests")
    config = upload(there, b"{}")
    data = Manifest(Descriptor(OCI_CONFIG, config, 2), ()).to_json()
    assert there.manifest_digest("one") is None
    digest = there.put_manifest("one", data, OCI_MANIFEST)
    assert there.manifest_digest("one") == digest == BlobDigest.of(data)
    for target in ("one", digest):
        found = there.manifest(target)
        assert (found.media_type, found.data, found.digest) == (OCI_MANIFEST, data, digest)
    with pytest.raises(RegistryError, match=f"{registry.host} answered 404 .*MANIFEST_UNKNOWN") as missing:
        there.manifest("two")
    assert missing.value.status == 404


def test_with_a_password(closed_registry: Registry, tmp_path: Path) -> None:
    there = repository(closed_registry, "tests/closed", login(tmp_path, closed_registry))
    digest = upload(there, b"content")
    assert there.small_blob(digest, 7) == b"content"
    with pytest.raises(RegistryError, match="401") as refused:
        repository(closed_registry, "tests/closed").blob_size(digest)
    assert f"layerbuild login {closed_registry.host}" in refused.value.hint


def test_a_credential_is_checked(closed_registry: Registry) -> None:
    client().check(closed_registry.host, Credential(USER, PASSWORD))
    with pytest.raises(RegistryError, match="401") as refused:
        client().check(closed_registry.host, Credential(USER, "a wrong one"))
    assert "a wrong one" not in str(refused.value)


def test_nobody_there(registry: Registry) -> None:
    (there,) = client().pull(Reference.parse("127.0.0.1:1/nothing"))
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:1 can't be reached .*Connection refused"):
        there.manifest("latest")
