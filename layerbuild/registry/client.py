"""Manifests and blobs of a repository, as the distribution specification has them (its section "Endpoints").

``Client`` opens repositories: it knows hosts, credentials, and which scheme a host speaks. ``Repository`` asks: one
method for each endpoint that only reads, and ``request`` for the rest. All answers are held against digests here, so a
caller never sees a byte too many; failures are RegistryErrors that name the host.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import field
from http import HTTPStatus
from typing import Any, TypeVar

from layerbuild.digest import BlobDigest
from layerbuild.errors import FormatError, RegistryError
from layerbuild.frozen import frozen
from layerbuild.image.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    SIZE_LIMIT,
)
from layerbuild.network import PASSING, origin, shown
from layerbuild.reference import Reference
from layerbuild.registry.auth import Authorizer, Scopes
from layerbuild.registry.credentials import Credential, Keychain
from layerbuild.registry.hosts import Endpoint, Hosts
from layerbuild.registry.transport import (
    Answer,
    Body,
    Broken,
    Transport,
    Unreachable,
    UntrustedError,
    UnusableCertificate,
    asked_for,
    failure,
)

_T = TypeVar("_T")

_ACCEPT = ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST))
_SHOWN = 300  # characters of a server's own words
# RFC 9110, section 15.5.17, and what caches in front of registries answer to a range that they can't give.
_NO_RANGES = (HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_IMPLEMENTED)
_MOST_CHALLENGES = 3  # a token that ended, and one that ended again meanwhile
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d*/(?:\d+|\*)")


@frozen
class Fetched:
    """A manifest or index as it came."""

    media_type: str
    digest: BlobDigest
    data: bytes = field(repr=False)


class Client:
    """Opens repositories. Any thread may use it; one serves a whole run: tokens and connections are shared."""

    def __init__(self, hosts: Hosts, keychain: Keychain, transport: Transport) -> None:
        self.hosts = hosts
        self._keychain = keychain
        self._transport = transport
        self._guard = threading.Lock()
        self._schemes: dict[tuple[str, bool], str] = {}
        self._left: frozenset[str] = frozenset()
        self._repositories: dict[Endpoint, Repository] = {}

    def pull(self, reference: Reference) -> tuple[Repository, ...]:
        """Where to ask for an image: mirrors that were not left, then the registry itself."""
        *mirrors, last = self.hosts.pull(reference)
        kept = [endpoint for endpoint in mirrors if endpoint.host not in self._left]
        return tuple(self.open(endpoint) for endpoint in (*kept, last))

    def first(self, reference: Reference, ask: Callable[[Repository], _T], *, note: Callable[[str], None]) -> _T:
        """What ``ask`` gives of the first place that has an image; ``note`` is told of mirrors that failed, and the
        RegistryError of the registry itself is raised."""
        *mirrors, last = self.pull(reference)
        for mirror in mirrors:
            try:
                return ask(mirror)
            except RegistryError as error:
                left = self.leave(mirror, error)
                what = "is not asked any more in this run" if left else f"does not have {reference.familiar}"
                note(f"{mirror.endpoint}, a mirror, {what}: {error.message}")
        return ask(last)

    def leave(self, place: Repository, error: RegistryError) -> bool:
        """Ask a mirror's host no more, if ``error`` says that it is in trouble, whatever it is asked for; whether so.
        To wait for it again with each blob would take longer than the registry itself."""
        if not place.endpoint.mirror or not (isinstance(error, Unreachable) or error.status in PASSING):
            return False
        self._left |= {place.host}
        return True

    def push(self, reference: Reference) -> Repository:
        """Where to push an image to."""
        return self.open(self.hosts.push(reference))

    def open(self, endpoint: Endpoint) -> Repository:
        """A repository; asks nobody."""
        with self._guard:
            if endpoint not in self._repositories:

                def find() -> Credential | None:
                    return self._keychain.find(endpoint.registry, endpoint.repository)

                self._repositories[endpoint] = self._repository(endpoint, find)
            return self._repositories[endpoint]

    def check(self, registry: str, credential: Credential) -> None:
        """RegistryError unless the registry takes the credential (or wants none)."""
        endpoint = self.hosts.push(Reference(registry, "library/none"))
        self._repository(endpoint, lambda: credential).ping()

    def _repository(self, endpoint: Endpoint, find: Callable[[], Credential | None]) -> Repository:
        return Repository(endpoint, self._transport, find, scheme=lambda: self._scheme(endpoint))

    def _scheme(self, endpoint: Endpoint) -> str:
        """https, unless plain HTTP is allowed there and nothing else is spoken."""
        if not (endpoint.local or endpoint.insecure):
            return "https"
        key = (endpoint.host, endpoint.insecure)
        with self._guard:
            if key not in self._schemes:
                self._schemes[key] = _spoken(self._transport, endpoint)
            return self._schemes[key]


class Repository:
    """One repository at one endpoint. ``request`` and all that is built on it may be called from any thread."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        find: Callable[[], Credential | None],
        *,
        scheme: Callable[[], str],
    ) -> None:
        self.endpoint = endpoint
        self._transport = transport
        self._scheme = scheme
        self._authorizer = Authorizer(endpoint, find, transport)

    @property
    def host(self) -> str:
        """The host on the network, for messages."""
        return self.endpoint.host

    @property
    def pulling(self) -> Scopes:
        """The scope to read."""
        return (f"repository:{self.endpoint.repository}:pull",)

    @property
    def pushing(self) -> Scopes:
        """The scope to read and write."""
        return (f"repository:{self.endpoint.repository}:pull,push",)

    def mounting(self, source: str) -> Scopes:
        """The scopes to take blobs over from the repository ``source`` of the same registry."""
        return (*self.pushing, f"repository:{source}:pull")

    def wait(self, number: int, error: RegistryError, *, passing: bool = False) -> bool:
        """Wait after ``number`` tries that failed, the last with ``error``; False if another one makes no sense: it
        would not end otherwise (unless it is said to be ``passing``), there were enough, or it is too long until then.
        """
        patience = self._transport.patience
        passing = passing or error.status in PASSING or isinstance(error.__cause__, Broken)
        if not passing or number >= patience.tries or error.wait > patience.longest:
            return False
        self._transport.pause(number, least=error.wait)
        return True

    # -- asking

    def request(
        self,
        method: str,
        path: str,
        *,
        scopes: Scopes,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        expect: Collection[int] = (HTTPStatus.OK,),
        repeat: bool = True,
    ) -> Answer:
        """Ask for ``path`` of the repository (``blobs/uploads/``), or for a whole URL that a Location named.

        The answer has one of the statuses ``expect``, and must be closed; any other is a RegistryError with its
        ``status``. A 401 is answered with credentials, also in the middle of things, so ``body`` is bytes or can be
        made anew. ``repeat`` False: a failure is not tried again.
        """
        base = self._base()
        url = path if "://" in path else f"{base}{self.endpoint.repository}/{path}"
        answer = self._authorized(method, url, scopes, headers or {}, body, home=base, repeat=repeat)
        if answer.status in expect:
            return answer
        with answer:
            raise self._refusal(method, answer)

    def ping(self) -> None:
        """RegistryError unless it is a registry of version 2 that takes the credential."""
        answer = self._authorized("GET", self._base(), (), {}, None, home=self._base(), repeat=True)
        with answer:
            if answer.status != HTTPStatus.OK:
                raise self._refusal("GET", answer)

    def _authorized(
        self, method: str, url: str, scopes: Scopes, headers: Mapping[str, str], body: Body, *, home: str, repeat: bool
    ) -> Answer:
        """The answer, after challenges were met; from another host than ``home`` none are."""
        own = origin(url) == origin(home)
        # A mirror that has never answered is tried once: there is another place.
        repeat = repeat and (not self.endpoint.mirror or self._transport.knows(self.host))
        if origin(home)[0] == "https" and origin(url)[0] != "https":
            raise RegistryError(f"{self.host} sends to {shown(url)}, which anybody can read")
        for number in range(_MOST_CHALLENGES + 1):
            sent = self._authorizer.header(scopes) if own else ""
            answer = self._transport.send(
                method,
                url,
                headers=headers,
                authorization=sent,
                body=body,
                verify=not (own and self.endpoint.insecure),
                repeat=repeat,
            )
            foreign = origin(answer.url) != origin(home)
            if answer.status != HTTPStatus.UNAUTHORIZED or foreign or number == _MOST_CHALLENGES:
                break
            if not self._authorizer.learn(answer, scopes, sent=sent):
                break
            answer.close()
        return answer

    def _base(self) -> str:
        return f"{self._scheme()}://{self.host}/v2/"

    def _refusal(self, method: str, answer: Answer) -> RegistryError:
        said = self._authorizer.hide(_said(answer))
        what = f"{answer.host} answered {answer.status} to {method} {shown(answer.url)}"
        return RegistryError(
            f"{what}{said and f': {said}'}",
            hint=self._hint(answer),
            status=answer.status,
            wait=asked_for(answer.headers),
        )

    def _hint(self, answer: Answer) -> str:
        own = answer.host == self.host
        if own and answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return f"`layerbuild login {self.endpoint.registry}` gives it a user and a password"
        if own and answer.status == HTTPStatus.NOT_FOUND and "/manifests/" in answer.url:
            return "are the repository and the tag spelled so there? A private one may have to be logged in to"
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            wait = asked_for(answer.headers)
            return f"wait {wait:.0f} seconds" if 0 < wait < 1e6 else "wait a while; who is logged in may ask more often"
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return "the registry is in trouble; try again later"
        return ""

    # -- manifests

    def manifest(self, target: str) -> Fetched:
        """The manifest or index with that tag or digest, held against it; 4 MiB at most."""
        for number in range(1, self._transport.patience.tries + 1):
            url = f"manifests/{target}"
            with self.request("GET", url, scopes=self.pulling, headers={"Accept": _ACCEPT}) as answer:
                if (answer.length or 0) > SIZE_LIMIT:
                    raise RegistryError(f"{self.host}: the manifest {target} is too large: {answer.length} bytes")
                try:
                    return self._checked(target, answer, answer.small(SIZE_LIMIT))
                except Broken as broken:
                    if number == self._transport.patience.tries:
                        raise failure(answer.url, broken) from broken
            self._transport.pause(number)
        raise AssertionError("the last try returns or raises")

    def _checked(self, target: str, answer: Answer, data: bytes) -> Fetched:
        digest = BlobDigest.of(data)
        expected = target if target.startswith("sha256:") else answer.headers.get("Docker-Content-Digest", digest)
        if expected.startswith("sha256:") and digest != expected:
            hint = "something between here and there changes it, or the registry is damaged"
            raise RegistryError(f"{self.host} sent {digest} as the manifest {expected}", hint=hint)
        return Fetched(answer.headers.get("Content-Type", "").partition(";")[0].strip(), digest, data)

    def manifest_digest(self, target: str, *, scopes: Scopes | None = None) -> BlobDigest | None:
        """The digest of what a tag or digest names, without fetching it; None where there is nothing."""
        found = (HTTPStatus.OK, HTTPStatus.NOT_FOUND)
        scopes, headers = scopes or self.pulling, {"Accept": _ACCEPT}
        with self.request("HEAD", f"manifests/{target}", scopes=scopes, headers=headers, expect=found) as answer:
            if answer.status == HTTPStatus.NOT_FOUND:
                return None
            said = answer.headers.get("Docker-Content-Digest", "")
        try:
            return BlobDigest.parse(said)
        except FormatError:  # a registry need not say it (distribution-spec, "Checking if content exists")
            return self.manifest(target).digest

    def put_manifest(self, target: str, data: bytes, media_type: str) -> BlobDigest:
        """Upload a manifest or index under a tag or its digest; its digest."""
        with self.request(
            "PUT",
            f"manifests/{target}",
            scopes=self.pushing,
            headers={"Content-Type": media_type},
            body=data,
            expect=(HTTPStatus.CREATED, HTTPStatus.OK, HTTPStatus.ACCEPTED),
        ) as answer:
            digest = BlobDigest.of(data)
            said = answer.headers.get("Docker-Content-Digest", digest)
            if said != digest:
                raise RegistryError(f"{self.host} took the manifest {digest} for {said}")
            return digest

    # -- blobs

    def blob_size(self, digest: BlobDigest, *, scopes: Scopes | None = None) -> int | None:
        """The size of a blob in bytes, None where it is not there; -1 where the registry does not tell."""
        found = (HTTPStatus.OK, HTTPStatus.NOT_FOUND)
        with self.request("HEAD", f"blobs/{digest}", scopes=scopes or self.pulling, expect=found) as answer:
            if answer.status == HTTPStatus.NOT_FOUND:
                return None
            return -1 if answer.length is None else answer.length

    def blob(self, digest: BlobDigest, size: int, *, start: int = 0) -> BlobReader:
        """The bytes of a blob of ``size`` bytes, from ``start`` on."""
        return BlobReader(self, digest, size, start)

    def small_blob(self, digest: BlobDigest, size: int) -> bytes:
        """A small blob (a configuration), whole and verified."""
        if size > SIZE_LIMIT:
            raise RegistryError(f"{self.host}: {digest} claims {size} bytes; {SIZE_LIMIT} is the limit for JSON")
        with self.blob(digest, size) as reader:
            data = b"".join(iter(lambda: reader.read(size or 1), b""))
        if BlobDigest.of(data) != digest:
            raise RegistryError(f"{self.host} sent {BlobDigest.of(data)} as the blob {digest}")
        return data

    def open_blob(self, digest: BlobDigest, start: int, size: int) -> Answer:
        """The bytes of a blob of ``size`` bytes from ``start`` on. Of a server that knows no ranges: all of them (200),
        or none (416, and what others say instead)."""
        # Its end is named, since go-containerregistry's registry knows no other ranges.
        headers = {"Range": f"bytes={start}-{size - 1}"} if start else {}
        found = (HTTPStatus.OK, *((HTTPStatus.PARTIAL_CONTENT, *_NO_RANGES) if start else ()))
        return self.request("GET", f"blobs/{digest}", scopes=self.pulling, headers=headers, expect=found)

    def pause(self, number: int, broken: Broken, digest: BlobDigest) -> None:
        """Wait after ``number`` breaks without a byte in between; RegistryError after too many."""
        if number >= self._transport.patience.tries:
            raise failure(f"{self._base()}{self.endpoint.repository}/blobs/{digest}", broken) from broken
        self._transport.pause(number)


class BlobReader:
    """A blob's bytes in order, whatever breaks: each break is followed by a request for the rest; to a server that
    can't give just that, for all, of which what is here already is passed over.

    The count is checked here, the digest by who reads: RegistryError if there are more or fewer bytes than ``size``.
    """

    def __init__(self, repository: Repository, digest: BlobDigest, size: int, start: int) -> None:
        self._repository = repository
        self._digest = digest
        self._size = size
        self._answer: Answer | None = None
        self._breaks = 0
        self._ranges = True
        self.tell = start

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes, empty at the end."""
        while True:
            try:
                if self._answer is None:
                    self._answer = self._open()
                data = self._answer.read(size if size > 0 else 1 << 20)
                if not data and self.tell < self._size:  # without a length, or of a part, nobody else notices
                    raise Broken("the connection ended early", self._answer.url)
            except Broken as broken:
                self.close()
                self._breaks += 1
                self._repository.pause(self._breaks, broken, self._digest)
                continue
            self._count(data)
            return data

    def _count(self, data: bytes) -> None:
        self.tell += len(data)
        if self.tell > self._size:
            raise self._wrong("more")
        if data:
            self._breaks = 0

    def _open(self) -> Answer:
        if self._ranges and self.tell:
            answer = self._repository.open_blob(self._digest, self.tell, self._size)
            if answer.status == HTTPStatus.OK or self._is_rest(answer):
                return self._positioned(answer)
            answer.close()
            self._ranges = False
        return self._positioned(self._repository.open_blob(self._digest, 0, self._size))

    def _is_rest(self, answer: Answer) -> bool:
        said = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
        return answer.status == HTTPStatus.PARTIAL_CONTENT and said is not None and int(said[1]) == self.tell

    def _positioned(self, answer: Answer) -> Answer:
        try:
            self._pass_over(answer)
        except BaseException:
            answer.close()
            raise
        return answer

    def _pass_over(self, answer: Answer) -> None:
        partial = answer.status == HTTPStatus.PARTIAL_CONTENT
        begin = self.tell if partial else 0
        end = self._size if answer.length is None else begin + answer.length
        if end > self._size or (end < self._size and not partial):  # a part may end early (RFC 9110, section 15.3.7)
            raise self._wrong(f"{end}")
        while begin < self.tell:  # it knows no ranges: what is here already comes once more
            data = answer.read(min(1 << 20, self.tell - begin))
            if not data:
                raise Broken("the connection ended early", answer.url)
            begin += len(data)

    def _wrong(self, found: str) -> RegistryError:
        hint = "something between here and there changes it, or the registry is damaged"
        return RegistryError(
            f"{self._repository.host} has {found} bytes as the blob {self._digest}, which has {self._size}", hint=hint
        )

    def close(self) -> None:
        """Let go of the connection."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def __enter__(self) -> BlobReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _spoken(transport: Transport, endpoint: Endpoint) -> str:
    """The scheme that a host speaks where plain HTTP is allowed. Costs a request without credentials.

    On this machine plain HTTP is tried first: a server that expects it may wait for ever for the end of what it takes
    for a request. One that speaks TLS answers 400, or hangs up.
    """
    order = ("http", "https") if endpoint.local else ("https", "http")
    failed: UntrustedError | None = None
    for scheme in order:
        try:
            with transport.send(
                "GET", f"{scheme}://{endpoint.host}/v2/", verify=not endpoint.insecure, repeat=False
            ) as answer:
                if scheme == "https" or answer.status != HTTPStatus.BAD_REQUEST:
                    return scheme
        except UnusableCertificate:
            raise
        except UntrustedError as error:
            if error.spoken:
                raise
            failed = failed if error.plain else error
        except RegistryError:
            continue
    if failed is not None:
        raise failed
    return order[0]


def _said(answer: Answer) -> str:
    """A server's own words about a failure, in one short line (distribution-spec, "Error Codes")."""
    try:
        data = answer.small()
    except (Broken, RegistryError):
        return ""
    try:
        raw: Any = json.loads(data)
        parts = [f"{error.get('code', '')}: {error.get('message', '')}".strip(": ") for error in raw["errors"]]
        text = "; ".join(filter(None, parts))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        text = ""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:_SHOWN]
