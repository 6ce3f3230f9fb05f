"""What others made becomes images in our store.

What enters: a root file system (tar or folder), an OCI image layout, an archive of ``docker save``, this machine's own
programs, or Debian's packages. What leaves: images in the store, each layer with blob, index and unpacked folder.

Terms: a *rootfs* is a file system without any metadata about an image; an *OCI layout* is a folder of blobs named by
digest with an ``index.json``; a *docker archive* is a tar with a ``manifest.json``. Nothing here trusts what it reads:
every blob is held against its digest and size, every path inside an archive is a name in a table and never a path on
this machine, and every JSON document has an upper limit.
"""
