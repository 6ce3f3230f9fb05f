"""Git repositories, fetched by the program ``git``.

Only what is asked for is fetched: one commit without its history, where the server lets one. git sees neither the
user's configuration nor the system's, so a checkout depends on the commit alone; what it keeps of the surroundings are
the ways to servers: proxies, ssh and its agent, certificates. Credentials, those of a URL and the secrets
``GIT_AUTH_TOKEN`` and ``GIT_AUTH_HEADER``, go to git by its environment, never by its arguments, which every user of
the machine can read, and never into a ``.git`` folder.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from layerbuild.build.credentials import Credentials
from layerbuild.build.turns import Turns
from layerbuild.errors import MachineError, SourceError
from layerbuild.frozen import frozen
from layerbuild.layer.tree import remove_tree
from layerbuild.recipe.git import GitRef
from layerbuild.steps import masked

_HEADER, _TOKEN = "GIT_AUTH_HEADER", "GIT_AUTH_TOKEN"
_GITHUB = ("https://github.com/", "https://www.github.com/")
_WHOLE = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
_KEPT = ("GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_PROXY_COMMAND", "GIT_EXEC_PATH")
_SETTINGS = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",  # a question would wait for ever
    # Nothing of this machine: a submodule is named by the repository, not by who builds (CVE-2022-39253).
    "GIT_ALLOW_PROTOCOL": "git:http:https:ssh",
    # A server that sends less than this many bytes per second for so many seconds is as good as dead.
    "GIT_HTTP_LOW_SPEED_LIMIT": "100",
    "GIT_HTTP_LOW_SPEED_TIME": "60",
    "LC_ALL": "C",
}


@frozen
class Commit:
    """What a ref of a repository means now. ``name`` is the commit, ``tag`` the annotated tag's own object, if it is
    one; ``ref`` the full name of the ref, empty where a commit was named outright."""

    name: str
    ref: str = ""
    tag: str = ""


class Repositories:
    """The repositories of one build: each ref is looked up once. ``environment`` is what git is to see of the caller's
    environment; of the ``credentials`` it gets the agent called ``default``, and the secrets that are meant for git."""

    def __init__(self, environment: Mapping[str, str], credentials: Credentials) -> None:
        kept = {name: value for name, value in environment.items() if not name.startswith("GIT_") or name in _KEPT}
        if "default" in credentials.agents:
            kept["SSH_AUTH_SOCK"] = str(credentials.agents["default"])
        if not kept.keys() & {"GIT_SSH", "GIT_SSH_COMMAND"}:
            kept["GIT_SSH_COMMAND"] = _ssh(kept.get("HOME", ""))
        self._environment = {**kept, **_SETTINGS}
        self._secrets = credentials.secrets
        self._commits: dict[tuple[str, str], Commit] = {}
        self._turns = Turns()

    def commit(self, repository: GitRef, *, checksum: str = "") -> Commit:
        """What ``repository`` means now; a whole commit asks no server. SourceError if there is no such ref, or if it
        is not what ``checksum``, the beginning of a commit, says."""
        # `?commit=` alone names the commit, as `#` does; beside a ref, and as a flag, it is what the ref has to be.
        alone = repository.fetch_by_commit or (repository.checksum and not repository.ref)
        named = checksum if alone and _WHOLE.fullmatch(checksum) else repository.ref
        key = (repository.remote, named)
        with self._turns.of(key):
            if key not in self._commits:
                self._commits[key] = Commit(named) if _WHOLE.fullmatch(named) else self._look_up(repository)
            found = self._commits[key]
        if checksum and not any(name.startswith(checksum) for name in (found.name, found.tag) if name):
            raise SourceError(
                f"digest mismatch for {shown(repository)}: expected checksum to match {checksum}, got {found.name}",
                hint="if what the repository has now is right, write that commit as the checksum",
            )
        return found

    def committed(self, repository: GitRef, commit: Commit, folder: Path) -> int:
        """When ``commit`` was made, in seconds since 1970. ``folder`` exists and is empty; nothing is checked out."""
        return _committed(self._fetched(repository, commit, folder), commit)

    def checkout(self, repository: GitRef, commit: Commit, folder: Path, *, keep_git_dir: bool) -> int:
        """Fill ``folder``, which exists and is empty, with the files of ``commit``, submodules included unless the
        repository says otherwise. All times are the commit's, which is returned: equal commits give equal layers."""
        git = self._fetched(repository, commit, folder)
        git.run("checkout", "--quiet", "--detach", commit.name)
        if repository.submodules is not False and (folder / ".gitmodules").is_file():
            update = ("submodule", "--quiet", "update", "--init", "--recursive")
            if git.attempt(*update, "--depth=1")[0]:  # a plain file server can't cut the history off
                git.run(*update)
        seconds = _committed(git, commit)
        if keep_git_dir:
            git.run("read-tree", "HEAD")  # an index without the times and inodes of this checkout
            (folder / ".git/FETCH_HEAD").unlink(missing_ok=True)
            remove_tree(folder / ".git/logs")
        else:
            _remove_git_files(folder)
        _set_times(folder, seconds)
        return seconds

    def _fetched(self, repository: GitRef, commit: Commit, folder: Path) -> _Git:
        """A new repository in ``folder`` that has the commit."""
        git = _Git(address(repository), folder, self._environment, self._secrets)
        git.run("init", "--quiet", "--template=")
        git.run("remote", "add", "--", "origin", git.address)
        self._fetch(git, repository, commit)
        return git

    def _look_up(self, repository: GitRef) -> Commit:
        git = _Git(address(repository), None, self._environment, self._secrets)
        wanted = repository.ref or "HEAD"
        lines = git.run("ls-remote", "--", git.address, wanted, f"{wanted}^{{}}").splitlines()
        found = {name: commit for commit, _, name in (line.partition("\t") for line in lines)}
        for ref in (wanted, f"refs/heads/{wanted}", f"refs/tags/{wanted}", f"refs/{wanted}"):
            if ref in found:
                peeled = found.get(f"{ref}^{{}}")
                return Commit(peeled, ref, found[ref]) if peeled else Commit(found[ref], ref)
        hint = "name a branch, a tag, or a commit with all its 40 digits"
        raise SourceError(f"repository {masked(repository.remote)} does not contain ref {wanted}", hint=hint)

    def _fetch(self, git: _Git, repository: GitRef, commit: Commit) -> None:
        """Get the commit: alone, else with its history (a plain file server can't cut it off), else with all there is
        (a server that gives out no commit by name, or a branch that has moved on)."""
        ref = commit.ref if commit.ref.startswith("refs/") else ""
        one = f"+{ref}:{ref}" if ref else commit.name
        everything = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
        ways = (("--depth=1", "--no-tags", "origin", one), ("--no-tags", "origin", one), ("origin", *everything))
        said = ""
        for way in ways:
            # -u: the branch may be the one that the new repository's HEAD names, of which nothing is checked out.
            code, said = git.attempt("fetch", "--quiet", "-u", *way)
            if code == 0 and git.attempt("cat-file", "-e", f"{commit.name}^{{commit}}")[0] == 0:
                return
        why = said.strip() or f"it has no commit {commit.name}"
        raise SourceError(f"can't fetch {shown(repository)}: {why}", hint=_HINT)


_HINT = (
    "is it there, and may you read it? --secret id=GIT_AUTH_TOKEN,env=NAME lends git a token, --ssh default an agent; "
    "`git ls-remote` with the same address tells more"
)


def shown(repository: GitRef) -> str:
    """A repository as messages name it: without credentials."""
    wanted = f"{repository.ref}:{repository.subdir}" if repository.subdir else repository.ref
    return masked(repository.remote) + (f"#{wanted}" if wanted else "")


def address(repository: GitRef) -> str:
    """What git is to be given: a bare ``github.com/…`` means HTTPS."""
    return f"https://{repository.remote}" if repository.like_local else repository.remote


class _Git:
    """The program on one repository. ``address`` is the remote's, without the credentials of HTTP."""

    def __init__(
        self, remote: str, folder: Path | None, environment: Mapping[str, str], secrets: Mapping[str, bytes]
    ) -> None:
        self._remote = remote
        self._folder = folder
        self.address, credentials = _without_credentials(remote)
        if not credentials:
            credentials = _lent(self.address, secrets)
        # git-config(1), "Environment": configuration that nobody else can read.
        values = {"core.hooksPath": os.devnull, "init.defaultBranch": "main", "advice.detachedHead": "false"}
        values |= credentials
        self._environment = {**environment, "GIT_CONFIG_COUNT": str(len(values))}
        for number, (key, value) in enumerate(values.items()):
            self._environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}

    def run(self, *words: str) -> str:
        """What git prints; SourceError, with what it complained of, if it fails."""
        code, said = self.attempt(*words)
        if code:
            raise SourceError(f"git {words[0]} of {masked(self._remote)} failed: {said.strip()}", hint=_HINT)
        return said

    def attempt(self, *words: str) -> tuple[int, str]:
        """The exit code, and what git printed: its output, or its complaints if it failed."""
        import subprocess

        place = ["-C", str(self._folder)] if self._folder is not None else []
        try:
            done = subprocess.run(
                ["git", *place, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=self._environment,
                check=False,
            )
        except FileNotFoundError as error:
            hint = "install it: apt-get install git, dnf install git or apk add git"
            raise MachineError("a git repository needs the program git, which is not there", hint=hint) from error
        said = done.stderr if done.returncode else done.stdout
        return done.returncode, masked(said.decode("utf-8", "replace"))


def _without_credentials(remote: str) -> tuple[str, dict[str, str]]:
    """The address of ``remote`` without user and password, and the configuration that sends them."""
    if not remote.startswith(("http://", "https://")):
        return remote, {}
    parts = urlsplit(remote)
    if parts.username is None:
        return remote, {}
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    token = base64.b64encode(f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()).decode()
    server = bare._replace(path="/", query="", fragment="").geturl()
    return bare.geturl(), {f"http.{server}.extraHeader": f"Authorization: Basic {token}"}


def _lent(remote: str, secrets: Mapping[str, bytes]) -> dict[str, str]:
    """The configuration that sends what the caller lends for ``remote``: a secret for its host comes before one for all
    hosts, and a whole header before a token. The names and their order are BuildKit's."""
    if not remote.startswith(("http://", "https://")):
        return {}
    host = urlsplit(remote).netloc
    for name in (f"{_HEADER}.{host}", f"{_TOKEN}.{host}", _HEADER, _TOKEN):
        if name in secrets:
            value = secrets[name].strip()  # the newline at a file's end is none of it
            if name.startswith(_TOKEN):
                value = b"basic " + base64.b64encode(b"x-access-token:" + value)
            return {f"http.{_reach(remote)}.extraHeader": f"Authorization: {os.fsdecode(value)}"}
    return {}


def _reach(remote: str) -> str:
    """The addresses for which a secret is used: the repository's alone, but at GitHub all, for the submodules there."""
    return next((site for site in _GITHUB if remote.startswith(site)), remote)


def _ssh(home: str) -> str:
    """The ssh that git starts. It asks nothing; a server that nobody knows is taken as it comes, as BuildKit does, and
    one whose key is another than the known one is refused. In a user namespace ssh would look for root's home."""
    known = [] if not home else ["-o", f'UserKnownHostsFile="{home}/.ssh/known_hosts"']
    return shlex.join(("ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new", *known))


def _committed(git: _Git, commit: Commit) -> int:
    return int(git.run("show", "--no-patch", "--format=%ct", commit.name).split()[-1])


def _remove_git_files(folder: Path) -> None:
    """Take away the repository, and the files by which submodules find theirs. Git lets no commit hold such a name."""
    remove_tree(folder / ".git")
    for parent, _, files in os.walk(folder):
        if ".git" in files:
            Path(parent, ".git").unlink()


def _set_times(folder: Path, seconds: int) -> None:
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files, ""):
            os.utime(Path(parent, name), (seconds, seconds), follow_symlinks=False)
