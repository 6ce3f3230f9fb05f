"""The system call filter: what a command may ask of the kernel. Described first, compiled later, loaded last.

::

    policy()    rules as values: Docker's default profile for a set of capabilities (pure)
    compile()   rules ─ libseccomp ─▶ a program of the kernel's packet filter language (BPF), as bytes; once per build
    load()      the program becomes this process's filter, and that of all it starts; in each command, before execve

What is not allowed fails with EPERM. A call that is younger than the policy fails with ENOSYS, because the C library
takes that for "not in this kernel" and goes on with the older call; runc does the same. The policy is the profile of
moby (profiles/seccomp/default_linux.go); words and numbers are the kernel's (seccomp(2), include/uapi/linux/seccomp.h).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal

from layerbuild.errors import MachineError
from layerbuild.frozen import frozen
from layerbuild.isolate import linux

_ALLOW: Final = 0x7FFF0000
_NOTIFY: Final = 0x7FC00000
_ERRNO: Final = 0x00050000

Operator = Literal["eq", "lt", "masked_eq"]


@frozen
class When:
    """A condition on the argument ``index``: equal to or less than ``value``; or equal to it under ``mask``."""

    index: int
    operator: Operator
    value: int
    mask: int = 0


@frozen
class Rule:
    """What happens to the calls ``names``, always or ``when``: "allow", "notify" (a listener decides), or an errno."""

    names: tuple[str, ...]
    action: Literal["allow", "notify"] | int = "allow"
    when: When | None = None


# -- the policy --------------------------------------------------------------------------------------------------------

_ALWAYS: Final = """
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
    clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
    fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
    fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait
    futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32
    geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid
    getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt
    gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl
    ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32
    lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat
    lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock
    mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
    mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
    name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2
    pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease
    process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink
    readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename
    renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
    sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg
    sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid
    setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
    setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt
    shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs
    statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask
    uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write
    writev
"""

_ON: Final[Mapping[str, str]] = {
    "x86_64": "arch_prctl modify_ldt",
    "aarch64": "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    "ppc64le": "swapcontext sync_file_range2",
    "riscv64": "riscv_flush_icache",
    "s390x": "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
}

_WITH: Final[Mapping[str, str]] = {
    "DAC_READ_SEARCH": "open_by_handle_at",
    "SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules
        lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname
        sethostname setns syslog umount umount2 unshare
    """,
    "SYS_BOOT": "reboot",
    "SYS_CHROOT": "chroot",
    "SYS_MODULE": "delete_module finit_module init_module",
    "SYS_PACCT": "acct",
    "SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "SYS_RAWIO": "ioperm iopl",
    "SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "SYS_TTY_CONFIG": "vhangup",
    "SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "SYSLOG": "syslog",
    "BPF": "bpf",
    "PERFMON": "perf_event_open",
}

# CLONE_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET: a new user namespace would bring back all
# capabilities within it, and with them the kernel's larger attack surface.
_CLONE_NAMESPACES: Final = 0x7E020000
# PER_LINUX, PER_LINUX32, the same with UNAME26, and "only tell me": personality(2).
_PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
# Address families (include/linux/socket.h) that are left out: those that the kernel has no more, AF_ALG (38) and
# AF_VSOCK (40), which leads past the network namespace to the hypervisor. Up to AF_ROSE (11) all are allowed.
_FAMILIES_BELOW: Final = 12
_FAMILIES: Final = (*range(13, 19), 21, 22, 24, *range(26, 34), 35, 36, 39, *range(41, 46))


def policy(capabilities: Iterable[str], *, machine: str | None = None, notify: Iterable[str] = ()) -> tuple[Rule, ...]:
    """Docker's default profile for a command with ``capabilities`` (without ``CAP_``) on ``machine`` (default: this).

    The calls ``notify``, all without condition in the profile, are decided by a listener instead (see ``load``).
    """
    machine, asked, held = machine or platform.machine(), frozenset(notify), frozenset(capabilities)
    names = {*_ALWAYS.split(), *_ON.get(machine, "").split()}
    for capability in held & _WITH.keys():
        names |= set(_WITH[capability].split())
    rules = [Rule(tuple(sorted(names - asked)))]
    if asked:
        rules.append(Rule(tuple(sorted(asked)), "notify"))
    rules += [Rule(("socket",), when=When(0, "lt", _FAMILIES_BELOW))]
    rules += [Rule(("socket",), when=When(0, "eq", family)) for family in _FAMILIES]
    rules += [Rule(("personality",), when=When(0, "eq", value)) for value in _PERSONALITIES]
    if "SYS_ADMIN" not in held:
        # s390 has flags and stack the other way round: clone(2), "C library/kernel differences".
        flags = 1 if machine.startswith("s390") else 0
        rules.append(Rule(("clone",), when=When(flags, "masked_eq", 0, _CLONE_NAMESPACES)))
        # Its flags are in memory, out of a filter's reach; without it the C library takes clone.
        rules.append(Rule(("clone3",), errno.ENOSYS))
    return tuple(rules)


# -- compiling ---------------------------------------------------------------------------------------------------------

# The other instruction sets that a 64-bit kernel executes too: without them their calls would end the process.
_COMPANIONS: Final[Mapping[str, tuple[str, ...]]] = {"x86_64": ("x32", "x86"), "aarch64": ("arm",)}

# From 424 on a call has one number on every architecture. These are younger than some libseccomp that is in use.
_YOUNG: Final[Mapping[str, int]] = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
}
_LAST: Final = max(_YOUNG.values())  # the youngest call of which the policy knows

_OPERATORS: Final[Mapping[Operator, int]] = {"lt": 2, "eq": 4, "masked_eq": 7}  # enum scmp_compare
_CTL_OPTIMIZE: Final = 8  # enum scmp_filter_attr
_BINARY_TREE: Final = 2
_NATIVE: Final = 0  # SCMP_ARCH_NATIVE
_UNKNOWN: Final = -1  # __NR_SCMP_ERROR


class _Comparison(ctypes.Structure):
    # struct scmp_arg_cmp; "masked_eq" has the mask in ``first`` and the value in ``second``.
    _fields_ = [
        ("index", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    ]


@functools.cache
def library() -> ctypes.CDLL | None:
    """libseccomp, if it is installed."""
    try:
        lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        return None
    lib.seccomp_init.restype = lib.seccomp_version.restype = ctypes.c_void_p
    lib.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    lib.seccomp_rule_add_array.argtypes = [
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Comparison),
    ]
    lib.seccomp_arch_add.argtypes = lib.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    lib.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    lib.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    lib.seccomp_release.argtypes = [ctypes.c_void_p]
    return lib


def architectures(machine: str | None = None) -> tuple[str, ...]:
    """The instruction sets of ``machine`` (default: this), its own first, by libseccomp's names."""
    machine = machine or platform.machine()
    return (machine, *_COMPANIONS.get(machine, ()))


def version() -> str:
    """Of libseccomp; empty without it."""
    lib = library()
    if lib is None:
        return ""
    numbers = ctypes.cast(lib.seccomp_version(), ctypes.POINTER(ctypes.c_uint))  # struct scmp_version
    return ".".join(str(numbers[position]) for position in range(3))


def compile(rules: Iterable[Rule], *, machine: str | None = None) -> bytes:
    """The program that does what ``rules`` say, for ``machine`` (default: this) and all its instruction sets.

    MachineError without libseccomp.
    """
    lib = library()
    if lib is None:
        raise MachineError("libseccomp is not installed", hint="install the package libseccomp2 (libseccomp)")
    native, *others = architectures(machine)
    rules = tuple(rules)
    program = _compiled(lib, native, rules)
    for name in others:
        program = _select(lib, name) + _jump_over(program) + program + _compiled(lib, name, rules)
    return program


def _compiled(lib: ctypes.CDLL, architecture: str, rules: tuple[Rule, ...]) -> bytes:
    """The program for one architecture. Each on its own takes 3 ms, all in one 27: libseccomp looks for parts that
    they have in common."""
    context = lib.seccomp_init(_ERRNO | errno.EPERM)
    if not context:
        raise MemoryError("seccomp_init")
    try:
        lib.seccomp_attr_set(context, _CTL_OPTIMIZE, _BINARY_TREE)  # libseccomp 2.5; an older one keeps its list
        if architecture != platform.machine():
            token = lib.seccomp_arch_resolve_name(architecture.encode())
            _check(lib.seccomp_arch_add(context, token), "seccomp_arch_add")
            _check(lib.seccomp_arch_remove(context, _NATIVE), "seccomp_arch_remove")
        young = dict(_add(lib, context, rules))
        return _prelude(young) + _exported(lib, context)
    finally:
        lib.seccomp_release(context)


def _add(lib: ctypes.CDLL, context: int, rules: Iterable[Rule]) -> Iterator[tuple[int, int]]:
    """Give ``rules`` to libseccomp; number and action of the calls that it does not know."""
    for rule in rules:
        condition = _comparison(rule.when)
        for name in rule.names:
            number = lib.seccomp_syscall_resolve_name(name.encode())
            if number != _UNKNOWN:
                result = lib.seccomp_rule_add_array(
                    context, _action(rule), number, 0 if condition is None else 1, condition
                )
                _check(result, f"seccomp_rule_add({name})")
            elif name in _YOUNG:
                yield _YOUNG[name], _action(rule)


def _comparison(when: When | None) -> _Comparison | None:
    if when is None:
        return None
    first, second = (when.mask, when.value) if when.operator == "masked_eq" else (when.value, 0)
    return _Comparison(when.index, _OPERATORS[when.operator], first, second)


def _action(rule: Rule) -> int:
    if isinstance(rule.action, int):
        return _ERRNO | rule.action
    return _ALLOW if rule.action == "allow" else _NOTIFY


def _exported(lib: ctypes.CDLL, context: int) -> bytes:
    file = os.memfd_create("filter")
    with os.fdopen(file, "r+b") as memory:
        _check(lib.seccomp_export_bpf(context, file), "seccomp_export_bpf")
        memory.seek(0)
        return memory.read()


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")


# Classic BPF (include/uapi/linux/filter.h): operations on one accumulator, and jumps forward by a count.
_LOAD, _AND, _RETURN, _JUMP = 0x20, 0x54, 0x06, 0x05
_IF_EQUAL, _IF_GREATER, _IF_ANY = 0x15, 0x25, 0x45
_INSTRUCTION_SIZE: Final = 8
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
_X32_BIT: Final = 0x40000000  # of a number on x86_64: the call is of the x32 ABI


def _prelude(young: Mapping[int, int]) -> bytes:
    """What comes before libseccomp's program: the calls ``young`` that it does not know, and those after ``_LAST``."""
    code = [_instruction(_LOAD, _NUMBER), _instruction(_AND, ~_X32_BIT & 0xFFFFFFFF)]
    for number, action in sorted(young.items()):
        code += [_instruction(_IF_EQUAL, number, no=1), _instruction(_RETURN, action)]
    code += [_instruction(_IF_GREATER, _LAST, no=1), _instruction(_RETURN, _ERRNO | errno.ENOSYS)]
    return b"".join(code)


def _select(lib: ctypes.CDLL, architecture: str) -> bytes:
    """Go on with the next instruction if the call is made in the way of ``architecture``, else skip that one."""
    if architecture == "x32":  # has the token of x86_64, and this bit in its numbers
        return _instruction(_LOAD, _NUMBER) + _instruction(_IF_ANY, _X32_BIT, no=1)
    token = lib.seccomp_arch_resolve_name(architecture.encode())
    return _instruction(_LOAD, _ARCHITECTURE) + _instruction(_IF_EQUAL, token, no=1)


def _jump_over(program: bytes) -> bytes:
    return _instruction(_JUMP, len(program) // _INSTRUCTION_SIZE)


def _instruction(code: int, operand: int, *, no: int = 0) -> bytes:
    """``no``: how many instructions a condition that does not hold skips."""
    return struct.pack("=HBBI", code, 0, no, operand)


# -- loading -----------------------------------------------------------------------------------------------------------

_SET_MODE_FILTER: Final = 1
_NEW_LISTENER: Final = 1 << 3
_ONLY_KILLABLE: Final = 1 << 5  # SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]  # struct sock_fprog


def load(program: bytes, *, listen: bool = False) -> int | None:
    """Put this process, and all that it starts, under ``program``. There is no way back.

    It takes CAP_SYS_ADMIN in the user namespace, since no_new_privs would take their effect from setuid programs. With
    ``listen``: the descriptor on which "notify" rules are told (seccomp_unotify(2)).
    """
    described = _Program(len(program) // _INSTRUCTION_SIZE, program)
    plain = ctypes.addressof(described)
    if not listen:
        linux.seccomp(_SET_MODE_FILTER, 0, plain)
        return None
    try:
        # A signal would break a call off that is being answered, and have it made again: a mkdir, say.
        return linux.seccomp(_SET_MODE_FILTER, _NEW_LISTENER | _ONLY_KILLABLE, plain)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Linux 5.19
            raise
        return linux.seccomp(_SET_MODE_FILTER, _NEW_LISTENER, plain)
