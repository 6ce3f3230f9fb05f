"""Images come from registries, and go there: the OCI distribution specification, and Docker's older v2.

::

    Reference ─ hosts ─▶ Endpoint (mirror or registry; repository) ─ client ─▶ manifests, blobs
                                        credentials ─ auth ─▶ Authorization ──┘  │
                                                                    transport: tries, redirects, TLS

What enters: a name (``Reference``), a configuration of hosts, files with credentials. What leaves: bytes held against
their digests, or an error that names the host and what to do. A secret is in no error, event, record or shown URL.

Terms: a *registry* is a host as it stands in image names; an *endpoint* is where its repository is really asked for: a
host on the network, a mirror maybe. A *scope* is what a token allows: ``repository:NAME:pull,push``. A *challenge* is
how a registry says what credentials it wants (RFC 9110, section 11). A *credential* is what a user has for a registry.
"""
