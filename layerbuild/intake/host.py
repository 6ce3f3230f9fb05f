"""``base host``: what this machine's own programs need to run somewhere else.

A program brings the folders and links on its way (``/bin`` → ``usr/bin``, ``sh`` → ``dash``), its dynamic loader and
the libraries that it loads, or, for a script, its interpreter. A few small files that programs expect (``/etc/passwd``,
``/tmp``) are written new. Nothing else of the machine is taken: no user, no host name, no configuration.

Nothing here writes: ``collect`` returns a list of values, and needs neither root nor network. The same programs give
the same list: folders are 0755, owners are root, times are at most the epoch.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from layerbuild.errors import FormatError, MachineError, alike
from layerbuild.frozen import frozen
from layerbuild.image.config import DEFAULT_PATH, RuntimeConfig
from layerbuild.intake.elf import Elf
from layerbuild.intake.items import Item
from layerbuild.intake.loader import Library, Loader, is_built_in
from layerbuild.layer.entry import Entry, Kind, kind_of, sort_key

DEFAULT_WORD = "default"
DEFAULT_PROGRAMS = (
    *("sh", "ls", "cat", "cp", "mv", "rm", "mkdir", "rmdir", "ln", "chmod", "chown", "touch", "install", "mktemp"),
    *("basename", "dirname", "readlink", "realpath", "stat", "du", "find", "xargs", "pwd", "uname", "id", "env"),
    *("echo", "printf", "head", "tail", "wc", "sort", "uniq", "tr", "cut", "tee", "od", "seq", "expr", "grep"),
    *("sed", "awk", "cmp", "diff", "sha256sum", "tar", "gzip", "date", "sleep", "true", "false", "test", "[", "make"),
)
"""What ``base host`` takes when it is not told: those of them that the machine has."""

_MOST_LINKS = 40  # as the kernel: MAXSYMLINKS
_SHEBANG_BYTES = 256  # as the kernel reads them: BINPRM_BUF_SIZE
_TOP_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
# Opened with dlopen, so no DT_NEEDED names them: name services (in libc since glibc 2.34), and what ends a thread.
_GLIBC_OPENS = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2", "libgcc_s.so.1")
_LIBC = "libc.so.6"
_IMAGE_PATH = tuple(DEFAULT_PATH.split(":"))
_LINK_FOLDER = "/usr/local/bin"

_OWN_FILES = {
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "/etc/group": b"root:x:0:\nnogroup:x:65534:\n",
    "/etc/nsswitch.conf": b"passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
    "/etc/os-release": b'ID=layerbuild-host\nNAME="layerbuild host base"\nPRETTY_NAME="programs of one machine"\n',
}
_OWN_FOLDERS = {"/tmp": 0o1777, "/var/tmp": 0o1777, "/root": 0o700, "/dev": 0o755, "/proc": 0o755, "/sys": 0o755}

_PYTHON = ("python3", "python3.[0-9]", "python3.[0-9][0-9]")
_PYTHON_QUESTION = "import sysconfig as s; print(s.get_path('stdlib')); print(s.get_path('platstdlib'))"
_PYTHON_LEFT_OUT = (
    *("__pycache__", "test", "tests", "site-packages", "dist-packages", "config-*", "*.a"),
    *("idlelib", "tkinter", "_tkinter*", "turtle*", "ensurepip", "lib2to3", "_test*"),
)


@frozen
class HostBase:
    """A root file system that is not yet written: its paths in a layer's order, and the programs that it is for.

    ``command`` is the command line that asks for it, for the image's history.
    """

    items: tuple[Item, ...]
    programs: tuple[str, ...]
    command: str

    @property
    def config(self) -> RuntimeConfig:
        """How a container of it starts. Python's library comes without byte code, whose stamps would not fit its times,
        and Python is told to write none: it would end up in every layer."""
        python = any(fnmatch(name.rpartition("/")[2], pattern) for name in self.programs for pattern in _PYTHON)
        env = (("PATH", DEFAULT_PATH), *((("PYTHONDONTWRITEBYTECODE", "1"),) if python else ()))
        start = "/bin/sh" if "sh" in self.programs else self.programs[0]
        return RuntimeConfig(env=env, cmd=(start,), working_dir="/")


def collect(programs: Sequence[str] = (), *, search: Sequence[str] = (), epoch: int) -> HostBase:
    """What ``programs`` need. Names are looked up in the usual folders, then in ``search``; a path is taken as it is.

    No programs, or the word "default", means DEFAULT_PROGRAMS, of which the machine may lack some. ``sh`` is always in,
    as every image needs it for RUN. MachineError names a program that is missing or unreadable.
    """
    collector = _Collector(search, epoch)
    asked = [name for name in programs if name != DEFAULT_WORD]
    defaults = DEFAULT_PROGRAMS if len(asked) < len(programs) or not programs else ("sh",)
    found = [name for name in defaults if name not in asked and collector.locate(name)]
    for name in (*found, *asked):
        collector.add_named(name)
    collector.add_own_files()
    command = "layerbuild base host" + (f" --with {','.join(programs)}" if programs else "")
    return HostBase(collector.items(), (*found, *asked), command)


class _Collector:
    """The files found so far, by path on this machine; a link's parents are real folders, as in a tar."""

    def __init__(self, search: Sequence[str], epoch: int) -> None:
        self._search = tuple(dict.fromkeys((*_IMAGE_PATH, *search)))
        self._epoch = epoch
        self._loader = Loader()
        self._files: dict[str, Item] = {}
        self._done: set[str] = set()
        for name in _TOP_LINKS:
            if Path("/", name).is_symlink():
                self.add(f"/{name}")

    def items(self) -> tuple[Item, ...]:
        return tuple(sorted(self._files.values(), key=lambda item: sort_key(item.entry.path)))

    # -- programs ------------------------------------------------------------------------------------------------------

    def locate(self, name: str) -> str | None:
        """The path of a program; None if there is none, or it can't be executed."""
        places = [name] if "/" in name else [f"{folder}/{name}" for folder in self._search]
        return next(
            (str(Path(path).absolute()) for path in places if os.access(path, os.X_OK) and Path(path).is_file()), None
        )

    def add_named(self, name: str) -> None:
        path = self.locate(name)
        if path is None:
            raise self._unknown(name)
        self.add_program(path)
        if Path("/bin/sh").exists() and Path(path).name == "sh":
            self.add_program("/bin/sh")  # RUN's shell form names this very path
        folder, _, program = path.rpartition("/")
        if folder not in _IMAGE_PATH:
            self._link(f"{_LINK_FOLDER}/{program}", path)

    def add_program(self, path: str) -> None:
        """A program with all that it needs to start. Each is looked at once, so a script that names itself ends."""
        real = self.add(path)
        if real in self._done:
            return
        self._done.add(real)
        elf = self._elf(real)
        if elf is not None:
            self._add_loaded(real, elf)
        else:
            self._add_interpreter(real)
        if elf is not None and any(fnmatch(Path(real).name, pattern) for pattern in _PYTHON):
            self._add_python(real, elf)

    def _unknown(self, name: str) -> MachineError:
        known = {file for folder in self._search if Path(folder).is_dir() for file in os.listdir(folder)}
        near = alike(name, sorted(known), most=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        return MachineError(
            f"program {name!r} is not on this machine (looked in {', '.join(self._search)})",
            hint=f"{hint}Install it here first, or use `layerbuild base debian --include PACKAGE`",
        )

    def _add_interpreter(self, path: str) -> None:
        """What the first line of a script names; ``env NAME`` also brings NAME."""
        with Path(path).open("rb") as file:
            line = file.read(_SHEBANG_BYTES).partition(b"\n")[0]
        if not line.startswith(b"#!"):
            return
        words = os.fsdecode(line[2:]).split()
        if not words or not Path(words[0]).exists():
            raise MachineError(
                f"the script {path} names the interpreter {' '.join(words)!r}, which is not on this machine"
            )
        self.add_program(words[0])
        if Path(words[0]).name == "env":
            named = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), None)
            if named is not None:
                self.add_named(named)

    # -- shared libraries ----------------------------------------------------------------------------------------------

    def _elf(self, path: str) -> Elf | None:
        try:
            return self._loader.read(Path(path))
        except FormatError as error:
            raise MachineError(error.message, hint="leave this program out of --with") from error

    def _add_loaded(self, path: str, elf: Elf) -> None:
        if elf.interpreter:
            self.add(elf.interpreter)
        libraries = self._closure(path, elf, elf.interpreter)
        libc = libraries.get(_LIBC)
        for name in _GLIBC_OPENS if libc else ():
            found = self._loader.find(name, [(Path(path), elf)], interpreter=elf.interpreter)
            if found is not None:
                libraries[name] = found
        for name, library in libraries.items():
            self._add_library(name, library, libc)

    def _closure(self, path: str, elf: Elf, interpreter: str) -> dict[str, Library]:
        """All libraries that ``path`` loads, breadth first as ld.so does: a name once found is not searched again."""
        found: dict[str, Library] = {}
        waiting: list[list[tuple[Path, Elf]]] = [[(Path(path), elf)]]
        while waiting:
            chain = waiting.pop(0)
            for name in chain[-1][1].needed:
                if name in found or is_built_in(name, interpreter):
                    continue
                library = self._loader.find(name, chain, interpreter=interpreter)
                if library is None:
                    raise MachineError(
                        f"{chain[-1][0]} needs the shared library {name}, which is not on this machine",
                        hint="the program does not run here either; install the library or leave the program out",
                    )
                found[name] = library
                facts = self._elf(str(library.path))
                if facts is not None:
                    waiting.append([*chain, (library.path, facts)])
        return found

    def _add_library(self, name: str, library: Library, libc: Library | None) -> None:
        """Copy it to where it is here, and make it reachable where the loader looks without a cache: beside libc."""
        self.add(str(library.path))
        if libc is None or not library.configured:
            return
        home = libc.path.parent.resolve()
        if library.path.parent.resolve() != home:
            self._link(f"{home}/{name}", str(library.path))

    # -- python --------------------------------------------------------------------------------------------------------

    def _add_python(self, path: str, elf: Elf) -> None:
        """The standard library, as the interpreter itself names it, without tests, editors and installed packages."""
        command = [path, "-I", "-S", "-c", _PYTHON_QUESTION]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if answer.returncode:
            raise MachineError(f"{path} does not tell where its standard library is: {answer.stderr.strip()[-300:]}")
        for folder in dict.fromkeys(answer.stdout.splitlines()):
            for file in _tree(folder, _PYTHON_LEFT_OUT):
                self._add_module(file, elf)

    def _add_module(self, path: str, python: Elf) -> None:
        """A module, and the libraries of one in machine code. One that lacks them does not load here either."""
        facts = self._elf(path) if path.endswith(".so") else None
        try:
            libraries = self._closure(path, facts, python.interpreter) if facts else {}
        except MachineError:
            return
        self.add(path)
        for name, library in libraries.items():
            self._add_library(name, library, libraries.get(_LIBC))

    # -- paths ---------------------------------------------------------------------------------------------------------

    def add(self, path: str) -> str:
        """Take ``path``, with every folder and link on its way; returns where it really is.

        Folders are 0755 whatever they are here: an image must not depend on how a home folder is protected.
        """
        pending, here, links = _parts(path), "", 0
        while pending:
            name = pending.pop(0)
            if name == "..":
                here = here.rpartition("/")[0]
                continue
            full = f"{here}/{name}"
            target = self._take(full, last=not pending)
            if target is None:
                here = full
                continue
            links += 1
            if links > _MOST_LINKS:
                raise MachineError(f"{path}: too many links", hint="a symbolic link on the way points back to itself")
            pending = _parts(target) + pending
            here = "" if target.startswith("/") else here
        return here

    def _take(self, path: str, *, last: bool) -> str | None:
        """Note one path whose parents are real folders; a link's text is returned."""
        try:
            found = os.lstat(path)
        except OSError as error:
            raise MachineError(
                f"{path}: {error.strerror}", hint="a link on the way to a program leads nowhere"
            ) from error
        kind = kind_of(found.st_mode)
        if kind is Kind.SYMLINK:
            target = os.readlink(path)
            self._link(path, target)
            return target
        if kind is Kind.DIRECTORY:
            self._folder(path)
        elif kind is Kind.FILE and last:
            self._file(path, found)
        else:
            raise MachineError(f"{path} is not a regular file")
        return None

    def _file(self, path: str, found: os.stat_result) -> None:
        if not os.access(path, os.R_OK):
            raise MachineError(f"{path} can't be read by this user", hint="leave the program out, or run as root")
        mode = stat.S_IMODE(found.st_mode)
        # The owner becomes root: a file that ran as somebody else must not run as root because of that.
        mode &= ~(stat.S_ISUID if found.st_uid else 0) & ~(stat.S_ISGID if found.st_gid else 0)
        mtime = min(int(found.st_mtime), self._epoch)
        entry = Entry(_layer_path(path), Kind.FILE, mode, size=found.st_size, mtime=mtime)
        self._files[path] = Item(entry, Path(path))

    def _folder(self, path: str, mode: int = 0o755) -> None:
        self._files.setdefault(path, Item(Entry(_layer_path(path), Kind.DIRECTORY, mode, mtime=self._epoch)))

    def _link(self, path: str, target: str) -> None:
        if path in self._files:
            return
        self._parents(path)
        entry = Entry(_layer_path(path), Kind.SYMLINK, 0o777, mtime=self._epoch, target=os.fsencode(target))
        self._files[path] = Item(entry)

    def _parents(self, path: str) -> None:
        for parent in reversed(Path(path).parents[:-1]):
            self._folder(str(parent))

    def add_own_files(self) -> None:
        """The few files that are written new; they take the place of the machine's, if a program brought one."""
        for path, mode in _OWN_FOLDERS.items():
            self._parents(path)
            self._folder(path)
            self._files[path] = Item(replace(self._files[path].entry, mode=mode))
        for path, content in _OWN_FILES.items():
            self._parents(path)
            entry = Entry(_layer_path(path), Kind.FILE, 0o644, size=len(content), mtime=self._epoch)
            self._files[path] = Item(entry, content)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _layer_path(path: str) -> bytes:
    return os.fsencode(path.lstrip("/"))


def _tree(folder: str, left_out: Sequence[str]) -> Iterator[str]:
    """The files below ``folder``, sorted, without names that match ``left_out``; links to nowhere are passed over."""
    for name in sorted(os.listdir(folder)) if Path(folder).is_dir() else ():
        path = f"{folder}/{name}"
        if any(fnmatch(name, pattern) for pattern in left_out):
            continue
        if Path(path).is_dir():
            yield from _tree(path, left_out)
        elif Path(path).is_file():
            yield path
