"""A token service, as registries send their clients to one, and a registry page behind it."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from loopback import Asked, Reply, Web
from registry_faults import Page

REFRESH = "an identity token: never shown"


@dataclass
class Tokens:
    """Gives tokens to ``user`` with ``password``, and to whoever has ``REFRESH``; to nobody where ``user`` is empty.

    Each token is good for ``uses`` requests. ``given`` are the scopes that were asked for, in order.
    """

    web: Web
    user: str = ""
    password: str = ""
    uses: int = 1_000
    life: int = 300
    given: list[list[str]] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.web.pages["/token"] = self.answer

    def answer(self, asked: Asked) -> Reply:
        if asked.method == "POST":
            fields = parse_qs(asked.body.decode())
            allowed = fields["refresh_token"] == [REFRESH] and fields["grant_type"] == ["refresh_token"]
            scopes = fields.get("scope", [""])[0].split()
        else:
            fields = parse_qs(urlsplit(asked.path).query)
            pair = b64decode(asked.headers.get("authorization", "").removeprefix("Basic ")).decode()
            allowed = pair == f"{self.user}:{self.password}" if self.user else not pair
            scopes = fields.get("scope", [])
        if not allowed or fields["service"] != ["tests"]:
            return Reply(b'{"details":"no"}', 401)
        self.given.append(scopes)
        token = f"token{len(self.given)}"
        self.left[token] = self.uses
        key = "access_token" if asked.method == "POST" else "token"
        return Reply(json.dumps({key: token, "expires_in": self.life}).encode())

    def guard(self, page: Page, *, error: str = "") -> Page:
        """``page`` for who has a token that is still good."""

        def answer(asked: Asked) -> Reply:
            token = asked.headers.get("authorization", "").removeprefix("Bearer ")
            if self.left.get(token, 0) <= 0 or error:
                challenge = f'Bearer realm="{self.web.url("token")}",service="tests",scope="a:b:c"'
                challenge += f',error="{error}"' if error else ""
                return Reply(b"", 401, {"WWW-Authenticate": challenge})
            self.left[token] -= 1
            return page(asked) if callable(page) else page

        return answer
