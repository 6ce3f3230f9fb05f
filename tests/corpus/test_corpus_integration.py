"""BuildKit's integration cases: builds in several steps, and what each must come to."""

from __future__ import annotations

import datetime
import json
import os
import re
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from corpus_bases import BASES
from corpus_bench import Bench, Outcome, content, fill
from corpus_rows import Row, corpus, differs, nanoseconds
from loopback import Web

pytestmark = pytest.mark.forked

REGISTRY = "localhost:5000"  # never asked: an image that a case pushes stays in the store, under that name
IMAGE = f"{REGISTRY}/case:latest"
MODIFIED = 1_500_000_000

_KEYS = (
    "context",
    "dockerfile_dir",
    "served",
    "build_args",
    "target",
    "platform",
    "no_cache",
    "secrets",
    "output",
    "expect",
)
_UNCHANGED = "a step that changes no file makes no layer (docs/differences.md)"


@corpus("buildkit/integration/cases")
def test_integration(row: Row, bench: Bench, web: Web, ssh_key: Callable[[], Path]) -> None:
    _refuse(row)
    case = Case(bench, web, ssh_key() if "ssh-agent" in row["needs"] else None)
    for number, step in enumerate(row["steps"]):
        outcome = case.build(number, step)
        expected = step["expect"]
        assert (outcome.code == 0) is expected["ok"], outcome.text
        for check in expected.get("checks", ()):
            case.check(check)
        for text in expected.get("error_contains") or ():
            assert outcome.says(text), outcome.text
        for line in expected.get("error_lines") or ():
            assert outcome.shows(line), outcome.text
    for cause in case.differences:
        differs(cause)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    with Web(tmp_path / "nowhere") as web:
        yield web


@pytest.fixture(scope="session")
def ssh_key(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]) -> Callable[[], Path]:
    """Makes a private key, for the cases that lend one."""

    def make() -> Path:
        key = tmp_path_factory.mktemp("key") / "key"
        words = (program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key)
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        return key

    return make


def _refuse(row: Row) -> None:
    for key in {key for step in row["steps"] for key in step}:
        assert key in _KEYS or key.startswith(("context:", "label:")), f"nothing is known of {key}"


@dataclass
class Case:
    """A case as it goes: what its last step left, and what its steps keep for later ones."""

    bench: Bench
    web: Web
    key: Path | None = None
    files: list[dict[str, Any]] = field(default_factory=list)
    outcome: Outcome = field(default_factory=lambda: Outcome(-1, "", ""))
    saved: dict[str, bytes] = field(default_factory=dict)
    step: Path = field(default_factory=Path)
    differences: set[str] = field(default_factory=set)

    # -- building ------------------------------------------------------------------------------------------------------

    def build(self, number: int, step: Row) -> Outcome:
        self.step = self.bench.folder / f"step{number}"
        self.step.mkdir()
        for file in step.get("served", ()):
            self.web.put(file["path"], content(file), modified=MODIFIED)
        self.files = self.files if step["context"] == "same" else step["context"]
        fill(self._folder("context"), map(self._filled, self.files))
        self.outcome = self.bench.build(*self._options(step), *self._outputs(step), self.step / "context")
        return self.outcome

    def _folder(self, name: str) -> Path:
        (self.step / name).mkdir()
        return self.step / name

    def _filled(self, file: dict[str, Any]) -> dict[str, Any]:
        return {**file, "content": self._named(file["content"])} if file.get("content") else file

    def _named(self, text: str) -> str:
        text = text.replace("{{REG}}", REGISTRY).replace("{{HTTP}}", self.web.url("").rstrip("/"))
        return text.replace("{{DIGEST}}", self._digest()) if "{{DIGEST}}" in text else text

    def _digest(self) -> str:
        """The digest of the layout that the step before left."""
        before = self.step.parent / f"step{int(self.step.name.removeprefix('step')) - 1}"
        return str(_index(before / "oci")["manifests"][0]["digest"])

    def _options(self, step: Row) -> Iterator[str | Path]:
        if "dockerfile_dir" in step:
            folder = self._folder("recipe")
            fill(folder, map(self._filled, step["dockerfile_dir"]))
            yield from ("-f", folder / "Dockerfile")
        for name, value in (step.get("build_args") or {}).items():
            yield from ("--build-arg", f"{name}={self._named(value)}")
        for name, value in (step.get("secrets") or {}).items():
            secret = self._folder(f"secret-{name}") / "value"
            secret.write_text(value)
            yield from ("--secret", f"id={name},src={secret}")
        if self.key is not None:
            yield from ("--ssh", f"default={self.key}")
        if step.get("target"):
            yield from ("--target", step["target"])
        if step.get("platform"):
            yield from ("--platform", step["platform"])
        if "no_cache" in step:
            yield from ("--no-cache-filter", step["no_cache"]) if step["no_cache"] else ("--no-cache",)
        if any("mtime" in check for check in step["expect"].get("checks", ())):
            yield from ("--timestamp", "keep")  # as BuildKit does unless told otherwise
        for key, value in step.items():
            kind, colon, name = key.partition(":")
            if colon and kind == "label":
                yield from ("--label", f"{name}={value}")
            elif colon and kind == "context":
                yield from ("--build-context", f"{name}={self._context(name, value)}")

    def _context(self, name: str, value: str | list[dict[str, Any]]) -> str:
        """A named context as the command line takes it: a layout is named by the output that wrote it."""
        if isinstance(value, list):
            folder = self._folder(f"context-{name.replace('/', '-')}")
            fill(folder, map(self._filled, value))
            return str(folder)
        value = self._named(value)
        found = re.fullmatch(r"oci-layout:(?://)?([^@]+)(@.*)?", value)
        return f"oci-layout://{self.bench.folder / 'layouts' / found[1]}{found[2] or ''}" if found else value

    def _outputs(self, step: Row) -> Iterator[str | Path]:
        yield from ("-t", IMAGE)
        if any(key in _OF_FILES for check in step["expect"].get("checks", ()) for key in check):
            yield from ("-o", f"type=local,dest={self.step / 'local'}")
        for output in step.get("output") or ():
            attributes = output.get("attrs", {})
            names = [self._named(name) for name in attributes.get("name", "").split(",") if name]
            if output["type"] == "tar":
                yield from ("-o", f"type=tar,dest={self.step / 'tar'}")
            elif output["type"] == "oci":
                yield from ("-o", ",".join([f"type=oci,tar=false,dest={self._layout(names)}", *_as_keys(names)]))
            else:
                for name in names:
                    yield from ("-t", name)

    def _layout(self, names: list[str]) -> Path:
        """Where the layout goes: the step's folder, which a later step finds under the layout's name."""
        layouts = self.bench.folder / "layouts"
        layouts.mkdir(exist_ok=True)
        for name in names:
            if "/" not in name and not (layouts / name).is_symlink():
                (layouts / name).symlink_to(self.step / "oci")
        return self.step / "oci"

    # -- what must be so afterwards ------------------------------------------------------------------------------------

    def check(self, check: Row) -> None:
        key = next((key for key in _CHECKS if key in check), None)
        assert key is not None, f"nothing is known of {check}"
        _CHECKS[key](self, check[key], check)

    def path(self, name: str, check: Row | None = None) -> Path:
        """Where the exported file is: of several platforms each has a folder."""
        platform = (check or {}).get("platform", "").replace("/", "_")
        return self.step / "local" / platform / name.lstrip("/")

    @property
    def config(self) -> dict[str, Any]:
        return self.config_for(None)

    def config_for(self, platform: str | None) -> dict[str, Any]:
        """The configuration of the image, or of the one for a platform; None: of the first."""
        document = self.bench.config(self.outcome.image_id)
        if "manifests" not in document:
            return document
        found = [entry for entry in document["manifests"] if platform in (None, _spelled(entry["platform"]))]
        manifest = self.bench.config(found[0]["digest"])
        return self.bench.config(manifest["config"]["digest"])

    @property
    def new_history(self) -> list[dict[str, Any]]:
        """The entries after those of the base, if it is one of the bases."""
        history: list[dict[str, Any]] = self.config["history"]
        for base in map(self.bench.history, BASES):
            if history[: len(base)] == base:
                return history[len(base) :]
        return history

    def expect_layers(self, count: int, history: list[dict[str, Any]]) -> None:
        """Hold the number of layers against ``count``, in which may be such as nothing is in."""
        made = sum(not entry.get("empty_layer", False) for entry in history)
        if made != count:
            assert made < count <= made + sum(map(_is_unchanged, history))
            self.differences.add(_UNCHANGED)

    def layers(self) -> list[dict[str, Any]]:
        """The layers in the manifest of the layout."""
        manifest = _index(self.step / "oci")["manifests"][0]
        found: list[dict[str, Any]] = json.loads(self.bench.blob(manifest["digest"]))["layers"]
        return found


def _spelled(platform: dict[str, str]) -> str:
    return "/".join(platform[key] for key in ("os", "architecture", "variant") if key in platform)


def _is_unchanged(entry: dict[str, Any]) -> bool:
    """Whether the entry is of a step that might have made a layer, and has not."""
    return entry.get("empty_layer", False) and entry["created_by"].startswith(("RUN ", "COPY ", "ADD ", "WORKDIR "))


def _as_keys(names: list[str]) -> list[str]:
    return [f"name={name}" for name in names]


def _index(layout: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((layout / "index.json").read_text())
    return found


def _compare(check: Row, found: Any, *, saved: dict[str, bytes] | None = None) -> None:
    """Hold ``found`` against what a check says of it: all of its comparisons, and at least one."""
    known = {key: check[key] for key in _COMPARISONS if key in check}
    assert known, f"nothing is known of {check}"
    for key, expected in known.items():
        value = (saved or {})[expected].decode() if key.endswith("_saved") else expected
        assert _COMPARISONS[key](found, value), f"{check}: {found!r}"


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "equals": lambda found, value: found == value,
    "not_equals": lambda found, value: found != value,
    "equals_saved": lambda found, value: found == value,
    "not_equals_saved": lambda found, value: found != value,
    "contains": lambda found, value: value in (found or ()),
    "not_contains": lambda found, value: value not in (found or ()),
    "any_startswith": lambda found, value: any(each.startswith(value) for each in found or ()),
    "equals_unix": lambda found, value: found == _rfc3339(value),
}


def _rfc3339(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _content(case: Case, name: str, check: Row) -> None:
    _compare(check, case.path(name, check).read_text(errors="surrogateescape"), saved=case.saved)


def _trimmed(case: Case, name: str, check: Row) -> None:
    _compare(check, case.path(name).read_text(errors="surrogateescape").strip(), saved=case.saved)


def _save(case: Case, name: str, check: Row) -> None:
    case.saved[check["as"]] = case.path(name).read_bytes()


def _absent(case: Case, name: str, _check: Row) -> None:
    assert not os.path.lexists(case.path(name))


def _link(case: Case, name: str, check: Row) -> None:
    _compare(check, os.readlink(case.path(name)))


_KINDS = {"file": stat.S_ISREG, "dir": stat.S_ISDIR, "symlink": stat.S_ISLNK}


def _status(case: Case, name: str, check: Row) -> None:
    status = case.path(name).lstat()
    for key in check.keys() - {"lstat", "platform"}:
        assert _STATUS[key](status, check[key]), f"{check}: {status}"


_STATUS: dict[str, Callable[[os.stat_result, Any], bool]] = {
    "type": lambda status, kind: _KINDS[kind](status.st_mode),
    "mode": lambda status, mode: stat.S_IMODE(status.st_mode) == int(mode, 8),
    "uid": lambda status, uid: status.st_uid == uid,
    "gid": lambda status, gid: status.st_gid == gid,
    "size": lambda status, size: status.st_size == size,
}


def _owner(case: Case, name: str, check: Row) -> None:
    """Both ids as a list or as text, or each by its name."""
    status, equals = case.path(name).lstat(), check.get("equals")
    ids = equals.split(":") if isinstance(equals, str) else equals or (check["uid"], check["gid"])
    assert (status.st_uid, status.st_gid) == tuple(map(int, ids))


def _mtime(case: Case, name: str, check: Row) -> None:
    expected = check.get("equals_unix", check.get("equals"))
    assert int(case.path(name).lstat().st_mtime) == nanoseconds(str(expected)) // 10**9


def _nonempty(case: Case, name: str, _check: Row) -> None:
    assert case.path(name).stat().st_size > 0


def _empty_folder(case: Case, name: str, _check: Row) -> None:
    assert os.listdir(case.path(name)) == []


def _root_entries(case: Case, names: list[str], _check: Row) -> None:
    assert sorted(os.listdir(case.path(""))) == sorted(names)


def _same_as_context(case: Case, name: str, _check: Row) -> None:
    assert case.path(name).read_bytes() == (case.step / "context" / name).read_bytes()


def _same_inode(case: Case, names: list[str], _check: Row) -> None:
    assert len({case.path(name).lstat().st_ino for name in names}) == 1


def _config(case: Case, key: str, check: Row) -> None:
    _compare(check, case.config_for(check.get("platform"))["config"].get(key))


def _label(case: Case, name: str, check: Row) -> None:
    _compare(check, case.config_for(check.get("platform"))["config"].get("Labels", {}).get(name))


def _image(case: Case, path: str, check: Row) -> None:
    _compare(check, _member(case, path))


def _image_length(case: Case, path: str, check: Row) -> None:
    _compare(check, len(_member(case, path)))


def _member(case: Case, path: str) -> Any:
    """A member of the configuration; rows spell names as Go or as OCI does."""
    found: Any = case.config
    for part in path.split("."):
        plain = {key.replace("_", "").lower(): value for key, value in found.items()}
        found = plain.get(part.replace("_", "").lower())
    return found


def _history_times(case: Case, seconds: int, _check: Row) -> None:
    assert {entry["created"] for entry in case.config["history"]} == {_rfc3339(seconds)}


def _layer_count(case: Case, count: int, _check: Row) -> None:
    case.expect_layers(count, case.config["history"])


def _new_layer_count(case: Case, count: int, _check: Row) -> None:
    case.expect_layers(count, case.new_history)


def _new_history_count(case: Case, count: int, _check: Row) -> None:
    assert len(case.new_history) == count


def _new_history_entry(case: Case, index: int, check: Row) -> None:
    entry = case.new_history[index]
    made = entry["created_by"]
    assert check.get("created_by_contains", "") in made
    assert "created_by_not_contains" not in check or check["created_by_not_contains"] not in made
    assert check.get("created_by", made) == made
    assert not check.get("created_set") or entry["created"]
    if check.get("empty_layer") is False and _is_unchanged(entry):
        case.differences.add(_UNCHANGED)
    elif "empty_layer" in check:
        assert entry.get("empty_layer", False) is check["empty_layer"]


def _annotation(case: Case, name: str, check: Row) -> None:
    """That times were clamped is not noted here; it is looked at whether they are."""
    for layer in case.layers():
        if name == "buildkit/rewritten-timestamp":
            assert max(case.bench.times(layer["digest"]), default=0) <= int(check["equals"])
        else:
            _compare(check, layer.get("annotations", {}).get(name))


def _no_annotation(case: Case, name: str, _check: Row) -> None:
    assert not any(name in layer.get("annotations", {}) for layer in case.layers())


def _layout(case: Case, expected: Row, _check: Row) -> None:
    manifests = _index(case.step / "oci")["manifests"]
    assert len(manifests) == expected["manifests"]
    if "nested_manifests" in expected:
        nested = case.bench.config(manifests[0]["digest"])["manifests"]
        assert len(nested) == expected["nested_manifests"]
    if expected.get("same_digest"):
        assert len({manifest["digest"] for manifest in manifests}) == 1
    for key in ("io.containerd.image.name", "org.opencontainers.image.ref.name"):
        if key in expected:
            assert [manifest["annotations"][key] for manifest in manifests] == expected[key]


def _member_of_tar(case: Case, name: str, check: Row) -> None:
    with tarfile.open(case.step / "tar") as tar:
        data = tar.extractfile(name)
        assert data is not None
        _compare(check, data.read().decode())


# What looks at the files of the image: only for them it is unpacked.
_OF_FILES: dict[str, Callable[[Case, Any, Row], None]] = {
    "content": _content,
    "content.trim": _trimmed,
    "save_content": _save,
    "absent": _absent,
    "link": _link,
    "lstat": _status,
    "owner": _owner,
    "mtime": _mtime,
    "nonempty": _nonempty,
    "empty_dir": _empty_folder,
    "root_entries": _root_entries,
    "same_as_context": _same_as_context,
    "same_inode": _same_inode,
}
_CHECKS: dict[str, Callable[[Case, Any, Row], None]] = {
    **_OF_FILES,
    "config": _config,
    "label": _label,
    "image": _image,
    "image.len": _image_length,
    "all_history_created_unix": _history_times,
    "layers": _layer_count,
    "new_layers": _new_layer_count,
    "new_history": _new_history_count,
    "new_history_entry": _new_history_entry,
    "layer_annotation": _annotation,
    "layer_annotation_absent": _no_annotation,
    "oci_index": _layout,
    "tar:Data": _member_of_tar,
}
