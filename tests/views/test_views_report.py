"""The data of a report against a slow recomputation, and the page as text: safe, whole, and usable without sight."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_stacks import Layer, hides, indexes, stacks
from report_images import INSTRUCTIONS, small
from test_views_versions import slow_invisible

from layerbuild.digest import BlobDigest, ChainID, DiffID
from layerbuild.image.config import ImageConfig, Platform
from layerbuild.image.manifest import Descriptor, Manifest
from layerbuild.layer.entry import Kind
from layerbuild.store.builds import BuildRecord, Difference, StageAccount, StepAccount
from layerbuild.store.images import StoredImage
from layerbuild.views.html import page
from layerbuild.views.layers import LayerRow
from layerbuild.views.report import Node, Report, as_json, capture_overlap, report
from layerbuild.views.versions import versions

EXAMPLES = settings(max_examples=60, deadline=None)
STYLE = (Path(__file__).resolve().parents[2] / "layerbuild/views/page/style.css").read_text()


def told(stack: list[Layer], *, build: BuildRecord | None = None, nodes: int = 3000) -> Report:
    """The report on an image of these layers; no store is needed."""
    rows = [_row(number, len(stack)) for number in range(len(stack))]
    empty = BlobDigest.of(b"")
    config = Descriptor("application/vnd.oci.image.config.v1+json", empty, 0)
    image = StoredImage(empty, empty, ImageConfig(Platform("linux", "amd64")), Manifest(config, ()), (), 0.0)
    with tempfile.TemporaryDirectory() as folder:
        found = versions(indexes(stack, Path(folder)))
    rows.append(LayerRow('CMD ["</style>"]', ""))
    return report("an <image>", image, rows=rows, found=found, build=build, nodes=nodes)


def _row(number: int, count: int) -> LayerRow:
    text = INSTRUCTIONS[number] if count == len(INSTRUCTIONS) else f"RUN {number}"
    name = b"%d" % number
    return LayerRow(text, "", DiffID.of(name), ChainID.of(name), BlobDigest.of(name), size=1000 * (number + 1))


BUILD = BuildRecord(
    7,
    100.0,
    10.0,
    "done",
    "/a/</script>/Dockerfile",
    stages=(StageAccount("0", "FROM base"),),
    steps=(
        StepAccount("0", 1, 2, "COPY </script> /srv", "copy", "hit", by="content", diff_id=DiffID.of(b"1"), began=0.5),
        StepAccount(
            "0",
            2,
            3,
            "RUN rm -r /srv/old",
            "run",
            "miss",
            differences=(Difference("env A<b>", "value", "1", "2"), Difference("", "below")),
            more=3,
            diff_id=DiffID.of(b"2"),
            began=1.0,
            ended=4.0,
            sealed=6.0,
        ),
        StepAccount("0", 3, 4, "RUN true", "run", "miss", reason="it has not run here before", began=4.0, ended=5.0),
        StepAccount("0", 4, 5, "CMD", "metadata", "metadata", began=5.0, ended=5.0),
    ),
)


# -- data --------------------------------------------------------------------------------------------------------------


def paths_of(node: Node, above: str = "") -> Iterator[tuple[str, Node]]:
    """Every node of a layer's tree with its path; the root's is empty."""
    yield above, node
    for child in node.children:
        yield from paths_of(child, f"{above}/{child.name}" if above else child.name)


@EXAMPLES
@given(stacks, st.sampled_from([3000, 12]))
def test_trees_hold_what_the_layers_ship(stack: list[Layer], nodes: int) -> None:
    lost = set(slow_invisible(stack))
    found = told(stack, nodes=nodes)
    for number, (layer, tree) in enumerate(zip(stack, found.trees, strict=True), start=1):
        leaves = [entry for entry in layer if entry.kind not in (Kind.DIRECTORY, Kind.WHITEOUT)]
        for text, node in paths_of(tree):
            path = text.encode()
            inside = [entry for entry in leaves if not path or (entry.path + b"/").startswith(path + b"/")]
            assert node.files == len(inside), text
            assert node.bytes == sum(entry.size for entry in inside), text
            assert node.invisible == sum(entry.size for entry in inside if (number, entry.path) in lost), text
            assert node.bytes == node.more_bytes + sum(child.bytes for child in node.children) or not node.folder
            assert node.files == node.more_files + sum(child.files for child in node.children) or not node.folder
            assert bool(node.more) == bool(node.more_files), text
        shown = [text for text, node in paths_of(tree) if not node.folder]
        assert len(shown) == len(set(shown))
        assert len(list(paths_of(tree))) <= nodes // len(stack) + 1
        if nodes == 3000:
            assert {text.encode() for text in shown} == {entry.path for entry in leaves}


@EXAMPLES
@given(stacks)
def test_shadows_are_all_that_a_layer_hides_of_another(stack: list[Layer]) -> None:
    wanted: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])
    for number, layer in enumerate(stack):
        for entry in layer:
            if entry.kind in (Kind.DIRECTORY, Kind.WHITEOUT):
                continue
            by = next((at for at in range(number + 1, len(stack)) if hides(stack[at], entry.path) is not None), None)
            if by is not None:
                pair = wanted[by + 1, number + 1]
                pair[0] += 1
                pair[1] += entry.size
    found = told(stack)
    assert {(one.by, one.layer): [one.replaced + one.deleted, one.bytes] for one in found.shadows} == wanted
    assert found.hidden_bytes == sum(
        entry.size
        for number, path in slow_invisible(stack)
        for entry in stack[number - 1]
        if entry.path == path and entry.kind is Kind.FILE
    )
    assert [(file.layer, file.path[1:].encode()) for file in found.hidden] == sorted(
        slow_invisible(stack), key=lambda pair: (-size_of(stack, *pair), pair[1], pair[0])
    )
    assert found.bytes == sum(entry.size for layer in stack for entry in layer if entry.kind is Kind.FILE)


def size_of(stack: list[Layer], number: int, path: bytes) -> int:
    return next(entry.size for entry in stack[number - 1] if entry.path == path)


SPANS = st.tuples(st.integers(0, 30), st.integers(0, 10), st.none() | st.integers(-3, 10))


@EXAMPLES
@given(st.lists(SPANS, max_size=8))
def test_the_overlap_of_capture_second_by_second(spans: list[tuple[int, int, int | None]]) -> None:
    steps = [
        StepAccount(
            "0",
            number,
            1,
            "",
            "run",
            "miss",
            began=begin,
            ended=begin + length,
            sealed=None if behind is None else begin + length + behind,
        )
        for number, (begin, length, behind) in enumerate(spans)
    ]
    running = {second for begin, length, _ in spans for second in range(begin, begin + length)}
    made = [
        second for begin, length, behind in spans for second in range(begin + length, begin + length + (behind or 0))
    ]
    assert capture_overlap(steps) == (len(made), sum(second in running for second in made))


def test_what_a_hit_spent_is_no_capture() -> None:
    hit = StepAccount("0", 1, 1, "", "run", "hit", began=0.0, ended=1.0, sealed=5.0)
    failed = StepAccount("0", 2, 1, "", "run", "miss", began=0.0)
    assert capture_overlap([hit, failed]) == (0, 0)


def test_the_build_and_its_verdicts() -> None:
    found = told(small(), build=BUILD)
    assert found.timeline is not None
    assert (found.timeline.capture, found.timeline.overlapped) == (2.0, 1.0)
    copy, run, true, _ = found.timeline.steps
    assert (copy.layer, copy.reasons) == (2, ("the layers below are the same, though they were made in another way",))
    assert run.reasons[0] == "env A<b> 1 → 2" and run.more == 3 and (run.ended, run.sealed) == (4.0, 6.0)
    assert (true.reasons, true.layer, true.sealed) == (("it has not run here before",), 0, None)
    assert [(line.line, line.recipe) for line in found.history] == [
        (0, ""),
        (2, "COPY </script> /srv"),
        (3, "RUN rm -r /srv/old"),
        (0, ""),
    ]


def test_a_report_is_bounded_whatever_the_names_are() -> None:
    from report_images import file

    deep = tuple(file(b"/".join([b"d" * 9] * at) + b"/f", 10_000 - at) for at in range(1, 300))
    long = tuple(file(b"%05d" % at + b"\xff" * 240, 5) for at in range(5000))
    many = [deep, long, *[(file(b"x%d" % at, 1), file(b"big", 9)) for at in range(120)]]
    found = told([tuple(layer) for layer in many])
    assert sum(1 for tree in found.trees for _ in paths_of(tree)) <= 3000 + len(many)
    assert len(page(found).encode()) < 3_000_000
    assert found.files == sum(map(len, many))


# -- the page ----------------------------------------------------------------------------------------------------------


class Reading(HTMLParser):
    """The page's elements, in order: names and attributes; and the text of scripts, styles, titles and headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = defaultdict(list)
        self.inside: list[tuple[str, ...]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.inside.append(tuple(self._open))
        if tag in ("script", "style", "title", "h1", "code", "figcaption"):
            self.texts[tag].append("")
        if tag not in ("meta", "br", "rect", "path", "link", "!doctype"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in self.texts:
            self.texts[self._open[-1]][-1] += data

    def all(self, *names: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name in names]


@pytest.fixture(scope="module")
def text() -> str:
    return page(told(small(), build=BUILD))


@pytest.fixture(scope="module")
def read(text: str) -> Reading:
    return Reading(text)


def test_nothing_runs_but_the_page_s_own_script(read: Reading) -> None:
    policy = next(meta["content"] for meta in read.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    assert [script.get("type") for script in read.all("script")] == ["application/json", None]
    for kind, source in (("script", read.texts["script"][1]), ("style", read.texts["style"][0])):
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    for name, attributes in read.elements:
        assert not [key for key in attributes if key.startswith("on") or key in ("style", "src", "srcset")], name
        assert attributes.get("href", "#").startswith("#"), attributes
    assert {"img", "iframe", "link", "object", "embed", "form", "base"}.isdisjoint(name for name, _ in read.elements)


def test_hostile_names_are_text(text: str, read: Reading) -> None:
    assert read.texts["title"] == ["an <image> – layers"] and read.texts["h1"] == ["an <image>"]
    shown = "\n".join(read.texts["code"])
    assert "COPY </script> <b>bold</b> \\x1b[0m /srv\nCOPY 2 /srv" in shown
    data = json.loads(read.texts["script"][0])
    assert data == json.loads(json.dumps(as_json(told(small(), build=BUILD))))
    names = {name for tree in data["trees"] for name in json.dumps(tree, ensure_ascii=False).split('"name": "')}
    assert any("bad \\\\xff\\\\xfe utf-8" in name for name in names)
    assert any("new\\\\nline\\\\ttab\\\\x1b[31m" in name for name in names)
    assert any("right\\\\u202eto left\\\\u2028" in name for name in names)
    assert all(found.isprintable() or found == "\n" for found in text)


def test_landmarks_headings_and_ids(read: Reading) -> None:
    names = [name for name, _ in read.elements]
    assert [names.count(name) for name in ("header", "main", "footer", "h1")] == [1, 1, 1, 1]
    levels = [int(name[1]) for name in names if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert read.all("html")[0]["lang"] == "en"
    ids = Counter(attributes["id"] for _, attributes in read.elements if "id" in attributes)
    assert set(ids.values()) == {1}
    for _, attributes in read.elements:
        for key in ("aria-labelledby", "aria-describedby", "aria-details", "aria-controls"):
            assert set(attributes.get(key, "").split()) <= set(ids), attributes
        if "href" in attributes:
            assert attributes["href"][1:] in ids
    assert all(nav.get("aria-label") for nav in read.all("nav"))
    assert all(section.get("aria-labelledby") for section in read.all("section"))
    assert [int(found["tabindex"]) for _, found in read.elements if int(found.get("tabindex", "0")) > 0] == []


def test_each_picture_has_a_table_that_says_the_same(read: Reading) -> None:
    figures = read.all("figure")
    assert len(figures) == 5
    tables = {table["id"] for table in read.all("table")}
    assert len(tables) == 6
    assert {figure["aria-details"] for figure in figures} <= tables
    assert all(figure.get("aria-labelledby") for figure in figures)
    assert len(read.all("caption")) == len(tables)
    assert all(cell.get("scope") in ("col", "row") for cell in read.all("th"))
    assert all(
        svg.get("aria-hidden") == "true" or (svg["role"] == "img" and svg["aria-label"]) for svg in read.all("svg")
    )


def test_an_image_of_which_little_is_known() -> None:
    said = page(told([()]))
    assert "No build that made this image is recorded" in said and "no layer hides anything" in said
    assert "every byte that is shipped can be seen" in said
    assert "0 of" not in said and len(Reading(said).all("figure")) == 3
    cached = BuildRecord(1, 0.0, 0.2, "done", "Dockerfile", steps=(BUILD.steps[0],))
    assert "Every step came from the cache" in page(told(small(), build=cached))


# -- colours -----------------------------------------------------------------------------------------------------------

TEXTS = [("ink", "paper"), ("quiet", "paper"), ("accent", "paper"), ("accent-ink", "accent"), ("waste", "paper")]
TEXTS += [("hit", "paper"), ("miss", "paper"), ("ink", "soft"), *(("tile-ink", f"c{number}") for number in range(8))]
SHAPES = [("accent", "soft"), ("waste", "soft"), ("made", "soft"), ("line", "paper"), ("tile-edge", "paper")]
SHAPES += [("tile-edge", f"c{number}") for number in range(8)]


def colors(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, "contrast ratio"."""

    def luminance(color: str) -> float:
        channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast_of_text_and_shapes(scheme: int) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    found = colors(re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[scheme])
    assert len(found) == 22
    for ink, paper in TEXTS:
        assert contrast(found[ink], found[paper]) >= 4.5, (ink, paper)
    for shape, ground in SHAPES:
        assert contrast(found[shape], found[ground]) >= 3, (shape, ground)
    assert set(re.findall(r"var\(--([\w-]+)\)", STYLE)) <= set(found)
