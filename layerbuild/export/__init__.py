"""Images leave the store.

What enters: a stored image and an ``Output`` (``type=oci,dest=image.tar``). What leaves: a file, a folder or a stream
that other programs read.

Terms: a *format* is one row of the table in ``formats``; a *destination* is written under another name beside its place
and renamed when it is complete, so that a failed export leaves nothing behind. Blobs are never compressed again unless
the output asks for it: a digest that was shown stays the digest that is sent.
"""
