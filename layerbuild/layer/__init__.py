"""The bytes of a layer: what a step changed, as a folder, as a tar, as a blob and as an index.

::

    upperdir ── seal ──▶ diff folder ── capture ──▶ tar ─▶ sha256 = DiffID ─▶ compressor ─▶ sha256 = BlobDigest
                             ▲   │                   │
                             │   │                   └──▶ index: one line for each path
                             │   └── the next step's lower, at once
    blob ─▶ codec ─▶ tar ── apply ──▶ the same diff folder, and the same index

What enters: an upperdir that overlay filled, or a tar from elsewhere. What leaves: a diff folder, a blob, an index.

- **Entry**: one path of a layer with all that a tar can say about it (``entry``).
- **Whiteout**: "this name of a layer below is gone". **Opaque**: "nothing of this folder's lower content shows". Both
  have two spellings, one in tars and one on disk (``whiteout``).
- **Seal** (``changes``): make an upperdir equal to what its layer will say. A sealed folder and one unpacked from the
  layer's blob are the same tree, times included, so a later step can't tell which of the two it stands on.
- **Capture**: the sealed folder as a tar. It is a pure function of the folder, and may run while the next step does.
- **Index**: the layer's entries in a file that can be searched without being read (``index``). Views answer from it.
- **Union**: a stack of layers read without mounting it (``union``).

Paths are ``bytes``, relative, without a leading or trailing slash; the root is ``b""``. The order is everywhere the
same: depth first, the names of a folder sorted bytewise. This chapter knows no JSON and no Dockerfile.
"""
