"""What a command in the sandbox sees, how it ends, and what it leaves."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import pytest
from isolate_world import World, in_build

from layerbuild.errors import BuildError, LayerbuildError, StepFailed
from layerbuild.isolate.job import Job
from layerbuild.isolate.mounts import Bind, File, View, tmpfs


def failure(world: World, job: Job) -> LayerbuildError:
    with pytest.raises(LayerbuildError) as caught:
        world.run(job)
    return caught.value


def tree(folder: str | Path) -> list[str]:
    top = Path(folder)
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


# -- output and ending -------------------------------------------------------------------------------------------------


@in_build()
def test_output_and_errors_come_in_order_and_the_code_comes_back(world: World) -> None:
    ended, output = world.run(world.job("sh", "-c", "echo one; echo two >&2; echo three; exit 3"))
    assert (ended.code, ended.signal, output) == (3, 0, "one\ntwo\nthree\n")
    assert ended.cpu > 0
    assert ended.max_rss > 100_000


@in_build()
def test_output_comes_while_the_command_runs(world: World) -> None:
    seen: list[tuple[bytes, float]] = []
    world.sandbox.run(
        world.job("sh", "-c", "echo a; sleep 0.4; echo b"), lambda data: seen.append((data, time.monotonic()))
    )
    assert [data for data, _ in seen] == [b"a\n", b"b\n"]
    assert seen[1][1] - seen[0][1] > 0.3


@in_build()
def test_a_megabyte_of_output_arrives_whole(world: World) -> None:
    assert len(world.sh("cat /big", mounts=(File("/big", b"x" * (1 << 20)),))) == 1 << 20


@in_build()
def test_a_signal_is_told(world: World) -> None:
    # pid 1 is spared what its own namespace sends (pid_namespaces(7)), so it is killed from here.
    job = world.job("sh", "-c", "echo ready; sleep 75319; true")

    def kill(data: bytes) -> None:
        pids = [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if b"75319" in read(path)]
        os.kill(min(map(int, pids)), 9)

    ended = world.sandbox.run(job, kill)
    assert (ended.code, ended.signal) == (137, 9)


@in_build()
def test_what_cannot_be_executed_is_told_apart_from_what_failed(world: World) -> None:
    (world.image / "bin/plain").write_text("no program")
    (world.image / "bin/script").write_text("#!/bin/perl\n")
    (world.image / "bin/garbage").write_bytes(b"\x7fELF garbage")
    for name in ("script", "garbage"):
        (world.image / "bin" / name).chmod(0o755)
    cases = {
        "nope": (127, '"nope" is not in the image'),
        "/bin/nope": (127, '"/bin/nope": no such file'),
        "/bin/plain": (126, '"/bin/plain" is not executable'),
        "plain": (126, '"/bin/plain" is not executable'),
        "/bin/script": (127, 'wants "/bin/perl"'),
        "/bin/garbage": (126, "Exec format error"),
    }
    for name, (code, words) in cases.items():
        error = failure(world, world.job(name))
        assert isinstance(error, StepFailed), error
        assert error.exit_code == code
        assert words in error.message
    ended, _ = world.run(world.job("sh", "-c", "nope"))
    assert ended.code == 127


@in_build()
def test_the_builders_own_program_is_none_of_the_image(world: World) -> None:
    """/proc/self/exe is the machine's Python, until a command is executed; by whichever way it is asked for."""
    scripts = {"script": "/proc/self/exe", "task": "/proc/thread-self/exe -x", "first": "/bin/script"}
    for name, interpreter in scripts.items():
        (world.image / "bin" / name).write_text(f"#!{interpreter}\n")
        (world.image / "bin" / name).chmod(0o755)
    (world.image / "bin/link").symlink_to("/proc/1/exe")
    for command in ("/proc/self/exe", "/proc/1/exe", "/proc/self/../self/exe", "exe", *scripts, "link"):
        error = failure(world, world.job(command, env={"PATH": "/bin:/proc/self"}))
        assert isinstance(error, BuildError), command
        assert "is no program of the image" in error.message
    by_then = world.run(world.job("sh", "-c", "exec /proc/self/exe"))[1]
    assert by_then == "exe: applet not found\n"  # busybox's own words


@in_build()
def test_a_missing_working_directory_is_named(world: World) -> None:
    error = failure(world, world.job("true", cwd="/no/where"))
    assert isinstance(error, BuildError)
    assert '"/no/where"' in error.message


@in_build()
def test_daemons_end_with_the_command(world: World) -> None:
    started = time.monotonic()
    world.sh("sleep 97531 & sleep 97531 >/dev/null 2>&1 & true")
    assert time.monotonic() - started < 20
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"97531" in read(path)]


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@in_build()
def test_several_jobs_run_at_once(world: World) -> None:
    outputs: dict[int, str] = {}
    jobs = [world.job("sh", "-c", f"sleep 2; echo {number}") for number in range(6)]

    def run(number: int) -> None:
        outputs[number] = world.run(jobs[number])[1]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 11  # one after another they take 12
    assert outputs == {number: f"{number}\n" for number in range(6)}


@in_build()
def test_an_exception_in_the_observer_ends_the_job(world: World) -> None:
    def stop(data: bytes) -> None:
        raise KeyboardInterrupt

    job = world.job("sh", "-c", "echo x; sleep 86420")
    with pytest.raises(KeyboardInterrupt):
        world.sandbox.run(job, stop)
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"86420" in read(path)]
    assert tree(job.rootfs.work) == []
    assert world.sh("echo still") == "still\n"


@in_build()
def test_a_killed_sandbox_says_so(world: World) -> None:
    threading.Timer(0.3, world.sandbox.kill).start()
    started = time.monotonic()
    assert "was stopped" in failure(world, world.job("sleep", "60")).message
    assert time.monotonic() - started < 20
    assert "was stopped" in failure(world, world.job("true")).message


# -- what it sees ------------------------------------------------------------------------------------------------------


@in_build()
def test_the_process_is_alone_and_bare(world: World) -> None:
    os.environ["SECRET_OF_THE_HOST"] = "1"
    leaked = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    output = world.sh("echo $$; env; ls /proc/self/fd; hostname; umask; cat; ps", env={"A": "b"}, hostname="box")
    lines = output.splitlines()
    assert lines[0] == "1"
    assert "A=b" in lines
    assert "SECRET" not in output
    assert lines[lines.index("0") : lines.index("box")] == ["0", "1", "2", "3"]  # 3 is ls's own look at the folder
    assert "0022" in lines
    assert len([line for line in lines if line.split()[-1:] == ["ps"]]) == 1


@in_build()
def test_no_signal_is_ignored_or_blocked(world: World) -> None:
    status = world.run(world.job("cat", "/proc/self/status"))[1]
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    # Signals 32 and 33 are the C library's own (signal(7)); a caller may have left them ignored, to no effect.
    usable = ~(0b11 << 31)
    assert int(fields["SigIgn"], 16) & usable == 0
    assert int(fields["SigBlk"], 16) & usable == 0


@in_build("root")
def test_capabilities_are_dockers(world: World) -> None:
    docker = 0x00000000A80425FB  # CapBnd in a container of Docker's default configuration
    for network, mask in (("none", docker), ("host", docker & ~(1 << 13))):  # CAP_NET_RAW: the host's packets
        status = world.run(world.job("cat", "/proc/self/status", network=network))[1]
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert [int(fields[name], 16) for name in ("CapBnd", "CapEff", "CapPrm")] == [mask] * 3
    assert [int(fields[name], 16) for name in ("CapInh", "CapAmb")] == [0, 0]
    other = world.run(world.job("cat", "/proc/self/status", uid=1000, gid=1000))[1]
    fields = dict(line.split(":\t", 1) for line in other.splitlines() if ":\t" in line)
    assert [int(fields[name], 16) for name in ("CapEff", "CapPrm")] == [0, 0]
    insecure = world.run(world.job("cat", "/proc/self/status", security="insecure"))[1]
    fields = dict(line.split(":\t", 1) for line in insecure.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) & (1 << 21)  # CAP_SYS_ADMIN


@in_build("root")
def test_another_user_with_groups(world: World) -> None:
    output = world.sh("id -u; id -g; id -G; echo x >/dev/stdout", uid=1000, gid=1001, groups=(1001, 1002))
    assert output.split() == ["1000", "1001", "1001", "1002", "x"]


@in_build("user")
def test_another_user_where_there_is_one_id(world: World) -> None:
    output = world.sh("id -u; id -G; chown 5:6 /x 2>/dev/null || echo refused", uid=1000, gid=100, groups=(100, 7))
    assert output == "1000\n100 7\nrefused\n"


@in_build()
def test_devices_work_and_the_hosts_stay_untouched(world: World) -> None:
    before = Path("/dev/null").stat()
    output = world.sh(
        "echo x >/dev/null; cat /dev/null; head -c 3 /dev/zero | wc -c; chmod 600 /dev/null; echo y >/dev/shm/y; "
        "touch /dev/mqueue/q; cat /proc/keys | wc -c; ls /dev"
    )
    lines = [line for line in output.splitlines() if not line.startswith("chmod")]  # a user's chmod is refused
    assert lines[:2] == ["3", "0"]  # and the kernel's keys read as empty
    names = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert lines[2:] == names.split()
    after = Path("/dev/null").stat()
    assert stat.S_IMODE(after.st_mode) == stat.S_IMODE(before.st_mode)
    assert not Path("/dev/shm/y").exists()


@in_build()
def test_sys_and_settings_are_read_only(world: World) -> None:
    for path in ("/sys/kernel/x", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger"):
        ended, output = world.run(world.job("sh", "-c", f"echo x > {path}"))
        assert ended.code != 0, path
        assert "ead-only" in output or "denied" in output or "nonexistent" in output, output
    assert world.sh("ls /sys/firmware /proc/acpi 2>/dev/null | grep -v : | wc -w").strip() == "0"


@in_build()
def test_only_the_sandbox_own_mounts_are_seen(world: World) -> None:
    points = [line.split()[4] for line in world.sh("cat /proc/self/mountinfo").splitlines()]
    allowed = ("/proc", "/dev", "/sys", "/etc/hosts", "/etc/resolv.conf")
    assert [point for point in points if point != "/" and not point.startswith(allowed)] == []
    assert points.count("/") == 1


@in_build()
def test_network_none_has_loopback_only_and_up(world: World) -> None:
    output = world.sh("ip -o link; ls /sys/class/net", network="none", mounts=name_files_none())
    assert "LOOPBACK,UP" in output
    assert {line.split()[1] for line in output.splitlines() if line[:1].isdigit()} <= {"lo:", "sit0@NONE:"}


def name_files_none() -> tuple[File, ...]:
    from layerbuild.isolate.standard import name_files

    return name_files("layerbuild", network="none")


# -- mounts ------------------------------------------------------------------------------------------------------------


@in_build()
def test_hosts_and_resolv_conf_are_there_and_read_only(world: World) -> None:
    files = (File("/etc/hosts", b"1.2.3.4 here\n"), File("/etc/resolv.conf", b"nameserver 9.9.9.9\n"))
    assert world.sh("cat /etc/hosts /etc/resolv.conf", mounts=files) == "1.2.3.4 here\nnameserver 9.9.9.9\n"
    ended, _ = world.run(world.job("sh", "-c", "echo x >> /etc/hosts", mounts=files))
    assert ended.code != 0


@in_build()
def test_mounts_of_all_kinds(world: World) -> None:
    source = world.base / "source"
    source.mkdir()
    (source / "a").write_text("a\n")
    rootfs = world.rootfs()
    mounts = (
        Bind(str(source), "/ro", read_only=True),
        Bind(str(source), "/rw/deep/down"),
        Bind(str(source / "a"), "/file"),
        tmpfs("/scratch", size=1 << 20),
        File("/scratch/in/it", b"s", mode=0o400),
        File("/dev/pipes/EOF", b"#!/bin/sh\necho piped\n", mode=0o755),
    )
    output = world.sh(
        "cat /ro/a /file; echo b >/rw/deep/down/b; touch /ro/x 2>/dev/null || echo refused; touch /scratch/t; "
        "stat -c %a /scratch/in/it; /dev/pipes/EOF; stat -c %a /scratch",
        rootfs=rootfs,
        mounts=mounts,
    )
    assert output.split() == ["a", "a", "refused", "400", "piped", "1777"]
    assert (source / "b").read_text() == "b\n"
    assert tree(rootfs.upper) == []


@in_build()
def test_what_is_written_to_a_view_stays_in_its_scratch_folder(world: World) -> None:
    top, bottom = world.base / "top", world.base / "bottom"
    for folder, name in ((top, "new"), (bottom, "old")):
        (folder / "in").mkdir(parents=True)
        (folder / "in" / name).write_text(f"{name}\n")
    top.chmod(0o711)

    def view(path: str, target: str, *, is_folder: bool = True, read_only: bool = False) -> View:
        scratch = world.base / f"scratch{next(world.numbers)}"
        scratch.mkdir()
        lowers = ("top", "bottom")
        xattr = world.identity.user_xattr
        return View(lowers, path, str(scratch), target, is_folder, read_only, xattr, directory=str(world.base))

    mounts = (
        view("", "/all"),
        view("in", "/in", read_only=True),
        view("in/old", "/deep/file", is_folder=False),
    )
    output = world.sh(
        "stat -c %a /all; cat /all/in/* /in/*; rm -r /all/in; touch /all/x; ls /all; touch /in/x 2>&1 || echo refused; "
        "echo more >> /deep/file; cat /deep/file",
        mounts=mounts,
    )
    assert output.split()[:6] == ["711", "new", "old", "new", "old", "x"]
    assert output.split()[-3:] == ["refused", "old", "more"]
    assert (tree(top), tree(bottom)) == (["in", "in/new"], ["in", "in/old"])
    assert (bottom / "in/old").read_text() == "old\n"


@in_build()
def test_mount_points_that_can_not_be(world: World) -> None:
    source = world.base / "source"
    source.mkdir()
    inside = (Bind(str(source), "/ro", read_only=True), tmpfs("/ro/deep"))
    refused = failure(world, world.job("true", mounts=inside))
    assert (type(refused), refused.message) == (
        BuildError,
        "'/ro/deep' lies in a read-only mount that has no such mount point",
    )
    assert "with rw" in refused.hint
    refused = failure(world, world.job("true", mounts=(tmpfs("/bin/busybox"),)))
    assert "'/bin/busybox' is a file there, and what is to be mounted on it a folder" in refused.message


@in_build()
def test_no_trace_on_an_image_that_has_no_mount_point(world: World) -> None:
    rootfs = world.rootfs()
    os.utime(rootfs.upper, (1000, 1000))
    world.run(world.job("true", rootfs=rootfs))
    assert tree(rootfs.upper) == []
    assert os.stat(rootfs.upper).st_mtime == 1000
    assert tree(rootfs.work) == []
    assert tree(Path(rootfs.merged).parent) == ["merged", "upper", "work"]
    assert tree(world.image) == sorted(["bin", *tree_of_bin(world)])


def tree_of_bin(world: World) -> list[str]:
    return [f"bin/{name}" for name in os.listdir(world.image / "bin")]


@in_build()
def test_no_trace_where_only_some_mount_points_are_missing(world: World) -> None:
    etc = world.image / "etc"
    etc.mkdir(mode=0o750)
    etc.chmod(0o750)
    os.utime(etc, ns=(5_000_000_007, 6_000_000_009))
    rootfs = world.rootfs()
    assert world.sh("stat -c '%a %Y' /etc; ls /etc", rootfs=rootfs).split() == ["750", "6", "hosts", "resolv.conf"]
    assert tree(rootfs.upper) == []
    rootfs = world.rootfs()
    world.sh("chmod 700 /etc", rootfs=rootfs)
    assert os.stat(Path(rootfs.upper, "etc")).st_mtime_ns == 6_000_000_009
    assert stat.S_IMODE(os.stat(Path(rootfs.upper, "etc")).st_mode) == 0o700


@in_build()
def test_what_a_step_writes_beside_a_mount_point_stays(world: World) -> None:
    rootfs = world.rootfs()
    world.sh("echo x >/etc/foo", rootfs=rootfs)
    assert tree(rootfs.upper) == ["etc", "etc/foo"]


@in_build()
def test_a_linked_resolv_conf_is_followed_inside_the_root(world: World) -> None:
    links = ("../run/systemd/resolve/stub-resolv.conf", "/run/resolv.conf", "../../../../../../tmp/resolv.conf")
    (world.image / "etc").mkdir()
    for link in links:
        (world.image / "etc/resolv.conf").unlink(missing_ok=True)
        (world.image / "etc/resolv.conf").symlink_to(link)
        rootfs = world.rootfs()
        mounts = (File("/etc/resolv.conf", b"nameserver 9.9.9.9\n"),)
        assert world.sh("cat /etc/resolv.conf", rootfs=rootfs, mounts=mounts) == "nameserver 9.9.9.9\n"
        assert tree(rootfs.upper) == []
    assert not Path("/tmp/resolv.conf").exists()


@in_build()
def test_mount_points_hidden_by_upper_layers_count_as_missing(world: World) -> None:
    (world.image / "etc").mkdir()
    (world.image / "etc/hosts").write_text("below\n")
    (world.image / "opt").mkdir()
    first = world.rootfs()
    world.sh("rm -r /etc /opt; mkdir /opt", rootfs=first, mounts=())
    second = world.rootfs(Path(first.upper), world.image)
    output = world.sh(
        "cat /etc/hosts; ls /etc /opt",
        rootfs=second,
        mounts=(File("/etc/hosts", b"mine\n"), File("/opt/new/file", b"")),
    )
    assert output.split() == ["mine", "/etc:", "hosts", "/opt:", "new"]
    assert tree(second.upper) == []


@in_build()
def test_a_mount_below_a_file_is_refused(world: World) -> None:
    (world.image / "file").touch()
    error = failure(world, world.job("true", mounts=(File("/file/below", b""),)))
    assert "Not a directory" in error.message
    assert "/file" in error.message


@in_build()
def test_scratch_needs_no_lower(world: World) -> None:
    rootfs = world.rootfs(Path("unused"))
    rootfs = type(rootfs)((), rootfs.upper, rootfs.work, rootfs.merged)
    mounts = (Bind(str(world.image / "bin"), "/bin", read_only=True),)
    assert world.sh("echo fine; touch /new", rootfs=rootfs, mounts=mounts) == "fine\n"
    assert tree(rootfs.upper) == ["new"]


# -- terminal ----------------------------------------------------------------------------------------------------------


@in_build()
def test_descriptors_can_be_handed_over(world: World) -> None:
    ours, theirs = os.pipe()
    output, write_output = os.pipe()
    os.write(theirs, b"typed\n")
    os.close(theirs)
    ended = world.sandbox.attach(world.job("sh", "-c", "cat; exit 4"), stdin=ours, stdout=write_output, stderr=2)
    assert ended.code == 4
    assert os.read(output, 100) == b"typed\n"


@in_build()
def test_files_that_are_handed_over_stay_out_of_reach(world: World) -> None:
    given, taken = world.base / "given", world.base / "taken"
    given.write_bytes(b"x" * 3_000_000)
    script = "cat | wc -c; echo more >> /proc/self/fd/0; chmod 0 /proc/self/fd/* 2>&1; echo told >&2; exit 6"
    with given.open("rb") as stdin, taken.open("wb") as stdout:
        files = {"stdin": stdin.fileno(), "stdout": stdout.fileno(), "stderr": stdout.fileno()}
        ended = world.sandbox.attach(world.job("sh", "-c", script), **files)
    assert ended.code == 6
    assert given.stat().st_size == 3_000_000
    assert [stat.S_IMODE(path.stat().st_mode) for path in (given, taken)] == [0o644, 0o644]
    lines = taken.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("3000000", "told")


@in_build()
def test_much_goes_both_ways_and_nobody_waits_for_the_other(world: World) -> None:
    given, taken = world.base / "given", world.base / "taken"
    given.write_bytes(os.urandom(2_000_000))
    for script, expected in (("cat", given.read_bytes()), ("echo no", b"no\n"), ("exec <&-; echo closed", b"closed\n")):
        with given.open("rb") as stdin, taken.open("wb") as stdout:
            files = {"stdin": stdin.fileno(), "stdout": stdout.fileno(), "stderr": 2}
            assert world.sandbox.attach(world.job("sh", "-c", script), **files).code == 0
        assert taken.read_bytes() == expected


@in_build()
def test_a_terminal_of_its_own(world: World) -> None:
    import fcntl
    import struct
    import termios

    person, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
    before = termios.tcgetattr(terminal)
    os.write(person, b"hello\n")
    job = world.job("sh", "-c", "tty; stty size; read line; echo got $line; exit 5")
    ended = world.sandbox.attach(job, stdin=terminal, stdout=terminal, stderr=terminal, terminal=True)
    output = os.read(person, 10000).decode()
    assert ended.code == 5
    assert "/dev/pts/0" in output
    assert "33 77" in output
    assert "got hello" in output
    assert termios.tcgetattr(terminal) == before
