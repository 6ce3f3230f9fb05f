"""Containers: a fresh layer on top of a stack, for a command that is no step of a build."""

from __future__ import annotations

import shlex
from dataclasses import replace

from layerbuild.build.drivers.driver import Driver
from layerbuild.build.mounting import Mounted
from layerbuild.build.running import Command, job, recalled, remembered
from layerbuild.build.stacks import Stacks
from layerbuild.digest import ChainID
from layerbuild.isolate.limits import Limits
from layerbuild.isolate.namespaces import Identity
from layerbuild.isolate.sandbox import Sandbox
from layerbuild.store.store import Store
from layerbuild.store.workspaces import KeptWorkspace


def container(
    store: Store,
    identity: Identity,
    driver: Driver,
    chain: ChainID | None,
    command: Command,
    *,
    limits: Limits,
    keep: bool,
    terminal: bool,
) -> tuple[int, str]:
    """Run ``command`` on the stack ``chain`` with the caller's standard input and output. Returns its exit code, and
    the id of the container's workspace if it is kept."""
    store.ensure_unpacked(chain)
    tree = Stacks(store).tree(chain, name="the image")
    workspace = store.workspaces.begin(chain)
    try:
        with Sandbox.start(identity, limits) as sandbox, driver.rootfs(workspace) as root:
            ended = sandbox.attach(job(command, tree, root), terminal=terminal)
        if keep:
            return ended.code, store.workspaces.keep(workspace, remembered(command, shlex.join(command.argv))).id
    except BaseException:
        store.workspaces.discard(workspace)
        raise
    store.workspaces.discard(workspace)
    return ended.code, ""


def reenter(
    store: Store,
    identity: Identity,
    driver: Driver,
    kept: KeptWorkspace,
    argv: tuple[str, ...],
    *,
    terminal: bool,
    mounted: Mounted | None = None,
) -> int:
    """Run ``argv`` in a kept workspace, in the surroundings that it was kept with, and with what ``mounted`` brings.
    What it writes stays there.

    StoreError if somebody is in there already.
    """
    store.ensure_unpacked(kept.parent)
    tree = Stacks(store).tree(kept.parent, name="the image")
    command = recalled(kept.meta, argv)
    if mounted is not None:
        command = replace(command, env=(*command.env, *mounted.env), mounts=mounted.mounts)
    with store.workspaces.entered(kept), Sandbox.start(identity) as sandbox, driver.rootfs(kept) as root:
        return sandbox.attach(job(command, tree, root), terminal=terminal).code
