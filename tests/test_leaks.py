"""What looks like a credential: rules over paths, contents, variables and history; and what only seems to."""

from __future__ import annotations

import base64
import secrets
import string

import pytest

from layerbuild.leaks import LIMIT, AllowList, Finding, in_file, in_history, in_variable

# Put together here, so that no scanner of repositories takes this file for a leak.
WORD = (string.ascii_letters + string.digits) * 4
KEY = base64.b64encode(secrets.token_bytes(200)).decode()
HEAD, FOOT = "-----BEGIN {} KEY-----", "-----END {} KEY-----"
TOKENS = {
    "AWS access key": "AK" + "IA" + "Q7" * 8,
    "GitHub token": "gh" + "p_" + WORD[:36],
    "GitLab token": "gl" + "pat-" + WORD[:20],
    "Slack token": "xo" + "xb-" + "1234567890-" + WORD[:24],
    "Stripe key": "sk_" + "live_" + WORD[:24],
    "Google API key": "AI" + "za" + WORD[:35],
    "npm token": "np" + "m_" + WORD[:36],
    "PyPI token": "pyp" + "i-AgEIcHlwaS5vcmc" + WORD[:60],
    "Docker Hub token": "dckr_" + "pat_" + WORD[:27],
    "SendGrid key": "S" + "G." + WORD[:22] + "." + WORD[:43],
    "Hugging Face token": "h" + "f_" + string.ascii_letters[:34],
    "API key of a model": "sk-" + "ant-" + WORD[:50],
}


def rules(path: str, text: str | bytes) -> list[str]:
    return [found.rule for found in in_file(path, text.encode() if isinstance(text, str) else text)]


@pytest.mark.parametrize("rule", TOKENS)
def test_tokens(rule: str) -> None:
    (found,) = in_file("/app/config.py", f"# one\nTOKEN = '{TOKENS[rule]}'\n".encode())
    assert (found.rule, found.line) == (rule, 2)
    assert TOKENS[rule] not in str(found) and len(found.hint) < 12


@pytest.mark.parametrize("kind", ["PRIVATE", "RSA PRIVATE", "OPENSSH PRIVATE", "EC PRIVATE", "ENCRYPTED PRIVATE"])
def test_private_keys(kind: str) -> None:
    assert rules("/etc/tls.pem", f"{HEAD.format(kind)}\n{KEY}\n{FOOT.format(kind)}\n") == ["private key"]
    assert rules("/a.json", f'"key": "{HEAD.format(kind)}\\n{KEY}"') == ["private key"]
    assert rules("/a", f"{HEAD.format(kind)}\nProc-Type: 4,ENCRYPTED\nDEK-Info: X,00\n\n{KEY}\n") == ["private key"]


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("/root/.ssh/id_rsa", "private key"),
        ("/root/.ssh/id_ed25519", "private key"),
        ("/app/.env", "environment file"),
        ("/app/.env.production", "environment file"),
        ("/root/.netrc", "credentials file"),
        ("/root/.git-credentials", "credentials file"),
        ("/root/.aws/credentials", "credentials file"),
        ("/srv/site.p12", "key store"),
    ],
)
def test_names(path: str, rule: str) -> None:
    assert rules(path, "something") == [rule]
    assert rules(path, "") == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/root/.ssh/id_rsa.pub", "ssh-ed25519 AAAA"),
        ("/app/.env.example", "TOKEN=changeme"),
        ("/lib/pem.py", 'if line == "-----BEGIN ' + 'PRIVATE KEY-----":\n    parse()\n'),
        ("/etc/tls.pem", HEAD.format("PUBLIC") + "\n" + KEY),
        ("/doc", "AK" + "IAIOSFODNN7EXAMPLE"),
        ("/doc", "gh" + "p_short"),
        ("/doc", "task-ant-" + "x" * 10),
        ("/.npmrc", "//registry.npmjs.org/:_authToken=${NPM_TOKEN}"),
        ("/bin/x", b"\x7fELF\0\0" + TOKENS["GitHub token"].encode()),
        ("/far", b" " * LIMIT + TOKENS["GitHub token"].encode()),
    ],
)
def test_what_only_seems_to_be_one(path: str, text: str | bytes) -> None:
    assert rules(path, text) == []


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("API_TOKEN", "abc", True),
        ("DB_PASSWORD", "abc", True),
        ("aws_secret_access_key", "abc", True),
        ("DATABASE", "postgres://me:pass@host/db", True),
        ("X", TOKENS["GitHub token"], True),
        ("DB_PASSWORD", "", False),
        ("DB_PASSWORD_FILE", "/run/secrets/db", False),
        ("GPG_KEY", "A035C8C19219BA821ECEA86B64E628F8D684696D", False),
        ("TOKENIZER", "bert", False),
        ("API_TOKEN", "/run/secrets/token", False),
        ("DATABASE", "postgres://host/db", False),
    ],
)
def test_variables(name: str, value: str, found: bool) -> None:
    assert bool(list(in_variable(f"ENV {name}", name, value))) is found


def test_history() -> None:
    told = list(in_history("RUN |1 API_TOKEN=abc123 /bin/sh -c curl https://me:pass@host/ # buildkit"))
    assert {found.rule for found in told} == {"variable with a telling name", "password in a URL"}
    assert list(in_history("RUN /bin/sh -c curl https://xxxxx:xxxxx@host/")) == []


def test_a_fingerprint_is_the_secret_s_and_not_the_place_s() -> None:
    one, two = (next(in_file(path, TOKENS["npm token"].encode())) for path in ("/a", "/b"))
    assert one.fingerprint == two.fingerprint
    assert next(in_file("/a", TOKENS["GitHub token"].encode())).fingerprint != one.fingerprint


def test_allow_list() -> None:
    allowed = AllowList.parse("# tests\n/usr/share/*\ntests/*.pem  # made up\n[0123456789abcdef]\n")

    def finding(place: str, mark: str = "") -> Finding:
        return Finding("private key", place, 1, mark)

    assert allowed.allows(finding("/usr/share/doc/x/key.pem")) and allowed.allows(finding("/tests/a.pem"))
    assert allowed.allows(finding("/etc/key", "0123456789abcdef"))
    assert not allowed.allows(finding("/etc/key", "1123456789abcdef"))
