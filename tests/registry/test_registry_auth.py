"""Challenges and tokens, TLS, and that no secret goes where it should not."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from ssl import SSLError

import pytest
import registry_faults
from loopback import Asked, Reply, Web
from registry_clients import PATIENCE, client
from registry_faults import Image, Page, Registry, layer_tar
from registry_tokens import REFRESH, Tokens
from test_registry_pull import Pulling, halved, whole

from layerbuild.digest import BlobDigest
from layerbuild.errors import RegistryError
from layerbuild.network import Trust
from layerbuild.reference import Reference
from layerbuild.registry.auth import Challenge, read_challenges
from layerbuild.registry.client import Repository
from layerbuild.registry.credentials import Credential
from layerbuild.registry.hosts import Endpoint, Hosts, trust
from layerbuild.registry.transport import Transport, UntrustedError
from layerbuild.store.store import Store

USER, PASSWORD = "somebody", "a secret: never shown"


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ('Bearer realm="https://a/b?c=d",service="s"', [("bearer", {"realm": "https://a/b?c=d", "service": "s"})]),
        ('bearer realm=r , scope="a:b:c,d"', [("bearer", {"realm": "r", "scope": "a:b:c,d"})]),
        ('Bearer realm=r,Basic realm="q\\"r"', [("bearer", {"realm": "r"}), ("basic", {"realm": 'q"r'})]),
        ("Negotiate", [("negotiate", {})]),
        ('Negotiate, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("", []),
        ('=,;"', []),
    ],
)
def test_challenges(header: str, challenges: list[tuple[str, dict[str, str]]]) -> None:
    assert read_challenges(header) == tuple(Challenge(*challenge) for challenge in challenges)


def credentials(folder: Path, host: str, **entry: str) -> Path:
    file = folder / "config.json"
    given = entry or {"auth": b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
    file.write_text(json.dumps({"auths": {host: given}}))
    return file


def guarded(faulty: Registry, tokens: Tokens, image: Image, name: str = "app") -> None:
    faulty.add(name, image)
    for path in [path for path in faulty.web.pages if path.startswith("/v2/")]:
        faulty.web.pages[path] = tokens.guard(faulty.web.pages[path])


def test_tokens_for_nobody(store: Store, faulty: Registry) -> None:
    tokens = Tokens(faulty.web)
    guarded(faulty, tokens, Image(layer_tar(1), layer_tar(2)))
    Pulling(store)(f"{faulty.host}/app")
    assert tokens.given == [["repository:app:pull"]]
    whole(store)


def test_tokens_for_somebody(store: Store, faulty: Registry, tmp_path: Path) -> None:
    tokens = Tokens(faulty.web, USER, PASSWORD)
    guarded(faulty, tokens, Image(layer_tar(1)))
    Pulling(store, client(credentials(tmp_path, faulty.host)))(f"{faulty.host}/app")
    with pytest.raises(RegistryError, match="refuses the credentials") as refused:
        Pulling(store, client())(f"{faulty.host}/app:latest")
    assert f"layerbuild login {faulty.host}" in refused.value.hint


def test_identity_tokens(store: Store, faulty: Registry, tmp_path: Path) -> None:
    tokens = Tokens(faulty.web, USER, PASSWORD)
    guarded(faulty, tokens, Image(layer_tar(1)))
    file = credentials(tmp_path, faulty.host, auth="", identitytoken=REFRESH)
    Pulling(store, client(file))(f"{faulty.host}/app")
    assert tokens.given == [["repository:app:pull"]]


def test_a_registry_token_is_sent_as_it_is(store: Store, faulty: Registry, tmp_path: Path) -> None:
    tokens = Tokens(faulty.web, USER, PASSWORD, left={"given": 100})
    guarded(faulty, tokens, Image(layer_tar(1)))
    Pulling(store, client(credentials(tmp_path, faulty.host, registrytoken="given")))(f"{faulty.host}/app")
    assert tokens.given == []


def test_a_token_that_ends_in_the_middle_of_a_transfer(store: Store, faulty: Registry) -> None:
    source = Image(layer_tar(1))
    tokens = Tokens(faulty.web, uses=3)
    data = source.blobs[source.layers[0]]
    faulty.first[f"/v2/app/blobs/{source.layers[0]}"] = [halved(Reply(data))]
    guarded(faulty, tokens, source)
    Pulling(store)(f"{faulty.host}/app")  # manifest, configuration, half of the blob; then the token is used up
    assert len(tokens.given) == 2
    assert faulty.asked(source.layers[0])[-1].headers["range"] == f"bytes={len(data) // 2}-{len(data) - 1}"
    whole(store)


def test_a_token_is_renewed_before_it_ends(faulty: Registry) -> None:
    tokens = Tokens(faulty.web, life=-1)
    guarded(faulty, tokens, Image(layer_tar(1)))
    there = client().open(Endpoint(faulty.host, "app"))
    for _ in range(3):
        there.manifest("latest")
    assert len(tokens.given) >= 3
    assert sum(asked.headers.get("authorization") is None for asked in faulty.asked("/manifests/")) == 1


def test_a_scope_that_is_not_granted(faulty: Registry) -> None:
    tokens = Tokens(faulty.web)
    faulty.page("/v2/app/manifests/latest", tokens.guard(Reply(), error="insufficient_scope"))
    with pytest.raises(RegistryError, match="answered 401"):
        client().open(Endpoint(faulty.host, "app")).manifest("latest")
    assert tokens.given == [["repository:app:pull"], ["repository:app:pull", "a:b:c"]]


def test_a_repository_that_the_token_service_calls_otherwise(store: Store, faulty: Registry) -> None:
    """As behind a proxy that keeps others' repositories in one of its own."""
    source = Image(layer_tar(1))
    tokens = Tokens(faulty.web)
    faulty.add("app", source)

    def strict(page: Page) -> Page:
        def answer(asked: Asked) -> Reply:
            token = asked.headers.get("authorization", "")[-1:]
            wrong = token.isdecimal() and "a:b:c" not in tokens.given[int(token) - 1]
            found = tokens.guard(page, error="invalid_token" if wrong else "")
            return found(asked) if callable(found) else found

        return answer

    for path in [path for path in faulty.web.pages if path.startswith("/v2/")]:
        faulty.web.pages[path] = strict(faulty.web.pages[path])
    Pulling(store)(f"{faulty.host}/app")
    assert tokens.given == [["repository:app:pull"], ["repository:app:pull", "a:b:c"]]
    whole(store)


def test_what_one_request_demands_is_asked_for_it_alone(faulty: Registry) -> None:
    """A token service may refuse all that is asked, for want of one part: a mount that fails is no failed push."""
    tokens = Tokens(faulty.web)
    faulty.page("/v2/app/manifests/latest", tokens.guard(Reply(b"{}")))
    faulty.page("/v2/app/blobs/uploads/", tokens.guard(Reply(), error="invalid_token"))
    there = client().open(Endpoint(faulty.host, "app"))
    with pytest.raises(RegistryError, match="answered 401"):
        there.request("POST", "blobs/uploads/", scopes=there.pushing, body=b"")
    assert tokens.given[-1] == ["repository:app:pull,push", "a:b:c"]
    there.manifest("latest")
    assert tokens.given[-1] == ["repository:app:pull"]


def test_a_registry_that_wants_a_token_here_and_a_password_there(
    store: Store, faulty: Registry, tmp_path: Path
) -> None:
    source = Image(layer_tar(1), layer_tar(2))
    guarded(faulty, Tokens(faulty.web, USER, PASSWORD), source)
    pair = b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def basic(asked: Asked) -> Reply:
        if asked.headers.get("authorization") != f"Basic {pair}":
            return Reply(b"", 401, {"WWW-Authenticate": 'Basic realm="blobs"'})
        return Reply(source.blobs[asked.path.rpartition("/")[2]])

    for digest in source.blobs:
        faulty.page(f"/v2/app/blobs/{digest}", basic)
    Pulling(store, client(credentials(tmp_path, faulty.host)))(f"{faulty.host}/app")
    whole(store)


def test_a_token_service_that_fails(faulty: Registry) -> None:
    tokens = Tokens(faulty.web)
    guarded(faulty, tokens, Image(layer_tar(1)))
    there = client().open(Endpoint(faulty.host, "app"))
    for reply, said in (
        (Reply(b"", 500), "gives no token .* answered 500"),
        (Reply(b"<html>"), "gives no token .* something else"),
        (Reply(b'{"token":"a\\nb"}'), "that can't be one"),
        (Reply(b'{"token":"a","expires_in":1' + b"0" * 400 + b"}"), "gives no token .* something else"),
        (Reply(b"[" * 60000), "gives no token .* something else"),
    ):
        faulty.web.pages["/token"] = reply
        with pytest.raises(RegistryError, match=said):
            there.manifest("latest")


@pytest.mark.parametrize(
    "challenge",
    ["", "Negotiate", 'Bearer service="x"', 'Bearer realm="ftp://host/x"', 'Bearer realm="http://host:99999/x"'],
)
def test_a_challenge_that_nobody_can_meet(faulty: Registry, challenge: str) -> None:
    faulty.page("/v2/app/manifests/latest", Reply(b"", 401, {"WWW-Authenticate": challenge}))
    with pytest.raises(RegistryError, match=faulty.host):
        client().open(Endpoint(faulty.host, "app")).manifest("latest")


# -- where credentials go ----------------------------------------------------------------------------------------------


def test_storage_sees_no_credentials(store: Store, faulty: Registry, tmp_path: Path) -> None:
    tokens, source = Tokens(faulty.web, USER, PASSWORD), Image(layer_tar(1))
    with Web(tmp_path) as storage:
        storage.pages["/blob"] = Reply(source.blobs[source.layers[0]])
        guarded(faulty, tokens, source)
        target = Reply(b"", 307, {"Location": storage.url("blob")})
        faulty.page(f"/v2/app/blobs/{source.layers[0]}", tokens.guard(target))
        Pulling(store, client(credentials(tmp_path, faulty.host)))(f"{faulty.host}/app")
        assert "authorization" not in storage.asked[0].headers
    assert "authorization" in faulty.asked(source.layers[0])[0].headers


def test_no_credentials_on_the_way_back(store: Store, faulty: Registry, tmp_path: Path) -> None:
    tokens, source = Tokens(faulty.web, USER, PASSWORD), Image(layer_tar(1))
    with Web(tmp_path) as storage:
        storage.pages["/blob"] = Reply(b"", 307, {"Location": faulty.web.url("chosen/by/storage")})
        guarded(faulty, tokens, source)
        faulty.page("/chosen/by/storage", Reply(source.blobs[source.layers[0]]))
        target = Reply(b"", 307, {"Location": storage.url("blob")})
        faulty.page(f"/v2/app/blobs/{source.layers[0]}", tokens.guard(target))
        Pulling(store, client(credentials(tmp_path, faulty.host)))(f"{faulty.host}/app")
    assert ["authorization" in asked.headers for asked in faulty.asked("chosen")] == [False]


def test_storage_that_wants_credentials_gets_none(store: Store, faulty: Registry, tmp_path: Path) -> None:
    tokens, source = Tokens(faulty.web, USER, PASSWORD), Image(layer_tar(1))
    with Web(tmp_path) as storage:
        storage.pages["/blob"] = Reply(b"", 401, {"WWW-Authenticate": f'Bearer realm="{storage.url("token")}"'})
        guarded(faulty, tokens, source)
        faulty.page(f"/v2/app/blobs/{source.layers[0]}", Reply(b"", 302, {"Location": storage.url("blob?sig=hidden")}))
        with pytest.raises(RegistryError, match=f"{storage.host} answered 401") as refused:
            Pulling(store, client(credentials(tmp_path, faulty.host)))(f"{faulty.host}/app")
        assert {asked.path for asked in storage.asked} == {"/blob?sig=hidden"}
    assert "hidden" not in str(refused.value) and "login" not in refused.value.hint


def test_what_a_server_repeats_is_hidden(faulty: Registry, tmp_path: Path) -> None:
    secret = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    errors = {"errors": [{"code": "DENIED", "message": f"\x1b[31mno: {PASSWORD} Basic {secret}\n" + "x" * 1000}]}

    def page(asked: object) -> Reply:
        known = "authorization" in asked.headers  # type: ignore[attr-defined]
        challenge = {"WWW-Authenticate": 'Basic realm="x"'}
        return Reply(json.dumps(errors).encode(), 403) if known else Reply(b"", 401, challenge)

    faulty.page("/v2/app/manifests/latest", page)
    with pytest.raises(RegistryError, match=r"403.*DENIED: .*no") as refused:
        client(credentials(tmp_path, faulty.host)).open(Endpoint(faulty.host, "app")).manifest("latest")
    said = str(refused.value)
    assert PASSWORD not in said and secret not in said and "\x1b" not in said and len(said) < 600


# -- TLS ---------------------------------------------------------------------------------------------------------------


def secure(folder: Path, certificate: Path) -> Web:
    return Web(folder, certificate=certificate)


def there(web: Web, *, insecure: bool = False) -> Repository:
    hosts = Hosts(insecure=frozenset([web.host] if insecure else []))
    return client(hosts=hosts).push(Reference.parse(f"{web.host}/app"))


def test_a_certificate_that_nobody_trusts(tmp_path: Path, certificate: Path) -> None:
    with secure(tmp_path, certificate) as web:
        Registry(web).add("app", Image())
        with pytest.raises(RegistryError, match=f"no TLS with {web.host}: self-signed certificate") as refused:
            there(web).manifest("latest")
        assert "SSL_CERT_FILE" in refused.value.hint and f"--insecure-registry {web.host}" in refused.value.hint
        assert there(web, insecure=True).manifest("latest").data
        assert web.paths == ["/v2/", "/v2/app/manifests/latest"]


def test_a_certificate_of_ones_own(tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # OpenSSL reads it itself
    with secure(tmp_path, certificate) as web:
        Registry(web).add("app", Image())
        assert there(web).manifest("latest").data


def test_certificates_of_a_host(tmp_path: Path, certificate: Path) -> None:
    (tmp_path / "www").mkdir()
    with Web(tmp_path / "www", certificate=certificate, mutual=True) as web:
        Registry(web).add("app", Image())
        folder = tmp_path / "certs.d" / web.host
        folder.mkdir(parents=True)

        def fetch() -> bytes:
            own = client(trust=lambda host: trust(host, (tmp_path / "absent", tmp_path / "certs.d")))
            return own.push(Reference.parse(f"{web.host}/app")).manifest("latest").data

        with pytest.raises(RegistryError, match="self-signed"):
            fetch()
        (folder / "ca.crt").write_bytes(certificate.read_bytes())
        with pytest.raises(RegistryError, match=web.host):
            fetch()  # it is trusted now, and does not trust us
        (folder / "client.cert").write_bytes(certificate.read_bytes())
        with pytest.raises(RegistryError, match=f"a certificate for {web.host} can't be used") as refused:
            fetch()
        assert f"certs.d/{web.host}" in refused.value.hint
        (folder / "client.key").write_bytes(certificate.read_bytes())
        assert fetch()


@pytest.mark.parametrize(("there", "missing"), [("client.cert", "client.key"), ("client.key", "client.cert")])
def test_half_of_a_pair_is_named(tmp_path: Path, certificate: Path, there: str, missing: str) -> None:
    folder = tmp_path / "127.0.0.1:1"
    folder.mkdir()
    (folder / there).write_bytes(certificate.read_bytes())
    with pytest.raises(OSError, match=f"{there} is of no use without it: '{folder / missing}'"):
        trust("127.0.0.1:1", (tmp_path,))


@pytest.mark.parametrize("wrong", ["ca.crt", "client.cert", "client.key"])
def test_a_file_that_holds_no_certificate_is_named(tmp_path: Path, certificate: Path, wrong: str) -> None:
    folder = tmp_path / "127.0.0.1:1"
    folder.mkdir()
    for name in ("ca.crt", "client.cert", "client.key"):
        (folder / name).write_bytes(b"no PEM" if name == wrong else certificate.read_bytes())
    own = client(trust=lambda host: trust(host, (tmp_path,)), hosts=Hosts(insecure=frozenset(["127.0.0.1:1"])))
    with pytest.raises(RegistryError, match="can't be used") as refused:
        own.push(Reference.parse("127.0.0.1:1/app")).manifest("latest")
    assert str(folder) in refused.value.message and wrong in refused.value.message
    assert "_ssl.c" not in refused.value.message


@pytest.mark.parametrize(
    ("names", "days", "said", "hint"),
    [
        ("IP:127.0.0.1", -1, "certificate has expired", "this machine's clock"),
        ("DNS:example.com", 2, "certificate is not valid for '127.0.0.1'", "name it as its certificate does"),
    ],
)
def test_a_certificate_that_is_trusted_and_wrong(
    tmp_path: Path, program: Callable[[str], str], names: str, days: int, said: str, hint: str
) -> None:
    (tmp_path / "www").mkdir()
    file = registry_faults.certificate(program("openssl"), tmp_path, names=names, days=days)
    with secure(tmp_path / "www", file) as web:
        own = client(trust=lambda host: Trust(authorities=(file,)))
        with pytest.raises(RegistryError, match=said) as refused:
            own.push(Reference.parse(f"{web.host}/app")).manifest("latest")
        assert web.host in refused.value.message and hint in refused.value.hint
        assert f"--insecure-registry {web.host}" in refused.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert", "it wants a certificate of its clients"),
        ("EOF occurred in violation of protocol", "perhaps it wants a certificate of its clients"),
        ("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca", "it does not trust the certificate that it is shown"),
    ],
)
def test_a_server_that_does_not_trust_its_client(text: str, said: str) -> None:
    """How it ends depends on what of it arrives first."""
    error = UntrustedError("registry.example.com", SSLError(1, f"{text} (_ssl.c:2580)"))
    assert said in error.message and "/etc/containers/certs.d/registry.example.com" in error.hint


def test_a_server_that_speaks_no_tls(web: Web) -> None:
    with pytest.raises(RegistryError, match=f"no TLS with {web.host}: it speaks none") as refused:
        Transport({}, patience=PATIENCE).send("GET", f"https://{web.host}/v2/")
    assert f"--insecure-registry {web.host} takes plain HTTP" in refused.value.hint


def test_no_way_back_from_https(tmp_path: Path, certificate: Path, store: Store) -> None:
    source = Image(layer_tar(1))
    (tmp_path / "plain").mkdir()
    with secure(tmp_path, certificate) as web, Web(tmp_path / "plain") as plain:
        registry = Registry(web)
        registry.add("app", source)
        registry.page(f"/v2/app/blobs/{source.layers[0]}", Reply(b"", 307, {"Location": plain.url("x")}))
        own = client(hosts=Hosts(insecure=frozenset([web.host])))
        with pytest.raises(RegistryError, match=f"redirects from https to {plain.url('x')}"):
            Pulling(store, own)(f"{web.host}/app")
        tokens = Tokens(plain, USER, PASSWORD)
        registry.page("/v2/app/manifests/latest", tokens.guard(Reply()))
        with pytest.raises(RegistryError, match=r"credentials sent to .* anybody can read"):
            there(web, insecure=True).manifest("latest")
        with pytest.raises(RegistryError, match="anybody can read"):
            there(web, insecure=True).request("PATCH", plain.url("upload"), scopes=())
        assert plain.asked == []


def test_a_login_is_checked(faulty: Registry) -> None:
    tokens = Tokens(faulty.web, USER, PASSWORD)
    faulty.page("/v2/", tokens.guard(Reply(b"{}")))
    client().check(faulty.host, Credential(USER, PASSWORD))
    with pytest.raises(RegistryError, match="refuses the credentials"):
        client().check(faulty.host, Credential(USER, "a wrong one"))
    faulty.page("/v2/", Reply(b"", 404))
    with pytest.raises(RegistryError, match="answered 404"):
        client().check(faulty.host, Credential(USER, PASSWORD))


def test_no_proxy_for_what_is_near(faulty: Registry) -> None:
    faulty.add("app", Image())
    environment = {"http_proxy": "http://127.0.0.1:1", "no_proxy": "127.0.0.1"}
    assert client(environment=environment).open(Endpoint(faulty.host, "app")).manifest("latest").data
    with pytest.raises(RegistryError, match="can't be reached"):
        client(environment=environment | {"no_proxy": ""}).open(Endpoint(faulty.host, "app")).manifest("latest")


def test_blobs_are_not_read_by_who_may_not(store: Store, faulty: Registry) -> None:
    source = Image(layer_tar(1))
    guarded(faulty, Tokens(faulty.web, USER, PASSWORD), source)
    with pytest.raises(RegistryError):
        Pulling(store)(f"{faulty.host}/app")
    assert not store.blobs.has(BlobDigest(source.layers[0])) and os.listdir(store.temporary) == []


def test_plain_http_needs_no_certificate(faulty: Registry) -> None:
    """None is read: of a machine's own, which are many, that takes longer than a request."""
    faulty.add("app", Image())
    absent = Trust(authorities=(Path("/absent"),))
    own = client(trust=lambda host: absent)
    assert own.push(Reference.parse(f"{faulty.host}/app")).manifest("latest").data
