"""``layerbuild report``: from the command line, and as Chromium shows it."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import Browser, browsing
from report_images import INSTRUCTIONS, large, put_image, small
from support import Layerbuild

from layerbuild.store.store import Store

pytestmark = [pytest.mark.memory, pytest.mark.forked]

FILES = 100_000


# -- the command -------------------------------------------------------------------------------------------------------


def test_a_page_of_a_build(layerbuild: Layerbuild, context: Path) -> None:
    recipe = "FROM busybox\nRUN seq 20000 > /big\nRUN rm /big && echo > /small\nCMD sh\n"
    layerbuild.build(context, recipe, "-t", "first")
    out = context / "out"
    out.mkdir(mode=0o777)
    out.chmod(0o777)
    assert layerbuild("report", "first", "-o", out / "page.html") == ""
    page = (out / "page.html").read_text()
    assert page == layerbuild("report", "first", "-o", "-")
    assert "Build 1 of <code>" in page and "✗ miss" in page and "deleted" in page and "line 2" in page
    (context / "Dockerfile").write_text(recipe.replace("20000", "20001"))
    layerbuild.build(context, None, "-t", "second")
    layerbuild("report", "second", "-o", out / "page.html")  # in place of what is there
    page = (out / "page.html").read_text()
    assert "Build 2 of <code>" in page and "seq 20000 &gt; /big&#34;] → " in page
    assert "(RUN seq 20001 &gt; /big) ran again" in page
    assert [found.name for found in out.iterdir()] == ["page.html"]
    layerbuild("build", "-q", "-o", f"type=oci,dest={out}/image.tar", context)
    assert "No build that made this image is recorded" in layerbuild("report", out / "image.tar", "-o", "-")


def test_what_can_t_be_reported(rooted: Layerbuild, context: Path) -> None:
    rooted.build(context, "FROM busybox\nRUN echo 1 > /a\n", "-t", "one")
    rooted.build(context, "FROM busybox\nRUN echo 2 > /a\n", "-t", "two")
    assert "Build 1 of" in rooted("report", "one", "--build", "1", "-o", "-")
    assert "build 1 did not make two" in rooted.run("report", "two", "--build", "1", "-o", "-", code=2).stderr
    assert "nothing" in rooted.run("report", "nothing", "-o", "-", code=1).stderr
    assert "is a folder" in rooted.run("report", "one", "-o", context, code=2).stderr
    assert rooted.run("report", "one", code=2).stderr
    rooted("report", "one", "-o", "/dev/null")
    assert Path("/dev/null").is_char_device()


# -- the page in a browser ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Layerbuild:
    root = tmp_path_factory.mktemp("reports") / "store"
    with Store.open(root, user_xattr=False) as opened:
        put_image(opened, small(), INSTRUCTIONS, name="small")
        put_image(opened, large(FILES), [f"RUN {number}" for number in range(4)], name="large")
        put_image(opened, [], [], name="empty")
    return Layerbuild(root)


@pytest.fixture(scope="module")
def pages(store: Layerbuild, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name in ("small", "large", "empty"):
        store("report", name, "-o", folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in ("small", "large", "empty")}


@pytest.fixture(scope="module")
def browser(program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("browser")
    with browsing(program("chromium"), folder) as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)


def test_it_opens_and_asks_for_nothing(browser: Browser, pages: dict[str, Path]) -> None:
    for name, most in (("empty", 300), ("small", 1500), ("large", 8000)):
        browser.open(pages[name])
        assert int(browser.value("document.documentElement.dataset.ready")) >= 0
        assert browser.complaints() == []
        assert browser.requests() == [pages[name].as_uri()]
        assert browser.value("document.title") == f"{name} – layers"
        assert browser.value("document.getElementsByTagName('*').length") < most
        assert pages[name].stat().st_size < 1_000_000
    assert browser.value("document.querySelector('.facts').innerText").count(f"{FILES} files") == 1


def test_light_dark_narrow_and_printed(
    browser: Browser, pages: dict[str, Path], program: Callable[[str], str], tmp_path: Path
) -> None:
    shots = {}
    for dark in (False, True):
        browser.open(pages["small"], dark=dark)
        shots[dark] = browser.screenshot()
    assert [first_pixel(shots[dark]) for dark in (False, True)] == [(255, 255, 255), (0x14, 0x18, 0x1D)]
    browser.open(pages["small"], width=400)
    assert browser.value("document.documentElement.scrollWidth") == 400
    (tmp_path / "page.pdf").write_bytes(browser.pdf())
    printed = subprocess.run(
        [program("pdftotext"), "-layout", tmp_path / "page.pdf", "-"], capture_output=True, text=True, check=True
    ).stdout
    for words in ("The stack of layers", "All layers", "Who shadows whom", "/srv/old/data", "</script>"):
        assert words in printed, words
    assert "Skip to the content" not in printed


def first_pixel(png: bytes) -> tuple[int, ...]:
    """The pixel at the top left: of the first row every filter of PNG leaves it as it is."""
    at, data = 8, b""
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += 12 + length
    return tuple(zlib.decompress(data)[1:4])


def test_the_map_by_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["small"])

    def focused() -> str:
        told: str = browser.value(
            "document.activeElement.getAttribute('aria-label') || document.activeElement.innerText"
        )
        return told

    def caption() -> str:
        told: str = browser.value("document.getElementById('bytes-caption').innerText")
        return told

    browser.press("Tab")
    assert focused() == "Skip to the content"
    for _ in range(40):
        browser.press("Tab")
        if focused().startswith("layer "):
            break
    assert focused() == "layer 1 210kB, 48.4%, 2 files, 90.0kB of it invisible, opens"
    browser.press("Tab")
    assert focused().startswith("All layers")  # the tiles are one stop
    browser.value("document.querySelector('#map [tabindex=\"0\"]').focus()")
    browser.press("ArrowRight")
    assert focused().startswith("layer 2 133kB")
    browser.press("Enter", text="\r")
    assert focused().startswith("srv 133kB, 100.0%, 8 files") and caption() == "In layer 2"
    browser.press("Enter", text="\r")
    assert caption() == "In layer 2 / srv" and focused().startswith("old/data") is False
    rows = browser.value("[...document.querySelectorAll('#bytes-rows th')].map(row => row.innerText)")
    assert rows[0] == "old" and "bad \\xff\\xfe utf-8" in rows and "new\\nline\\ttab\\x1b[31m" in rows
    tiles = browser.value("document.querySelectorAll('#map > .tile').length")
    assert tiles == len(rows) == 8
    browser.press("End")
    assert browser.value("document.activeElement === [...document.querySelectorAll('#map > .tile')].pop()")
    browser.press("Escape")
    assert caption() == "In layer 2"
    assert browser.value("document.getElementById('map-live').innerText") == "layer 2, 133kB, 1 entry"
    browser.press("Escape")
    browser.press("Escape")
    assert browser.value("document.getElementById('map-live').innerText").endswith(", 3 entries")
    assert caption() == "All layers" and focused().startswith("layer 1")


def test_what_a_screen_reader_finds(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["small"])
    nodes = [node for node in browser("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]
    roles = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
    kinds = [role for role, _ in roles]
    for role in ("banner", "main", "contentinfo", "navigation", "status"):
        assert role in kinds, role
    for role in ("figure", "table", "button", "region", "link", "navigation", "heading"):
        assert all(name for found, name in roles if found == role), role
    figures = [node for node in nodes if node["role"]["value"] == "figure"]
    assert len(figures) == 4
    assert all(any(told["name"] == "details" for told in figure["properties"]) for figure in figures)


def test_without_script_the_tables_are_there(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["small"], script=False)
    try:
        tree = browser("DOM.getDocument", depth=0)["root"]["nodeId"]
        rows = browser("DOM.querySelectorAll", nodeId=tree, selector="#bytes-rows tr")["nodeIds"]
        assert len(rows) == 3
        assert browser("DOM.getBoxModel", nodeId=rows[0])["model"]["height"] > 0
    finally:
        browser.open(pages["small"])


def test_each_folder_and_its_rest_add_up(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["large"])
    browser.value("[...document.querySelectorAll('#bytes-rows button')][1].click()")
    browser.value("document.querySelector('#bytes-rows button').click()")
    names = browser.value("[...document.querySelectorAll('#bytes-rows th')].map(row => row.innerText)")
    counted = browser.value(
        "[...document.querySelectorAll('#bytes-rows td:nth-child(4)')].map(cell => +cell.innerText)"
    )
    assert names[-1] == f"… {FILES // 4 - 80} more" and sum(counted) == FILES // 4
