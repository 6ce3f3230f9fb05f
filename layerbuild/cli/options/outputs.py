"""What the image is called, what it says of itself, and where it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild.cli.options.command import OUTPUTS, gathered, option
from layerbuild.errors import UsageError
from layerbuild.frozen import frozen
from layerbuild.reference import Reference

if TYPE_CHECKING:
    from layerbuild.export.formats import Output
    from layerbuild.image.annotations import Annotation


@frozen
class Wanted:
    """``outputs`` are ways to leave, as ``-o`` and ``--push`` have them; what ``annotations`` say is not among them
    yet. ``files`` are those for scripts, by what they are to hold (see results.py)."""

    names: tuple[Reference, ...]
    labels: tuple[tuple[str, str], ...]
    annotations: tuple[Annotation, ...]
    outputs: tuple[Output, ...]
    files: Mapping[str, Path | None]

    @property
    def to_stdout(self) -> bool:
        return any(output.dest == "-" for output in self.outputs)

    def checked(self, *, platforms: int) -> tuple[Output, ...]:
        """The outputs, with the annotations; UsageError if an image for so many platforms can't leave so."""
        if self.annotations and platforms == 1:
            from layerbuild.image.annotations import refuse_index

            refuse_index(self.annotations)
        outputs = tuple(output.annotated(self.annotations) for output in self.outputs)
        for output in outputs:
            output.check(platforms)
        return outputs


_out = partial(option, heading=OUTPUTS)
_file = click.Path(path_type=Path, readable=False)  # it may be the way into a pipe

max_layers = _out(
    "--max-layers",
    metavar="N",
    type=click.IntRange(min=1),
    help="Let images leave that have more layers than others run.  [default: 127]",
)
label = _out("--label", "labels", metavar="K=V", multiple=True, help="Add a label.")


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options; ``command`` gets them as ``wanted``. UsageError for what can't be."""
    return gathered(
        command,
        "wanted",
        _wanted,
        _out("-t", "--tag", "tags", metavar="NAME", multiple=True, help="Name the image."),
        _out(
            "-o",
            "--output",
            "outputs",
            metavar="type=…,dest=…",
            multiple=True,
            help="Export it: oci, docker, tar, local, layers, image, registry or cacheonly.",
        ),
        _out("--push", is_flag=True, help="Send the image to the registries that its names lead to."),
        _out("--load", is_flag=True, help="Keep the image in the store, which is done anyway."),
        max_layers,
        label,
        _out(
            "--annotation",
            "annotations",
            metavar="[KIND:]K=V",
            multiple=True,
            help="Annotate the manifest, or what KIND says: index, manifest-descriptor, index-descriptor.",
        ),
        _out("--iidfile", type=_file, help="Write the image ID (an index's digest) to this file."),
        _out("--digest-file", type=_file, help="Write the digest of what was exported to this file."),
        _out("--metadata-file", type=_file, help="Write digests and names to this file, as JSON."),
        _out("--provenance", metavar="false", help="Write no attestation: there is none."),
        _out("--sbom", metavar="false", help="The same."),
        *(_out(name, is_flag=True, expose_value=False, hidden=True) for name in _ANYWAY),
    )


# What other builders have to be asked for.
_ANYWAY = ("--compress", "--force-rm", "--layers", "--rm", "--rewrite-timestamp", "--skip-unused-stages")


def _wanted(
    *,
    tags: tuple[str, ...],
    outputs: tuple[str, ...],
    push: bool,
    load: bool,
    max_layers: int | None,
    labels: tuple[str, ...],
    annotations: tuple[str, ...],
    iidfile: Path | None,
    digest_file: Path | None,
    metadata_file: Path | None,
    provenance: str | None,
    sbom: str | None,
) -> Wanted:
    for name, said in (("--provenance", provenance), ("--sbom", sbom)):
        if said not in (None, "false", "0"):
            hint = f"{name}=false; an SBOM tool reads what -o type=oci writes"
            raise UsageError(f"{name}={said}: attestations are not written", hint=hint)
    texts = (*outputs, *(("type=registry",) if push else ()))
    return Wanted(
        names=tuple(Reference.parse(text) for text in tags),
        labels=tuple(_label(text) for text in labels),
        annotations=_annotations(annotations),
        outputs=tuple(output.allowing(max_layers) for output in _outputs(texts)),
        files={"id": iidfile, "digest": digest_file, "metadata": metadata_file},
    )


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key:
        raise UsageError(f"--label {text!r} has no key", hint="--label KEY=VALUE")
    return key, value if equals else ""


def _annotations(texts: tuple[str, ...]) -> tuple[Annotation, ...]:
    if not texts:
        return ()
    from layerbuild.image.annotations import read_option

    return tuple(annotation for text in texts for annotation in read_option(text))


def _outputs(texts: tuple[str, ...]) -> tuple[Output, ...]:
    if not texts:
        return ()
    from layerbuild.export.formats import Output

    return tuple(Output.parse(text) for text in texts)
