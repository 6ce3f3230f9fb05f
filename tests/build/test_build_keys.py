"""The two keys of a step: what they depend on, and what they don't."""

from __future__ import annotations

from dataclasses import replace

from build_trees import ORIGIN, step

from layerbuild.build.keys import Keys, Read, base_definition, keys
from layerbuild.digest import ChainID
from layerbuild.errors import Span
from layerbuild.image.config import Platform, RuntimeConfig
from layerbuild.steps import CopyStep, Origin, RunStep

ONE = ChainID("sha256:" + "1" * 64)
TWO = ChainID("sha256:" + "2" * 64)
HERE = Platform("linux", "amd64")
RUN = RunStep(ORIGIN, RuntimeConfig(), "RUN true", ("/bin/sh", "-c", "true"), (("A", "1"),), "/", "")
FILES = Read("files a", "by definition", "by content")


def key(
    asked: RunStep | CopyStep = RUN,
    *,
    parent: str = "p",
    reads: tuple[Read, ...] = (FILES,),
    platform: Platform = HERE,
    times: str = "t",
) -> Keys:
    return keys(asked, parent=parent, reads=reads, platform=platform, times=times)


def differ(other: Keys, *, chain: ChainID | None = ONE) -> tuple[bool, bool]:
    """Whether the definition key and the content key are others than those of the plain step."""
    plain = key()
    return other.definition != plain.definition, other.content(chain) != plain.content(ONE)


def test_each_key_has_its_own_view_of_the_parent() -> None:
    assert differ(key(parent="q")) == (True, False)
    assert differ(key(), chain=TWO) == (False, True)
    assert differ(key(), chain=None) == (False, True)


def test_each_key_has_its_own_view_of_what_is_read() -> None:
    assert differ(key(reads=(replace(FILES, definition="other"),))) == (True, False)
    assert differ(key(reads=(replace(FILES, content="other"),))) == (False, True)
    assert differ(key(reads=(replace(FILES, name="files b"),))) == (True, True)


def test_the_step_and_its_times_count_for_both() -> None:
    assert differ(key(replace(RUN, argv=("false",)))) == (True, True)
    assert differ(key(replace(RUN, env=(("A", "2"),)))) == (True, True)
    assert differ(key(times="kept")) == (True, True)
    assert differ(key(step("a", dest="/b"))) == (True, True)
    assert key(step("a", dest="/b")).definition != key(step("a", dest="/b/")).definition


def test_the_platform_of_a_command_counts_for_both() -> None:  # K2
    assert differ(key(platform=Platform("linux", "arm64"))) == (True, True)
    assert differ(key(platform=Platform("linux", "amd64", "v2"))) == (True, True)


def test_a_copy_is_the_same_for_every_platform() -> None:
    here, there = (key(step("a", dest="/b"), platform=platform) for platform in (HERE, Platform("linux", "arm64")))
    assert here == there


def test_what_only_people_read_counts_for_neither() -> None:
    elsewhere = Origin(Span("other", 99), "run", "RUN    true")
    labelled = RuntimeConfig(labels=(("a", "b"),))
    assert differ(key(replace(RUN, origin=elsewhere, config=labelled, created_by="else"))) == (False, False)


def test_nothing_is_known_of_content_behind_a_miss() -> None:
    assert key(reads=(replace(FILES, content=None),)).own is None
    assert key(reads=(replace(FILES, content=None),)).definition == key().definition


def test_what_is_asked_of_the_cache_before_the_parent_has_a_name() -> None:
    own = key().own
    assert own is not None and own == key(parent="q").own
    assert {**own, "parent": ONE} == key().inputs(ONE)


def test_inputs_tell_the_difference() -> None:
    before, after = key().inputs(ONE), key(replace(RUN, env=(("A", "2"),))).inputs(ONE)
    assert {name for name in before if before[name] != after[name]} == {"env A"}
    assert before["files a"] == "by content" and before["parent"] == ONE


def test_bases_are_told_by_their_layers_and_platform() -> None:
    amd64 = Platform("linux", "amd64")
    assert base_definition(ONE, amd64) == base_definition(ONE, amd64)
    others = {
        base_definition(TWO, amd64),
        base_definition(None, amd64),
        base_definition(ONE, Platform("linux", "arm64")),
    }
    assert len(others) == 3 and base_definition(ONE, amd64) not in others
