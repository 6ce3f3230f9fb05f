"""The group, its global options, and the table of commands."""

from __future__ import annotations

import _thread
import gc
import importlib
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from layerbuild import __version__
from layerbuild.cli import registries
from layerbuild.cli.failures import Stopped, exit_code, of_os_error, report
from layerbuild.errors import LayerbuildError, UsageError, alike
from layerbuild.frozen import frozen

# command → module of cli/commands and the click command in it
COMMANDS = {
    "advise": "advise:advise",
    "base": "base:base",
    "blame": "blame:blame",
    "build": "build:build",
    "context": "context:context",
    "df": "housekeeping:df",
    "diff": "diff:diff",
    "doctor": "doctor:doctor",
    "explain": "explain:explain",
    "history": "show:history",
    "images": "images:images",
    "import": "archives:import_",
    "inspect": "show:inspect",
    "layers": "show:layers",
    "learn": "learn:learn",
    "lint": "lint:lint",
    "load": "archives:load",
    "logs": "explain:logs",
    "login": "registry:login",
    "logout": "registry:logout",
    "parse": "plan:parse",
    "plan": "plan:plan",
    "prune": "housekeeping:prune",
    "pull": "registry:pull",
    "push": "registry:push",
    "report": "report:report",
    "rmi": "images:rmi",
    "run": "run:run",
    "save": "archives:save",
    "shell": "shell:shell",
    "tag": "images:tag",
    "verify": "verify:verify",
    "where": "show:where",
}


@frozen
class Settings:
    """What the global options say. ``root`` is where the state lives; ``driver`` None: whichever works; ``insecure``
    and ``mirrors`` are the texts of the options about registries; ``columns`` is how wide lists may be, None: as wide
    as the terminal."""

    root: Path
    driver: str | None = None
    insecure: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    columns: int | None = None


class CommandTable(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(f"layerbuild.cli.commands.{module}"), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from layerbuild.cli.options.elsewhere import COMMANDS_OF_OTHERS

            if args[0] in COMMANDS_OF_OTHERS:
                raise UsageError(f"there is no command {args[0]!r} here", hint=COMMANDS_OF_OTHERS[args[0]])
            near = alike(args[0], COMMANDS)
            hint = f" Did you mean {near[0]!r}?" if near else " `layerbuild --help` lists the commands."
            ctx.fail(f"no such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from layerbuild.cli.overview import OVERVIEW

        longest = max(map(len, COMMANDS))
        for heading, rows in OVERVIEW.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(longest), what) for name, what in rows.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from layerbuild.cli.overview import EPILOG

        for paragraph in EPILOG.split("\n\n"):
            formatter.write_paragraph()
            formatter.write_text(paragraph)


@click.group(cls=CommandTable, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="layerbuild", message="%(prog)s %(version)s")
@click.option(
    "--root",
    envvar="LAYERBUILD_ROOT",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where images, layers and the cache live.  [env: LAYERBUILD_ROOT]",
)
@click.option(
    "--driver",
    envvar="LAYERBUILD_DRIVER",
    metavar="NAME",
    help="How RUN gets the layers: overlay, btrfs, fuse-overlayfs, copy.  [env: LAYERBUILD_DRIVER; else what works]",
)
@registries.options
@click.option(
    "--columns",
    metavar="N",
    type=click.IntRange(min=1),
    help="How wide lists may be.  [default: as the terminal; in a pipe as they are]",
)
@click.pass_context
def main(
    ctx: click.Context,
    root: Path | None,
    driver: str | None,
    insecure: tuple[str, ...],
    mirrors: tuple[str, ...],
    columns: int | None,
) -> None:
    """Turn Dockerfiles into OCI image layers, without a daemon, and see every layer."""
    from layerbuild.cli.place import default_root

    ctx.obj = Settings((root or default_root()).absolute(), driver or None, insecure, mirrors, columns)


def run() -> None:
    """The entry point: run the command line and exit with its code."""
    # Python's 700 would have the garbage collector go over what is being imported, again and again: a tenth of the time
    # that a build takes which finds all in the cache.
    gc.set_threshold(_OBJECTS)
    os.umask(0o022)  # what a build makes does not depend on who builds it
    _open_standard_streams()
    _know_home()
    for number in _STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1), and a shell for what runs in the background
            signal.signal(number, _stop)
    try:
        code = main.main(standalone_mode=False, prog_name="layerbuild")
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.ClickException as error:
        error.show()
        code = 2
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except Stopped as stopped:
        code = stopped.code
        for number in _STOPPING:  # whoever asks again has what they want, and the exit code should say so
            signal.signal(number, signal.SIG_IGN)
    except BrokenPipeError:
        code = _after_broken_pipe()
    except (LayerbuildError, OSError) as error:
        code = _after(error)
    _leave(code if isinstance(code, int) else 0)


def _after(error: LayerbuildError | OSError) -> int:
    if _told_to_stop:  # that is why it failed, and what was asked for
        return 128 + _told_to_stop[0]
    known = of_os_error(error) if isinstance(error, OSError) else error
    report(known)
    return exit_code(known)


def _know_home() -> None:
    """HOME is asked for now if nobody has said it: in a build's namespace this user may bear root's number."""
    if not os.environ.get("HOME"):
        import pwd

        try:
            os.environ["HOME"] = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:  # a number without an account, as in many a CI system
            os.environ["HOME"] = "/nonexistent"


def _open_standard_streams() -> None:
    """Who closed one of them wants nothing of it; but the next file that is opened must not get its number."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, and those below it are not
            setattr(sys, name, os.fdopen(number, mode))


def _leave(code: int) -> NoReturn:
    """Exit without taking the interpreter apart, which takes a tenth of the time of a cached build, or more."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody listens any more
            stream.flush()
    os._exit(code)


_OBJECTS = 50_000  # that may be made before the garbage collector looks for those that hold each other: some megabytes
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_told_to_stop: list[int] = []  # the numbers of the signals that have come
_TIDYING = 0.5  # seconds: who asks a build to stop finds it gone within a second


def _stop(number: int, _frame: FrameType | None) -> None:
    """Leave, and tidy up on the way, which has an end; who asks a second time need not wait for that."""
    _told_to_stop.append(number)
    for each in _STOPPING:
        signal.signal(each, _stop_at_once)
    # Not by way of `threading`: this thread may hold its locks just now.
    _thread.start_new_thread(_stop_soon, (number,))
    raise Stopped(number)


def _stop_soon(number: int) -> None:
    began, waited = time.monotonic(), _waits()
    time.sleep(_TIDYING)
    # Half of it should be time in which this process was not kept waiting for a processor.
    while time.monotonic() - began - _longest(waited, _waits()) < _TIDYING / 2:
        time.sleep(0.02)
    _stop_at_once(number, None)


def _waits() -> dict[str, float]:
    """For how many seconds each thread has been ready to run, and did not: the kernel's scheduler/sched-stats.rst.
    Empty where the kernel does not count it."""
    try:
        return {
            task.name: int((task / "schedstat").read_text().split()[1]) / 1e9
            for task in Path("/proc/self/task").iterdir()
        }
    except (OSError, IndexError):
        return {}


def _longest(before: dict[str, float], now: dict[str, float]) -> float:
    return max((seconds - before.get(thread, 0.0) for thread, seconds in now.items()), default=0.0)


def _stop_at_once(number: int, _frame: FrameType | None) -> None:
    # Processes and mounts end with this one; what it leaves in the store is nobody's, and the next build removes it.
    try:
        if (exports := sys.modules.get("layerbuild.export.destination")) is not None:
            exports.drop_unfinished()
    finally:
        os._exit(128 + number)


def _after_broken_pipe() -> int:
    # The reader of our output went away (`layerbuild images | head`): no error, but Python would complain at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
