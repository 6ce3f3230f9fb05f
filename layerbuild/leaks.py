"""What looks like a credential that nobody means to ship: rules over paths, contents, variables and command lines.

Each rule for content has anchors, a few bytes without which its pattern can't match. All anchors are looked for in one
pass (an Aho-Corasick automaton: a search for each of them takes ten times as long), and a pattern only where one was
found. Contents are looked at up to ``LIMIT`` bytes, and binary files by their names only. A finding never holds the
secret: its fingerprint is a hash that an allow list can name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import cache

from layerbuild.frozen import frozen

RULES_VERSION = 1  # a change of the rules raises it: layers are scanned anew then
LIMIT = 1 << 20  # bytes of a file that are looked at

_HEAD = 4096  # a zero byte in these, and the file is binary (as git and grep tell it)
_MOST = 20  # findings in one file


@frozen
class Finding:
    """Something that looks like a credential. ``place`` is a path, or "ENV NAME", or "history"; ``line`` counts from 1,
    0: the name told it. ``hint`` is its harmless beginning."""

    rule: str
    place: str
    line: int
    fingerprint: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.place}:{self.line}" if self.line else self.place
        return f"{where}: {self.rule}{f' ({self.hint}…)' if self.hint else ''} [{self.fingerprint}]"


@frozen
class _Rule:
    name: str
    anchors: tuple[bytes, ...]
    pattern: bytes
    shown: int = 4  # bytes of it that tell nothing


# The forms that those who issue them document, or publish for GitHub's secret scanning.
_RULES = (
    # The header alone stands in many a library: a key follows it, perhaps after header lines (RFC 7468, RFC 1421).
    _Rule(
        "private key",
        (b"PRIVATE KEY-----", b"PRIVATE KEY BLOCK-----"),
        rb"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:\s|\\[nr])+(?:[A-Za-z-]+: [^\n]*\n)*\s*[A-Za-z0-9+/=]{30}",
        shown=0,
    ),
    _Rule("AWS access key", (b"AKIA", b"ASIA"), rb"\b(?:AKIA|ASIA)(?![A-Z0-9]{9}EXAMPLE)[A-Z2-7]{16}\b"),
    _Rule("GitHub token", (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"), rb"\bgh[pousr]_[A-Za-z0-9]{36,255}\b"),
    _Rule("GitHub token", (b"github_pat_",), rb"\bgithub_pat_[A-Za-z0-9_]{82}\b", shown=11),
    _Rule("GitLab token", (b"glpat-",), rb"\bglpat-[A-Za-z0-9_-]{20,}", shown=6),
    _Rule(
        "Slack token",
        (b"xoxa-", b"xoxb-", b"xoxe-", b"xoxo-", b"xoxp-", b"xoxr-", b"xoxs-"),
        rb"\bxox[abeoprs]-[A-Za-z0-9-]{20,}",
        shown=5,
    ),
    _Rule("Stripe key", (b"k_live_",), rb"\b[sr]k_live_[A-Za-z0-9]{16,}", shown=8),
    _Rule("Google API key", (b"AIza",), rb"\bAIza[A-Za-z0-9_-]{35}\b"),
    _Rule("npm token", (b"npm_",), rb"\bnpm_[A-Za-z0-9]{36}\b"),
    _Rule("npm token", (b":_authToken=",), rb":_authToken=(?!\$\{)[^\s]{8,}", shown=0),
    _Rule("PyPI token", (b"pypi-AgE",), rb"\bpypi-AgE[A-Za-z0-9_-]{50,}", shown=8),
    _Rule("Docker Hub token", (b"dckr_pat_",), rb"\bdckr_pat_[A-Za-z0-9_-]{20,}", shown=9),
    _Rule("SendGrid key", (b"SG.",), rb"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}\b", shown=3),
    _Rule("Hugging Face token", (b"hf_",), rb"\bhf_[A-Za-z]{34}\b", shown=3),
    _Rule("API key of a model", (b"sk-ant-", b"sk-proj-"), rb"\bsk-(?:ant|proj)-[A-Za-z0-9_-]{40,}", shown=7),
    _Rule(
        "registry credentials",
        (b'"auths"',),
        rb'"auths"\s*:\s*\{[^{}]*\{[^{}]*"auth"\s*:\s*"[A-Za-z0-9+/=]{8,}"',
        shown=0,
    ),
)

_NAMES = {
    **dict.fromkeys(("id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk"), "private key"),
    **dict.fromkeys((".netrc", ".git-credentials", ".pgpass", ".pypirc", ".htpasswd"), "credentials file"),
    ".env": "environment file",
}
_STORES = (".p12", ".pfx", ".jks", ".kdbx")
_HARMLESS = (".env.example", ".env.sample", ".env.template", ".env.dist", ".env.test")
_PATHS = (("credentials file", ".aws/credentials"), ("credentials file", ".config/gcloud/credentials.db"))

_WITH_URLS = (".npmrc", "pip.conf")

_URL = re.compile(rb"\b[a-z][a-z0-9+.-]*://[^/\s:@'\"]+:([^/\s@'\"$]{3,})@")
_VARIABLE = re.compile(
    r"(?:^|_)(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|API_?KEY|ACCESS_?KEY|SECRET_?KEY|PRIVATE_?KEY|CREDENTIALS?)$",
    re.IGNORECASE,
)
_ASSIGNMENT = re.compile(r"(?:^|[\s|])([A-Za-z_][A-Za-z0-9_]*)=(\"[^\"]*\"|'[^']*'|\S+)")


def in_file(path: str, data: bytes) -> Iterator[Finding]:
    """What a file shows, by its path and by its content (or the beginning of it); an empty file shows nothing."""
    if not data:
        return
    rule = _by_name(path)
    binary = data.find(0, 0, _HEAD) >= 0
    hits = [] if binary else _search()(data if len(data) <= LIMIT else data[:LIMIT])
    urls = path.endswith(_WITH_URLS)
    if not (rule or hits or urls):  # nearly always
        return
    found = [] if binary else list(_in_content(path, data[:LIMIT], urls=urls))
    if rule and not any(finding.rule == rule for finding in found):
        yield Finding(rule, path, 0, _fingerprint(rule, path.encode("utf-8", "replace")))
    yield from found


def in_variable(place: str, name: str, value: str) -> Iterator[Finding]:
    """What a variable that ships with an image shows: a value of a known form, or a name that says what it is."""
    data = value.encode("utf-8", "replace")
    found = [Finding(rule, place, 0, mark, hint) for rule, _, mark, hint in _matches(data, urls=True)]
    # A path, or a reference to something else, is no credential.
    if not found and _VARIABLE.search(name) and value and not value.startswith(("/", "$", "file:")):
        found = [Finding("variable with a telling name", place, 0, _fingerprint(name, data))]
    yield from found


def in_history(text: str) -> Iterator[Finding]:
    """What a line of an image's history shows: anybody who has the image can read it."""
    data = text.encode("utf-8", "replace")
    found = [Finding(rule, "history", 0, mark, hint) for rule, _, mark, hint in _matches(data, urls=True)]
    for name, value in _ASSIGNMENT.findall(text):
        found += in_variable(f"history ({name}=)", name, value.strip("\"'"))
    marks: set[str] = set()
    for finding in found:
        if finding.fingerprint not in marks:
            marks.add(finding.fingerprint)
            yield finding


@frozen
class AllowList:
    """What is known and meant: globs over places (``*`` matches slashes too), and fingerprints."""

    globs: tuple[str, ...] = ()
    fingerprints: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> AllowList:
        """One glob or fingerprint on each line; a fingerprint may stand in brackets, and ``#`` begins a remark."""
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
        marks = {line.strip("[]") for line in lines if re.fullmatch(r"\[?[0-9a-f]{16}\]?", line)}
        globs = tuple(line for line in lines if line and line.strip("[]") not in marks)
        return cls(globs, frozenset(marks))

    def allows(self, finding: Finding) -> bool:
        """Whether the list names it."""
        if finding.fingerprint in self.fingerprints:
            return True
        return any(fnmatchcase(finding.place.lstrip("/"), glob.lstrip("/")) for glob in self.globs)


def _by_name(path: str) -> str:
    """The rule that the name of a file alone fulfils, empty: none. Every file comes by here."""
    name = path.rpartition("/")[2]
    rule = _NAMES.get(name, "")
    if rule:
        return rule
    if name.endswith(_STORES):
        return "key store"
    if name.startswith(".env.") and name not in _HARMLESS:
        return "environment file"
    return next((rule for rule, tail in _PATHS if path.endswith(tail)), "")


def _in_content(path: str, data: bytes, *, urls: bool) -> Iterator[Finding]:
    for number, (rule, start, mark, hint) in enumerate(_matches(data, urls=urls)):
        if number == _MOST:
            return
        yield Finding(rule, path, data.count(b"\n", 0, start) + 1, mark, hint)


@cache
def _search() -> Callable[[bytes], list[tuple[int, int, int]]]:
    import ahocorasick_rs

    anchors = [anchor for rule in _RULES for anchor in rule.anchors]
    automaton = ahocorasick_rs.BytesAhoCorasick(anchors, implementation=ahocorasick_rs.Implementation.DFA)
    return automaton.find_matches_as_indexes


_OWNER = tuple(rule for rule in _RULES for _ in rule.anchors)  # the rule of each anchor, by the automaton's numbers


def _matches(data: bytes, *, urls: bool) -> Iterator[tuple[str, int, str, str]]:
    hits = _search()(data)
    for rule in dict.fromkeys(_OWNER[number] for number, _, _ in hits) if hits else ():
        for found in re.finditer(rule.pattern, data):
            hint = found[0][: rule.shown].decode("ascii", "replace")
            yield rule.name, found.start(), _fingerprint(rule.name, found[0]), hint
    if urls and b"://" in data:
        for found in _URL.finditer(data):
            if found[1] != b"xxxxx":  # masked already
                yield "password in a URL", found.start(), _fingerprint("URL", found[1]), ""


def _fingerprint(rule: str, secret: bytes) -> str:
    return hashlib.sha256(rule.encode() + b"\0" + secret).hexdigest()[:16]
