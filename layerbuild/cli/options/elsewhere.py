"""Options that other builders have and this one does not: why, and what to write instead.

They are those of docker build, docker buildx build and buildah build, as their manuals list them. Options of theirs
that ask for what is done anyway are taken, and are no rows here: ``outputs`` has them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import click

from layerbuild.errors import UsageError

_ATTEST = "attestations are not written", "leave it out; an SBOM tool reads the output of -o type=oci"
_RUN_ENV = "what a step gets is said by the recipe", "ENV or ARG in the recipe, and --build-arg"
_ONE_CPU = "--cpus is the one way to limit processors", "--cpus 1.5; taskset(1) in front of the command picks cores"
_TLS = "how registries are spoken to is a global option", "layerbuild --insecure-registry HOST build …"
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
        "--cpu-period": _ONE_CPU,
        "--cpu-quota": _ONE_CPU,
        "--cpu-shares": _ONE_CPU,
        "--cpuset-cpus": _ONE_CPU,
        "--cpuset-mems": _ONE_CPU,
        "--creds": ("credentials are kept by `login`", "layerbuild login --username NAME --password-stdin REGISTRY"),
        "--device": ("a RUN has the devices of every container", "build that step with another tool"),
        "--dns": _RESOLVER,
        "--dns-option": _RESOLVER,
        "--dns-search": _RESOLVER,
        "--env": _RUN_ENV,
        "--format": (
            "the form is a key of the output",
            "-o type=image,name=NAME,oci-mediatypes=false for Docker's media types",
        ),
        "--from": ("a base is replaced by name", "--build-context NAME=docker-image://OTHER"),
        "--http-proxy": ("proxies are build arguments", "--build-arg http_proxy (the environment's value)"),
        "--identity-label": _RECORDS,
        "--ignorefile": ("the ignore file lies beside the recipe", "name it RECIPE.dockerignore"),
        "--ipc": _USER_NS,
        "--layer-label": ("layers have no labels", "--label, or --annotation"),
        "--logfile": ("progress goes to standard error", "2> FILE, or `layerbuild logs` afterwards"),
        "--manifest": ("an index is made of several platforms", "--platform A,B --tag NAME"),
        "--no-hostname": ("/etc/hosts and the host name are never part of a layer", "leave it out"),
        "--no-hosts": ("/etc/hosts and the host name are never part of a layer", "leave it out"),
        "--omit-history": _RECORDS,
        "--os": _PLATFORM,
        "--pid": _USER_NS,
        "--policy": ("there is no policy language", "digests in FROM and --checksum in ADD pin what comes in"),
        "--print": ("it is called --call now", "--call=check, or `layerbuild plan`"),
        "--retry": _RETRIES,
        "--retry-delay": _RETRIES,
        "--runtime": ("a runtime is a way of isolation", "--isolation runc, or crun"),
        "--security-opt": _CAPABILITIES,
        "--sign-by": ("images are not signed here", "a signing tool, on the digest that --digest-file has"),
        "--squash": (
            "every step keeps its layer, which is what is shared and cached",
            "put steps together in one RUN, or copy the result: FROM scratch, COPY --from=STAGE / /",
        ),
        "--stdin": ("standard input of a RUN is empty", "heredocs in the recipe"),
        "--stream": ("a context is never sent anywhere", "leave it out"),
        "--tls-verify": _TLS,
        "--unsetenv": _RUN_ENV,
        "--unsetlabel": ("labels of the base stay", "LABEL NAME= in the recipe"),
        "--userns": _USER_NS,
        "--userns-uid-map": _USER_NS,
        "--userns-gid-map": _USER_NS,
        "--uts": _USER_NS,
        "--variant": _PLATFORM,
        "--volume": ("a RUN sees the recipe's mounts alone", "RUN --mount=type=bind, and --build-context NAME=FOLDER"),
    }
)
_SHORT: Final = MappingProxyType({"-v": "--volume", "-c": "--cpu-shares", "-D": "--disable-compression"})


def explained(error: click.NoSuchOption) -> Exception:
    """The error to tell: of another builder's option, why it is not here."""
    name = error.option_name.partition("=")[0]
    name = _SHORT.get(name, name)
    if name not in REASONS:
        return error
    reason, remedy = REASONS[name]
    return UsageError(f"build has no option {name}: {reason}", hint=remedy)
