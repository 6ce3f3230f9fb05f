"""``doctor``: what this machine can do, and the remedy for what it can't."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from layerbuild.cli.console import emit, format_option, width
from layerbuild.cli.place import settings_driver, settings_root
from layerbuild.views.text import table

if TYPE_CHECKING:
    from layerbuild.isolate.probe import Finding


@click.command()
@format_option
@click.pass_context
def doctor(ctx: click.Context, output_format: str) -> None:
    """Say what this machine can do, and what helps where it can't. Leaves nothing behind."""
    from layerbuild.build.drivers import table as drivers
    from layerbuild.isolate.probe import examine

    findings = (*examine(settings_root()), *drivers.examine(settings_driver(), settings_root()))
    rows = [asdict(finding) for finding in findings]

    def as_text() -> str:
        cells = [[_verdict(finding), finding.name, finding.detail] for finding in findings]
        remedies = [_remedy(finding) for finding in findings if not finding.ok and finding.remedy]
        return "\n".join([table(["", "WHAT", "FOUND"], cells, width=width()), *remedies])

    emit(output_format, rows, as_text)
    if not all(finding.ok for finding in findings if finding.needed):
        ctx.exit(77)


def _verdict(finding: Finding) -> str:
    if finding.ok:
        return "ok"
    return "no" if finding.needed else "-"


def _remedy(finding: Finding) -> str:
    return f"{finding.name}{'' if finding.needed else ' (not needed)'}: {finding.remedy}"
