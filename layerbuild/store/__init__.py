"""State on disk: blobs, layers, snapshots, images and the step cache, below one folder.

::

    root/oci-layout, index.json, blobs/sha256/<hex>     an OCI layout as it stands; index.json lists the named images
    root/overlay2/<id>/{diff,link,lower,work,merged}    one folder per layer of a stack, as Docker's overlay2 has it
    root/overlay2/l/<SHORT> → ../<id>/diff              short names, since mount options must fit into one page
    root/indexes/<diff ID>                              what each layer holds (format: the chapter ``layer``)
    root/layerbuild.db                                  SQLite: which of the above belong together, and the step cache
    root/tmp/, root/builds/<id>.lock, root/lock         what is being written, who is alive, who is sweeping

What enters: bytes, sealed folders, manifests, step records. What leaves: the same, found by digest, diff ID, chain ID
or name. Content lives in files named by its digest, relations live in rows. A row appears only when the files that it
names are whole; a row goes before its files go. So a process may be killed at any point: what is left over is never
false, only unclaimed, and ``prune`` removes it. What has not reached the disk yet bears a mark (``unsynced``), and is
looked at again when the machine went down meanwhile.

Terms: a *blob* is bytes by digest. A *layer* is a diff ID with the blobs that hold it, one for each compression. A
*workspace* is a folder being written on top of a stack; committed, it is a *snapshot*, named by its chain ID, and can
be a parent. A *lease* tells that the process which began a workspace is alive.
"""
