"""What goes into the header Authorization, as the registry's challenge asks for it.

::

    Basic                       user and password with every request
    Bearer realm, service       a token of the realm for some scopes: with user and password, with an identity token
                                (OAuth2's refresh token), or as nobody

Tokens are kept by their scopes until they end or are refused. Sources: RFC 9110, section 11; RFC 6750; distribution's
"Token Authentication Specification" and "OAuth2 Token Authentication".
"""

from __future__ import annotations

import json
import re
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode, urlsplit

from layerbuild.errors import RegistryError
from layerbuild.frozen import frozen
from layerbuild.network import origin, shown
from layerbuild.registry.credentials import Credential
from layerbuild.registry.hosts import Endpoint
from layerbuild.registry.transport import Answer, Broken, Transport, failure

Scopes = tuple[str, ...]

_CLIENT = "layerbuild"
_USUAL_LIFE = 60  # seconds of a token that does not tell (distribution, "Token Authentication Specification")
_LARGEST_TOKEN = 1 << 20
_HIDDEN = "***"
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PART = re.compile(
    rf'[\s,]*(?:(?P<key>{_TOKEN})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]*))|(?P<scheme>{_TOKEN}))',
    re.ASCII,
)


@frozen
class Challenge:
    """One way in: the scheme in lower case, and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def read_challenges(header: str) -> tuple[Challenge, ...]:
    """What a header WWW-Authenticate holds; what is no challenge in it is passed over.

    >>> read_challenges('Bearer realm="https://auth/token",service="hub"')[0].parameters["service"]
    'hub'
    """
    found: list[Challenge] = []
    parameters: dict[str, str] = {}
    for part in _PART.finditer(header):
        if part["scheme"]:
            parameters = {}
            found.append(Challenge(part["scheme"].lower(), parameters))
        else:
            quoted = part["quoted"]
            parameters[part["key"].lower()] = part["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return tuple(found)


@frozen
class _Token:
    text: str = field(repr=False)
    ends: float


class Authorizer:
    """Authorizes requests to one repository. Any thread may use it.

    ``find`` looks the credential up; it is asked once, and only if the registry wants one.
    """

    def __init__(self, endpoint: Endpoint, find: Callable[[], Credential | None], transport: Transport) -> None:
        self._endpoint = endpoint
        self._find = find
        self._transport = transport
        self._guard = threading.Lock()
        self._challenge: Challenge | None = None
        self._secure = True
        self._tokens: dict[Scopes, _Token] = {}
        self._demanded: dict[Scopes, Scopes] = {}
        self._credential: Credential | None = None
        self._looked_up = False

    def header(self, scopes: Scopes) -> str:
        """What to send with a request that needs ``scopes``; empty before the registry asked for anything."""
        with self._guard:
            return self._header(scopes)

    def learn(self, answer: Answer, scopes: Scopes, *, sent: str) -> bool:
        """Take in a 401 to a request that was sent with the header ``sent``; whether another try makes sense.

        RegistryError if the registry's challenge can't be met.
        """
        with self._guard:
            self._challenge, self._secure = self._chosen(answer), answer.url.startswith("https:")
            refused = self._tokens.get(scopes)
            if refused is not None and sent == f"Bearer {refused.text}":
                # Behind a proxy a repository may have another name: what the registry wants is asked for, too.
                demanded = self._challenge.parameters.get("scope", "").split()
                known = (*scopes, *self._demanded.get(scopes, ()))
                more = tuple(scope for scope in demanded if scope not in known)
                if not more and self._challenge.parameters.get("error") == "insufficient_scope":
                    return False  # RFC 6750, section 3.1
                self._demanded[scopes] = (*self._demanded.get(scopes, ()), *more)
                del self._tokens[scopes]
            return self._header(scopes) not in ("", sent)

    def hide(self, text: str) -> str:
        """``text`` without any secret that was sent: a server may repeat what it was sent."""
        with self._guard:
            secrets = [token.text for token in self._tokens.values()]
            if self._credential is not None:
                secrets += [*self._credential.secrets, _basic(self._credential).removeprefix("Basic ")]
        for secret in filter(None, secrets):
            text = text.replace(secret, _HIDDEN)
        return text

    # -- headers, with the guard held

    def _header(self, scopes: Scopes) -> str:
        if self._challenge is None:
            return ""
        credential = self._known()
        if self._challenge.scheme == "basic":
            return _basic(credential) if credential else ""
        if credential and credential.registry_token:
            return f"Bearer {credential.registry_token}"
        token = self._tokens.get(scopes)
        if token is None or token.ends <= time.monotonic():
            token = self._tokens[scopes] = self._fetch(self._challenge, scopes, credential)
        return f"Bearer {token.text}"

    def _known(self) -> Credential | None:
        if not self._looked_up:
            self._credential, self._looked_up = self._find(), True
        return self._credential

    def _chosen(self, answer: Answer) -> Challenge:
        found = {
            challenge.scheme: challenge for challenge in read_challenges(answer.headers.get("WWW-Authenticate", ""))
        }
        chosen = found.get("bearer") or found.get("basic")
        if chosen is None:
            asked = ", ".join(found) or "nothing that it names"
            hint = "user and password (Basic) and tokens (Bearer) are known here"
            raise RegistryError(
                f"{self._endpoint.host} wants credentials of a kind that is not known: {asked}", hint=hint
            )
        return chosen

    # -- tokens

    def _fetch(self, challenge: Challenge, scopes: Scopes, credential: Credential | None) -> _Token:
        realm = challenge.parameters.get("realm", "")
        self._check_realm(realm)
        wanted = (*scopes, *self._demanded.get(scopes, ()))
        wanted = wanted or tuple(filter(None, [challenge.parameters.get("scope")]))
        fields = [(key, value) for key, value in (("service", challenge.parameters.get("service")),) if value]
        fields += [("client_id", _CLIENT)]
        began = time.monotonic()
        if credential and credential.identity_token:
            refresh = [("grant_type", "refresh_token"), ("refresh_token", credential.identity_token)]
            answer = self._post(realm, [*fields, ("scope", " ".join(wanted)), *refresh])
        else:
            fields += [("scope", scope) for scope in wanted]
            fields += [("account", credential.username)] if credential else []
            answer = self._get(realm, fields, _basic(credential) if credential else "")
        with answer:
            return self._token(answer, realm, began)

    def _get(self, realm: str, fields: list[tuple[str, str]], authorization: str) -> Answer:
        joint = "&" if urlsplit(realm).query else "?"
        return self._transport.send(
            "GET", f"{realm}{joint}{urlencode(fields)}", authorization=authorization, verify=self._verifies(realm)
        )

    def _post(self, realm: str, fields: list[tuple[str, str]]) -> Answer:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode(fields).encode()
        return self._transport.send("POST", realm, headers=headers, body=body, verify=self._verifies(realm))

    def _token(self, answer: Answer, realm: str, began: float) -> _Token:
        if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.BAD_REQUEST):
            hint = f"`layerbuild login {self._endpoint.registry}` gives it others"
            text = f"{shown(realm)} refuses the credentials for {self._endpoint.host}"
            raise RegistryError(text, hint=hint, status=answer.status)
        if answer.status != HTTPStatus.OK:
            raise RegistryError(f"{shown(realm)} gives no token for {self._endpoint.host}: it answered {answer.status}")
        try:
            raw: Any = json.loads(answer.small(_LARGEST_TOKEN))
            text = raw.get("token") or raw["access_token"]
            life = float(raw.get("expires_in") or _USUAL_LIFE)
        except Broken as broken:
            raise failure(realm, broken) from broken
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise RegistryError(
                f"{shown(realm)} gives no token for {self._endpoint.host}, but something else"
            ) from error
        if not isinstance(text, str) or not text.isascii() or not text.isprintable():
            raise RegistryError(f"{shown(realm)} gives a token for {self._endpoint.host} that can't be one")
        return _Token(text, began + life * 0.9)

    def _check_realm(self, realm: str) -> None:
        try:
            scheme, host, _ = origin(realm)
        except ValueError:
            scheme = host = ""
        if scheme not in ("http", "https") or not host:
            raise RegistryError(
                f"{self._endpoint.host} gives no address of its token service", hint="its set-up is wrong"
            )
        if scheme == "http" and self._secure:
            raise RegistryError(
                f"{self._endpoint.host} wants credentials sent to {shown(realm)}, which anybody can read"
            )

    def _verifies(self, realm: str) -> bool:
        return not self._endpoint.insecure or urlsplit(realm).netloc != self._endpoint.host


def _basic(credential: Credential) -> str:
    pair = f"{credential.username}:{credential.password}".encode()
    return f"Basic {b64encode(pair).decode()}"
