"""Diff ID, digest, chain ID: three names for one layer."""

from __future__ import annotations

from layerbuild.lessons.lesson import BASE, N_, Ask, Lesson, Run, Say, Write

_DIFF = "layerbuild layers {image} --format yaml | grep 'diff_id: sha256' | tail -n 1"
_CHAIN = "layerbuild layers {image} --format yaml | grep 'chain_id: sha256' | tail -n 1"


def _same(line: str) -> str:
    return f'test "$({line.format(image="one")})" = "$({line.format(image="two")})"'


LESSON = Lesson(
    "chain-ids",
    N_("Diff ID, digest and chain ID: the names of a layer"),
    (
        Say(N_("A layer has several names, and all are sha256 sums that you can compute yourself.")),
        BASE,
        Write("file", "the same in both\n"),
        Write("one.Dockerfile", "FROM base\nCOPY file /file\n"),
        Run("layerbuild build -q -t one -f one.Dockerfile ."),
        Run("layerbuild build -q -o type=layers,dest=tars -f one.Dockerfile . && ls tars"),
        Say(N_("The digest is the sum of the layer as it is stored and sent: compressed.")),
        Run("cat tars/02-* | sha256sum && layerbuild layers one --format yaml | grep digest: | tail -n 1"),
        Say(
            N_(
                "The diff ID is the sum of the tar before compression. Whatever compresses it, the diff ID "
                "stays, and the image's configuration lists it."
            )
        ),
        Run("gzip -dc tars/02-* | sha256sum && layerbuild layers one --format yaml | grep diff_id: | tail -n 1"),
        Say(N_("Now another image puts the very same file on another stack.")),
        Write("two.Dockerfile", "FROM base\nRUN echo between > /between\nCOPY file /file\n"),
        Run("layerbuild build -q -t two -f two.Dockerfile ."),
        Ask(
            N_("Has the topmost layer of the two images the same diff ID?"),
            (N_("Yes: it holds the same"), N_("No: it lies on another stack")),
            0,
            N_(
                "A diff ID tells what a layer holds, and nothing of what is below. Such a layer is stored and "
                "sent once."
            ),
            _same(_DIFF),
        ),
        Run(f"{_DIFF.format(image='one')}; {_DIFF.format(image='two')}"),
        Ask(
            N_("And the same chain ID?"),
            (N_("Yes: the layer is the same"), N_("No: the stacks differ")),
            1,
            N_(
                "A chain ID names a layer together with all below it: the lowest layer's is its diff ID, and "
                "each further one is the sha256 sum of a text: the chain ID below, a blank, and the diff ID. A "
                "folder on the disk, and a hit in the cache, belong to a chain ID: there the whole stack counts."
            ),
            f"! {_same(_CHAIN)}",
        ),
        Run(
            "layerbuild layers one --format yaml | grep 'chain_id: sha256\\|diff_id: sha256'",
        ),
        Run(
            "set -- $(layerbuild layers one --format yaml | sed -n 's/.*diff_id: sha256/sha256/p'); "
            'printf \'%s %s\' "$1" "$2" | sha256sum'
        ),
        Say(N_("That is the second chain ID of the list above, computed by hand.")),
    ),
)
