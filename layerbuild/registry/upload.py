"""One blob goes to a repository: found there, taken over from another one, or sent; and sent on after a break.

::

    HEAD ── it is there ──────────────────────────▶ EXISTING
      └▶ POST ?mount=…&from=… ── 201 ─────────────▶ MOUNTED
           └ 202: an upload begins
               ├▶ PUT, all at once ── 201 ────────▶ SENT
               │    ├ 413: PATCH, piece by piece, then PUT
               │    └ 405, 501: PATCH, all of it, then PUT
               └ it breaks: GET tells how much has come ─▶ PATCH the rest, then PUT
                    └ nobody knows the upload any more: a new one, from the start

Source: distribution-spec, "Pushing blobs". What a server does not know it refuses, and then the next way down is taken:
Debian's docker-registry loses an upload that breaks in the middle of a request, others keep it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from enum import Enum
from http import HTTPStatus
from typing import BinaryIO
from urllib.parse import quote

from layerbuild.errors import DigestMismatch, RegistryError
from layerbuild.frozen import frozen
from layerbuild.image.manifest import Descriptor
from layerbuild.registry.client import Repository
from layerbuild.registry.transport import Answer, number

_READ = 1 << 20
_CHUNK = 16 << 20  # bytes of a piece, where the server takes no whole blob of that size in one request
_SMALLEST_CHUNK = 256 << 10
_MOST_RESTARTS = 5
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")
_OCTETS = "application/octet-stream"
_DONE = (HTTPStatus.CREATED, HTTPStatus.NO_CONTENT)


class How(Enum):
    """How a blob came to be in a repository."""

    EXISTING = "existing"
    MOUNTED = "mounted"
    SENT = "sent"


@frozen
class _Place:
    """An upload that has begun: where its next bytes go to, how many have come, and the smallest piece that it takes
    (but for the last one)."""

    url: str
    offset: int
    smallest: int


class Upload:
    """Brings one blob into ``repository``.

    ``open`` gives its bytes from an offset on, for each try anew. ``mounts`` are repositories of the same registry that
    may have it; ``told`` hears how many bytes have been sent. ``chunk`` is how many go into one request, 0: all,
    unless the server finds that too large.
    """

    def __init__(
        self,
        repository: Repository,
        blob: Descriptor,
        open: Callable[[int], BinaryIO],
        *,
        mounts: Sequence[str] = (),
        told: Callable[[int], None] = lambda count: None,
        chunk: int = 0,
    ) -> None:
        self._repository = repository
        self._blob = blob
        self._open = open
        self._mounts = mounts
        self._told = told
        self._place: _Place | None = None
        self._chunk = chunk
        self._resumes = True

    def run(self) -> How:
        """Until the blob is there; RegistryError if it can't be brought there."""
        if self._repository.blob_size(self._blob.digest, scopes=self._repository.pushing) is not None:
            return How.EXISTING
        if any(self._mount(source) for source in self._mounts):
            return How.MOUNTED
        failed = furthest = 0
        while True:
            place = self._place = self._place or self._begin(self._repository.pushing, "blobs/uploads/")
            try:
                if self._step(place):
                    return How.SENT
            except RegistryError as error:
                failed += 1
                self._recover(place, error, failed)
            # Who gets on is not made to give up, however often it breaks.
            if self._place is not None and self._place.offset > furthest:
                furthest, failed = self._place.offset, 0

    def _mount(self, source: str) -> bool:
        """Ask the registry to take the blob over. If it would rather have it sent, it has begun an upload for that."""
        path = f"blobs/uploads/?mount={self._blob.digest}&from={quote(source, safe='')}"
        try:
            self._place = self._begin(self._repository.mounting(source), path)
        except RegistryError:
            return False  # perhaps that repository may not be read: no reason not to send the blob
        return self._place is _MOUNTED

    def _begin(self, scopes: tuple[str, ...], path: str) -> _Place:
        expect = (HTTPStatus.ACCEPTED, HTTPStatus.CREATED)
        with self._repository.request("POST", path, scopes=scopes, body=b"", expect=expect) as answer:
            return _MOUNTED if answer.status == HTTPStatus.CREATED else _place(answer, 0)

    # -- one request after the other -----------------------------------------------------------------------------------

    def _step(self, place: _Place) -> bool:
        """Send what comes next; whether that was all."""
        left = self._blob.size - place.offset
        if left and (place.offset or self._chunk):
            self._place = self._patch(place, min(left, max(self._chunk, place.smallest)) if self._chunk else left)
            return False
        joint = "&" if "?" in place.url else "?"
        with self._send("PUT", f"{place.url}{joint}digest={self._blob.digest}", place.offset, left, expect=_DONE):
            self._told(self._blob.size)
            return True

    def _patch(self, place: _Place, size: int) -> _Place:
        end = place.offset + size
        part = f"{place.offset}-{end - 1}"
        with self._send("PATCH", place.url, place.offset, size, part, expect=(HTTPStatus.ACCEPTED,)) as answer:
            self._told(end)
            return _place(answer, end, place)

    def _send(self, method: str, url: str, start: int, size: int, part: str = "", *, expect: Collection[int]) -> Answer:
        headers = {"Content-Type": _OCTETS, "Content-Length": str(size), **({"Content-Range": part} if part else {})}
        return self._repository.request(
            method,
            url,
            scopes=self._repository.pushing,
            headers=headers,
            body=(lambda: self._pieces(start, size)) if size else b"",
            expect=expect,
            repeat=False,
        )

    def _pieces(self, start: int, size: int) -> Iterator[bytes]:
        end = start + size
        with self._open(start) as file:
            while start < end:
                self._told(start)
                data = file.read(min(_READ, end - start))
                if not data:
                    raise DigestMismatch(f"blob {self._blob.digest} has {start} bytes instead of {self._blob.size}")
                yield data
                start += len(data)

    # -- what went wrong -----------------------------------------------------------------------------------------------

    def _recover(self, place: _Place, error: RegistryError, failed: int) -> None:
        """Find out where to go on; raises ``error`` if that makes no sense."""
        match error.status:
            case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                self._cut_smaller(place, error)
                self._place = self._asked(place)
            case HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE if failed < _MOST_RESTARTS:
                asked = self._asked(place)
                self._place = None if asked is None or asked.offset == place.offset else asked
            case HTTPStatus.NOT_FOUND | HTTPStatus.BAD_REQUEST if failed < _MOST_RESTARTS:
                # The upload has expired; or the parts made something else, which a whole one can't.
                if error.status == HTTPStatus.BAD_REQUEST and not (place.offset or self._chunk):
                    raise error
                self._place = None
            case HTTPStatus.METHOD_NOT_ALLOWED | HTTPStatus.NOT_IMPLEMENTED if place.offset and not self._chunk:
                self._resumes, self._place = False, None  # it takes a blob as a whole only
            case HTTPStatus.METHOD_NOT_ALLOWED | HTTPStatus.NOT_IMPLEMENTED if self._blob.size and not self._chunk:
                self._chunk, self._place = self._blob.size, None  # it takes nothing with the PUT that ends an upload
            case _:
                if not self._repository.wait(failed, error):
                    raise error
                self._place = self._asked(place)

    def _cut_smaller(self, place: _Place, error: RegistryError) -> None:
        least = max(place.smallest, _SMALLEST_CHUNK)
        smaller = max(least, self._chunk // 4 if self._chunk else min(_CHUNK, self._blob.size // 2))
        if smaller >= (self._chunk or self._blob.size):
            raise error
        self._chunk = smaller

    def _asked(self, place: _Place) -> _Place | None:
        """The upload as the server sees it; None if a new one does as well or better: the server does not know this one
        any more, can't go on with it, or has nothing of it."""
        expect = (HTTPStatus.NO_CONTENT, HTTPStatus.OK)
        try:
            with self._repository.request("GET", place.url, scopes=self._repository.pushing, expect=expect) as answer:
                said = _RANGE.fullmatch(answer.headers.get("Range", "").strip())
                found = _place(answer, int(said[1]) + 1 if said else 0, place)
        except RegistryError as error:
            if not error.status:
                raise
            return None
        # "0-0" says one byte, but distribution says so of an upload that has none.
        return found if self._resumes and 1 < found.offset <= self._blob.size else None


_MOUNTED = _Place("", 0, 0)


def _place(answer: Answer, offset: int, before: _Place | None = None) -> _Place:
    """Where an answer says that the upload goes on."""
    location = answer.headers.get("Location", "")
    if not location and before is None:
        raise RegistryError(f"{answer.host} does not say where to upload to", hint="its set-up is wrong")
    smallest = number(answer.headers.get("OCI-Chunk-Min-Length", ""))
    known = before.smallest if before else 0
    url = answer.target(location) if location or before is None else before.url
    return _Place(url, offset, known if smallest is None else smallest)
