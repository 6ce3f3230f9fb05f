"""``base debian``: a root file system from Debian's own packages, made by mmdebstrap.

Two runs with the same packages give the same bytes: mmdebstrap sorts the tar, clamps times to SOURCE_DATE_EPOCH and
empties lists, caches and logs; what it copies from the machine for the time of the installation is removed by a hook,
and device nodes are left out, so that root and an ordinary user get the same bytes too.

An ordinary user needs a range of subordinate ids (mode "unshare"): dpkg gives files to several owners. The program runs
in the surroundings of the caller, before any namespace of ours: inside one with a single mapped id it would fail.
"""

from __future__ import annotations

import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from layerbuild.errors import MachineError
from layerbuild.frozen import frozen

DEFAULT_SUITE = "bookworm"
DEFAULT_VARIANT = "minbase"

_LAST_LINES = 12
_LONGEST_LINE = 300
# Copied from the machine for the time of the installation, or a second copy of what is beside it.
_LEFTOVERS = ("etc/hostname", "etc/resolv.conf", "etc/machine-id", "var/cache/debconf/*-old", "var/lib/dpkg/*-old")

_MISSING_HINT = (
    "Debian, Ubuntu: apt-get install mmdebstrap; Fedora: dnf install mmdebstrap; elsewhere: `layerbuild base host`, "
    "or `layerbuild import` of a root file system tar made on a Debian machine"
)
# What mmdebstrap or apt says, and what mends it. The first that matches is shown.
_REMEDIES = (
    (
        ("unable to pick chroot mode", "/etc/subuid", "/etc/subgid", "newuidmap"),
        "an ordinary user needs subordinate ids: `layerbuild doctor` tells the commands that give them; or run this "
        "one command as root",
    ),
    (("Unable to locate package", "has no installation candidate"), "look at the package names in --include"),
    (
        ("Could not resolve", "Temporary failure", "Could not connect", "Failed to fetch", "connection timed out"),
        "the mirror can't be reached: another one can be given with --mirror; `layerbuild base host` needs no network",
    ),
    (("does not have a Release file", "404  Not Found"), "look at --suite: the mirror knows no suite of that name"),
    (("NO_PUBKEY", "is not signed"), "install the keys of the archive: apt-get install debian-archive-keyring"),
)


@frozen
class DebianBase:
    """What to install. ``mirrors`` are URIs or sources.list lines; none means mmdebstrap's own default."""

    suite: str = DEFAULT_SUITE
    include: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    variant: str = DEFAULT_VARIANT

    @property
    def command(self) -> str:
        """The command line that asks for it, for the image's history."""
        words = ["layerbuild base debian", f"--suite {self.suite}"]
        words += [f"--include {','.join(self.include)}"] if self.include else []
        words += [f"--variant {self.variant}"] if self.variant != DEFAULT_VARIANT else []
        return " ".join(words)


def make_debian_tar(
    base: DebianBase,
    destination: Path,
    *,
    epoch: int,
    environment: Mapping[str, str],
    progress: Callable[[str], None] | None = None,
) -> None:
    """Let mmdebstrap write the tar of ``base``; ``progress`` gets each line that it says.

    ``environment`` is what the program runs with (PATH, proxies). MachineError if it is missing or fails.
    """
    program = shutil.which("mmdebstrap", path=environment.get("PATH"))
    if program is None:
        raise MachineError(
            "mmdebstrap, which makes a root file system of Debian packages, is not installed here", hint=_MISSING_HINT
        )
    arguments = [program, *mmdebstrap_arguments(base, destination)]
    surroundings = {**environment, "SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8"}
    last, code = _run(arguments, surroundings, progress)
    if code:
        destination.unlink(missing_ok=True)
        raise _failure(code, last)


def mmdebstrap_arguments(base: DebianBase, destination: Path) -> list[str]:
    """The command line for mmdebstrap(1), without the program itself."""
    remove = " ".join(f'"$1"/{path}' for path in _LEFTOVERS)
    return [
        f"--variant={base.variant}",
        "--format=tar",
        "--skip=output/dev",
        f"--customize-hook=rm -f {remove}",
        *([f"--include={','.join(base.include)}"] if base.include else []),
        "--",
        base.suite,
        str(destination),
        *base.mirrors,
    ]


def _run(
    arguments: Sequence[str], environment: Mapping[str, str], progress: Callable[[str], None] | None
) -> tuple[list[str], int]:
    """Run to the end: the last lines of its standard error, and its exit code."""
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(
        arguments,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        try:
            for line in process.stderr or ():
                last.append(line.rstrip("\n")[:_LONGEST_LINE])
                if progress is not None:
                    progress(last[-1])
        except BaseException:
            process.terminate()  # it cleans its folder and its mounts up when it is asked to end
            raise
    return list(last), process.returncode


def _failure(code: int, last: Sequence[str]) -> MachineError:
    said = "\n".join(last)
    matches = (hint for needles, hint in _REMEDIES if any(needle in said for needle in needles))
    return MachineError(f"mmdebstrap ended with exit code {code}; its last lines:\n{said}", hint=next(matches, ""))


# -- the machine's own mirrors -----------------------------------------------------------------------------------------


def machine_mirrors(suite: str, *, apt: Path = Path("/etc/apt")) -> tuple[str, ...]:
    """The sources of this machine's apt that hold ``suite``, its updates and its security fixes, as one-line entries.

    A machine behind a proxy or with a mirror of its own then needs no option. Only the distribution's own archive
    counts (component "main", no key of another publisher): a base must not take packages from a vendor by accident.
    Empty on a machine of another distribution or suite.
    """
    wanted = (suite, f"{suite}-updates", f"{suite}-security")
    found: dict[str, None] = {}
    for source in _apt_sources(apt):
        if source.suite in wanted and "main" in source.components and source.is_archive:
            found[f"deb {source.uri} {source.suite} main"] = None
    return tuple(found) if any(f" {suite} main" in line for line in found) else ()


@frozen
class _AptSource:
    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""

    @property
    def is_archive(self) -> bool:
        return not self.signed_by or "archive-keyring" in self.signed_by


def _apt_sources(apt: Path) -> Iterator[_AptSource]:
    """Both forms of sources.list(5), in apt's order."""
    for file in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        if not file.is_file():
            continue
        text = file.read_text(errors="replace")
        if file.suffix == ".list":
            yield from _one_line_sources(text)
        elif file.suffix == ".sources":
            yield from _deb822_sources(text)


def _one_line_sources(text: str) -> Iterator[_AptSource]:
    """``deb [option=value …] URI SUITE COMPONENT…``"""
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words[:1] != ["deb"]:
            continue
        options: list[str] = []
        rest = words[1:]
        if rest and rest[0].startswith("["):
            end = next((at for at, word in enumerate(rest) if word.endswith("]")), len(rest) - 1)
            options, rest = " ".join(rest[: end + 1]).strip("[] ").split(), rest[end + 1 :]
        signed = next((word.partition("=")[2] for word in options if word.lower().startswith("signed-by=")), "")
        if len(rest) >= 2:
            yield _AptSource(rest[0], rest[1], tuple(rest[2:]), signed)


def _deb822_sources(text: str) -> Iterator[_AptSource]:
    """Stanzas of fields; a line that begins with a blank goes on with the field above."""
    for stanza in _stanzas(text.splitlines()):
        if "deb" not in stanza.get("types", "").split() or stanza.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        components = tuple(stanza.get("components", "").split())
        for uri in stanza.get("uris", "").split():
            for suite in stanza.get("suites", "").split():
                yield _AptSource(uri, suite, components, stanza.get("signed-by", ""))


def _stanzas(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    name = ""
    for line in [*lines, ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0].isspace() and name:
            fields[name] += "\n" + line.strip()
        else:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
