"""``build --secrets``: layers and configurations that hold what looks like a secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import Layerbuild
from test_leaks import TOKENS

pytestmark = [pytest.mark.memory, pytest.mark.forked]

TOKEN = TOKENS["GitHub token"]
RECIPE = f"FROM busybox\nRUN echo {TOKEN[:10]}{TOKEN[10:]} > /root/token\nRUN rm /root/token\n"


def test_a_secret_is_told_also_in_what_a_later_step_deletes(layerbuild: Layerbuild, context: Path) -> None:
    said = layerbuild.build(context, RECIPE, "-t", "leaky")
    assert "RUN at line 2 holds what looks like a secret: /root/token:1: GitHub token (ghp_…)" in said
    assert TOKEN not in said.replace(RECIPE.splitlines()[1], "")
    assert "the cached layer of RUN at line 2" in layerbuild.build(context)
    told = [advice for advice in layerbuild.json("advise", "leaky")["advice"] if advice["kind"] == "secret"]
    assert {(advice["line"], "/root/token" in advice["text"]) for advice in told} >= {(2, True)}


def test_the_gate_keeps_the_layer_out(layerbuild: Layerbuild, context: Path) -> None:
    said = layerbuild.build(context, RECIPE, "--secrets", "fail", code=1)
    assert "Dockerfile:2:1: the layer of RUN at line 2" in said and "--secrets-allow" in said
    said = layerbuild.build(context, RECIPE, "--secrets", "fail", code=1)
    assert "cached" not in said  # it was never recorded
    layerbuild.build(context, RECIPE, "--secrets", "off")
    said = layerbuild.build(context, RECIPE, "--secrets", "fail", code=1)
    assert "the cached layer of RUN at line 2" in said  # which nobody had looked at


def test_what_is_known_and_meant(rooted: Layerbuild, context: Path) -> None:
    allow = context / "allowed"
    context.joinpath(".env").write_text("A=1\n")
    recipe = "FROM scratch\nCOPY .env /app/\nENV API_TOKEN=abc\n"
    said = rooted.build(context, recipe, "--secrets", "fail", code=1)
    mark = said.partition("environment file [")[2][:16]
    allow.write_text(f"{mark}\n")
    said = rooted.build(context, recipe, "--secrets", "fail", "--secrets-allow", allow, code=1)
    assert "the image's configuration holds what looks like a secret: ENV API_TOKEN" in said
    allow.write_text("/app/*\nENV API_TOKEN\n")
    rooted.build(context, recipe, "--secrets", "fail", "--secrets-allow", allow)
    assert "can't read the allow list" in rooted.build(context, recipe, "--secrets-allow", context / "no", code=2)


def test_secrets_that_were_lent_are_in_no_layer(rooted: Layerbuild, context: Path) -> None:
    (context / "secret").write_text(TOKEN)
    recipe = "FROM busybox\nRUN --mount=type=secret,id=s wc -c /run/secrets/s > /size\n"
    rooted.build(context, recipe, "--secrets", "fail", "--secret", f"id=s,src={context / 'secret'}")


def test_what_the_base_has_is_not_the_build_s(rooted: Layerbuild, context: Path) -> None:
    rooted.build(context, "FROM busybox\nENV API_TOKEN=abc\n", "-t", "base")
    assert "secret:" not in rooted.build(context, "FROM base\nRUN echo 1 > /one\n", "--secrets", "fail")


def test_a_secret_of_a_stage_below_is_the_image_s(rooted: Layerbuild, context: Path) -> None:
    recipe = "FROM scratch AS below\nLABEL a=b\nENV API_TOKEN=abc\nFROM below\nLABEL c=d\n"
    said = rooted.build(context, recipe, "--secrets", "fail", code=1)
    assert "Dockerfile:3:1: the image's configuration holds what looks like a secret: ENV API_TOKEN" in said
    assert "3 | ENV API_TOKEN=abc" in said


def test_a_secret_of_a_stage_that_is_only_copied_from_is_not(rooted: Layerbuild, context: Path) -> None:
    (context / "file").write_text("1")
    recipe = "FROM scratch AS other\nCOPY file /\nENV API_TOKEN=abc\nFROM scratch\nCOPY --from=other /file /\n"
    assert "secret:" not in rooted.build(context, recipe, "--secrets", "fail")
