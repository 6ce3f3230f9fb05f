"""The same container by way of an OCI runtime that is installed: ``runc`` or ``crun``.

The helper starts, in place of the command, a process that mounts the stack, writes a bundle (config.json of the OCI
runtime specification: the same mounts, masks, capabilities, filter and limits), and becomes the runtime. The bundle and
the runtime's own state are in memory, in a mount namespace that goes with it.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

from layerbuild.errors import LayerbuildError, MachineError, StepFailed
from layerbuild.isolate import cgroups, linux, rootfs, seccomp
from layerbuild.isolate.capabilities import held, kept
from layerbuild.isolate.container import check_ids, init_folder, root_mount
from layerbuild.isolate.executable import NOT_EXECUTABLE, NOT_FOUND
from layerbuild.isolate.job import Job, Kind
from layerbuild.isolate.mounts import Bind, Extra, Filesystem, View
from layerbuild.isolate.namespaces import Identity
from layerbuild.isolate.standard import staging, standard_masks, standard_mounts

_SPECIFICATION: Final = "1.0.2"
_VERSION_2: Final = Path("/sys/fs/cgroup/cgroup.controllers")


class Runtime:
    """The steps from a fork to the runtime ``program``. ``log`` is where that says what is wrong with itself."""

    def __init__(self, job: Job, identity: Identity, stdio: tuple[int, ...], *, program: str, log: int) -> None:
        self._job = job
        self._identity = identity
        self._stdio = stdio
        self._program = program
        self._log = log
        self.doing: object = "start the runtime"

    def enter(self) -> NoReturn:
        """Become the runtime; OSError or LayerbuildError if that can't be."""
        job, folders = self._job, self._job.rootfs
        check_ids(job.process, self._identity)
        if job.terminal is not None:
            raise MachineError(f"{self._program} gives no terminal here", hint="use the isolation `namespaces`")
        mounts = (*standard_mounts(Kind.of(job, self._identity)), *job.mounts)
        if not _VERSION_2.exists():
            cgroups.enter(job.cgroup)
        self.doing = root_mount(job, self._identity)
        has_init = rootfs.make_points(folders, mounts, init=init_folder(folders.merged))
        root_mount(job, self._identity, has_init=has_init).attach()
        staging(folders.work).attach(folders.work, staging="")
        # The runtime looks for its own processes by their numbers, and those of the host's /proc are others.
        Filesystem("proc", "/proc").attach("/proc", staging="")
        self.doing = "write the bundle"
        bundle = Path(folders.work, "bundle")
        bundle.mkdir()
        described = config(job, self._identity, [_staged(mount, folders.work) for mount in mounts])
        (bundle / "config.json").write_text(json.dumps(described))
        self._execute(bundle)

    def _execute(self, bundle: Path) -> NoReturn:
        self.doing = f"execute {self._program}"
        os.setsid()
        for number, fd in enumerate(self._stdio):
            os.dup2(fd, number)
        linux.close_on_exec_from(3)
        os.set_inheritable(self._log, True)
        program = shutil.which(self._program) or self._program
        argv = (
            *(program, "--root", str(bundle.with_name("state"))),
            *("--log", f"/proc/self/fd/{self._log}", "--log-format", "json"),
            *("run", "--bundle", str(bundle), self._job.name),
        )
        os.execve(program, argv, {"PATH": os.defpath, "XDG_RUNTIME_DIR": str(bundle.parent)})


def _staged(mount: Extra, folder: str) -> Bind | Filesystem:
    """``mount`` in a form that the specification knows; what it lacks is mounted or written below ``folder``."""
    if isinstance(mount, Filesystem | Bind):
        return mount
    place = f"{folder}/{len(os.listdir(folder))}"
    if isinstance(mount, View):
        Path(place).mkdir()
        if not mount.is_folder:
            place += "/file"
            Path(place).touch()
        replace(mount, target=place).attach(place, staging=folder)
        return Bind(place, mount.target, mount.read_only)
    Path(place).write_bytes(mount.content)
    os.chown(place, mount.uid, mount.gid)
    Path(place).chmod(mount.mode)
    return Bind(place, mount.target, read_only=True)


# -- config.json -------------------------------------------------------------------------------------------------------


def config(job: Job, identity: Identity, mounts: list[Bind | Filesystem]) -> dict[str, Any]:
    """The container that ``job`` asks for, as config.json (config.md and config-linux.md of the specification)."""
    masks = standard_masks(job.security)
    return {
        "ociVersion": _SPECIFICATION,
        "root": {"path": job.rootfs.merged},
        "hostname": job.process.hostname,
        "process": _process(job),
        "mounts": [_mount(mount) for mount in mounts],
        "linux": {
            "namespaces": [{"type": kind} for kind in _namespaces(job)],
            "maskedPaths": [mask.target for mask in masks if mask.hidden],
            "readonlyPaths": [mask.target for mask in masks if not mask.hidden],
            **_resources(job, identity),
            **({"seccomp": _seccomp(job)} if job.security == "sandbox" else {}),
        },
    }


def _namespaces(job: Job) -> tuple[str, ...]:
    common = ("pid", "ipc", "uts", "mount", "cgroup")
    return (*common, "network") if job.network == "none" else common


def _process(job: Job) -> dict[str, Any]:
    process = job.process
    names = [f"CAP_{name}" for name in sorted(held() if job.security == "insecure" else kept(job.network))]
    # What the effective and permitted sets name a runtime gives to every user, and the kernel to root alone.
    sets = ("bounding", "effective", "permitted") if process.uid == 0 else ("bounding",)
    limits = [limit for limit in job.limits.rlimits if not (job.private and limit.name == "core")]
    rlimits = [(limit.name, limit.soft, limit.hard) for limit in limits]
    if not any(name == "core" for name, _, _ in rlimits):
        rlimits.append(("core", 1, 1))
    return {
        "user": {"uid": process.uid, "gid": process.gid, "additionalGids": list(process.groups), "umask": 0o022},
        "args": list(process.argv),
        "env": [f"{name}={value}" for name, value in process.env],
        "cwd": process.cwd,
        "noNewPrivileges": False,
        "capabilities": dict.fromkeys(sets, names),
        "rlimits": [
            {"type": f"RLIMIT_{name.upper()}", "soft": soft % 2**64, "hard": hard % 2**64}
            for name, soft, hard in rlimits
        ],
    }


def _mount(mount: Bind | Filesystem) -> dict[str, Any]:
    if isinstance(mount, Bind):
        options = ["rbind", "rprivate", "nodev", *(["ro"] if mount.read_only else [])]
        return {"destination": mount.target, "type": "bind", "source": mount.source, "options": options}
    kind = "cgroup" if mount.kind == "cgroup2" else mount.kind  # the specification's word for both
    return {"destination": mount.target, "type": kind, "source": kind, "options": list(mount.words)}


def _resources(job: Job, identity: Identity) -> dict[str, Any]:
    """Limits are those of the job's group, in which the runtime makes one of its own: in version 1 that is where the
    runtime itself is. Real root's devices are fenced by it, as docker does."""
    if identity.rootless and not job.cgroup:
        return {}
    known: dict[str, Any] = {}
    if _VERSION_2.exists():
        above = "/" + os.path.relpath(job.cgroup[0], _VERSION_2.parent) if job.cgroup else ""
        known["cgroupsPath"] = f"{above}/{job.name}"
    if not identity.rootless:
        nodes = [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
        known["resources"] = {"devices": [{"allow": job.security == "insecure", "access": "rwm"}, *nodes]}
    return known


# -- what the runtime says ---------------------------------------------------------------------------------------------


def trouble(program: str, log: bytes) -> LayerbuildError | None:
    """The error that the last line of the runtime's ``log`` tells; None if there is none, as when a command failed."""
    for line in reversed(log.decode("utf-8", "replace").splitlines()):
        try:
            told = json.loads(line)
        except ValueError:
            told = {"level": "error", "msg": line}
        if told.get("level") in ("error", "fatal"):
            return _as_error(program, str(told.get("msg", "")))
    return None


def _as_error(program: str, text: str) -> LayerbuildError:
    about_command = "exec" in text
    if about_command and ("not found" in text or "no such file" in text.lower()):
        return StepFailed(f"{program}: {text}", exit_code=NOT_FOUND)
    if about_command and "permission denied" in text.lower():
        return StepFailed(f"{program}: {text}", exit_code=NOT_EXECUTABLE)
    return MachineError(f"{program} can't run the command: {text}", hint="the isolation `namespaces` needs no runtime")


_OPERATORS: Final = {"eq": "SCMP_CMP_EQ", "lt": "SCMP_CMP_LT", "masked_eq": "SCMP_CMP_MASKED_EQ"}


def _seccomp(job: Job) -> dict[str, Any]:
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": [f"SCMP_ARCH_{name.upper()}" for name in seccomp.architectures()],
        "syscalls": [_rule(rule) for rule in seccomp.policy(kept(job.network))],
    }


def _rule(rule: seccomp.Rule) -> dict[str, Any]:
    described: dict[str, Any] = {"names": list(rule.names), "action": "SCMP_ACT_ALLOW"}
    if isinstance(rule.action, int):
        described |= {"action": "SCMP_ACT_ERRNO", "errnoRet": rule.action}
    if rule.when is not None:
        when = rule.when
        first, second = (when.mask, when.value) if when.operator == "masked_eq" else (when.value, 0)
        argument = {"index": when.index, "op": _OPERATORS[when.operator], "value": first, "valueTwo": second}
        described["args"] = [argument]
    return described
