"""``run``: containers from the command line, and what a recipe and a container see of the sandbox."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import tarfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import Layerbuild
from traces import processes, wait_until

pytestmark = [pytest.mark.memory, pytest.mark.forked]

RECIPE = """\
FROM busybox
ENV GREETING=hello PLACE=image
WORKDIR /work
RUN echo 'echo "[$#] $@"' > /show && chmod +x /show
ENTRYPOINT ["sh", "/show"]
CMD ["from", "cmd"]
"""


@pytest.fixture
def image(layerbuild: Layerbuild, context: Path) -> Layerbuild:
    layerbuild.build(context, RECIPE, "-t", "shown")
    return layerbuild


def test_which_command_runs(image: Layerbuild) -> None:
    assert image("run", "shown") == "[2] from cmd\n"
    assert image("run", "shown", "a b", "-c") == "[2] a b -c\n"
    assert image("run", "--entrypoint", "echo", "shown", "x") == "x\n"
    assert image("run", "--entrypoint", "pwd", "shown") == "/work\n"
    assert image("run", "--entrypoint", "", "shown", "echo", "y") == "y\n"
    assert "names no command" in image.run("run", "busybox", code=2).stderr


def test_environment(image: Layerbuild) -> None:
    script = "echo $GREETING $PLACE $MINE $HANDED"
    options = ("-e", "PLACE=here", "-e", "MINE=a=b", "-e", "HANDED", "--entrypoint", "")
    assert image("run", *options, "shown", "sh", "-c", script, env={"HANDED": "over"}) == "hello here a=b over\n"
    listed = image("run", "--entrypoint", "", "shown", "env", env={"HIDDEN": "x"}).splitlines()
    assert sorted(line.partition("=")[0] for line in listed) == ["GREETING", "HOME", "PATH", "PLACE"]


def test_a_variable_that_is_not_set_is_not_handed_over(rooted: Layerbuild) -> None:
    assert "NOT_SET" not in rooted("run", "-e", "NOT_SET", "busybox", "env")


def test_user(rooted: Layerbuild) -> None:
    for user, seen in (
        ("daemon", "1 1 1"),
        ("0", "0 0 0 10"),
        ("77", "77 0 0"),
        ("daemon:wheel", "1 10 10"),
        ("5:6", "5 6 6"),
    ):
        assert rooted("run", "-u", user, "busybox", "sh", "-c", "echo $(id -u) $(id -g) $(id -G)") == f"{seen}\n"
    assert "nosuch" in rooted.run("run", "-u", "nosuch", "busybox", "id", code=1).stderr


def test_working_directory(image: Layerbuild) -> None:
    assert image("run", "--entrypoint", "pwd", "-w", "/etc", "shown") == "/etc\n"
    assert image("run", "--entrypoint", "pwd", "-w", "/made/for/this", "shown") == "/made/for/this\n"


def test_exit_codes_pass_through(layerbuild: Layerbuild) -> None:
    for code in (0, 1, 77, 255):
        layerbuild("run", "busybox", "sh", "-c", f"exit {code}", code=code)
    assert "not in the image" in layerbuild.run("run", "busybox", "nosuch", code=127).stderr
    assert "not executable" in layerbuild.run("run", "busybox", "/etc/passwd", code=126).stderr


def test_streams_pass_through(layerbuild: Layerbuild) -> None:
    data = bytes(range(256)) * 4096
    script = "cat; echo told >&2"
    command = layerbuild.command("run", "-i", "busybox", "sh", "-c", script)
    done = subprocess.run(command, input=data, env=layerbuild.environment(), capture_output=True, check=True)
    assert done.stdout == data
    assert done.stderr == b"told\n"


def test_changes_are_thrown_away(layerbuild: Layerbuild) -> None:
    layerbuild("run", "busybox", "true")  # unpacks it
    before = sorted(os.listdir(layerbuild.root / "overlay2"))
    layerbuild("run", "busybox", "sh", "-c", "echo x > /etc/passwd; rm /bin/ls; mkdir /new")
    assert layerbuild("run", "--rm", "busybox", "sh", "-c", "ls /; head -c 4 /etc/passwd").startswith("bin\n")
    assert "new" not in layerbuild("run", "busybox", "ls", "/")
    assert sorted(os.listdir(layerbuild.root / "overlay2")) == before


def test_a_container_that_is_kept(layerbuild: Layerbuild) -> None:
    said = layerbuild.run(
        "run", "--keep", "-e", "A=1", "-w", "/tmp", "busybox", "sh", "-c", "echo x > f; exit 4", code=4
    ).stderr
    kept = re.search(r"kept as (\w+); enter it again with: layerbuild --root \S+ shell (\w+)", said)
    assert kept and kept[1].startswith(kept[2])
    assert layerbuild("shell", kept[2], "sh", "-c", "cat f; echo $A") == "x\n1\n"
    diff = layerbuild.root / "overlay2" / kept[1] / "diff"
    assert (diff / "tmp/f").read_text() == "x\n"
    assert "contradict" in layerbuild.run("run", "--rm", "--keep", "busybox", "true", code=2).stderr


def test_no_network(layerbuild: Layerbuild) -> None:
    assert layerbuild("run", "--network", "none", "busybox", "ls", "/sys/class/net") == "lo\n"
    # Without it the container has what the host has.
    listed = Path("/proc/net/dev").read_text().splitlines()[2:]
    seen = layerbuild("run", "busybox", "awk", "-F:", "NR > 2 {print $1}", "/proc/net/dev").split()
    assert seen == [line.partition(":")[0].strip() for line in listed]


# -- at a terminal -----------------------------------------------------------------------------------------------------


class Terminal:
    """A person at a terminal of 30 lines and 90 columns, with layerbuild in it."""

    def __init__(self, layerbuild: Layerbuild, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        self.resize(30, 90)
        self.before = termios.tcgetattr(slave)
        self.process = layerbuild.start(*arguments, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        self._slave = slave
        self._seen = b""

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))

    def type(self, text: bytes) -> None:
        os.write(self._master, text)

    def wait_for(self, text: str, *, seconds: float = 60.0) -> str:
        """What was seen since the last call, up to and with ``text``."""
        end = time.monotonic() + seconds
        while text.encode() not in self._seen:
            assert select.select([self._master], [], [], max(0.0, end - time.monotonic()))[0], self._seen
            self._seen += os.read(self._master, 65536)
        before, found, self._seen = self._seen.partition(text.encode())
        return (before + found).decode()

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self._slave) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)


@pytest.fixture
def terminal(layerbuild: Layerbuild) -> Iterator[Callable[..., Terminal]]:
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> Terminal:
            return stack.enter_context(contextlib.closing(Terminal(layerbuild, *arguments)))

        yield start


def test_a_terminal_is_passed_on(terminal: Callable[..., Terminal]) -> None:
    person = terminal("run", "busybox", "sh", "-c", "tty; stty size; read line; echo got:$line; stty size; exit 9")
    seen = person.wait_for("30 90")
    assert "/dev/pts/0" in seen or "/dev/console" in seen
    person.resize(40, 100)
    os.kill(person.process.pid, signal.SIGWINCH)  # as the kernel tells the foreground process
    person.type(b"typed\r")
    assert "typed" in person.wait_for("got:typed")  # the container's terminal echoes
    person.wait_for("40 100")
    assert person.process.wait(timeout=20) == 9
    assert person.is_as_before()


def test_keys_that_mean_something_are_for_the_container(terminal: Callable[..., Terminal]) -> None:
    person = terminal(
        "run", "busybox", "sh", "-c", "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done"
    )
    person.wait_for("ready")
    person.type(b"\x03")
    person.wait_for("caught")
    assert person.process.wait(timeout=20) == 5


def test_a_shell_for_a_person(terminal: Callable[..., Terminal]) -> None:
    person = terminal("run", "busybox", "sh")
    # Where it has asked, the shell reads keys; what comes earlier is the terminal's, to which Ctrl-D is another thing.
    prompt = "/ # "
    person.wait_for(prompt)
    person.type(b"echo $((6 * 7))\r")
    person.wait_for("42\r\n" + prompt)
    person.type(b"sleep 123454321\r")
    wait_until(lambda: processes("123454321"))  # before, the shell itself would get what is typed
    person.type(b"\x03")  # ends the command, not the shell
    person.type(b"echo still $((6 + 1))\r")
    person.wait_for("still 7\r\n" + prompt)
    person.type(b"\x04")
    assert person.process.wait(timeout=20) in (0, 130)
    assert person.is_as_before()


def test_the_terminal_is_restored_when_told_to_stop(terminal: Callable[..., Terminal]) -> None:
    person = terminal("run", "busybox", "sh", "-c", "echo ready; sleep 100")
    person.wait_for("ready")
    assert not person.is_as_before()
    person.process.terminate()
    assert person.process.wait(timeout=20) == 143
    assert person.is_as_before()


# -- what is seen of the sandbox ---------------------------------------------------------------------------------------

LOOK = """\
FROM busybox
RUN set -e; \\
    echo x > /dev/null; head -c 4 /dev/urandom | wc -c; test -c /dev/zero; test -L /dev/fd; test -d /dev/shm; \\
    test "$(cat /proc/1/comm)" = sh; \\
    ! echo 1 > /proc/sys/kernel/hostname; ! touch /sys/x; ! mkdir /proc/x; \\
    hostname; grep -q localhost /etc/hosts; touch /dev/shm/x /tmp/kept; \\
    ! env | grep -E '^(HIDDEN|LAYERBUILD_ROOT|TMPDIR)='; \\
    ls -d /proc/1/root > /dev/null; test -z "$(ls /sys/firmware 2>/dev/null)"; echo all-as-it-should-be
"""


def test_what_a_run_sees(layerbuild: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text(LOOK)
    said = layerbuild.run("build", "-t", "looked", context, env={"HIDDEN": "1", "LAYERBUILD_ROOT": "/x"}).stderr
    assert "| all-as-it-should-be" in said
    assert "| layerbuild\n" in said  # the hostname
    assert layerbuild.names("looked") == ["tmp/", "tmp/kept"]


def test_no_trace_where_the_image_has_no_mount_points(
    layerbuild: Layerbuild, context: Path, program: Callable[[str], str]
) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        member = tarfile.TarInfo("busybox")
        content = Path(program("busybox")).read_bytes()
        member.size, member.mode = len(content), 0o755
        archive.addfile(member, io.BytesIO(content))
    layerbuild("import", "-t", "bare", "-", stdin=tar.getvalue())
    recipe = """\
        FROM bare
        RUN ["/busybox", "sh", "-c", "/busybox mount; /busybox ls /; /busybox cat /etc/hosts /etc/resolv.conf"]
        RUN ["/busybox", "sh", "-c", "echo 1 > /one; echo 2 > /etc/two"]
        RUN ["/busybox", "ls", "-A", "/", "/etc"]
        """
    said = layerbuild.build(context, recipe, "-t", "traced")
    assert said.count("no layer: no file changed") == 2
    assert layerbuild.names("traced") == ["etc/", "etc/two", "one"]
    assert layerbuild("run", "--entrypoint", "/busybox", "traced", "ls", "/etc") == "hosts\nresolv.conf\ntwo\n"


def test_files_written_over_what_is_mounted_fail_or_vanish(rooted: Layerbuild, context: Path) -> None:
    said = rooted.build(
        context, "FROM busybox\nRUN ! echo x >> /etc/hosts; ! rm /etc/resolv.conf; ! rmdir /proc\n", "-t", "x"
    )
    assert "no layer" in said
