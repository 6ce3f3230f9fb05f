"""Two builds of a recipe, told to people."""

from __future__ import annotations

import pytest

from layerbuild.store.builds import StepAccount
from layerbuild.views.verify import Repeated, StepDifference, repeated_text

STEP = StepAccount("compile", 2, 3, "RUN date > /date", "run", "miss")


@pytest.mark.parametrize(
    ("several", "said"),
    [(False, "step 2  line 3  RUN date > /date"), (True, "step compile:2  line 3  RUN date > /date")],
)
def test_steps_are_spelled_as_everywhere(several: bool, said: str) -> None:
    found = Repeated(("sha256:a", "sha256:b"), several, (), (), (), (StepDifference(STEP, ()),))
    assert said in repeated_text(found).splitlines()
