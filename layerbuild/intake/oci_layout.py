"""An OCI image layout (image-spec image-layout.md), in a folder or a tar: ``index.json`` → manifests → blobs.

Choosing comes first and reads JSON only; then each chosen image is brought in, layer by layer. Names are given at the
very end: a layout that breaks off in the middle names nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from layerbuild.digest import BlobDigest, ChainID, VerifyingReader
from layerbuild.errors import FormatError, NotFoundError, UsageError, alike
from layerbuild.frozen import frozen
from layerbuild.image.config import ImageConfig, Platform
from layerbuild.image.manifest import (
    INDEX_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    SIZE_LIMIT,
    Descriptor,
    Index,
    Manifest,
    layer_codec,
)
from layerbuild.image.platforms import best
from layerbuild.intake.layers import Claim, add_layer, known_blob, take_blob
from layerbuild.intake.members import Members, read_small
from layerbuild.reference import Reference
from layerbuild.store.images import FULL_NAME, REF_NAME, StoredImage, StoredIndex
from layerbuild.store.layers import BlobRecord
from layerbuild.store.store import Store

LAYOUT_FILE = "oci-layout"
INDEX_FILE = "index.json"

_MOST_NESTED = 8


@frozen
class Chosen:
    """One thing in a layout that may have names there. ``images`` are the manifests that belong to it: one, or one for
    each of several platforms; ``index`` are the bytes of the index that says so, None where the layout has none."""

    images: tuple[Descriptor, ...]
    names: tuple[str, ...] = ()
    index: bytes | None = None


def load_layout(
    store: Store, members: Members, *, platform: Platform | None = None, name: str = ""
) -> list[StoredImage | StoredIndex]:
    """Bring the images of a layout into the store, under the names that it gives them.

    An image for several platforms comes in whole, as far as the layout has it; with ``platform`` the one that does best
    there. ``name``, where given, chooses one image. A name that is a mere tag, as the specification allows, names
    nothing outside the layout: that image comes in without. FormatError or DigestMismatch where the layout is wrong.
    """
    index = Index.from_json(read_small(members, INDEX_FILE))
    chosen = choose(members, index, platform=platform, name=name)
    digests = [_load(store, members, found) for found in chosen]
    for found, digest in zip(chosen, digests, strict=True):
        tag_all(store, found.names, digest)
    return [store.images.find(digest) for digest in digests]


def load_one(
    store: Store, members: Members, *, platform: Platform | None = None, tag: str = "", digest: str = ""
) -> StoredImage | StoredIndex:
    """Bring in one image of a layout, for all its platforms or for one, and give it no name.

    ``digest`` is a manifest's or an index's; ``tag`` the layout's name for it or the tag of that name. With neither, it
    is the only image, or the one tagged ``latest``. NotFoundError, or UsageError if it could be several.
    """
    index = Index.from_json(read_small(members, INDEX_FILE))
    if digest:
        chosen = [_choose(members, [_by_digest(members, index, BlobDigest.parse(digest))], platform)]
    else:
        chosen = choose(members, index, platform=platform, name=_full_tag(members, index, tag))
        if len(chosen) > 1:
            names = ", ".join(sorted({_group(entry) for entry in index.manifests if not entry.is_attestation} - {""}))
            raise UsageError(f"{members.origin} has several images: {names}", hint="add :TAG or @DIGEST")
    return store.images.find(_load(store, members, chosen[0]))


def tag_all(store: Store, names: Iterable[str], manifest: BlobDigest) -> None:
    """Give an image those of ``names`` that are references with a repository."""
    for name in names:
        try:
            reference = Reference.parse(name)
        except UsageError:  # the grammar of ref.name is wider than that of references
            continue
        store.images.tag(reference, manifest)


# -- choosing ----------------------------------------------------------------------------------------------------------


def choose(members: Members, index: Index, *, platform: Platform | None, name: str = "") -> list[Chosen]:
    """The images that ``index`` names, each once, in its order; NotFoundError if ``name`` or ``platform`` has none."""
    groups: dict[str, list[Descriptor]] = {}
    for descriptor in index.manifests:
        if not descriptor.is_attestation:
            groups.setdefault(_group(descriptor), []).append(descriptor)
    unnamed = [entry.platform for entry in groups.get("", ())]
    if len(set(unnamed)) < len(unnamed):  # several for one platform are no image for several platforms
        groups |= {entry.digest: [entry] for entry in groups.pop("")}
    if name:
        groups = {name: _named(groups, name, members.origin)}
    if not groups:
        raise FormatError(f"{members.origin} names no image", hint=f"its {INDEX_FILE} is empty")
    found: dict[tuple[BlobDigest, ...], Chosen] = {}
    for descriptors in groups.values():
        chosen = _choose(members, descriptors, platform)
        digests = tuple(image.digest for image in chosen.images)
        before = found.get(digests, chosen)
        names = {*before.names, *filter(None, map(_full_name, descriptors))}
        found[digests] = replace(before, names=tuple(sorted(names)))
    return list(found.values())


def tagged(members: Members, index: Index, tag: str) -> list[Descriptor]:
    """What ``index`` has under a name, or under the tag of one; NotFoundError if that is nothing."""
    groups: dict[str, list[Descriptor]] = {}
    for descriptor in index.manifests:
        groups.setdefault(_group(descriptor), []).append(descriptor)
    return _named(groups, _full_tag(members, index, tag), members.origin)


def _full_tag(members: Members, index: Index, tag: str) -> str:
    """The name in the layout that ``tag`` means; empty: none is needed, since nothing says which."""
    names = {_group(entry) for entry in index.manifests if not entry.is_attestation}
    found = [name for name in sorted(names) if (tag or "latest") in (name, name.rpartition(":")[2])]
    if tag and len(found) > 1:
        raise UsageError(f"{members.origin} has several images tagged {tag!r}: {', '.join(found)}")
    return found[0] if len(found) == 1 else tag


def _by_digest(members: Members, index: Index, digest: BlobDigest) -> Descriptor:
    listed = next((entry for entry in index.manifests if entry.digest == digest), None)
    if listed is not None:
        return listed
    name = blob_name(digest)
    if not members.has(name):
        raise NotFoundError(f"{members.origin} has no image with the digest {digest}")
    try:
        Index.from_json(read_small(members, name))
        media_type = OCI_INDEX
    except FormatError:
        media_type = OCI_MANIFEST
    return Descriptor(media_type, digest, members.size(name))


def _group(descriptor: Descriptor) -> str:
    """What belongs together: descriptors of one name; of those without a name, the ones for different platforms."""
    name = descriptor.annotation(FULL_NAME) or descriptor.annotation(REF_NAME)
    return name or ("" if descriptor.platform else descriptor.digest)


def _full_name(descriptor: Descriptor) -> str:
    name = descriptor.annotation(FULL_NAME) or descriptor.annotation(REF_NAME) or ""
    return name if ":" in name or "/" in name else ""


def _named(groups: dict[str, list[Descriptor]], name: str, origin: str) -> list[Descriptor]:
    found = [
        entry
        for group in groups.values()
        for entry in group
        if name in (entry.annotation(FULL_NAME), entry.annotation(REF_NAME))
    ]
    if not found:
        known = sorted(filter(None, groups))
        near = alike(name, known, most=3) or known[:8]
        raise NotFoundError(f"{origin} has no image named {name!r}", hint=f"it has {', '.join(near)}" if near else "")
    return found


def _choose(members: Members, descriptors: Sequence[Descriptor], platform: Platform | None) -> Chosen:
    """What ``descriptors``, all of one name, stand for: an image, or one for each platform; of these the one that does
    best on ``platform``, if that is given."""
    leaves, index = _leaves(members, descriptors)
    if len(leaves) > 1 and platform is not None:
        fitting = best(((leaf.platform, leaf) for leaf in leaves), platform)
        if fitting is None:
            known = ", ".join(sorted({str(leaf.platform) for leaf in leaves if leaf.platform}))
            hint = f"it has {known}; --platform chooses one" if known else ""
            raise NotFoundError(f"{members.origin} has no image for {platform}", hint=hint)
        leaves = [fitting]
    if len(leaves) == 1:
        return Chosen(tuple(leaves))
    return Chosen(tuple(leaves), index=index or Index(tuple(leaves)).to_json())


def _leaves(
    members: Members, descriptors: Sequence[Descriptor], depth: int = 0
) -> tuple[list[Descriptor], bytes | None]:
    """The manifests below ``descriptors``, attestations left out and indexes opened; and the bytes of the index that
    names just these, None if there is no such."""
    if depth > _MOST_NESTED:
        raise FormatError(f"{members.origin} nests more than {_MOST_NESTED} indexes in each other")
    entries = [entry for entry in descriptors if not entry.is_attestation]
    leaves: list[Descriptor] = []
    index: bytes | None = None
    for entry in entries:
        if entry.media_type not in INDEX_TYPES:
            leaves.append(entry)
            continue
        data = read_blob(members, entry)
        inner = Index.from_json(data).manifests
        below, deeper = _leaves(members, inner, depth + 1)
        leaves += below
        whole = not any(found.media_type in INDEX_TYPES for found in inner)
        index = (data if whole else deeper) if len(entries) == 1 else None
    if not leaves:
        raise FormatError(f"{members.origin} has an index without an image in it")
    return leaves, index


# -- bringing in -------------------------------------------------------------------------------------------------------


def read_blob(members: Members, descriptor: Descriptor) -> bytes:
    """A JSON blob, held against its descriptor's digest and size."""
    if descriptor.size > SIZE_LIMIT:
        raise FormatError(f"{descriptor.digest} claims {descriptor.size} bytes; {SIZE_LIMIT} is the limit for JSON")
    if descriptor.data is not None:
        return descriptor.data
    source = members.open(blob_name(descriptor.digest))
    with VerifyingReader(
        source, descriptor.digest, size=descriptor.size, name=f"{members.origin}: blob {descriptor.digest}"
    ) as reader:
        return reader.read()


def blob_name(digest: BlobDigest) -> str:
    """Where a layout keeps a blob."""
    return f"blobs/sha256/{digest.hex}"


def _load(store: Store, members: Members, chosen: Chosen) -> BlobDigest:
    """Bring in what was chosen; its digest. Of an index those images that the layout has: a client may have saved one
    platform of several."""
    if chosen.index is None:
        return _load_image(store, members, chosen.images[0])
    there = [image for image in chosen.images if image.data is not None or members.has(blob_name(image.digest))]
    if not there:
        raise FormatError(f"{members.origin} has none of the images that its index names", hint="it is incomplete")
    for image in there:
        _load_image(store, members, image)
    return store.images.put_index(chosen.index).digest


def _load_image(store: Store, members: Members, descriptor: Descriptor) -> BlobDigest:
    manifest_bytes = read_blob(members, descriptor)
    manifest = Manifest.from_json(manifest_bytes)
    if not manifest.is_image:
        raise FormatError(
            f"{descriptor.digest} in {members.origin} is no image: its configuration is a {manifest.config.media_type}",
            hint="an artifact (a chart, a signature) has no root file system",
        )
    config_bytes = read_blob(members, manifest.config)
    parent: ChainID | None = None
    config = ImageConfig.from_json(config_bytes)
    if len(manifest.layers) != len(config.diff_ids):
        counts = f"{len(manifest.layers)} layers, its configuration {len(config.diff_ids)}"
        hint = "" if manifest.layers else "Docker 25.0.0 saved images so; save it again with another version"
        raise FormatError(f"{descriptor.digest} in {members.origin} has {counts}", hint=hint)
    for claim in _claims(manifest, config):
        parent = add_layer(store, parent, claim.diff_id, _blob(store, members, claim))
    return store.images.put(manifest_bytes, config_bytes).manifest_digest


def _blob(store: Store, members: Members, claim: Claim) -> BlobRecord:
    """The layer's blob in the store, copied from the layout unless the store knows it."""
    known = known_blob(store, claim)
    if known is not None:
        return known
    with members.open(blob_name(claim.digest)) as source:
        return take_blob(store, source, claim)


def _claims(manifest: Manifest, config: ImageConfig) -> list[Claim]:
    for layer in manifest.layers:
        layer_codec(layer.media_type)  # refuses what is no layer; how it is compressed, its own bytes tell
    pairs = zip(manifest.layers, config.diff_ids, strict=True)
    return [Claim(layer.digest, layer.size, diff_id) for layer, diff_id in pairs]
