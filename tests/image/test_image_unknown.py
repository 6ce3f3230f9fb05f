"""What an image's configuration says in words that are not known here is kept as it stands."""

from __future__ import annotations

import json

from layerbuild.image.config import ImageConfig


def test_unknown_members_are_kept_also_if_they_are_empty() -> None:
    """``StopTimeout: 0`` kills at once; without it there are ten seconds."""
    raw = {
        "architecture": "amd64",
        "os": "linux",
        "newer": None,
        "config": {"StopTimeout": 0, "Domainname": "", "User": "bob"},
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    assert json.loads(ImageConfig.from_json(json.dumps(raw).encode()).to_json()) == raw
