"""A layer from elsewhere comes into the store: first its blob, held against its digest, then folder and index of it.

What is claimed is never believed: a blob gets its own digest as a name, and a diff ID is that of the bytes inside.
"""

from __future__ import annotations

import io
import shutil
from typing import BinaryIO, cast

from layerbuild.digest import BlobDigest, ChainID, DiffID, HashingWriter, VerifyingReader
from layerbuild.errors import DigestMismatch, FormatError
from layerbuild.frozen import frozen
from layerbuild.layer.codecs import GZIP, MAGIC_SIZE, WRITTEN, ZSTD, compress, detect
from layerbuild.store.layers import BlobRecord
from layerbuild.store.store import Store
from layerbuild.store.unpack import diff_id_of

_PIECE = 1 << 20


@frozen
class Claim:
    """What somebody says of a layer. ``size`` is the blob's, in bytes."""

    digest: BlobDigest
    size: int
    diff_id: DiffID


def known_blob(store: Store, claim: Claim) -> BlobRecord | None:
    """The blob, if the store knows it as that very layer: then it need not be read again."""
    record = store.layers.by_blob(claim.digest)
    if record is None or record.diff_id != claim.diff_id or not store.blobs.has(claim.digest):
        return None
    return next(blob for blob in record.blobs if blob.digest == claim.digest)


def take_blob(store: Store, source: BinaryIO, claim: Claim) -> BlobRecord:
    """Copy a layer's blob as it is; DigestMismatch if it is not what is claimed, FormatError if no layer may be so."""
    verified = VerifyingReader(source, claim.digest, size=claim.size, name=f"layer {claim.digest}")
    with store.blobs.writer() as writer:
        shutil.copyfileobj(verified, writer, _PIECE)
        writer.commit(claim.digest)
    with store.blobs.path(claim.digest).open("rb") as blob:
        codec = detect(blob.read(MAGIC_SIZE))
    if codec.name not in WRITTEN:
        raise FormatError(f"layer {claim.digest} is compressed with {codec.name}", hint="OCI knows gzip and zstd only")
    return BlobRecord(claim.digest, claim.size, codec.name)


def take_tar(store: Store, source: BinaryIO) -> tuple[DiffID, BlobRecord]:
    """Store a tar, compressed in any way, as a layer's blob; the layer is the tar's bytes, unchanged.

    What is compressed with gzip or zstd stays the blob that it is; anything else is compressed with gzip.
    """
    buffered = source if isinstance(source, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, source))
    codec = detect(buffered.peek(MAGIC_SIZE)[:MAGIC_SIZE])
    if codec in (GZIP, ZSTD):
        with store.blobs.writer() as writer:
            shutil.copyfileobj(buffered, writer, _PIECE)
            digest, size = writer.commit()
        blob = BlobRecord(digest, size, codec.name)
        return diff_id_of(store, blob), blob
    with store.blobs.writer() as writer:
        compressor = compress(GZIP, writer)
        hashing = HashingWriter(compressor)
        shutil.copyfileobj(codec.decompressor(buffered), hashing, _PIECE)
        compressor.close()
        digest, size = writer.commit()
    return DiffID(hashing.digest()), BlobRecord(digest, size, GZIP.name)


def add_layer(store: Store, parent: ChainID | None, diff_id: DiffID, blob: BlobRecord) -> ChainID:
    """Record a blob of the store as a layer on top of ``parent``, and index it unless that is done already; the chain
    ID. It is unpacked when its folder is asked for.

    DigestMismatch if the blob holds another layer than ``diff_id``.
    """
    known = store.layers.by_blob(blob.digest)
    if known is not None and known.diff_id != diff_id:
        raise DigestMismatch(f"layer {blob.digest} has diff ID {known.diff_id} instead of {diff_id}")
    return store.add_indexed(parent, diff_id, blob).chain
