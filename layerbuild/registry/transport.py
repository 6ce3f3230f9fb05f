"""One request to a registry, until there is an answer: tried again while that makes sense, redirects followed.

Tried again: what may be over at the next try (429, 5xx, a connection that is refused or breaks, a server that says
nothing for long), after a pause that doubles, or that the server asks for (RFC 9110, section 10.2.3, "Retry-After").
Redirects: to HTTP(S) only, never from https to http, and without credentials once the host was another one; registries
send clients to storage whose URL is signed, and which refuses or logs foreign credentials. Back home none are sent
either: where the way led over another host, that one has chosen what is asked for.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urljoin, urlsplit

from layerbuild.errors import RegistryError
from layerbuild.frozen import frozen
from layerbuild.network import PASSING, Network, Trust, origin, reason, shown

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

Body = bytes | Callable[[], BinaryIO | Iterable[bytes]] | None

_MOST_REDIRECTS = 10
_SMALL = 64 << 10  # bytes of an error's body that are read at most
_ONLINE = "is the machine online? http_proxy and https_proxy are honoured"
_SETUP = "its set-up is wrong"
_OWN = "certificates for it are *.crt (authorities), *.cert and *.key (pairs), in /etc/containers/certs.d/{host}"
_UNKNOWN = (
    "its certificate must be one that this machine trusts: SSL_CERT_FILE names further ones, so does "
    "/etc/containers/certs.d/{host}/ca.crt; --insecure-registry {host} goes without"
)
_CLOCK = "it needs a new one, if this machine's clock is right: it says {today}; --insecure-registry {host} takes any"
_NONE = "it speaks none"
_PLAIN = "--insecure-registry {host} takes plain HTTP"
#: What OpenSSL says → why, empty: its own words, and a hint. The first row that fits counts.
_UNTRUSTED = (
    ("certificate has expired", "", _CLOCK),
    ("certificate is not yet valid", "", _CLOCK),
    ("mismatch, certificate is not valid for", "", "name it as its certificate does, or --insecure-registry {host}"),
    ("WRONG_VERSION_NUMBER", _NONE, _PLAIN),
    ("RECORD_LAYER_FAILURE", _NONE, _PLAIN),  # the same, from OpenSSL 3.2 on
    ("CERTIFICATE_REQUIRED", "it wants a certificate of its clients", _OWN),
    ("ALERT_UNKNOWN_CA", "it does not trust the certificate that it is shown", _OWN),
    # So ends, too, who was not shown a certificate: it hangs up while the request is being written.
    ("EOF occurred", "it hangs up; perhaps it wants a certificate of its clients", _OWN),
    ("", "", _UNKNOWN),
)


class Broken(Exception):
    """A connection to the server of ``url`` that was refused, broke or stalled: it may be whole at the next try."""

    def __init__(self, message: str, url: str) -> None:
        super().__init__(message)
        self.host = urlsplit(url).netloc


@frozen
class Patience:
    """How long to wait, in seconds, and how often to try. ``pause`` is the first one, ``longest`` the longest;
    ``read`` is the time without a single byte after which a server counts as stalled."""

    tries: int = 5
    pause: float = 0.5
    longest: float = 60.0
    connect: float = 20.0
    read: float = 60.0


class Answer:
    """What a server answered; its body is still to be read. A context manager: left, the connection is free again.

    ``url`` is where the answer came from, behind all redirects.
    """

    def __init__(self, response: BaseHTTPResponse, url: str) -> None:
        self._response = response
        self.url = url
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    @property
    def host(self) -> str:
        """Host and port that it came from."""
        return urlsplit(self.url).netloc

    @property
    def length(self) -> int | None:
        """What Content-Length says, None where it says nothing."""
        return number(self.headers.get("Content-Length", ""))

    def target(self, location: str) -> str:
        """The URL that ``location``, a header of this answer, means; RegistryError if it is none."""
        try:
            url = urljoin(self.url, location)
            origin(url)
        except ValueError:  # whose text may quote a password
            raise RegistryError(f"{self.host} sends to what is no address", hint=_SETUP) from None
        return url

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes of the body, empty at its end. Broken if the connection breaks before."""
        from urllib3 import exceptions

        try:
            return self._response.read(size, decode_content=False)
        except (exceptions.HTTPError, OSError) as error:
            raise Broken(reason(error) or "the connection broke", self.url) from error

    def small(self, limit: int = _SMALL) -> bytes:
        """The whole body; RegistryError if it is longer than ``limit``. Broken as in ``read``."""
        pieces: list[bytes] = []
        left = limit
        while left >= 0 and (piece := self.read(left + 1)):
            pieces.append(piece)
            left -= len(piece)
        if left < 0:
            raise RegistryError(f"{self.host} sends more than the {limit} bytes that are allowed for {shown(self.url)}")
        return b"".join(pieces)

    def close(self) -> None:
        """Give the connection back if all was read, else drop it."""
        self._response.release_conn()
        self._response.close()

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Transport:
    """Sends requests. ``environment`` is where proxies are looked up; ``trust`` gives a host's own certificates;
    ``sleep`` waits for some seconds."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        patience: Patience | None = None,
        trust: Callable[[str], Trust] = lambda host: Trust(),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.patience = patience or Patience()
        self._network = Network(environment, connections=8, trust=trust)
        self._sleep = sleep
        self._answered: set[str] = set()

    def knows(self, host: str) -> bool:
        """Whether it has given an answer that was no passing trouble."""
        return host in self._answered

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        authorization: str = "",
        body: Body = None,
        verify: bool = True,
        repeat: bool = True,
    ) -> Answer:
        """Ask for ``url``; the answer with whatever status it has. RegistryError if there is none to be had.

        ``authorization`` and ``verify`` False count for the host of ``url`` only. ``repeat`` False: what the server may
        have taken in is not sent again.
        """
        for number in range(1, self.patience.tries + 1):
            last = number == self.patience.tries or not repeat
            try:
                answer = self._follow(method, url, headers or {}, authorization, body, verify=verify)
            except Broken as broken:
                if last:
                    raise failure(url, broken) from broken
                wait = self.backoff(number)
            else:
                wait = max(self.backoff(number), asked_for(answer.headers))
                if last or answer.status not in PASSING or wait > self.patience.longest:
                    return answer
                answer.close()
            self._sleep(wait)
        raise AssertionError("the last try returns or raises")

    def pause(self, number: int, *, least: float = 0.0) -> None:
        """Wait before the try after ``number`` failed ones: ``least`` seconds, if that is more."""
        self._sleep(max(self.backoff(number), least))

    def backoff(self, number: int) -> float:
        """Seconds to wait after ``number`` failed tries; a little random, lest many clients come back at once."""
        return min(self.patience.longest, self.patience.pause * 2.0 ** (number - 1)) * random.uniform(0.8, 1.0)

    def _follow(
        self, method: str, url: str, headers: Mapping[str, str], authorization: str, body: Body, *, verify: bool
    ) -> Answer:
        home = origin(url)
        secret = {"Authorization": authorization} if authorization else {}
        for _ in range(_MOST_REDIRECTS + 1):
            at_home = origin(url) == home
            secret = secret if at_home else {}
            answer = self._ask(method, url, {**headers, **secret}, body, verify=verify or not at_home)
            location = answer.headers.get("Location", "")
            if not location or not _is_redirect(method, answer.status):
                return answer
            answer.close()
            target = answer.target(location)
            _check_redirect(url, target)
            url = target
        raise RegistryError(f"{home[1]} redirects more than {_MOST_REDIRECTS} times", hint=_SETUP)

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: Body, *, verify: bool) -> Answer:
        from urllib3 import Timeout, exceptions

        from layerbuild import __version__

        host = urlsplit(url).netloc
        try:
            pool = self._network.pool(url, verify=verify)
        except OSError as error:
            raise UnusableCertificate(host, error) from error
        try:
            response = pool.request(
                method,
                url,
                headers={"User-Agent": f"layerbuild/{__version__}", "Accept-Encoding": "identity", **headers},
                body=body() if callable(body) else body,
                redirect=False,
                retries=False,
                timeout=Timeout(connect=self.patience.connect, read=self.patience.read),
                preload_content=False,
            )
        except exceptions.SSLError as error:
            raise UntrustedError(host, error) from error
        except exceptions.LocationValueError as error:
            raise RegistryError(f"{shown(url)} is no URL of a registry") from error
        except exceptions.NameResolutionError as error:
            if self.knows(host):
                raise Broken(reason(error), url) from error
            # Tried again it is as unknown as before.
            raise Unreachable(f"{host} can't be found: {reason(error)}", hint=_ONLINE) from error
        except (exceptions.HTTPError, OSError) as error:
            raise Broken(reason(error) or "the connection broke", url) from error
        if response.status not in PASSING:
            self._answered.add(host)
        return Answer(response, url)


class Unreachable(RegistryError):
    """There was no answer, whatever a host was asked for."""


class UnusableCertificate(Unreachable):
    """A file with a certificate for a host can't be read, or holds none."""

    def __init__(self, host: str, error: OSError) -> None:
        what = f"{error.filename} {error.strerror}" if error.filename else str(error)
        super().__init__(f"a certificate for {host} can't be used: {what}", hint=_OWN.format(host=host))


class UntrustedError(Unreachable):
    """TLS failed. ``spoken``: the server speaks it for sure, but a certificate is not trusted; ``plain``: it speaks
    none."""

    def __init__(self, host: str, error: BaseException) -> None:
        text = str(error)
        self.spoken = any(mark in text for mark in ("CERTIFICATE_VERIFY_FAILED", "doesn't match", "_ALERT_"))
        own = text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or "the handshake failed"
        _, why, hint = next(row for row in _UNTRUSTED if row[0] in text)
        self.plain = why == _NONE
        super().__init__(
            f"no TLS with {host}: {why or own}", hint=hint.format(host=host, today=time.strftime("%Y-%m-%d"))
        )


def failure(url: str, broken: Broken) -> Unreachable:
    """The error of a request for ``url`` that failed for good, there or where it was redirected to."""
    return Unreachable(f"{broken.host} can't be reached for {shown(url)}: {broken}", hint=_ONLINE)


def _is_redirect(method: str, status: int) -> bool:
    # RFC 9110, section 15.4: 307 and 308 keep method and body; the others may turn what is no GET or HEAD into a GET.
    if status in (HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT):
        return True
    kinds = (HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.FOUND, HTTPStatus.SEE_OTHER)
    return method in ("GET", "HEAD") and status in kinds


def _check_redirect(url: str, target: str) -> None:
    host, (scheme, where, _) = urlsplit(url).netloc, origin(target)
    if scheme not in ("http", "https") or not where:
        raise RegistryError(f"{host} redirects to {shown(target)}, which is not HTTP")
    if origin(url)[0] == "https" and scheme == "http":
        hint = "the registry must send its clients to https"
        raise RegistryError(f"{host} redirects from https to {shown(target)}, which anybody can read", hint=hint)


def number(text: str) -> int | None:
    """The number of bytes that a header tells, None if it tells none."""
    return int(text) if text.isdecimal() and len(text) < 19 else None


def asked_for(headers: Mapping[str, str]) -> float:
    """The seconds that Retry-After asks for: a number, or until a date."""
    from email.utils import parsedate_to_datetime

    text = headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
