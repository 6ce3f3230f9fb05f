"""Options that other builders have and this one does not: why, and what to write instead.

They are those of docker build, docker buildx build and buildah build, as their manuals list them, and those that are
most often given to docker run. Options of theirs that ask for what is done anyway are taken, and are no rows here:
``outputs`` has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import click

from layerbuild.errors import UsageError

_ATTEST = "attestations are not written", "leave it out; an SBOM tool reads the output of -o type=oci"
_RUN_ENV = "what a step gets is said by the recipe", "ENV or ARG in the recipe, and --build-arg"
_ONE_CPU = "--cpus is the one way to limit processors", "--cpus 1.5; taskset(1) in front of the command picks cores"
_TLS = "how registries are spoken to is a global option", "layerbuild --insecure-registry HOST build …"
_POLICY = "there is no policy language", "digests in FROM and --checksum in ADD pin what comes in"
_LOGFILE = "progress goes to standard error", "2> FILE, or `layerbuild logs` afterwards"
_LINUX = "images are for Linux, whose versions no image names", "leave it out"
_SBOM = ("command", "image-output", "image-purl-output", "merge-strategy", "output", "purl-output", "scanner-image")
_ONE_LAYER = (
    "every step keeps its layer, which is what is shared and cached",
    "put steps together in one RUN, or copy the result: FROM scratch, COPY --from=STAGE / /",
)
_USER_NS = "namespaces are chosen by who builds, root or an ordinary user", "leave it out"
_PLATFORM = "an image's platform is one word", "--platform OS/ARCH[/VARIANT]"
_RESOLVER = "a RUN has the name servers of this machine", "--add-host NAME:ADDRESS for single names"
_RETRIES = "registries are asked again as they fail, for as long as that may help", "leave it out"
_RECORDS = "an image tells its whole history", "leave it out"
_CAPABILITIES = (
    "a RUN has Docker's capabilities",
    "RUN --security=insecure in the recipe, and --allow security.insecure",
)

#: Option → why it is not there, and the remedy.
REASONS: Final = MappingProxyType(
    {
        "--all-platforms": ("platforms are named one by one", "--platform linux/amd64,linux/arm64"),
        "--arch": _PLATFORM,
        "--attest": _ATTEST,
        "--authfile": ("credentials are found where other tools keep them", "REGISTRY_AUTH_FILE=FILE layerbuild build"),
        "--builder": ("there are no builders to choose from: this process builds", "leave it out"),
        "--cache-ttl": ("records do not age", "layerbuild prune, or --no-cache"),
        "--cap-add": _CAPABILITIES,
        "--cap-drop": _CAPABILITIES,
        "--cert-dir": ("certificates of registries have a folder each", "/etc/docker/certs.d/HOST/ca.crt"),
        "--cgroup-parent": (
            "control groups of steps lie below the one that the build is in",
            "systemd-run --scope --slice=NAME layerbuild build, or --memory, --cpus, --pids-limit",
        ),
        "--cgroupns": _USER_NS,
        "--compat-volumes": ("what a RUN writes below a VOLUME stays, as in BuildKit", "leave it out"),
        "--cpp-flag": ("recipes are not preprocessed", "cpp -E -P Dockerfile.in | layerbuild build -f - ."),
        "--cpu-period": _ONE_CPU,
        "--cpu-quota": _ONE_CPU,
        "--cpu-shares": _ONE_CPU,
        "--cpuset-cpus": _ONE_CPU,
        "--cpuset-mems": _ONE_CPU,
        "--created-annotation": ("no annotation is written that nobody asks for", "leave it out"),
        "--creds": ("credentials are kept by `login`", "layerbuild login --username NAME --password-stdin REGISTRY"),
        "--cw": ("images are not encrypted here", "a tool for it, on what -o type=oci writes"),
        "--debug": ("there is no log but the progress", "--progress plain or rawjson, `layerbuild logs` afterwards"),
        "--decryption-key": ("images are not decrypted here", "skopeo copy --decryption-key, and FROM its result"),
        "--device": ("a RUN has the devices of every container", "build that step with another tool"),
        "--disable-compression": ("it is a key of the output", "-o type=oci,compression=uncompressed,dest=FILE"),
        "--disable-content-trust": ("images are checked by digests, not by signatures", "leave it out"),
        "--dns": _RESOLVER,
        "--dns-option": _RESOLVER,
        "--dns-search": _RESOLVER,
        "--env": _RUN_ENV,
        "--format": (
            "the form is a key of the output",
            "-o type=image,name=NAME,oci-mediatypes=false for Docker's media types",
        ),
        "--from": ("a base is replaced by name", "--build-context NAME=docker-image://OTHER"),
        "--group-add": ("a step has the groups that its image gives the user", "usermod -aG in the recipe"),
        "--hooks-dir": ("there are no hooks", "RUN in the recipe"),
        "--http-proxy": ("proxies are build arguments", "--build-arg http_proxy (the environment's value)"),
        "--identity-label": _RECORDS,
        "--ignorefile": ("the ignore file lies beside the recipe", "name it RECIPE.dockerignore"),
        "--inherit-annotations": ("no annotation of a base is taken over", "leave it out, or --annotation KEY=VALUE"),
        "--inherit-labels": ("labels of the base stay", "LABEL NAME= in the recipe"),
        "--ipc": _USER_NS,
        "--layer-label": ("layers have no labels", "--label, or --annotation"),
        "--logfile": _LOGFILE,
        "--logsplit": _LOGFILE,
        "--manifest": ("an index is made of several platforms", "--platform A,B --tag NAME"),
        "--no-hostname": ("/etc/hosts and the host name are never part of a layer", "leave it out"),
        "--no-hosts": ("/etc/hosts and the host name are never part of a layer", "leave it out"),
        "--omit-history": _RECORDS,
        "--os": _PLATFORM,
        "--os-feature": _LINUX,
        "--os-version": _LINUX,
        "--pid": _USER_NS,
        "--policy": _POLICY,
        "--print": ("it is called --call now", "--call=check, or `layerbuild plan`"),
        "--pull-always": ("it is a word of --pull", "--pull=always"),
        "--pull-never": ("it is a word of --pull", "--pull=never"),
        "--retry": _RETRIES,
        "--retry-delay": _RETRIES,
        "--runtime": ("a runtime is a way of isolation", "--isolation runc, or crun"),
        "--runtime-flag": ("a runtime is given no options", "--isolation runc, or crun, as it is"),
        "--save-stages": ("only what is asked for gets a name", "--target STAGE --tag NAME, once for each stage"),
        **{f"--sbom-{what}": _ATTEST for what in _SBOM},
        "--security-opt": _CAPABILITIES,
        "--sign-by": ("images are not signed here", "a signing tool, on the digest that --digest-file has"),
        "--source-policy-file": _POLICY,
        "--squash": _ONE_LAYER,
        "--squash-all": _ONE_LAYER,
        "--stage-labels": ("labels of a stage are the recipe's", "LABEL in that stage"),
        "--stdin": ("standard input of a RUN is empty", "heredocs in the recipe"),
        "--stream": ("a context is never sent anywhere", "leave it out"),
        "--tls-verify": _TLS,
        "--unsetannotation": ("there are no annotations but those of --annotation", "leave it out"),
        "--unsetenv": _RUN_ENV,
        "--unsetlabel": ("labels of the base stay", "LABEL NAME= in the recipe"),
        "--userns": _USER_NS,
        "--userns-gid-map": _USER_NS,
        "--userns-gid-map-group": _USER_NS,
        "--userns-uid-map": _USER_NS,
        "--userns-uid-map-user": _USER_NS,
        "--uts": _USER_NS,
        "--variant": _PLATFORM,
        "--volume": ("a RUN sees the recipe's mounts alone", "RUN --mount=type=bind, and --build-context NAME=FOLDER"),
    }
)
#: Flags that are always true here, because of which their false is an error.
ALWAYS: Final = MappingProxyType(
    {
        "--layers": _ONE_LAYER,
        "--rewrite-timestamp": ("times later than SOURCE_DATE_EPOCH are clamped to it", "--timestamp keep"),
        "--skip-unused-stages": ("only the stages are built that the target needs", "--target STAGE, for each other"),
    }
)
#: Flags that may be asked for with this value: it is so anyway.
ANYWAY: Final = MappingProxyType(
    {
        **dict.fromkeys(ALWAYS, True),
        "--tls-verify": True,
        **dict.fromkeys(("--all-platforms", "--debug", "--no-hostname", "--no-hosts", "--omit-history"), False),
        **dict.fromkeys(("--pull-always", "--pull-never", "--squash", "--squash-all", "--stdin", "--stream"), False),
    }
)
_SHORT: Final = MappingProxyType(
    {
        "-D": "--debug",
        "-P": "--publish-all",
        "-c": "--cpu-shares",
        "-d": "--detach",
        "-p": "--publish",
        "-v": "--volume",
    }
)

_IMAGE_ALONE = "a container sees its image, and nothing else of this machine", "COPY in a recipe that is FROM the image"
_NETWORK = "a container is in this machine's network, with all its ports", "leave it out"
_LOOK = "containers are for a look into an image", "layerbuild save IMAGE | podman load, and podman run"

_A_LINE = "write it as a line of a recipe: layerbuild build -f - . takes one from standard input"
_KEPT = "layerbuild df counts the containers that are kept, layerbuild prune -a removes them"

#: A command that others have → what to write instead.
COMMANDS_OF_OTHERS: Final = MappingProxyType(
    {
        "add": _A_LINE,
        "bake": "layerbuild build, once for each target",
        "bud": "layerbuild build CONTEXT",
        "build-using-dockerfile": "layerbuild build CONTEXT",
        "builder": "layerbuild prune",
        "buildx": "leave it out: layerbuild build CONTEXT; for `buildx du` and `buildx prune`: layerbuild df, prune -a",
        "commit": f"{_A_LINE}; `layerbuild run --keep` keeps what a container writes",
        "config": _A_LINE,
        "container": _KEPT,
        "containers": _KEPT,
        "copy": _A_LINE,
        "cp": "layerbuild run IMAGE cat PATH > FILE",
        "create": "layerbuild run IMAGE COMMAND",
        "exec": "layerbuild run IMAGE COMMAND, or layerbuild shell for what is kept",
        "from": _A_LINE,
        "image": "leave it out: layerbuild images, inspect, history, tag, rmi, pull, push, save, load, import, prune",
        "info": "layerbuild doctor",
        "manifest": "layerbuild build --platform A,B --tag NAME makes an index",
        "mount": "layerbuild where IMAGE, which tells the line that mounts it",
        "ps": _KEPT,
        "rm": _KEPT,
        "start": "layerbuild run IMAGE COMMAND",
        "system": "layerbuild df, and layerbuild prune",
        "version": "layerbuild --version",
    }
)

#: The same as ``REASONS`` for ``run``.
OF_RUN: Final = MappingProxyType(
    {
        "--add-host": _LOOK,
        "--cap-add": _LOOK,
        "--cap-drop": _LOOK,
        "--detach": ("a container ends with this command", "leave it out, or end the line with `&`"),
        "--device": _LOOK,
        "--env-file": ("variables are given one by one", "-e NAME=VALUE, or -e NAME for the environment's value"),
        "--gpus": _LOOK,
        "--hostname": _LOOK,
        "--init": _LOOK,
        "--label": ("containers have no labels", "leave it out"),
        "--mount": _IMAGE_ALONE,
        "--name": ("a container that is kept has an id", "--keep, which prints it"),
        "--privileged": _LOOK,
        "--publish": _NETWORK,
        "--publish-all": _NETWORK,
        "--pull": ("images are brought before", "layerbuild pull IMAGE"),
        "--read-only": ("what a container writes is thrown away", "leave it out"),
        "--restart": _LOOK,
        "--security-opt": _LOOK,
        "--tmpfs": _LOOK,
        "--userns": _USER_NS,
        "--volume": _IMAGE_ALONE,
        "--volumes-from": _IMAGE_ALONE,
    }
)


def explained(error: click.NoSuchOption, reasons: Mapping[str, tuple[str, str]] = REASONS) -> Exception:
    """The error to tell: of an option in ``reasons``, why it is not here."""
    name = error.option_name.partition("=")[0]
    name = _SHORT.get(name, name)
    if name not in reasons:
        return error
    reason, remedy = reasons[name]
    command = error.ctx.info_name if error.ctx is not None else "build"
    return UsageError(f"{command} has no option {name}: {reason}", hint=remedy)
