"""Files fetched over HTTP(S): once per build, and not again while the server says that they are the same.

The content goes into the store as a blob, with what the server said to recognise it by (ETag, Last-Modified). The next
build asks conditionally (RFC 9110, section 13): "304 Not Modified" costs no download. A failure that may pass (a cut
or refused connection, a server's 5xx) is tried again a few times. Bytes are kept as the server has them: no content
coding is asked for, and none is undone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

from layerbuild.build.turns import Turns
from layerbuild.errors import DigestMismatch, LayerbuildError, SourceError
from layerbuild.network import PASSING, Network, reason, without_user
from layerbuild.steps import masked
from layerbuild.store.downloads import Download
from layerbuild.store.store import Store

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_PIECE = 1 << 20
_CONNECT, _READ = 30.0, 60.0  # seconds: to reach the server, and for each piece of its answer
_PAUSES = (0.2, 0.5, 1.0)  # seconds before the second try and those after it
_MOST_REDIRECTS = 10
_UNNAMED = "__unnamed__"
_HINTS = {
    401: "credentials can stand in the URL: https://USER:PASSWORD@host/…, best from an ARG",
    403: "the server does not let you have it",
    404: "the address may be misspelled, or the file gone",
}


def file_name(url: str) -> str:
    """What a file from ``url`` is called in a destination folder: the last part of its path.

    >>> file_name("https://host/a/tool.tar.gz?download=1")
    'tool.tar.gz'
    """
    name = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
    return _UNNAMED if name in ("", ".", "..") or "\0" in name else name


def modified(download: Download) -> int | None:
    """When the file was last changed, in seconds since 1970; None where the server did not say."""
    from email.utils import parsedate_to_datetime

    try:
        return max(0, int(parsedate_to_datetime(download.modified).timestamp()))
    except (ValueError, OverflowError):
        return None


class Fetcher:
    """Fetches for one build: each URL is asked for once, so that all steps see the same content.

    ``environment`` is where the proxy variables are looked up. ``pause`` waits for some seconds.
    """

    def __init__(
        self, store: Store, environment: Mapping[str, str], *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._store = store
        self._network = Network(environment)
        self._pause = pause
        self._fetched: dict[str, Download] = {}
        self._turns = Turns()

    def fetch(self, url: str, *, checksum: str = "") -> Download:
        """The file at ``url``, whose content is in the store afterwards. A ``checksum`` that the store knows for this
        URL asks no server. SourceError, without credentials, if it can't be had; DigestMismatch if it is another."""
        address = url.partition("#")[0]
        with self._turns.of(address):
            found = self._fetched.get(address)
            if found is None:
                known = self._store.downloads.get(address)
                found = known if known and known.digest == checksum else self._download(address, known)
                self._fetched[address] = found
        if checksum and found.digest != checksum:
            raise DigestMismatch(
                f"digest mismatch for {masked(url)}: it has {found.digest} instead of {checksum}",
                hint="if what the server has now is right, write its digest behind --checksum",
            )
        return found

    def _download(self, url: str, known: Download | None) -> Download:
        for pause in (*_PAUSES, None):
            try:
                download = self._try(url, known)
                break
            except _Passing as passing:
                if pause is None:
                    raise SourceError(f"can't fetch {masked(url)}: {passing}", hint=passing.hint) from passing
                self._pause(pause)
        self._store.downloads.put(url, download)
        return download

    def _try(self, url: str, known: Download | None) -> Download:
        asked = {"If-None-Match": known.etag, "If-Modified-Since": known.modified} if known else {}
        with _understood(url), self._answer(url, {name: value for name, value in asked.items() if value}) as answer:
            if answer.status == HTTPStatus.NOT_MODIFIED and known is not None:
                return known
            _refuse(url, answer)
            with self._store.blobs.writer() as writer:
                for piece in answer.stream(_PIECE, decode_content=False):
                    writer.write(piece)
                digest, _ = writer.commit()
            return Download(digest, answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", ""))

    @contextmanager
    def _answer(self, url: str, conditions: Mapping[str, str]) -> Iterator[BaseHTTPResponse]:
        """The answer behind all redirects. They are followed here: each host has its proxy, and credentials are sent
        only to the host that they were given for."""
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._ask(url, conditions)
            try:
                location = response.get_redirect_location()
                if not location:
                    yield response
                    return
                url = _target(url, location)
            finally:
                response.release_conn()
                response.close()
        raise SourceError(f"can't fetch {masked(url)}: more than {_MOST_REDIRECTS} redirects")

    def _ask(self, url: str, conditions: Mapping[str, str]) -> BaseHTTPResponse:
        from urllib3 import Timeout
        from urllib3.util import make_headers

        from layerbuild import __version__

        parts = urlsplit(url)
        headers = {"User-Agent": f"layerbuild/{__version__}", "Accept-Encoding": "identity", **conditions}
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers |= make_headers(basic_auth=user)
        bare = without_user(parts)
        return self._network.pool(bare).request(
            "GET",
            bare,
            headers=headers,
            redirect=False,
            retries=False,
            timeout=Timeout(connect=_CONNECT, read=_READ),
            preload_content=False,
        )


class _Passing(Exception):
    """A failure that may be over at the next try."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def _refuse(url: str, answer: BaseHTTPResponse) -> None:
    """Raise for an answer that brings no file."""
    if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
        return
    said = f"the server answered {answer.status} {answer.reason or ''}".rstrip()
    if answer.status in PASSING:
        raise _Passing(said, "try again later")
    raise SourceError(f"can't fetch {masked(url)}: {said}", hint=_HINTS.get(answer.status, ""))


def _target(url: str, location: str) -> str:
    target = urljoin(url, location)
    if urlsplit(target).scheme not in ("http", "https"):
        raise SourceError(f"can't fetch {masked(url)}: it redirects to {masked(target)}, which is not HTTP")
    return target


@contextmanager
def _understood(url: str) -> Iterator[None]:
    """Turn what the library raises into a SourceError, or into _Passing where another try makes sense."""
    from urllib3 import exceptions

    try:
        yield
    except LayerbuildError:
        raise
    except (exceptions.LocationValueError, ValueError) as error:
        raise SourceError(f"can't fetch {masked(url)}: it is no URL", hint="https://host/path") from error
    except exceptions.SSLError as error:
        hint = "the server's certificate must be one that this machine trusts; SSL_CERT_FILE names others"
        raise SourceError(f"can't fetch {masked(url)}: {_said(error)}", hint=hint) from error
    except exceptions.HTTPError as error:
        raise _Passing(_said(error), "is the machine online? http_proxy and https_proxy are honoured") from error


def _said(error: BaseException) -> str:
    return reason(error) or masked(str(error))
