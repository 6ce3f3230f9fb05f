"""A step sees the same tree, times included, whether its parent was just built or unpacked from a blob."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support import Layerbuild

pytestmark = pytest.mark.forked

PARENT = """\
FROM busybox
COPY file /copied/file
RUN mkdir -p /made/deep && echo 1 > /made/deep/a && ln /made/deep/a /made/b && ln -s ../made /made/link
RUN rm -r /home && mkdir /home && echo new > /home/new && rm /etc/group && chmod 600 /etc/passwd
RUN mkfifo /made/fifo && touch -d '1975-05-05 05:05:05' /made/old && rm -r /made/deep && echo x >> /copied/file
RUN touch /tmp && mkdir /root/x && rmdir /root/x
"""
# The listing is made in memory: a file written to the tree would change the tree.
CHILD = """\
FROM parent
RUN find / -xdev -path /proc -prune -o -path /sys -prune -o -path /dev -prune \\
      -o ! -path /etc/hosts ! -path /etc/resolv.conf -print | sort > /dev/shm/paths \\
 && while read -r path; do stat -c '%n %F %f %u %g %Y %t %T' "$path"; [ -d "$path" ] || stat -c '%s %h %N' "$path"; \\
    done < /dev/shm/paths > /dev/shm/listing && cp /dev/shm/listing /listing
"""


def test_built_and_unpacked_are_the_same(layerbuild: Layerbuild, context: Path) -> None:
    parent, child = context / "parent", context / "child"
    for folder in (parent, child):
        folder.mkdir()
    (parent / "file").write_text("content")
    os.utime(parent / "file", (123456789, 123456789.5))
    layerbuild.build(parent, PARENT, "-t", "parent")
    built = layerbuild.build(child, CHILD, "-t", "child")
    assert "layer" in built
    exported = layerbuild.root.parent / "parent.oci"
    layerbuild("build", "-q", "-t", "parent", "-o", f"type=oci,dest={exported},tar=false", parent)

    other = Layerbuild(
        layerbuild.root.parent / "other", layerbuild.prefix, layerbuild.python, layerbuild.env, layerbuild.rootless
    )
    other("import", "--tag", "parent", exported)
    other.build(child, None, "-t", "child")
    assert difference(layerbuild, other) == ""
    assert other.layers("child")[-1]["diff_id"] == layerbuild.layers("child")[-1]["diff_id"]


def difference(one: Layerbuild, other: Layerbuild) -> str:
    """The lines in which the listings that the two children made differ."""
    listings = [layerbuild("run", "child", "cat", "/listing").splitlines() for layerbuild in (one, other)]
    assert len(listings[0]) > 400
    return "\n".join(sorted(set(listings[0]) ^ set(listings[1])))


def test_a_lost_folder_is_unpacked_again(layerbuild: Layerbuild, context: Path) -> None:
    parent, child = context / "parent", context / "child"
    for folder in (parent, child):
        folder.mkdir()
    (parent / "file").write_text("content")
    layerbuild.build(parent, PARENT, "-t", "parent")
    before = layerbuild("build", "-q", "-t", "child", "--no-cache", child) if layerbuild.build(child, CHILD) else ""
    for layer in layerbuild.layers("parent"):
        shutil.rmtree(layer["folder"])
    assert layerbuild("build", "-q", "-t", "child", "--no-cache", child) == before


def test_files_are_copied_from_a_stage_whose_folder_was_lost(layerbuild: Layerbuild, context: Path) -> None:
    recipe = "FROM busybox AS first\nRUN echo 1 > /file\nFROM busybox\nCOPY --from=first /file /{}\n"
    layerbuild.build(context, recipe.format("one") + "RUN true", "-t", "one", "--target", "first")
    for layer in layerbuild.layers("one"):
        shutil.rmtree(layer["folder"])
    layerbuild.build(context, recipe.format("two"), "-t", "two")
    assert layerbuild("run", "two", "cat", "/two") == "1\n"


def test_root_and_user_make_the_same_layers(
    rooted: Layerbuild, as_user: object, templates: object, context: Path
) -> None:
    (context / "file").write_text("content")
    rooted.build(context, PARENT, "-t", "parent")
    folder = rooted.root.parent.parent / f"user-same-{os.getpid()}"
    user = templates.copy("user", folder)  # type: ignore[attr-defined]
    try:
        user.build(context, None, "-t", "parent")
        assert [row["diff_id"] for row in user.layers("parent")] == [row["diff_id"] for row in rooted.layers("parent")]
        assert user.json("layers", "parent")["image_id"] == rooted.json("layers", "parent")["image_id"]
    finally:
        shutil.rmtree(folder)
