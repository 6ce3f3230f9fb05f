"""What a RUN step becomes for the sandbox."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from build_trees import ORIGIN, context

from layerbuild.build.drivers.stacked import OverlayDriver
from layerbuild.build.mounting import Mounted
from layerbuild.build.running import Runner
from layerbuild.image.config import RuntimeConfig
from layerbuild.isolate.job import Exit, Job
from layerbuild.steps import RunStep
from layerbuild.store.store import Store


class Taking:
    """An isolation that takes jobs, and runs none."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def run(self, job: Job, on_output: Callable[[bytes], None]) -> Exit:
        self.jobs.append(job)
        return Exit(0)

    def kill(self) -> None:
        raise NotImplementedError


def step(*, network: str = "default", security: str = "sandbox") -> RunStep:
    return RunStep(ORIGIN, RuntimeConfig(), "", ("true",), (), "/", "", network=network, security=security)


@pytest.mark.parametrize(
    ("after", "followed"),
    [
        (None, False),
        (step(), True),
        (step(network="host"), True),
        (step(network="none"), False),
        (step(security="insecure"), False),
    ],
)
def test_a_job_is_followed_where_the_next_one_is_of_its_kind(
    tmp_path: Path, after: RunStep | None, followed: bool
) -> None:
    taking = Taking()
    with Store.open(tmp_path / "store") as store:
        workspace = store.workspaces.begin(None)
        tree = context(tmp_path / "image")
        runner = Runner(taking, OverlayDriver())
        runner.run(step(), tree, workspace, Mounted(), after=after, output=lambda _: None)
        store.workspaces.discard(workspace)
    assert [job.followed for job in taking.jobs] == [followed]
