"""Each instruction: what it makes of the configuration, its history line, its step, its errors."""

from __future__ import annotations

from dataclasses import replace

import pytest

from layerbuild.errors import RecipeError
from layerbuild.image.config import DEFAULT_PATH, Healthcheck, ImageConfig, Platform, RuntimeConfig
from layerbuild.recipe.instructions.copy import destination, is_git
from layerbuild.recipe.instructions.expose import read_ports
from layerbuild.recipe.instructions.spelling import duration, quote, spell_duration
from layerbuild.recipe.instructions.table import KEYWORDS, instruction_class
from layerbuild.recipe.planner import plan
from layerbuild.recipe.syntax import parse
from layerbuild.steps import (
    ConfigStep,
    ContextRoot,
    CopyStep,
    EmptyDirectory,
    GitSource,
    InlineSource,
    PathSource,
    RunMount,
    RunStep,
    Step,
    UrlSource,
    fingerprint,
)

PLATFORM = Platform("linux", "amd64")
BASE = RuntimeConfig(env=(("PATH", "/bin"),), entrypoint=("/e",), cmd=("c",), labels=(("l", "1"),))


def steps(body: str, *, base: RuntimeConfig = BASE, epoch: int | None = None, **build_args: str) -> tuple[Step, ...]:
    def bases(_name: str, platform: Platform) -> ImageConfig:
        return ImageConfig(platform, base)

    recipe = parse(f"FROM base\n{body}")
    return plan(recipe, bases=bases, platform=PLATFORM, build_args=build_args, epoch=epoch).target.steps


def last(body: str, *, base: RuntimeConfig = BASE, epoch: int | None = None, **build_args: str) -> Step:
    return steps(body, base=base, epoch=epoch, **build_args)[-1]


def run(body: str, *, epoch: int | None = None, **build_args: str) -> RunStep:
    step = last(body, epoch=epoch, **build_args)
    assert isinstance(step, RunStep)
    return step


def copy(body: str) -> CopyStep:
    step = last(body)
    assert isinstance(step, CopyStep)
    return step


@pytest.mark.parametrize(
    ("body", "history", "changes"),
    [
        ("ENV a=1 b=$a", "ENV a=1 b=", {"env": (("PATH", "/bin"), ("a", "1"), ("b", ""))}),
        ("ENV PATH /x:$PATH", "ENV PATH=/x:/bin", {"env": (("PATH", "/x:/bin"),)}),
        ("LABEL l=2 a=\"x y\" l='3'", "LABEL l=2 a=x y l=3", {"labels": (("a", "x y"), ("l", "3"))}),
        ('CMD ["x", "$PATH"]', 'CMD ["x" "$PATH"]', {"cmd": ("x", "$PATH"), "args_escaped": True}),
        ("CMD a  b", 'CMD ["/bin/sh" "-c" "a  b"]', {"cmd": ("/bin/sh", "-c", "a  b"), "args_escaped": True}),
        ("CMD []", "CMD []", {"cmd": (), "args_escaped": True}),
        ('ENTRYPOINT ["x"]', 'ENTRYPOINT ["x"]', {"entrypoint": ("x",), "cmd": None}),
        ("ENTRYPOINT []", "ENTRYPOINT []", {"entrypoint": None, "cmd": None}),
        ('SHELL ["/bin/bash", "-c"]', "SHELL [/bin/bash -c]", {"shell": ("/bin/bash", "-c")}),
        ("EXPOSE 90/UDP 80", "EXPOSE [80/tcp 90/udp]", {"exposed_ports": ("80/tcp", "90/udp")}),
        ("VOLUME /b /a", "VOLUME [/b /a]", {"volumes": ("/a", "/b")}),
        ('VOLUME ["/a b"]', "VOLUME [/a b]", {"volumes": ("/a b",)}),
        ('ARG v=" a "\nVOLUME ["$v", " /b "]', "VOLUME [ a  /b]", {"volumes": (" a ", "/b")}),
        ("USER a b", "USER a b", {"user": "a b"}),
        ("STOPSIGNAL sigterm", "STOPSIGNAL sigterm", {"stop_signal": "sigterm"}),
        ("WORKDIR /", "WORKDIR /", {"working_dir": "/"}),
        ("MAINTAINER me $PATH", "MAINTAINER me $PATH", {}),
        ("ARG a=1 b", "ARG a=1 b", {}),
        ("HEALTHCHECK NONE", None, {"healthcheck": Healthcheck(("NONE",))}),
        (
            'HEALTHCHECK --interval=1m30s --timeout=100ms --retries=3 CMD ["a", "b"]',
            "HEALTHCHECK {Test:[CMD a b] Interval:1m30s Timeout:100ms StartPeriod:0s StartInterval:0s Retries:3}",
            {"healthcheck": Healthcheck(("CMD", "a", "b"), interval=90 * 10**9, timeout=10**8, retries=3)},
        ),
        ("HEALTHCHECK cmd a  b", None, {"healthcheck": Healthcheck(("CMD-SHELL", "a  b"))}),
    ],
)
def test_metadata(body: str, history: str | None, changes: dict[str, object]) -> None:
    step = last(body)
    assert isinstance(step, ConfigStep)
    assert step.config == replace(BASE, **changes)  # type: ignore[arg-type]
    if history is not None:
        assert step.created_by == history
    assert step.author == ("me $PATH" if "MAINTAINER" in body else None)


def test_onbuild_is_kept_with_its_heredocs_and_has_no_history() -> None:
    step = last("ONBUILD RUN <<E cat\nx\nE\n")
    assert isinstance(step, ConfigStep)
    assert step.created_by is None
    assert step.config.on_build == ("RUN <<E cat\nx\nE",)


def test_onbuild_is_kept_up_to_the_end_of_its_line() -> None:
    assert last("ONBUILD  RUN a \\\n b  \n").config.on_build == ("RUN a  b  ",)


def test_what_the_arguments_of_a_trigger_mean_is_for_the_child() -> None:
    assert last("ONBUILD COPY a\nONBUILD NOPE [1]\nONBUILD EXPOSE").config.on_build == ("COPY a", "NOPE [1]", "EXPOSE")


def test_entrypoint_keeps_a_cmd_of_the_same_stage() -> None:
    assert last('CMD ["a"]\nENTRYPOINT ["b"]').config.cmd == ("a",)


def test_shell_holds_for_later_shell_forms() -> None:
    assert run('SHELL ["/bin/awk"]\nRUN x').argv == ("/bin/awk", "x")
    assert last('SHELL ["/bin/awk"]\nCMD x').config.cmd == ("/bin/awk", "x")


# -- RUN ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "argv", "files"),
    [
        ("RUN a  $b", ("/bin/sh", "-c", "a  $b"), ()),
        ('RUN ["a", "$b"]', ("a", "$b"), ()),
        ("RUN [a]", ("/bin/sh", "-c", "[a]"), ()),
        ("RUN <<-E\n\ta\n\t\tb\nE", ("/bin/sh", "-c", "a\nb\n"), ()),
        ("RUN <<E\n#!/bin/x\na\nE", ("/bin/sh", "-c", "/dev/pipes/E"), (("E", b"#!/bin/x\na\n"),)),
        ("RUN <<-A cat <<B\n\ta\nA\nb\nB", ("/bin/sh", "-c", "<<-A cat <<B\n\ta\nA\nb\nB"), ()),
        ("RUN python3 <<'E'\na\nE", ("/bin/sh", "-c", "python3 <<'E'\na\nE"), ()),
    ],
)
def test_run_commands(body: str, argv: tuple[str, ...], files: tuple[tuple[str, bytes], ...]) -> None:
    step = run(body)
    assert (step.argv, step.files) == (argv, files)
    assert step.created_by == f"RUN {' '.join(argv)} # buildkit"


def test_run_sees_env_and_args_the_later_one_counting() -> None:
    step = run("ARG a=1 b c=$a\nENV a=2\nARG d=4\nENV d=5\nARG a=3\nWORKDIR w\nUSER u\nRUN x", c="C")
    assert dict(step.env) == {"PATH": "/bin", "a": "3", "c": "C", "d": "5"}
    assert step.created_by == "RUN |4 a=3 b= c=C d=5 /bin/sh -c x # buildkit"
    assert (step.cwd, step.user) == ("/w", "u")
    assert dict(step.config.env) == {"PATH": "/bin", "a": "2", "d": "5"}


def test_an_empty_build_argument_counts_and_one_that_is_not_declared_does_not() -> None:
    assert dict(run("ARG a=1\nRUN x", a="", b="2").env) == {"PATH": "/bin", "a": ""}


def test_defaults_of_one_arg_see_each_other() -> None:
    assert dict(run("ARG a=1 b=$a\nRUN x").env)["b"] == "1"


def test_proxies_reach_run_and_leave_no_trace() -> None:
    step = run("RUN x", HTTP_PROXY="upper", http_proxy="lower", NO_PROXY="n", other="o")
    assert step.proxy == (("HTTP_PROXY", "lower"), ("NO_PROXY", "n"), ("http_proxy", "lower"), ("no_proxy", "n"))
    assert step.created_by == "RUN /bin/sh -c x # buildkit"
    assert "http_proxy" not in dict(step.env)
    declared = run("ARG HTTP_PROXY\nRUN x", HTTP_PROXY="p")
    assert dict(declared.env)["HTTP_PROXY"] == "p"
    assert declared.proxy == (("http_proxy", "p"),)


def test_the_epoch_is_in_the_environment_unless_the_recipe_says_otherwise() -> None:
    assert dict(run("RUN x", epoch=7).env)["SOURCE_DATE_EPOCH"] == "7"
    assert dict(run("ARG SOURCE_DATE_EPOCH=8\nRUN x", epoch=7).env)["SOURCE_DATE_EPOCH"] == "8"
    assert run("RUN x", epoch=7).created_by == "RUN /bin/sh -c x # buildkit"


def test_a_base_without_path_gets_one() -> None:
    step = last("RUN x", base=RuntimeConfig(env=(("A", "1"),)))
    assert isinstance(step, RunStep)
    assert step.env == step.config.env == (("A", "1"), ("PATH", DEFAULT_PATH))


@pytest.mark.parametrize(
    ("mount", "expected"),
    [
        ("target=/x", RunMount("bind", "/x", root=ContextRoot(), read_only=True)),
        ("type=bind,src=a,dst=b,rw", RunMount("bind", "/w/b", source="a", root=ContextRoot())),
        ("type=cache,target=/c/", RunMount("cache", "/c", id="/c", mode=0o755)),
        (
            "type=cache,target=$V,id=i-$V,sharing=locked,uid=1,gid=2,mode=0700,ro",
            RunMount("cache", "/w/v", id="i-v", sharing="locked", uid=1, gid=2, mode=0o700, read_only=True),
        ),
        ("type=tmpfs,target=/t,size=1.5m", RunMount("tmpfs", "/t", size=3 << 19)),
        ("type=secret,id=a/b", RunMount("secret", "/run/secrets/b", read_only=True, id="a/b", mode=0o400)),
        (
            "type=secret,target=/k/x,required",
            RunMount("secret", "/k/x", read_only=True, id="x", mode=0o400, required=True),
        ),
        ("type=secret,id=a,env=K", RunMount("secret", "", read_only=True, id="a", env="K", mode=0o400)),
        ("id=a,env=K,type=secret", RunMount("secret", "", read_only=True, id="a", env="K", mode=0o400)),
        ("type=ssh,from=", RunMount("ssh", "/run/buildkit/ssh_agent.0", read_only=True, id="default", mode=0o600)),
        ("type=ssh", RunMount("ssh", "/run/buildkit/ssh_agent.0", read_only=True, id="default", mode=0o600)),
        ('"target=/a,b"', RunMount("bind", "/a,b", root=ContextRoot(), read_only=True)),
    ],
)
def test_mounts(mount: str, expected: RunMount) -> None:
    spelled = mount.replace('"', '\\"')
    assert run(f"ARG V=v\nWORKDIR /w\nRUN --mount={spelled} x").mounts == (expected,)


def test_a_mount_without_a_target_is_on_the_working_directory() -> None:
    found = {kind: run(f"WORKDIR /w\nRUN --mount=type={kind} x").mounts[0] for kind in ("bind", "cache", "tmpfs")}
    assert {mount.target for mount in found.values()} == {"/w"}
    assert found["cache"].id == "."


def test_a_cache_is_called_like_its_target_as_written() -> None:
    named = {"a/../b/": "b", "/w/b": "/w/b", "/w//b": "/w/b", "b,id=c": "c"}
    found = {text: run(f"WORKDIR /w\nRUN --mount=type=cache,target={text} x").mounts[0] for text in named}
    assert {text: mount.id for text, mount in found.items()} == named
    assert {mount.target for mount in found.values()} == {"/w/b"}


def test_memory_has_no_use_for_a_place_that_it_is_from() -> None:
    (mount,) = run("RUN --mount=type=tmpfs,target=/t,from=nosuch,source=x x").mounts
    assert (mount.root, mount.source) == (None, "")


def test_ssh_agents_are_numbered() -> None:
    targets = [mount.target for mount in run("RUN --mount=type=ssh --mount=type=ssh,id=b x").mounts]
    assert targets == ["/run/buildkit/ssh_agent.0", "/run/buildkit/ssh_agent.1"]


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ("type=x,target=/a", 'unsupported mount type "x"'),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("target=/a,nope=1", "unexpected key 'nope' in 'nope=1'"),
        ("required,type=secret,id=a", "unexpected key 'required' for mount type 'bind'"),
        ("target=/a,env=A", "unexpected key 'env' for mount type 'bind'"),
        ("target=/a,size=1", "unexpected key 'size' for mount type 'bind'"),
        ("target=/a,nope", "invalid field 'nope' must be a key=value pair"),
        ("target=/", 'invalid mount target "/"'),
        ("type=cache", 'invalid mount target "/"'),
        ("target=/a,mode=0755", 'mode not allowed for "bind" type mounts'),
        ("target=/a,sharing=locked", "invalid cache sharing set for bind mount"),
        ("type=cache,target=/a,sharing=x", 'unsupported sharing value "x"'),
        ("type=secret", "one of source, target required"),
        ("type=secret,id=a,src=b", "both source and id can't be set"),
        ("type=secret,id=a,from=b", "should not have a from"),
        ("target=/a,ro=x", "invalid value for readonly: x"),
        ("type=tmpfs,target=/a,size=x", "invalid value for size: x"),
        ("type=cache,target=/a,uid=-1", "invalid value -1 for uid"),
        ("target=/a,from=$PATH", "'from' doesn't support variable expansion, define alias stage instead"),
        ("target=/a,from=late", "cannot mount from stage"),
    ],
)
def test_mount_errors_stand_at_the_flag(mount: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        plan(
            parse(f"FROM base\nRUN --network=none --mount={mount} x\nFROM scratch AS late"),
            bases=lambda _name, platform: ImageConfig(platform, BASE),
            platform=PLATFORM,
            target="0",
        )
    assert message in caught.value.message
    assert caught.value.span is not None
    assert (caught.value.span.line, caught.value.span.column) >= (2, 28)


# -- COPY and ADD ------------------------------------------------------------------------------------------------------


def test_copy() -> None:
    step = copy("ENV o=1:2 d=/x\nCOPY --chown=$o --chmod=u=rwX --link --parents --exclude=*.$o --exclude=b a* $d/ /y")
    assert step.sources == (PathSource("a*"), PathSource("/x/"))
    assert (step.owner, step.mode, step.dest, step.root) == ("1:2", "u=rwX", "/y", ContextRoot())
    assert (step.link, step.parents, step.exclude, step.unpack) == (True, True, ("*.$o", "b"), False)
    assert step.created_by == "COPY --parents --chown=1:2 --chmod=u=rwX a* /x/ /y # buildkit"


@pytest.mark.parametrize("name", ["a/b", "../../etc/x", "/x", ".."])
def test_a_heredoc_that_makes_a_file_is_called_like_one(name: str) -> None:
    for text in (f"COPY <<{name} /d/\nx\n{name}", f"RUN <<{name}\n#!/bin/sh\n{name}"):
        with pytest.raises(RecipeError, match="makes no file") as caught:
            last(text)
        assert caught.value.span is not None and caught.value.span.line == 2
    assert run(f"RUN <<{name}\nx\n{name}").argv[-1] == "x\n"


def test_tabs_that_go_hide_no_script() -> None:
    step = run("RUN <<-E\n\t#!/bin/awk\n\tx\nE")
    assert (step.argv[-1], step.files) == ("/dev/pipes/E", (("E", b"#!/bin/awk\nx\n"),))


def test_arguments_for_the_builder() -> None:
    """A16."""
    step = run("ARG BUILDKIT_SBOM_SCAN_STAGE=true a=1\nRUN x", BUILDKIT_SANDBOX_HOSTNAME="here")
    assert step.hostname == "here"
    assert "BUILDKIT_SBOM_SCAN_STAGE" not in dict(step.env) and dict(step.env)["a"] == "1"
    assert step.created_by == "RUN |2 BUILDKIT_SBOM_SCAN_STAGE=true a=1 /bin/sh -c x # buildkit"
    assert fingerprint(step) != fingerprint(run("ARG BUILDKIT_SBOM_SCAN_STAGE=true a=1\nRUN x"))


def test_heredocs_come_behind_plain_sources() -> None:
    step = copy("ENV v=1\nCOPY <<A x <<-'B' /d/\n$v '$v' \\$v\nA\n\t$v\nB\n")
    assert step.sources == (PathSource("x"), InlineSource("A", b"1 '1' $v\n"), InlineSource("B", b"$v\n"))
    assert step.created_by == "COPY x <<A <<B /d/ # buildkit"


def test_add() -> None:
    step = copy("ADD --unpack --keep-git-dir a https://h/f.tar?x git@h:r.git#b /d")
    assert step.sources == (PathSource("a"), UrlSource("https://h/f.tar?x"), GitSource("git@h:r.git#b", True))
    assert step.unpack is True
    assert copy("ADD a /d").unpack is None
    assert copy("ADD --unpack=false a /d").unpack is False
    checksum = "sha256:" + "0" * 64
    assert copy(f"ENV c={checksum}\nADD --checksum=$c http://h/f /d").sources == (UrlSource("http://h/f", checksum),)
    assert copy("ADD --checksum=$none a b /d/").sources == (PathSource("a"), PathSource("b"))


@pytest.mark.parametrize(
    ("dest", "current", "expected"),
    [
        ("/a", "/w", "/a"),
        ("/a/", "/w", "/a/"),
        ("/a/.", "/w", "/a/"),
        ("a", "/w", "/w/a"),
        ("a//b/../c", "/w", "/w/a/c"),
        (".", "/w", "/w/"),
        ("", "/w", "/w/"),
        ("..", "/w/x", "/w/"),
        ("../../..", "/w", "/"),
        ("//a", "/", "/a"),
    ],
)
def test_destination(dest: str, current: str, expected: str) -> None:
    assert destination(dest, current) == expected


@pytest.mark.parametrize(
    ("source", "git"),
    [
        ("https://h/r.git", True),
        ("https://h/r.git#v1:sub", True),
        ("https://h/r.git?ref=v1", True),
        ("git://h/r", True),
        ("ssh://git@h/r", True),
        ("git@h:r", True),
        ("https://h/r", False),
        ("https://h/r.git/", False),
        ("http://h/r.git:#b", False),
        ("github.com/a/b", False),
        ("./a.git", False),
    ],
)
def test_is_git(source: str, git: bool) -> None:
    assert is_git(source) is git


def test_workdir_makes_its_directory_as_the_current_user() -> None:
    step = copy("USER u\nWORKDIR /a\nWORKDIR ../b/./c")
    assert (step.dest, step.owner, step.sources) == ("/b/c", "u", (EmptyDirectory(),))
    assert step.created_by == "WORKDIR /b/c"
    assert step.config.working_dir == "/b/c"
    assert copy("WORKDIR /a/").config.working_dir == "/a/"
    assert copy("WORKDIR /a\nWORKDIR $NOTHING").config.working_dir == "/a"


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message", "column", "hint"),
    [
        ("COPPY a b", "unknown instruction: COPPY", 1, "did you mean COPY?"),
        ("COPY --form=a b c", "unknown flag: --form", 6, "did you mean --from?"),
        ("COPY --chown=a --chown=b c d", "duplicate flag specified: --chown", 16, ""),
        ("COPY --chown a b", "missing a value on flag: --chown", 6, "write --chown=VALUE"),
        ("COPY --link= a b", "missing a value on flag: --link", 6, ""),
        ("COPY --link=x a b", "expecting boolean value for flag --link, not: x", 6, ""),
        ("COPY a", "COPY requires at least two arguments", 1, ""),
        ("COPY --chmod=999 a b", "invalid chmod parameter: '999'", 14, "755"),
        ("COPY https://h/a b", "source can't be a URL for COPY", 6, "ADD can fetch it"),
        ("COPY git@h:r b", "source can't be a git ref for COPY", 6, ""),
        ("COPY a <<E\nE", "COPY cannot accept a heredoc as a destination", 8, ""),
        ("COPY ${a b", 'failed to process "${a"', 6, ""),
        ("COPY --from=9 a b", "invalid stage index 9", 13, ""),
        ("COPY --from=$PATH a b", "variable expansion is not supported for --from", 13, ""),
        ('COPY ["a\\u0000", "b"]', "NUL", 1, ""),
        ("ADD --checksum=x a b", "checksum requires HTTP", 16, ""),
        ("ADD --checksum=x http://a http://b c", "checksum can't be specified for multiple sources", 16, ""),
        ("ADD --checksum=md5:x http://a b", "unsupported digest algorithm: 'md5:x'", 16, ""),
        ("ENV a", "ENV must have two arguments", 5, ""),
        ("ENV a=1 b", 'can\'t find = in "b"', 9, ""),
        ("LABEL a=b # c", 'can\'t find = in "#"', 11, "a comment has a line of its own"),
        ("ENV =1", "ENV names can not be blank", 5, ""),
        ("ARG =1", "ARG names can not be blank", 5, ""),
        ("LABEL", "LABEL requires at least one argument", 1, ""),
        ("USER", "USER requires exactly one argument", 1, ""),
        ("USER --x y", "unknown flag: --x", 6, "USER takes no flags"),
        ("SHELL /bin/sh -c", "SHELL requires the arguments to be in JSON form", 7, ""),
        ("SHELL []", "SHELL requires at least one argument", 1, ""),
        ('CMD ["a", 1]', "comprised of strings only", 5, ""),
        ("STOPSIGNAL SIGTREM", "Invalid signal: SIGTREM", 12, "did you mean SIGTERM?"),
        ("STOPSIGNAL 0", "Invalid signal: 0", 12, ""),
        ('VOLUME ["/a", " "]', "VOLUME specified can not be an empty string", 8, ""),
        ("EXPOSE 80 x", 'invalid port: "x"', 11, ""),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument", 1, ""),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD", 13, ""),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments", 18, ""),
        ("HEALTHCHECK TCP 80", 'Unknown type "TCP" in HEALTHCHECK', 13, ""),
        ("HEALTHCHECK --interval=50ns CMD x", "cannot be less than 1ms", 24, ""),
        ("HEALTHCHECK --interval=x CMD x", "invalid duration", 24, ""),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative", 23, ""),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD", 9, ""),
        ("ONBUILD ENV a=1 b", 'can\'t find = in "b"', 1, ""),
        ('ONBUILD CMD ["a", 1]', "comprised of strings only", 1, ""),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger", 9, ""),
        ("RUN []", "RUN names no program", 1, ""),
        ('RUN ["a\\u0000"]', "NUL", 1, ""),
        ("RUN --network=x y", 'unsupported network mode "x"', 15, "default, none, host"),
        ("FROM a b", "FROM requires either one or three arguments", 1, ""),
        ("FROM a AS 1b", 'invalid name for build stage: "1b"', 11, ""),
        ("FROM a:b:c", "invalid image reference", 6, ""),
        ("FROM $nothing", "base name ($nothing) should not be blank", 6, ""),
        ("FROM --platform=$x a", "empty platform value from expression $x", 17, ""),
        ("FROM --platform=a/b/c/d a", "failed to parse platform", 17, ""),
        ("LABEL a=it's", "looking for matching single-quote", 9, "close the quote"),
        ('ENV a="b', "looking for matching double-quote", 7, "close the quote"),
        ("ENV a=${PATH^^}", "unsupported modifier (^)", 7, "known are :- "),
        ("ENV =x", "ENV names can not be blank", 5, "without blanks around"),
        ("COPY --link=1 a b", "expecting boolean value for flag --link, not: 1", 6, "--link or --link=false"),
    ],
)
def test_errors_say_what_where_and_the_remedy(line: str, message: str, column: int, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        steps(f"# a comment\n{line}\n")
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.span is not None
    assert (caught.value.span.line, caught.value.span.column) == (3, column)


def test_every_class_is_named_like_its_keyword() -> None:
    named = {keyword: instruction_class(keyword) for keyword in KEYWORDS}
    assert {cls.__name__.upper() for cls in named.values() if cls} == set(KEYWORDS)


# -- Go's spellings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "ports"),
    [
        ("80", ["80/tcp"]),
        ("80-82/udp", ["80/udp", "81/udp", "82/udp"]),
        ("8080:80", ["80/tcp"]),
        ("127.0.0.1:8080:80/sctp", ["80/sctp"]),
        ("[::1]:8080:80", ["80/tcp"]),
        ("::1:80:80", ["80/tcp"]),
        ("8000-8010:80", ["80/tcp"]),
    ],
)
def test_ports(spec: str, ports: list[str]) -> None:
    assert read_ports(spec) == ports


@pytest.mark.parametrize("spec", ["", "x", "70000", "82-80", "80/icmp", "h:1:80", "1-2:80-82", "0.0.0.0:1:", "-1", "٣"])
def test_no_ports(spec: str) -> None:
    with pytest.raises(RecipeError, match="invalid port"):
        read_ports(spec)


@pytest.mark.parametrize(
    ("text", "nanoseconds", "spelled"),
    [
        ("0", 0, "0s"),
        ("1h1m1s", 3661 * 10**9, "1h1m1s"),
        ("90s", 90 * 10**9, "1m30s"),
        ("1.5s", 15 * 10**8, "1.5s"),
        ("100ms", 10**8, "100ms"),
        ("1.5us", 1500, "1.5µs"),
        ("7ns", 7, "7ns"),
        ("2h", 7200 * 10**9, "2h0m0s"),
    ],
)
def test_durations(text: str, nanoseconds: int, spelled: str) -> None:
    assert duration(text) == nanoseconds
    assert spell_duration(nanoseconds) == spelled
    assert duration(spelled) == nanoseconds


@pytest.mark.parametrize("text", ["", "1", "s", "1x", "1s2", ".s", "9999999999h"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration(text)


def test_quote_spells_as_go() -> None:
    assert quote('a"\\\n\0é☃\u200b\U000e0001') == '"a\\"\\\\\\n\\x00é☃\\u200b\\U000e0001"'
