"""A RunStep, or a container's command, as a job for the sandbox."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace

from layerbuild.build.accounts import Account, account
from layerbuild.build.credentials import Mask
from layerbuild.build.drivers.driver import Driver
from layerbuild.build.mounting import Mounted
from layerbuild.build.tree import Node, Tree
from layerbuild.errors import BuildError, StepFailed
from layerbuild.frozen import frozen
from layerbuild.image.config import DEFAULT_PATH, Pairs
from layerbuild.isolate import seccomp
from layerbuild.isolate.backends import Isolation
from layerbuild.isolate.job import Exit, Job, Network, Process, Rootfs, Security, WholeTree
from layerbuild.isolate.mounts import Extra, File, Overlay
from layerbuild.isolate.standard import name_files
from layerbuild.layer import standin
from layerbuild.layer.entry import Entry
from layerbuild.layer.paths import LONGEST, clean, join
from layerbuild.steps import LayerPlan, RunStep
from layerbuild.store.workspaces import Workspace

HOSTNAME = "layerbuild"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST_NAME = 255  # bytes: NAME_MAX of limits.h
_TAIL = 64 << 10  # bytes of output that an error message may quote from


@frozen
class Command:
    """What to execute on a stack of layers, in the image's own words. ``private``: secrets are among what it gets."""

    argv: tuple[str, ...]
    env: Pairs
    cwd: str
    user: str
    network: Network = "host"
    mounts: tuple[Extra, ...] = ()
    security: Security = "sandbox"
    hostname: str = HOSTNAME
    private: bool = False
    hosts: Pairs = ()


@frozen
class Ended:
    """How a command ended: its exit code, the same in words, the last of its output, and what helps if it failed."""

    code: int
    how: str
    tail: bytes
    hint: str = ""


class Runner:
    """Executes commands in the sandbox. ``unusual`` is what a person should know about how."""

    def __init__(self, sandbox: Isolation, driver: Driver, *, unusual: tuple[str, ...] = ()) -> None:
        self._sandbox = sandbox
        self._driver = driver
        self._unusual = unusual

    def run(
        self,
        step: RunStep,
        tree: Tree,
        workspace: Workspace,
        mounted: Mounted,
        *,
        after: RunStep | None,
        output: Callable[[bytes], None],
    ) -> Ended:
        """Execute ``step`` on ``tree``, the stack below ``workspace``, with what its mounts bring; ``output`` gets its
        output as it comes, less the secrets. ``after`` is the step that will be executed next, if there is one."""
        command = self.command(step)
        following = self.command(after) if after is not None else None
        command = replace(
            command,
            env=_merged(command.env, mounted.env),
            mounts=(*command.mounts, *mounted.mounts),
            private=bool(mounted.secrets),
        )
        tail = bytearray()

        def collect(data: bytes) -> None:
            tail.extend(data)
            del tail[:-_TAIL]
            output(data)

        hint = ""
        mask = Mask(mounted.secrets, collect)
        try:
            with self._driver.rootfs(workspace) as root:
                what = job(command, tree, root, followed=following is not None and _alike(command, following))
                code, how, hint = _outcome(self._sandbox.run(what, mask.write))
        except StepFailed as error:  # the image has no such program, or can't execute it
            code, how = error.exit_code, f"{error.message} (exit code: {error.exit_code})"
            hint = error.hint
        mask.close()
        return Ended(code, how, bytes(tail), hint)

    @property
    def driver(self) -> str:
        """The name of what gives commands their root."""
        return self._driver.name

    def tree(self, workspace: Workspace) -> str:
        """Where a command in ``workspace`` has the complete tree that it writes to; empty: it writes to its diff."""
        tree = self._driver.tree(workspace)
        return "" if tree is None else str(tree)

    def spaces(self, *, user_xattr: bool) -> tuple[str, ...]:
        """How overlay's marks begin in the diff folder of a workspace."""
        return self._driver.spaces(user_xattr=user_xattr)

    @property
    def trusts_notes(self) -> bool:
        """Whether no command could set what the build notes on files of its own: see ``sandbox.Sandbox``."""
        return self._sandbox.trusts_notes

    def mount_line(self, workspace: Workspace, *, user_xattr: bool) -> str:
        """The shell line that mounts the root of a command in ``workspace``, but for the mount points that the image
        lacks; empty where the driver does not mount the layers itself, or there are none."""
        if self._driver.name != "overlay" or not workspace.below:
            return ""
        return str(
            Overlay(
                tuple(str(workspace.overlay / below.short) for below in workspace.below),
                str(workspace.diff),
                str(workspace.work),
                str(workspace.merged),
                user_xattr=user_xattr,
                volatile=True,
                directory=str(workspace.overlay),
            )
        )

    def stop(self) -> None:
        """End all commands at once, from any thread; ``run`` then raises."""
        self._sandbox.kill()

    def command(self, step: RunStep) -> Command:
        """What ``step`` executes, apart from what its mounts bring."""
        return Command(
            argv=step.argv,
            env=_merged(step.env, step.proxy),
            cwd=step.cwd or "/",
            user=step.user,
            network="none" if step.network == "none" else "host",
            mounts=script_files(step),
            security="insecure" if step.security == "insecure" else "sandbox",
            hostname=step.hostname or HOSTNAME,
            hosts=step.hosts,
        )

    def notes(self, plan: LayerPlan) -> tuple[str, ...]:
        """What the person who builds ``plan`` should know about how its commands are executed."""
        steps = (step for stage in plan.stages for step in stage.steps)
        if seccomp.library() or not any(isinstance(step, RunStep) and step.security == "sandbox" for step in steps):
            return self._unusual
        free = "RUN commands may make every system call: libseccomp is not installed (`layerbuild doctor`)"
        return (*self._unusual, free)


def _alike(first: Command, second: Command) -> bool:
    """Whether the place in which they are executed is made in the same way."""
    return (first.network, first.security) == (second.network, second.security)


def script_files(step: RunStep) -> tuple[File, ...]:
    """The heredocs of ``step``, as files that it can execute."""
    return tuple(File(f"/dev/pipes/{name}", content, mode=0o755) for name, content in step.files)


def remembered(command: Command, instruction: str) -> dict[str, str]:
    """What a kept workspace notes, so that ``recalled`` can enter it again as the step saw it."""
    return {
        "instruction": instruction,
        "argv": json.dumps(command.argv),
        "env": json.dumps(command.env),
        "cwd": command.cwd,
        "user": command.user,
        "network": command.network,
        "hosts": json.dumps(command.hosts),
    }


def recalled(meta: Mapping[str, str], argv: tuple[str, ...]) -> Command:
    """A command in the surroundings that ``remembered`` wrote down; mounts of the step are not among them."""
    env, hosts = (_pairs(meta.get(name, "[]")) for name in ("env", "hosts"))
    return Command(argv, env, meta["cwd"], meta["user"], "none" if meta["network"] == "none" else "host", hosts=hosts)


def _pairs(text: str) -> Pairs:
    return tuple((str(key), str(value)) for key, value in json.loads(text))


def job(command: Command, tree: Tree, root: Rootfs | WholeTree, *, followed: bool = False) -> Job:
    """The job that executes ``command`` in ``root``; ``tree`` is what lies below it. Makes the working directory if the
    image has none."""
    who = account(tree, command.user)
    cwd = clean(command.cwd.encode("utf-8", "surrogateescape"))  # lexically: /a/../b is /b though there is no /a
    _check_working_directory(cwd)
    _make_working_directory(tree, root.upper if isinstance(root, Rootfs) else root.tree, cwd, who)
    return Job(
        rootfs=root,
        process=Process(
            argv=command.argv,
            env=_environment(command.env, who),
            cwd="/" + cwd.decode("utf-8", "surrogateescape"),
            uid=who.uid,
            gid=who.gid,
            groups=who.groups,
            hostname=command.hostname,
        ),
        mounts=(*name_files(command.hostname, network=command.network, hosts=command.hosts), *command.mounts),
        network=command.network,
        security=command.security,
        private=command.private,
        followed=followed,
    )


# What a limit is called on the command line, and what is said of a command that ran into it.
_LIMITS = {
    "memory": ("--memory", "it wanted more memory than --memory allows"),
    "pids": ("--pids-limit", "it wanted more processes than --pids-limit allows"),
    "timeout": ("--timeout", "it took longer than --timeout allows"),
    "cpu": ("--ulimit cpu", "it kept a processor busy for longer than --ulimit cpu allows"),
    "fsize": ("--ulimit fsize", "it wanted a larger file than --ulimit fsize allows"),
}
_TIMED_OUT = 124  # as timeout(1)


def _outcome(ended: Exit) -> tuple[int, str, str]:
    """Exit code, the same in words, and a hint."""
    hit = [_LIMITS[name] for name in ended.hit] if ended.code else []
    code = _TIMED_OUT if "timeout" in ended.hit else ended.code
    killed = f"killed by {signal.Signals(ended.signal).name}, " if ended.signal else ""
    how = "".join(f"{said}; " for _, said in hit) + f"{killed}exit code: {code}"
    return code, how, f"give it more: {', '.join(option for option, _ in hit)}" if hit else ""


def _environment(env: Pairs, who: Account) -> Pairs:
    return _merged((("PATH", DEFAULT_PATH), ("HOME", who.home)), env)


def _merged(first: Pairs, second: Pairs) -> Pairs:
    return tuple({**dict(first), **dict(second)}.items())


def _check_working_directory(cwd: bytes) -> None:
    """BuildError for what no folder can be called, as the configuration of a base from elsewhere may have it."""
    if b"\0" in cwd or len(cwd) > LONGEST or any(len(name) > _LONGEST_NAME for name in cwd.split(b"/")):
        raise BuildError(
            f"the working directory {os.fsdecode(cwd)[:40]!r}… can't be: it is too long, or holds a NUL",
            hint=f"set WORKDIR; a path has at most {LONGEST} bytes, each name in it {_LONGEST_NAME}",
        )


def _make_working_directory(tree: Tree, upper: str, cwd: bytes, who: Account) -> None:
    """A WORKDIR that the image does not have (a base may name one) is made, 0755 and the user's, and stays.

    Made in the upper before the mount: what lies above it must look there as it looks below. In a workspace that is
    entered again a command may have put a link in the way; it leads nowhere that this process may go.
    """
    path = tree.resolve(cwd)
    if tree.get(path) is not None:
        return
    done = b""
    with ExitStack() as stack:
        folder: int | None = os.open(upper, _FOLDER)
        for name in path.split(b"/"):
            if folder is None:
                return
            stack.callback(os.close, folder)
            done = join(done, name)
            folder = _folder_in(folder, name, tree.get(done), who)
        if folder is not None:
            os.close(folder)


def _folder_in(parent: int, name: bytes, node: Node | None, who: Account) -> int | None:
    """A descriptor of the folder ``name``, which is made, as it is below, if it is not there; None for a link."""
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        try:
            return os.open(name, _FOLDER, dir_fd=parent)
        except OSError:
            return None
    folder = os.open(name, _FOLDER, dir_fd=parent)
    if node is None:
        standin.own(folder, who.uid, who.gid)
    else:
        _dress(folder, node.entry)
    return folder


def _dress(folder: int, entry: Entry) -> None:
    standin.own(folder, entry.uid, entry.gid)
    os.chmod(folder, entry.mode)
    for name, value in entry.xattrs:
        os.setxattr(folder, name, value)
    os.utime(folder, ns=(entry.mtime * 10**9 + entry.mtime_ns,) * 2)
