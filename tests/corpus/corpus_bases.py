"""The base images that cases name: busybox from the machine's package, and what stands for alpine and debian."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from support import Layerbuild, add_member

_REGISTRIES = ("mirror.gcr.io/", "quay.io/libpod/")

# What a case does in alpine or debian, busybox can; what tells them apart is who they say they are.
_MARKS = {
    "busybox": {},
    "alpine": {"etc/alpine-release": "3.20.0\n", "etc/os-release": 'NAME="Alpine Linux"\nID=alpine\n'},
    "debian": {"etc/debian_version": "12.0\n", "etc/os-release": 'NAME="Debian GNU/Linux"\nID=debian\n'},
}

BASES = tuple(_MARKS)
NAMES = frozenset(f"{registry}{name}" for registry in ("", *_REGISTRIES) for name in BASES)

_FOLDERS = {"bin": 0o755, "etc": 0o755, "home": 0o755, "root": 0o700, "tmp": 0o1777, "usr": 0o755, "var": 0o755}

_USERS = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""

_GROUPS = """\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
mail:x:8:
wheel:x:10:root
www-data:x:33:
operator:x:37:
users:x:100:
nobody:x:65534:
"""

# Debian's busybox has neither; cases use the forms of busybox proper: adduser [-D] [-u UID] [-G GROUP] USER [GROUP].
_ADDUSER = r"""#!/bin/sh
uid= group= system=
while getopts DHSh:g:G:s:u: option; do
    case $option in u) uid=$OPTARG ;; G) group=$OPTARG ;; S) system=1 ;; esac
done
shift $((OPTIND - 1))
[ -z "$2" ] || { sed -i "/^$2:/{/:$/!s/\$/,$1/;s/:\$/:$1/}" /etc/group; exit; }
: "${uid:=$((${system:+-900} + 1000 + $(grep -c :/home/ /etc/passwd) - 1))}"
[ -n "$group" ] || { group=$1; echo "$1:x:$uid:" >>/etc/group; }
gid=$(sed -n "s/^$group:[^:]*:\([0-9]*\):.*/\1/p" /etc/group)
echo "$1:x:$uid:$gid:Linux User,,,:/home/$1:/bin/sh" >>/etc/passwd
mkdir -p "/home/$1" && chown "$uid:$gid" "/home/$1"
"""

_ADDGROUP = r"""#!/bin/sh
gid=
while getopts Sg: option; do [ "$option" != g ] || gid=$OPTARG; done
shift $((OPTIND - 1))
[ -z "$2" ] || exec adduser "$1" "$2"
echo "$1:x:${gid:-$((1000 + $(wc -l </etc/group)))}:" >>/etc/group
"""


def make_bases(layerbuild: Layerbuild, busybox: str, folder: Path) -> None:
    """Build the bases into a store, under each name that cases have for them."""
    for name, marks in _MARKS.items():
        context = folder / name
        context.mkdir()
        (context / "rootfs.tar").write_bytes(_rootfs(busybox, marks))
        layerbuild.build(context, 'FROM scratch\nADD rootfs.tar /\nCMD ["sh"]\n', "-t", name)
        for registry in _REGISTRIES:
            layerbuild("tag", name, f"{registry}{name}")


def _rootfs(busybox: str, marks: dict[str, str]) -> bytes:
    programs = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder, mode in _FOLDERS.items():
            add_member(tar, folder, tarfile.DIRTYPE, mode=mode)
        add_member(tar, "bin/busybox", content=Path(busybox).read_bytes(), mode=0o755)
        for program in sorted({*programs} - {"busybox", "adduser", "addgroup"}):
            add_member(tar, f"bin/{program}", tarfile.SYMTYPE, link="busybox")
        for program, script in (("adduser", _ADDUSER), ("addgroup", _ADDGROUP)):
            add_member(tar, f"bin/{program}", content=script.encode(), mode=0o755)
        for file, text in {"etc/passwd": _USERS, "etc/group": _GROUPS, **marks}.items():
            add_member(tar, file, content=text.encode())
    return out.getvalue()
