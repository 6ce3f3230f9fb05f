"""``df`` and ``prune``: what the store takes, and giving some of it back."""

from __future__ import annotations

from dataclasses import asdict

import click

from layerbuild.cli.console import emit, format_option, width
from layerbuild.cli.place import inside
from layerbuild.views.text import size, table


@click.command()
@format_option
def df(output_format: str) -> None:
    """Show what the store takes on the disk, and what `prune -a` would free."""
    from layerbuild.store.usage import disk_usage

    with inside() as (store, _):
        rows = disk_usage(store)
    emit(
        output_format,
        [asdict(row) for row in rows],
        lambda: table(
            ["KIND", "COUNT", "SIZE", "RECLAIMABLE"],
            [[row.kind, str(row.count), size(row.bytes), size(row.reclaimable)] for row in rows],
            width=width(),
            right=frozenset((1, 2, 3)),
        ),
    )


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also the step cache, kept workspaces and cache mounts.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would go.")
@click.option("-f", "--force", is_flag=True, help="Accepted for docker's sake: nothing is asked.")
@format_option
def prune(everything: bool, dry_run: bool, force: bool, output_format: str) -> None:
    """Remove what nothing needs: images without a name, leftovers; never what a named image needs."""
    from layerbuild.store.prune import prune as sweep

    with inside() as (store, _):
        report = sweep(store, all=everything, dry_run=dry_run)
    verb = "would free" if dry_run else "freed"
    counts = ", ".join(f"{count} {kind}" for kind, count in report.counts.items() if count) or "nothing to remove"
    emit(
        output_format,
        {"bytes": report.bytes, "counts": dict(report.counts), "dry_run": dry_run},
        lambda: f"{verb} {size(report.bytes)}: {counts}",
    )
