"""URLs: what is asked, what is kept, and what is said when it fails (C36, C37, K7)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from loopback import Asked, Reply, Web

from layerbuild.build.fetching import Fetcher, file_name, modified
from layerbuild.errors import DigestMismatch, SourceError
from layerbuild.store.downloads import Download
from layerbuild.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as store:
        yield store


def fetcher(store: Store, **environment: str) -> Fetcher:
    return Fetcher(store, environment, pause=lambda seconds: None)


def content(store: Store, download: Download) -> bytes:
    return store.blobs.read(download.digest)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://h/a/b.txt", "b.txt"),
        ("https://h/a/b.txt?x=/y", "b.txt"),
        ("https://h/a%20b#c", "a b"),
        ("https://h/a/", "a"),
        ("https://h/", "__unnamed__"),
        ("https://h", "__unnamed__"),
        ("https://h/..", "__unnamed__"),
    ],
)
def test_names(url: str, name: str) -> None:
    assert file_name(url) == name


def test_times(store: Store) -> None:
    digest = store.blobs.add(b"")
    assert modified(Download(digest, modified="Sun, 09 Sep 2001 01:46:40 GMT")) == 1_000_000_000
    assert modified(Download(digest)) is modified(Download(digest, modified="yesterday")) is None


def test_an_unchanged_file_is_not_fetched_again(store: Store, web: Web) -> None:
    url = web.put("file", "one", modified=5)
    first = fetcher(store).fetch(url)
    assert content(store, first) == b"one"
    assert fetcher(store).fetch(url) == first
    assert web.asked[1].headers["if-none-match"] == first.etag
    assert web.asked[1].headers["if-modified-since"] == "Thu, 01 Jan 1970 00:00:05 GMT"
    web.put("file", "two", modified=5)
    assert content(store, fetcher(store).fetch(url)) == b"two"


def test_a_download_that_was_pruned_is_fetched_whole(store: Store, web: Web) -> None:
    url = web.put("file", "one")
    store.blobs.path(fetcher(store).fetch(url).digest).unlink()
    assert content(store, fetcher(store).fetch(url)) == b"one"
    assert "if-none-match" not in web.asked[1].headers


def test_one_build_asks_once(store: Store, web: Web) -> None:
    url = web.put("file", "one", etag=False)
    fetching = fetcher(store)
    first = fetching.fetch(url)
    web.put("file", "two", etag=False)
    assert fetching.fetch(url + "#elsewhere") == first and len(web.asked) == 1


def test_a_checksum_that_is_known_asks_nobody(store: Store, web: Web) -> None:
    url = web.put("file", "one")
    digest = "sha256:" + hashlib.sha256(b"one").hexdigest()
    fetcher(store).fetch(url, checksum=digest)
    web.put("file", "two")
    assert fetcher(store).fetch(url, checksum=digest).digest == digest
    assert len(web.asked) == 1
    with pytest.raises(DigestMismatch, match="digest mismatch for http"):
        fetcher(store).fetch(url, checksum=digest.replace("a", "b"))


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_passing_failure_is_tried_again(store: Store, web: Web, status: int) -> None:
    replies = [Reply(b"no", status), Reply(b"no", status), Reply(b"yes")]
    web.pages["/file"] = lambda asked: replies.pop(0)
    assert content(store, fetcher(store).fetch(web.url("file"))) == b"yes"


def test_a_cut_connection_is_tried_again_and_keeps_nothing(store: Store, web: Web) -> None:
    replies = [Reply(b"half", cut=True), Reply(b"half and half")]
    web.pages["/file"] = lambda asked: replies.pop(0)
    assert content(store, fetcher(store).fetch(web.url("file"))) == b"half and half"
    assert len(list(store.blobs.digests())) == 1 and not list(store.temporary.iterdir())


@pytest.mark.parametrize(
    ("status", "tries", "hint"), [(404, 1, "misspelled"), (403, 1, ""), (401, 1, "USER:PASSWORD"), (503, 4, "later")]
)
def test_refusals_name_the_url_and_the_status(store: Store, web: Web, status: int, tries: int, hint: str) -> None:
    web.pages["/file"] = Reply(b"", status)
    with pytest.raises(SourceError, match=rf"can't fetch http://.*/file: the server answered {status} ") as caught:
        fetcher(store).fetch(web.url("file"))
    assert hint in caught.value.hint and len(web.asked) == tries


def test_nobody_there(store: Store) -> None:
    with pytest.raises(SourceError, match=r"can't fetch http://127.0.0.1:1/x: Connection refused"):
        fetcher(store).fetch("http://127.0.0.1:1/x")
    with pytest.raises(SourceError, match="it is no URL"):
        fetcher(store).fetch("http://[::1/x")


def test_redirects_are_followed_and_told_when_endless(store: Store, web: Web) -> None:
    web.put("target", "here")
    web.pages["/from"] = Reply(b"", 302, {"Location": "/target"})
    web.pages["/round"] = Reply(b"", 301, {"Location": "round"})
    web.pages["/away"] = Reply(b"", 307, {"Location": "file:///etc/passwd"})
    assert content(store, fetcher(store).fetch(web.url("from"))) == b"here"
    with pytest.raises(SourceError, match="more than 10 redirects"):
        fetcher(store).fetch(web.url("round"))
    with pytest.raises(SourceError, match="which is not HTTP"):
        fetcher(store).fetch(web.url("away"))


def test_credentials_go_to_their_host_alone_and_are_never_told(store: Store, web: Web, tmp_path: Path) -> None:
    with Web(tmp_path) as other:
        other.pages["/x"] = Reply(b"there")
        web.pages["/x"] = Reply(b"", 302, {"Location": other.url("x")})
        fetcher(store).fetch(web.url("x", "me:se%2Fcret"))
        assert web.asked[0].headers["authorization"] == "Basic bWU6c2UvY3JldA=="
        assert "authorization" not in other.asked[0].headers
        other.pages["/x"] = Reply(b"", 404)
        with pytest.raises(SourceError) as caught:
            fetcher(store).fetch(web.url("x", "me:secret"))
    assert "secret" not in f"{caught.value} {caught.value.hint}"
    kept = (tmp_path / "store/layerbuild.db").read_bytes() + (tmp_path / "store/layerbuild.db-wal").read_bytes()
    assert b"cret@" not in kept


def test_proxies(store: Store, web: Web) -> None:
    web.pages["http://far.example/file"] = Reply(b"by proxy")
    web.put("near", "direct")
    fetching = fetcher(store, http_proxy=web.url("", "u:p"), no_proxy="example.org, 127.0.0.1")
    assert content(store, fetching.fetch("http://far.example/file")) == b"by proxy"
    assert web.asked[0].headers["proxy-authorization"] == "Basic dTpw"
    assert content(store, fetching.fetch(web.url("near"))) == b"direct"
    assert web.paths == ["http://far.example/file", "/near"]


def test_what_is_compressed_stays_so(store: Store, web: Web) -> None:
    def reply(asked: Asked) -> Reply:
        assert asked.headers["accept-encoding"] == "identity"
        return Reply(b"\x1f\x8bnot really", headers={"Content-Encoding": "gzip"})

    web.pages["/file"] = reply
    assert content(store, fetcher(store).fetch(web.url("file"))) == b"\x1f\x8bnot really"


def test_stages_side_by_side_ask_once(store: Store, web: Web) -> None:
    def slowly(asked: Asked) -> Reply:
        time.sleep(0.2)
        return Reply(b"x")

    web.pages["/slow"] = slowly
    once = fetcher(store)
    with ThreadPoolExecutor(4) as stages:
        found = set(stages.map(lambda _: once.fetch(web.url("slow")), range(4)))
    assert len(found) == 1 and web.paths == ["/slow"]
