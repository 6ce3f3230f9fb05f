"""Ordinary users, with ranges of ids and with one id, and root: who may do what, and that all make the same layers."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from stores import Templates
from support import USER, Layerbuild, compile_setter, missing


@pytest.fixture
def three(templates: Templates, context: Path, request: pytest.FixtureRequest) -> Iterator[dict[str, Layerbuild]]:
    """Root, the user with ranges and the user with one id, each with a store of its own."""
    folders = {who: context.with_name(f"{context.name}-{who}") for who in ("root", "ranged", "user")}
    yield {who: templates.copy(who, folder) for who, folder in folders.items()}
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)


def test_with_ranges_every_id_is_there(templates: Templates, context: Path) -> None:
    folder = context.with_name(f"{context.name}-store")
    ranged = templates.copy("ranged", folder)
    try:
        recipe = (
            "FROM busybox\nRUN id -u > /who; chown 33:44 /who\nUSER 1000:1000\nRUN touch /tmp/mine && id -u > /tmp/id\n"
        )
        ranged.build(context, recipe, "-t", "it")
        assert ranged("run", "it", "stat", "-c", "%u:%g", "/who", "/tmp/mine") == "33:44\n1000:1000\n"
        # On the disk they are ids of the range: 200000 is the first, and stands for 1.
        diff = Path(ranged.layers("it")[1]["folder"])
        assert ((diff / "who").stat().st_uid, (diff / "who").stat().st_gid) == (200032, 300043)
        ranged("prune", "--all", "--force")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_store_made_with_one_id_stays_so_when_ranges_come(templates: Templates, context: Path) -> None:
    folder = context.with_name(f"{context.name}-store")
    single = templates.copy("user", folder)
    try:
        recipe = "FROM busybox\nRUN id > /dev/shm/x; awk '{print $3}' /proc/self/uid_map > /count\nCMD cat /count"
        single.build(context, recipe, "-t", "it")
        later = templates.make["ranged"](single.root)
        assert later("run", "it") == "1\n"
        later.build(context, recipe + "\nRUN awk '{print $3}' /proc/self/uid_map >> /count", "-t", "it")
        assert later("run", "it") == "1\n1\n"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_the_line_that_mounts_an_image(three: dict[str, Layerbuild], context: Path) -> None:
    """What `where` prints, pasted by each: the tree is whole and, where the kernel has the ids, so are its owners."""
    recipe = "FROM busybox\nRUN mkdir -m 700 /d && echo x > /d/x && chown -R 33:44 /d\nRUN echo y > /y\n"
    for who, layerbuild in three.items():
        layerbuild.build(context, recipe, "-t", "it")
        *_, enter, mount = (line.strip() for line in layerbuild("where", "it").splitlines())
        enter = enter if enter.startswith("unshare ") else "unshare --mount"
        script = f"{enter} sh -c {shlex.quote(f'{mount} && cat /mnt/d/x /mnt/y && stat -c %u:%g /mnt/d')}"
        seen = subprocess.run(
            [*layerbuild.prefix, "sh", "-c", script], capture_output=True, text=True, check=True
        ).stdout
        assert seen.split() == ["x", "y", "0:0" if who == "user" else "33:44"], who


@pytest.mark.parametrize(
    ("owner", "other", "says"),
    [
        ("ranged", "user", "with the ids 200000+65536, and this is user 12345 with one id"),
        ("ranged", "root", "with the ids 200000+65536, and this is root"),
        ("user", "root", "were made by user 12345 with one id, and this is root"),
        ("root", "user", "were made by root, and this is user 12345 with one id"),
    ],
)
def test_a_store_of_other_ids_is_refused(
    templates: Templates, context: Path, owner: str, other: str, says: str
) -> None:
    folder = context.with_name(f"{context.name}-store")
    store = templates.copy(owner, folder)
    try:
        if owner == "root":
            os.chmod(store.root, 0o777)
            for path in store.root.rglob("*"):
                os.lchown(path, 12345, 12345)  # else the disk would refuse it before
            os.lchown(store.root, 12345, 12345)
        done = templates.make[other](store.root).run("build", context, code=1)
        assert says in done.stderr and "--root" in done.stderr
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# chown and chmod in all their order, links of both kinds, renames, devices, users, copies that keep the owner.
RECIPE = r"""
FROM busybox
RUN echo 'me:x:1000:1000::/home/me:/bin/sh' >> /etc/passwd && echo 'more:x:77:me' >> /etc/group
RUN mkdir /home/me && chown me:1000 /home/me && chmod 2755 /home/me && touch /low && ln -s x /sym && chown -h 7 /sym
RUN id > /id && touch /f && chown 33:44 /f && chmod 4755 /f && ln /f /g && mv /f /h && mkdir /d && chown -R 5 /d
RUN ln -s x /l && chown -h 7:8 /l && mv /l /d/l && ln -s y /m && chown -h 9 /m && rm /m && ln -s z /n && mkfifo /p
RUN chown 3:3 /p && chown 0:0 /g && chown 6 /low && mv /low /lower && rm /sym && ln -s other /sym && chmod 4711 /h
RUN mknod /null c 1 3 && chown 9 /null && chmod 640 /null && mknod /disk b 8 0 && ln /null /null2 && mv /null /zero
RUN cp -a /h /d /home && tar cf /t.tar /h /d && mkdir /x && tar xf /t.tar -C /x && stat -c %u:%g /h /d/l
USER me
RUN id >> /tmp/id; umask 027; touch ~/mine && mkdir ~/dir && ln -s mine ~/link && mkfifo /tmp/fifo
RUN echo x > ~/dir/f && cp ~/mine /tmp/copied && echo > /dev/stdout && (chown 0 ~/mine || mknod /tmp/c c 1 3 || echo) \
 && chown me:77 ~/dir/f && chmod 4755 ~/dir/f && cat ~/mine > ~/again && tar cf ~/t -C /home d && tar xf ~/t -C ~
WORKDIR /made/here
USER root
RUN rm /null2 /disk && chown -R 0:0 /home/me/dir && mv /home/me/link /link && chown 1000 /made
"""


def test_root_and_users_make_the_same_layers(three: dict[str, Layerbuild], context: Path) -> None:
    said = {who: layerbuild.build(context, RECIPE, "-t", "it") for who, layerbuild in three.items()}
    layers = {who: layerbuild.layers("it") for who, layerbuild in three.items()}
    for who in ("ranged", "user"):
        for made, wanted in zip(layers[who], layers["root"], strict=True):
            assert made["diff_id"] == wanted["diff_id"], f"{who}: {made['instruction']}\n{said[who]}"
    # What others unpack in its place is the same again: the next step sees the same tree.
    (context / "next").mkdir()
    (context / "next/Dockerfile").write_text(
        "FROM it\nRUN chown -h 1 /d/l /zero; mkdir /to; cp -a /d /h /home/me /to\n"
    )
    exported = context / "it.oci"
    three["root"]("build", "-q", "-t", "it", "-o", f"type=oci,dest={exported},tar=false", context)
    found = set()
    for layerbuild in three.values():
        layerbuild.build(context / "next", None, "-t", "next")
        found.add(layerbuild.layers("next")[-1]["diff_id"])
        again = replace(layerbuild, root=layerbuild.root.parent / "again")
        again("import", "--tag", "it", exported)
        again.build(context / "next", None, "-t", "next")
        found.add(again.layers("next")[-1]["diff_id"])
    assert len(found) == 1


MAKER = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
  char name[64];
  mkdir("/tmp/shared", 0777);
  chmod("/tmp/shared", 02777);
  int file = open("/tmp/shared", O_TMPFILE | O_RDWR, 0640);
  snprintf(name, sizeof name, "/proc/self/fd/%d", file);
  if (write(file, "x", 1) != 1 || linkat(AT_FDCWD, name, AT_FDCWD, "/tmp/shared/nameless", AT_SYMLINK_FOLLOW)) return 1;
  struct open_how how = {.flags = O_CREAT | O_WRONLY, .mode = 0604};
  file = syscall(SYS_openat2, AT_FDCWD, "/tmp/second", &how, sizeof how);
  struct open_how beneath = {.flags = O_CREAT | O_WRONLY, .mode = 0604, .resolve = RESOLVE_BENEATH};
  if (syscall(SYS_openat2, open("/tmp", O_PATH), "third", &beneath, sizeof beneath) < 0) return 1;
  how.flags = O_RDONLY;
  how.mode = 0;
  return file < 0 || syscall(SYS_openat2, AT_FDCWD, "/tmp/second", &how, sizeof how) < 0;
}
"""


def test_rarer_ways_to_make_a_file(three: dict[str, Layerbuild], context: Path, program: Callable[[str], str]) -> None:
    """O_TMPFILE and openat2(2): what is made belongs to its maker, in the group of a folder that hands it down."""
    command = [program("gcc"), "-static", "-x", "c", "-o", str(context / "maker"), "-"]
    subprocess.run(command, input=MAKER.encode(), check=True)
    look = "cd /tmp && stat -c %u:%g:%a second third shared/nameless"
    recipe = f"FROM busybox\nCOPY maker /bin/\nUSER 1000:77\nRUN maker && {look}\n"
    seen = set()
    for layerbuild in three.values():
        said = layerbuild.build(context, recipe, "-t", "it")
        assert said.count("| 1000:77:604") == 2
        seen.add(layerbuild.layers("it")[-1]["diff_id"])
    assert len(seen) == 1


def test_a_folder_hands_its_group_down(three: dict[str, Layerbuild], context: Path) -> None:
    """To what root makes in it, too: as Debian's /usr/local does; by every call that makes something, in every spelling
    of its name; and not to what is renamed into it."""
    make = (
        "mkdir in/d/ in/d/e && mkfifo in/p && ln -s x in/l && cp /bin/busybox in/c && echo x > in/f",
        "echo x >> in/d/g && touch moved linked && mv moved in && ln linked in && cp -p /etc/group in/kept",
        "mkdir -p in/made/so/deep",
        "(cd in/d && mkdir h && tar cf - h | tar xf - -C /d/in/d/e) && mknod in/device c 1 3 && mkdir -m 2777 in/open",
    )
    recipe = "FROM busybox\nWORKDIR /d\nRUN mkdir in && chown 5:50 in && chmod 2775 in && touch in/first\n"
    recipe += (
        "".join(f"RUN {line}\n" for line in make) + "USER 7:8\nRUN mkdir in/open/theirs/; touch in/open/theirs/x\n"
    )
    made = {}
    for who, layerbuild in three.items():
        layerbuild.build(context, recipe, "-t", "it")
        made[who] = [layer["diff_id"] for layer in layerbuild.layers("it")]
    assert made["ranged"] == made["root"]
    assert made["user"] == made["root"]
    seen = three["user"]("run", "it", "stat", "-c", "%n %a %u:%g", "in/d", "in/d/e", "in/f", "in/moved", "in/l")
    assert seen == "in/d 2755 0:50\nin/d/e 2755 0:50\nin/f 644 0:50\nin/moved 644 0:0\nin/l 777 0:50\n"


def test_permissions_are_roots_where_there_is_one_id(three: dict[str, Layerbuild], context: Path) -> None:
    """A difference that is told: another user than root may read what is closed to it."""
    recipe = "FROM busybox\nRUN echo closed > /root/it\nUSER 7:8\nRUN (cat /root/it; id -u) > /tmp/seen 2>&1\n"
    seen = {}
    for who, layerbuild in three.items():
        layerbuild.build(context, recipe, "-t", "it")
        seen[who] = layerbuild("run", "it", "cat", "/tmp/seen")
    refused = "cat: can't open '/root/it': Permission denied\n7\n"
    assert seen == {"root": refused, "ranged": refused, "user": "closed\n7\n"}


ACL = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
/* acl(5), include/uapi/linux/posix_acl_xattr.h: the owner, user 1000, the group, the mask, others. */
struct { uint32_t version; struct { uint16_t tag, rights; uint32_t id; } entries[5]; } list = {
  2, {{1, 6, -1}, {2, 7, 1000}, {4, 4, -1}, {16, 7, -1}, {32, 4, -1}}};
int main(void) {
  creat("/f", 0644);
  puts(setxattr("/f", "system.posix_acl_access", &list, sizeof list, 0) == 0 ? "set" : strerrorname_np(errno));
}
"""


def test_an_access_control_list(three: dict[str, Layerbuild], context: Path, program: Callable[[str], str]) -> None:
    """A difference that is told: with one id it can name no other user. No layer has it, but the mode that it makes."""
    command = [program("gcc"), "-static", "-D_GNU_SOURCE", "-include", "string.h", "-x", "c"]
    subprocess.run([*command, "-o", str(context / "acl"), "-"], input=ACL.encode(), check=True)
    said = {}
    for who, layerbuild in three.items():
        output = layerbuild.build(context, "FROM busybox\nCOPY acl /bin/\nRUN acl\n", "-t", "it")
        mode = layerbuild("run", "it", "stat", "-c", "%a", "/f").strip()
        said[who] = ("| set\n" in output, "| EINVAL\n" in output, mode)
    assert said == {"root": (True, False, "674"), "ranged": (True, False, "674"), "user": (False, True, "644")}


OLD = r"""
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
/* As a 32-bit program calls the kernel (asm/unistd_32.h); all that it is given lies in the first 4 GiB. */
static char f[] = "/f", d[] = "/d", l[] = "/l", c[] = "/c", m[] = "/tmp/mine";
static unsigned state[24], ids[3];
static long call(long number, long one, long two, long three, long four, long five) {
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(one), "c"(two), "d"(three), "S"(four), "D"(five)
                   : "memory", "r8", "r9", "r10", "r11");
  return (int)result;
}
static void tell(const char *what, long result) {
  printf("%s %ld: %o %u:%u %u\n", what, result, state[4], state[6], state[7], state[11]);
  memset(state, 0, sizeof state);
}
int main(int count, char **words) {
  if (count > 1) return call(199, 0, 0, 0, 0, 0) != 0;                       /* getuid32 */
  int made = call(5, (long)f, O_CREAT | O_WRONLY, 0644, 0, 0);               /* open */
  printf("%ld", call(4, made, (long)f, 2, 0, 0));                            /* write */
  printf(" %ld", call(212, (long)f, 33, 44, 0, 0));                          /* chown32 */
  printf(" %ld\n", call(207, made, -1, 45, 0, 0));                           /* fchown32 */
  tell("fstat64", call(197, made, (long)state, 0, 0, 0));
  printf("%ld", call(39, (long)d, 0750, 0, 0, 0));                           /* mkdir */
  printf(" %ld", call(298, -100, (long)d, 5, 6, 0));                         /* fchownat */
  printf(" %ld", call(83, (long)f, (long)l, 0, 0, 0));                       /* symlink */
  printf(" %ld\n", call(198, (long)l, 7, 8, 0, 0));                          /* lchown32 */
  tell("stat64", call(195, (long)l, (long)state, 0, 0, 0));
  tell("lstat64", call(196, (long)l, (long)state, 0, 0, 0));
  printf("%ld", call(14, (long)c, S_IFCHR | 0640, 0x103, 0, 0));             /* mknod */
  printf(" %ld\n", call(210, 9, 9, 9, 0, 0));                                /* setresgid32 */
  printf("%ld", call(208, 1000, 1000, 1000, 0, 0));                          /* setresuid32 */
  printf(" %ld", call(209, (long)ids, (long)(ids + 1), (long)(ids + 2), 0, 0));
  printf(" %u %u %u %ld\n", ids[0], ids[1], ids[2], call(202, 0, 0, 0, 0, 0));  /* getresuid32, getegid32 */
  printf("%ld\n", call(295, -100, (long)m, O_CREAT | O_WRONLY, 0600, 0) > 0); /* openat */
  tell("fstatat64", call(300, -100, (long)m, (long)state, 0, 0));
  printf("%ld\n", call(212, (long)f, 0, 0, 0, 0));
}
"""


def test_a_32_bit_program(three: dict[str, Layerbuild], context: Path, program: Callable[[str], str]) -> None:
    if platform.machine() != "x86_64":
        missing("only x86_64 runs 32-bit programs here")
    command = [program("gcc"), "-static", "-no-pie", "-x", "c", "-o", str(context / "old"), "-"]
    subprocess.run(command, input=OLD.encode(), check=True)
    if subprocess.run([context / "old", "look"], check=False).returncode:
        missing("the kernel runs no 32-bit programs")
    said, made = {}, set()
    for who, layerbuild in three.items():
        output = layerbuild.build(context, "FROM busybox\nCOPY old /bin/\nRUN old | sed 's/^/said: /'\n", "-t", "it")
        said[who] = [line.partition("said: ")[2] for line in output.splitlines() if "| said: " in line]
        made.add(layerbuild.layers("it")[-1]["diff_id"])
    wanted = ["2 0 0", "fstat64 0: 100644 33:45 2", "0 0 0 0", "stat64 0: 100644 33:45 2", "lstat64 0: 120777 7:8 2"]
    wanted += ["0 0", "0 0 1000 1000 1000 9", "1", "fstatat64 0: 100600 1000:9 0", "-1"]
    assert said == {"root": wanted, "ranged": wanted, "user": wanted}
    assert len(made) == 1


DEFAULTS = r"""
#include <stdint.h>
#include <sys/xattr.h>
struct { uint32_t version; struct { uint16_t tag, rights; uint32_t id; } entries[3]; } list = {
  2, {{1, 7, -1}, {4, 7, -1}, {32, 4, -1}}};
int main(void) { return setxattr("/d", "system.posix_acl_default", &list, sizeof list, 0); }
"""


def test_a_folders_default_list_in_place_of_the_umask(
    three: dict[str, Layerbuild], context: Path, program: Callable[[str], str]
) -> None:
    command = [program("gcc"), "-static", "-x", "c", "-o", str(context / "defaults"), "-"]
    subprocess.run(command, input=DEFAULTS.encode(), check=True)
    recipe = "FROM busybox\nCOPY defaults /bin/\nRUN mkdir /d && chown 5:50 /d && chmod 2777 /d && defaults && \\\n"
    recipe += " umask 077 && touch /d/f && mkdir /d/in && mkfifo /d/p && mknod /d/c c 1 3\n"
    made = set()
    for layerbuild in three.values():
        layerbuild.build(context, recipe, "-t", "it")
        made.add(layerbuild.layers("it")[-1]["diff_id"])
    assert layerbuild("run", "it", "stat", "-c", "%a", "/d/f", "/d/in") == "664\n2774\n"
    assert len(made) == 1


def test_set_id_bits_of_a_file_that_is_written_to(three: dict[str, Layerbuild], context: Path) -> None:
    """A difference that is told: only the machine's own root leaves them as they are."""
    modes = {}
    for who, layerbuild in three.items():
        layerbuild.build(context, "FROM busybox\nRUN touch /f && chmod 4755 /f && echo x >> /f\n", "-t", "it")
        modes[who] = layerbuild("run", "it", "stat", "-c", "%a", "/f").strip()
    assert modes == {"root": "4755", "ranged": "755", "user": "755"}


def test_what_a_container_sees(three: dict[str, Layerbuild], context: Path) -> None:
    """Owners, ids and groups, for root and for others, in a container and where it is kept."""
    recipe = "FROM busybox\nRUN touch /f && chown 5:6 /f && ln -s f /l && chown -h 7:8 /l && mknod /c c 1 3\n"
    look = (
        "id -u; stat -c %u:%g /f /l /c; umask 077; mkdir /tmp/d && echo x > /tmp/d/f; stat -c %u:%g:%a /tmp/d /tmp/d/f"
    )
    seen = set()
    for layerbuild in three.values():
        layerbuild.build(context, recipe, "-t", "it")
        seen.add(layerbuild("run", "-u", "5:6", "it", "sh", "-c", look))
    assert seen == {"5\n5:6\n7:8\n0:0\n5:6:700\n5:6:600\n"}


def test_what_is_closed_to_others_is_read_all_the_same(three: dict[str, Layerbuild], context: Path) -> None:
    """By commands that compare, count and remove: files of ids that the user outside of its namespace is not."""
    recipe = "FROM busybox\nRUN mkdir /d && echo {} > /d/f && chmod 600 /d/f && chown -R 7:8 /d && chmod 700 /d\n"
    for layerbuild in three.values():
        for name in ("one", "two"):
            layerbuild.build(context, recipe.format(name), "-t", name)
        said = layerbuild("diff", "one", "two", code=1)
        assert "d/f" in said
        layerbuild("df")
        layerbuild("verify", "one")
        layerbuild("rmi", "one", "two")
        layerbuild("prune", "--all")
        assert not list((layerbuild.root / "tmp").iterdir())


def test_an_id_beyond_the_ranges_given_to_root(three: dict[str, Layerbuild], context: Path) -> None:
    """A difference that is told: on the disk the file is root's already, and the kernel tells nobody of the chown."""
    (context / "f").touch()
    recipe = "FROM busybox\nCOPY --chown=100000:100000 f /f\nRUN stat -c %u /f; chown 0:0 /f && echo x > /f\n"
    owners = {}
    for who, layerbuild in three.items():
        layerbuild.build(context, recipe, "-t", "it")
        digest = layerbuild.layers("it")[-1]["digest"]
        with tarfile.open(layerbuild.root / "blobs/sha256" / digest.partition(":")[2]) as tar:
            owners[who] = tar.getmember("f").uid
    assert owners == {"root": 0, "ranged": 100000, "user": 0}


def test_an_owner_that_a_command_invents(
    three: dict[str, Layerbuild], context: Path, program: Callable[[str], str]
) -> None:
    """Who is not root makes no file of root's that runs as root, and keeps none that root takes. (With one id there are
    no permissions: that is told.)"""
    compile_setter(program("gcc"), context / "mark")
    recipe = "FROM busybox\nCOPY mark /bin/\nUSER 1000\nRUN cp /bin/mark /tmp/x && chmod 4755 /tmp/x && \\\n"
    recipe += " mark /tmp/x user.layerbuild.owner 0:0 && stat -c 'seen %u' /tmp/x && \\\n"
    recipe += " touch /tmp/y && mark /tmp/y user.layerbuild.owner 1000:0\nUSER 0\nRUN chown 0:0 /tmp/y\n"
    for who in ("root", "ranged"):
        assert "seen 1000" in three[who].build(context, recipe, "-t", "it")
        first, second = (
            three[who].root / "blobs/sha256" / layer["digest"].partition(":")[2]
            for layer in three[who].layers("it")[-2:]
        )
        with tarfile.open(first) as tar:
            assert (tar.getmember("tmp/x").uid, tar.getmember("tmp/x").mode) == (1000, 0o4755)
        with tarfile.open(second) as tar:
            assert tar.getmember("tmp/y").uid == 0
        assert three[who]("run", "it", "stat", "-c", "%u", "/tmp/x", "/tmp/y") == "1000\n0\n"


FORGER = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>
/* Marks a file of its own as the machine's disk, in every way that there is to say so. */
static char name[] = "user.layerbuild.device";
static const char *disk = "b 8:0";
static volatile int over;
static int file_at(const char *path) { return open(path, O_CREAT | O_RDWR, 0666); }
static void *swap(void *unused) {
  for (; !over; strcpy(name, "user.otherwise.at_all")) strcpy(name, "user.layerbuild.device");
  return unused;
}
int main(void) {
  char path[PATH_MAX];
  umask(0);
  if (mkdir("/tmp/forged", 0777) || chdir("/tmp/forged")) return 1;
  file_at("path"), setxattr("path", name, disk, 5, 0);
  file_at("/tmp/forged/link"), lsetxattr("/tmp/forged/link", name, disk, 5, XATTR_CREATE);
  fsetxattr(file_at("descriptor"), name, disk, 5, 0);
  snprintf(path, sizeof path, "/proc/self/fd/%d", file_at("proc"));
  setxattr(path, name, disk, 5, 0);
  snprintf(path, sizeof path, "/proc/%d/fd/%d", getpid(), file_at("pid"));
  setxattr(path, name, disk, 5, 0);
  struct { uint64_t value; uint32_t size, flags; } how = {(uintptr_t)disk, 5, 0};
  file_at("at"), syscall(463, AT_FDCWD, "at", 0, name, &how, sizeof how); /* setxattrat */
  file_at("x32");
#ifdef __x86_64__
  syscall(0x40000000 | SYS_setxattr, "x32", name, disk, 5, 0);
#endif
  file_at("owner"), chmod("owner", 04755), setxattr("owner", "user.layerbuild.owner", "0:0", 3, 0);
  file_at("gone"), chmod("gone", 04755), removexattr("gone", "user.layerbuild.owner");
  char noise[40] = "0:0";
  file_at("noise"), chmod("noise", 04755), setxattr("noise", "user.layerbuild.owner", noise, sizeof noise, 0);
  mkdir("folder", 0777), setxattr("folder", "user.layerbuild.owner", "0:0", 3, 0);
  file_at("whiteout"), setxattr("whiteout", name, "c 0:0", 5, 0), chmod("whiteout", 0);
  mknod("node", S_IFBLK | 0666, makedev(8, 0));
  file_at("race");
  pthread_t other;
  pthread_create(&other, NULL, swap, NULL);
  for (int each = 0; each < 3000; each++) setxattr("race", name, disk, 5, 0);
  over = 1;
  pthread_join(other, NULL);
  char names[65536]; /* some of both halves, too */
  ssize_t size = listxattr("race", names, sizeof names);
  for (char *each = names; each < names + size; each += strlen(each) + 1)
    if (strcmp(each, "user.layerbuild.device")) removexattr("race", each);
  return 0;
}
"""


def test_what_a_command_notes_itself_says_nothing(
    three: dict[str, Layerbuild], context: Path, program: Callable[[str], str]
) -> None:
    """Nobody makes a device that mknod refuses, or a file of root's, by setting the attributes in which these are
    noted; neither who the step begins as, nor whom it becomes; nor is it another layer if root does so."""
    command = [program("gcc"), "-static", "-pthread", "-x", "c", "-o", str(context / "forge"), "-"]
    subprocess.run(command, input=FORGER.encode(), check=True)
    account = "RUN echo 'app:x:1000:1000::/:/bin/sh' >> /etc/passwd\nCOPY forge /bin/\n"
    steps = ("USER app\nRUN forge\n", "RUN su app -c forge\n", "RUN forge; rm -f /tmp/forged/node\n")
    (context / "Dockerfile").write_text(
        f"FROM busybox AS base\n{account}" + "".join(f"FROM base AS s{n}\n{step}" for n, step in enumerate(steps))
    )
    made: dict[int, set[str]] = {}
    for who, layerbuild in three.items():
        for number in range(len(steps)):
            layerbuild.build(context, None, "--target", f"s{number}", "-t", "it")
            layer = layerbuild.layers("it")[-1]
            made.setdefault(number, set()).add(layer["diff_id"])
            with tarfile.open(layerbuild.root / "blobs/sha256" / layer["digest"].partition(":")[2]) as tar:
                members = [member for member in tar if member.name.startswith("tmp/forged/")]
            assert [member.name for member in members if member.isdev()] == [], (who, number)
            assert {member.uid for member in members} == {0 if number == 2 else 1000}, (who, number)
            assert len(members) == 13, (who, number, members)
    assert [len(ids) for ids in made.values()] == [1, 1, 1]


ATTRIBUTES = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
static char much[70000];
static void say(const char *what, int result) { printf("%s %s\n", what, result ? strerrorname_np(errno) : "done"); }
int main(void) {
  uint32_t capability[5] = {0x02000000, 1 << 10, 0, 0, 0};
  int file = open("/tmp/own", O_CREAT | O_RDWR, 0644);
  if (symlink("own", "/tmp/link") || write(file, "x", 1) != 1) return 1;
  say("set", setxattr("/tmp/link", "user.one", "1", 1, XATTR_CREATE));
  say("again", setxattr("/tmp/own", "user.one", "1", 1, XATTR_CREATE));
  say("descriptor", fsetxattr(file, "user.two", "22", 2, 0));
  say("empty", setxattr(access("/proc", F_OK) ? "/tmp/own" : "/dev/fd/3", "user.three", NULL, 0, 0));
  say("of a link", lsetxattr("/tmp/link", "user.x", "x", 1, 0));
  say("no name", setxattr("/tmp/own", "", "x", 1, 0));
  say("no such file", setxattr("/tmp/nowhere", "user.x", "x", 1, 0));
  say("no memory", setxattr("/tmp/own", "user.x", (void *)(uintptr_t)getppid(), 8, 0));
  say("no file", fsetxattr(99, "user.x", "x", 1, 0));
  say("much", setxattr("/tmp/own", "user.x", much, sizeof much, 0));
  say("remove", removexattr("/tmp/own", "user.two"));
  say("remove again", fremovexattr(file, "user.two"));
  say("of the machine", setxattr("/tmp/own", "trusted.x", "x", 1, 0));
  say("another's", setxattr("/etc/passwd", "user.x", "x", 1, 0));
  say("capability", setxattr("/tmp/own", "security.capability", capability, sizeof capability, 0));
  return 0;
}
"""


def test_attributes_that_a_command_sets(
    three: dict[str, Layerbuild], context: Path, program: Callable[[str], str]
) -> None:
    """All but the notes are as the kernel would have them, its errors too; by root, by another user, in a chroot."""
    command = [program("gcc"), "-static", "-x", "c", "-o", str(context / "attributes"), "-"]
    subprocess.run(command, input=ATTRIBUTES.encode(), check=True)
    recipe = "FROM busybox\nCOPY attributes /bin/\nRUN attributes > /said\n"
    recipe += (
        "RUN mkdir -p /in/tmp /in/etc && cp /bin/attributes /in && touch /in/etc/passwd && chroot /in /attributes\n"
    )
    recipe += "RUN rm /tmp/*\nUSER 1000\nRUN attributes > /tmp/said\nUSER 0\nRUN cat /said /tmp/said\n"
    said, made = {}, {}
    for who, layerbuild in three.items():
        output = layerbuild.build(context, recipe, "-t", "it")
        said[who] = [line.partition("| ")[2] for line in output.splitlines() if "| " in line]
        made[who] = [layer["diff_id"] for layer in layerbuild.layers("it")]
    assert "set done" in said["root"] and "capability EPERM" in said["root"]
    assert said["ranged"] == said["root"]
    assert made["ranged"] == made["root"]
    # With one id permissions are root's, and so /etc/passwd and the capability are everybody's.
    assert [line for line in said["user"] if not line.startswith(("another's", "capability"))] == [
        line for line in said["root"] if not line.startswith(("another's", "capability"))
    ]
    assert made["user"][:4] == made["root"][:4]


def test_that_there_is_one_id_is_told_once(templates: Templates, context: Path) -> None:
    folder = context.with_name(f"{context.name}-store")
    folder.mkdir()
    try:
        if os.geteuid() == 0:
            os.chown(folder, USER, USER)
        single = templates.make["user"](folder / "store")
        (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
        told = "owners of files are noted, since there is one id for all"
        assert told in single.build(context)
        assert told not in single.build(context)
        assert told not in single.build(context, None, "--no-cache")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
