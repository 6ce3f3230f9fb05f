"""Images as values: configuration, manifest, and the image that grows step by step.

What enters: JSON bytes from a store, an archive or a registry. What leaves: frozen values, and the same JSON bytes for
the same values. JSON and dictionaries stop in this chapter; no file is opened here.

Terms (OCI image-spec): the *configuration* tells how to run the image and lists the diff IDs and the history; the
*manifest* names the configuration and the layer blobs by digest; the *image ID* is the configuration's digest.
"""
