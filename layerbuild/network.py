"""The way to a web server: proxies, connections, and what their failures mean in the system's own words.

Proxies are looked up in an environment that the caller hands over: ``http_proxy``, ``https_proxy``, ``all_proxy`` and
``no_proxy``, in lower case or upper case, as curl(1) has them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

from layerbuild.frozen import frozen

if TYPE_CHECKING:
    from ssl import SSLContext

    from urllib3 import PoolManager

PASSING = frozenset((408, 429, 500, 502, 503, 504))  # statuses that may be over at the next try
_PORTS = {"http": 80, "https": 443}


@frozen
class Trust:
    """Files with certificates: of ``authorities`` that are trusted beside the machine's, and pairs of a certificate and
    its key, to be shown to a server that asks for one."""

    authorities: tuple[Path, ...] = ()
    pairs: tuple[tuple[Path, Path], ...] = ()


class Network:
    """Pools of connections, one for each proxy in use. Any thread may use it.

    ``connections`` is how many are kept open to one server; ``trust`` tells what counts for a host (and port).
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        connections: int = 1,
        trust: Callable[[str], Trust] = lambda host: Trust(),
    ) -> None:
        self._proxies = _proxies(environment)
        self._connections = connections
        self._trust = trust
        self._guard = threading.Lock()
        self._pools: dict[tuple[str, bool, bool, Trust], PoolManager] = {}

    def pool(self, url: str, *, verify: bool = True) -> PoolManager:
        """The pool for requests to ``url``; ``verify`` False takes any certificate. OSError for a certificate that
        can't be read names its file."""
        parts = urlsplit(url)
        proxy = self._proxies.get(parts.scheme) or self._proxies.get("all", "")
        if _is_near(parts, self._proxies.get("no", "")):
            proxy = ""
        key = proxy, parts.scheme == "https", verify, self._trust(parts.netloc)
        with self._guard:
            if key not in self._pools:
                self._pools[key] = self._open(*key)
            return self._pools[key]

    def _open(self, proxy: str, secure: bool, verify: bool, trust: Trust) -> PoolManager:
        from urllib3 import PoolManager, ProxyManager, disable_warnings
        from urllib3.exceptions import InsecureRequestWarning
        from urllib3.util import make_headers

        if not verify:  # who asked for it need not be told with each request
            disable_warnings(InsecureRequestWarning)
        options: dict[str, Any] = {"maxsize": self._connections}
        if secure:  # to read the machine's certificates takes 10 ms
            options["ssl_context"] = _tls(trust, verify=verify)
        if not proxy:
            return PoolManager(**options)
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if parts.username else None
        headers = make_headers(proxy_basic_auth=user)
        return ProxyManager(without_user(parts), proxy_headers=headers, **options)


def _tls(trust: Trust, *, verify: bool) -> SSLContext:
    from ssl import CERT_NONE, CERT_REQUIRED

    from urllib3.util.ssl_ import create_urllib3_context

    context = create_urllib3_context(cert_reqs=CERT_REQUIRED if verify else CERT_NONE)
    context.load_default_certs()
    for authority in trust.authorities:
        with _named(authority, "is no certificate in PEM form"):
            context.load_verify_locations(authority)
    for certificate, key in trust.pairs:
        with _named(certificate, f"and {key.name} are no certificate and its key in PEM form, without a passphrase"):
            context.load_cert_chain(certificate, key, password=str)  # else OpenSSL asks the terminal for one
    return context


@contextmanager
def _named(path: Path, wrong: str) -> Iterator[None]:
    """Say of what can't be read that it is ``path``: OpenSSL names no file."""
    from ssl import SSLError

    try:
        yield
    except OSError as error:
        text = wrong if isinstance(error, SSLError) else error.strerror
        raise OSError(error.errno, text, str(path)) from error


def without_user(parts: SplitResult) -> str:
    """A URL without what stands before the ``@``."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what must be the same for credentials to be sent along (RFC 6454, section 4)."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)


def shown(url: str) -> str:
    """A URL to be shown: without user, query and fragment, any of which may hold a secret (signed URLs do).

    >>> shown("https://me:secret@host/blob?X-Signature=abc")
    'https://host/blob'
    """
    return without_user(urlsplit(url)._replace(query="", fragment=""))


def reason(error: BaseException) -> str:
    """What went wrong: the operating system's words where it has any, since the library's own name its objects; empty
    where nothing is known that could be shown."""
    from urllib3 import exceptions

    for inner in (error.__cause__, error.__context__, *error.args):
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
    return "the server did not answer in time" if isinstance(error, exceptions.TimeoutError) else ""


def _is_near(url: SplitResult, no_proxy: str) -> bool:
    """Whether ``no_proxy`` names the host, with its port or without, or a domain that it is in."""
    host = url.hostname or ""
    entries = [entry.strip().lower().lstrip(".") for entry in no_proxy.split(",")]
    names = [name for name in entries if name]
    return any(name in ("*", host, f"{host}:{url.port}") or host.endswith(f".{name}") for name in names)


def _proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables by what they are for: http, https, all, and the hosts that need none. Where both spellings
    are set, the lower-case one counts."""
    names = {"http": "http_proxy", "https": "https_proxy", "all": "all_proxy", "no": "no_proxy"}
    found = {use: environment.get(name) or environment.get(name.upper(), "") for use, name in names.items()}
    return {use: value for use, value in found.items() if value}
