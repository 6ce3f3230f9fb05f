"""The system call filter: Docker's policy, and that the compiled program keeps to it, on every instruction set."""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import platform
import stat
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from support import Layerbuild, missing

from layerbuild.isolate import linux, notices, seccomp
from layerbuild.isolate.capabilities import kept

ALLOWED, REFUSED, ABSENT, TOLD = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x7FC00000
X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
X32 = 0x40000000
OTHER = 0xC0000015  # ppc64le: foreign on each of ours


def decide(program: bytes, number: int, *arguments: int, architecture: int = X86_64) -> int:
    """What the kernel's interpreter would return: include/uapi/linux/filter.h, as far as filters use it."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number, architecture, 0, *(value & (1 << 64) - 1 for value in padded))
    code = list(struct.iter_unpack("=HBBI", program))
    value = position = 0
    while True:
        operation, yes, no, operand = code[position]
        position += 1
        match operation:
            case 0x20:
                (value,) = struct.unpack_from("=I", data, operand)
            case 0x54:
                value &= operand
            case 0x05:
                position += operand
            case 0x15:
                position += yes if value == operand else no
            case 0x25:
                position += yes if value > operand else no
            case 0x35:
                position += yes if value >= operand else no
            case 0x45:
                position += yes if value & operand else no
            case 0x06:
                return int(operand)
            case _:
                raise AssertionError(hex(operation))


@pytest.fixture(scope="module")
def compiled() -> bytes:
    if seccomp.library() is None:
        missing("libseccomp is not installed")
    if platform.machine() != "x86_64":
        missing("the numbers here are those of x86_64")
    return seccomp.compile(seccomp.policy(kept("none")))


def test_what_a_build_needs_is_allowed_and_what_reaches_the_machine_is_not(compiled: bytes) -> None:
    allowed = {"read": 0, "fork": 57, "execve": 59, "chown": 92, "ptrace": 101, "chroot": 161, "cachestat": 451}
    refused = {"syslog": 103, "pivot_root": 155, "mount": 165, "umount2": 166, "swapon": 167, "reboot": 169}
    refused |= {"init_module": 175, "add_key": 248, "keyctl": 250, "unshare": 272, "perf_event_open": 298}
    refused |= {"open_by_handle_at": 304, "setns": 308, "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425}
    refused |= {"open_tree": 428, "fsopen": 430, "mount_setattr": 442, "lsm_set_self_attr": 460}
    assert {name: decide(compiled, number) for name, number in allowed.items()} == dict.fromkeys(allowed, ALLOWED)
    assert {name: decide(compiled, number) for name, number in refused.items()} == dict.fromkeys(refused, REFUSED)


def test_a_call_that_the_policy_is_too_old_for_is_absent(compiled: bytes) -> None:
    for number in (467, 500, 1000, 0xFFFFFFFF):
        assert decide(compiled, number) == ABSENT
    assert decide(compiled, 467, architecture=I386) == decide(compiled, X32 | 467) == ABSENT


def test_arguments_decide(compiled: bytes) -> None:
    clone, socket, personality = 56, 41, 135
    assert decide(compiled, clone, 0x1200011) == ALLOWED  # what the C library's fork asks for
    for namespace in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert decide(compiled, clone, namespace | 17) == REFUSED
    assert decide(compiled, 435) == ABSENT  # clone3
    assert [family for family in range(1, 60) if decide(compiled, socket, family) == REFUSED] == [
        *(12, 19, 20, 23, 25, 34, 37, 38, 40),
        *range(46, 60),
    ]
    for value in (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert decide(compiled, personality, value) == ALLOWED
    for value in (0x1, 0x40000, 0x20001):  # no randomized addresses, for one: what exploits like
        assert decide(compiled, personality, value) == REFUSED


def test_the_other_instruction_sets_of_the_machine_have_the_same_policy(compiled: bytes) -> None:
    assert decide(compiled, 3, architecture=I386) == ALLOWED  # read
    assert decide(compiled, 199, architecture=I386) == ALLOWED  # getuid32, which x86_64 lacks
    assert decide(compiled, 21, architecture=I386) == REFUSED  # mount
    assert decide(compiled, 120, 0x10000000, architecture=I386) == REFUSED  # clone into a user namespace
    assert decide(compiled, X32 | 1) == ALLOWED
    assert decide(compiled, X32 | 165) == REFUSED
    for architecture in (AARCH64, OTHER):
        assert decide(compiled, 1, architecture=architecture) == 0  # ends the thread


def test_capabilities_bring_calls_with_them() -> None:
    def allowed(*capabilities: str, machine: str = "x86_64") -> set[str]:
        rules = seccomp.policy(capabilities, machine=machine)
        return {name for rule in rules if rule.when is None and rule.action == "allow" for name in rule.names}

    assert "chroot" in allowed("SYS_CHROOT") - allowed()
    assert {"mount", "unshare", "clone", "clone3", "bpf"} <= allowed("SYS_ADMIN") - allowed()
    assert allowed("SYSLOG") - allowed() == {"syslog"}
    assert "arch_prctl" not in allowed(machine="aarch64")
    assert "swapcontext" in allowed(machine="ppc64le")
    (clone,) = [rule for rule in seccomp.policy((), machine="s390x") if rule.names == ("clone",)]
    assert clone.when is not None
    assert clone.when.index == 1


def test_a_listener_gets_what_is_asked_for(compiled: bytes) -> None:
    told = seccomp.compile(seccomp.policy(kept("none"), notify=("chown", "fchownat", "setxattrat")))
    assert [decide(told, number) for number in (92, 260, 463)] == [TOLD] * 3
    assert decide(told, 182, architecture=I386) == decide(told, X32 | 92) == decide(told, X32 | 463) == TOLD
    assert decide(told, 93) == decide(compiled, 92) == ALLOWED  # fchown


# -- machines that are not at hand: libseccomp knows their numbers, and the interpreter runs their programs ------------


def resolved(name: str, machine: str) -> int:
    """The number of a call, negative where there is none: seccomp_syscall_resolve_name(3)."""
    lib = seccomp.library()
    if lib is None:
        missing("libseccomp is not installed")
    token = lib.seccomp_arch_resolve_name(machine.encode())
    assert token
    return int(lib.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(token), name.encode()))


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "x86"])
def test_the_numbers_of_what_is_pretended(machine: str) -> None:
    known = notices.names(machine)
    assert {number: name for name in known.values() if (number := resolved(name, machine)) >= 0} == known
    others = set(notices.names("x86_64").values()) - set(known.values())
    missed = [name for name in others if resolved(name, machine) >= 0]
    # There a call of this name is that of 16-bit ids, or of a file's state without large files.
    assert missed == [] or (
        machine == "x86" and all(f"{name}32" in known.values() or "stat" in name for name in missed)
    )


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "ppc64le", "s390x", "riscv64"])
def test_the_numbers_of_the_calls_that_are_made(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    described = importlib.util.spec_from_file_location("elsewhere", linux.__file__)
    assert described is not None and described.loader is not None
    elsewhere = importlib.util.module_from_spec(described)
    described.loader.exec_module(elsewhere)
    numbers = {name.removeprefix("_SYS_").lower(): value for name, value in vars(elsewhere).items() if "_SYS_" in name}
    assert len(numbers) >= 13
    assert {name: resolved(name, machine) for name in numbers} == numbers


def test_the_filter_of_another_machine() -> None:
    if seccomp.library() is None:
        missing("libseccomp is not installed")
    program = seccomp.compile(seccomp.policy(kept("none"), machine="aarch64"), machine="aarch64")

    def says(name: str, *arguments: int) -> int:
        return decide(program, resolved(name, "aarch64"), *arguments, architecture=AARCH64)

    for name in ("read", "execve", "fchownat", "chroot", "openat2"):
        assert says(name) == ALLOWED
    for name in ("mount", "unshare", "setns", "bpf", "keyctl", "open_by_handle_at", "io_uring_setup", "syslog"):
        assert says(name) == REFUSED
    assert (says("clone", 17), says("clone", 0x10000000 | 17), says("clone3")) == (ALLOWED, REFUSED, ABSENT)
    assert decide(program, 1000, architecture=AARCH64) == ABSENT
    assert decide(program, 21, architecture=0x40000028) == REFUSED  # mount, of a 32-bit program
    assert decide(program, 63, architecture=X86_64) == 0


@pytest.mark.parametrize(
    ("machine", "programs", "architecture"),
    [("x86_64", "x86_64", X86_64), ("x86_64", "x86", I386), ("aarch64", "aarch64", AARCH64)],
)
def test_what_is_told_of(machine: str, programs: str, architecture: int) -> None:
    few, all_of_them = (notices.program(one_id=one, machine=machine) for one in (False, True))

    def says(program: bytes, name: str, *arguments: int) -> int:
        return decide(program, resolved(name, programs), *arguments, architecture=architecture)

    others = ("setresuid32", "getuid32", "fstatat64") if programs == "x86" else ("setresuid", "getuid", "newfstatat")
    for name in ("fchownat", "statx", "mkdirat", "symlinkat", *others):
        assert (says(few, name), says(all_of_them, name)) == (ALLOWED, TOLD)
    for name in ("read", "execve", "unlinkat", "fchmodat"):
        assert (says(few, name), says(all_of_them, name)) == (ALLOWED, ALLOWED)
    for kind, told in ((stat.S_IFCHR, TOLD), (stat.S_IFBLK, TOLD), (stat.S_IFIFO, ALLOWED)):
        assert says(few, "mknodat", 0, 0, kind | 0o600) == told
    assert says(all_of_them, "openat", 0, 0, os.O_CREAT | os.O_WRONLY) == TOLD
    assert says(all_of_them, "openat", 0, 0, os.O_RDWR) == ALLOWED
    for size, told in ((0, TOLD), (27, TOLD), (28, ALLOWED)):
        assert (says(few, "lsetxattr", 0, 0, 0, size), says(all_of_them, "lsetxattr", 0, 0, 0, size)) == (told, TOLD)
    assert (says(few, "fremovexattr"), says(few, "getxattr")) == (TOLD, ALLOWED)
    for number in (425, 463, 466):  # io_uring_setup, setxattrat, removexattrat
        assert decide(few, number, architecture=architecture) == ABSENT
    assert (says(all_of_them, "prctl", 8), says(all_of_them, "prctl", 4)) == (TOLD, ALLOWED)
    assert decide(all_of_them, resolved("fchownat", programs), architecture=OTHER) == ALLOWED


def test_a_loaded_filter_holds_for_children_too(compiled: bytes) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        linux.unshare(linux.CLONE_NEWUSER)  # loading takes CAP_SYS_ADMIN in some user namespace
        linux.unshare(linux.CLONE_NEWUTS)
        seccomp.load(compiled)
        child = os.fork()
        try:
            linux.unshare(linux.CLONE_NEWUTS)
        except PermissionError:
            os.write(writer, b"refused ")
        if child:
            os.waitpid(child, 0)
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader, "rb") as file:
        assert file.read() == b"refused refused "


@pytest.mark.machine
def test_without_libseccomp_a_build_says_so_and_goes_on(rooted: Layerbuild, context: Path) -> None:
    library = seccomp.library()
    maps = Path("/proc/self/maps").read_text().splitlines()
    path = next((line.split()[-1] for line in maps if library is not None and "libseccomp" in line), "")
    hide = f"mount --bind /dev/null '{path}' && exec \"$@\"" if path else 'exec "$@"'
    without = replace(rooted, prefix=("unshare", "--mount", "sh", "-c", hide, "sh"))
    (context / "Dockerfile").write_text("FROM busybox\nRUN grep Seccomp: /proc/self/status\n")
    said = without.run("build", "--no-cache", context).stderr
    assert "note: RUN commands may make every system call: libseccomp is not installed" in said
    assert "| Seccomp:\t0\n" in said
    (found,) = [row for row in without.json("doctor") if row["name"] == "seccomp"]
    assert (found["ok"], found["needed"], found["detail"]) == (False, False, "no libseccomp")
    assert "libseccomp2" in found["remedy"]
    assert "note: RUN commands" not in rooted.run("build", "--no-cache", context).stderr or not path
