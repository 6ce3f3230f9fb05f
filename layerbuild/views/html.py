"""A report as one page of HTML that asks for nothing: style, script and data are in it, and nothing else may run.

Its policy names the one style and the one script by their digests (CSP level 3, "hash-source"), so that no text of an
image, whatever it says, is ever taken for either; for the same reason the page has no ``style`` attributes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math

from layerbuild.views import text
from layerbuild.views.report import Report, as_json

_COLORS = 8  # that tell layers apart; style.css has as many
_STRIP = 1000.0  # units of a bar's width
_SLABS = 5  # heights of a layer in the stack


def page(told: Report) -> str:
    """The page, complete."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("layerbuild.views", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "size": text.size,
        "seconds": text.seconds,
        "shorten": text.shorten,
        "time": lambda seconds: text.rfc3339(int(seconds)),
        "color": lambda layer: f"c{(layer - 1) % _COLORS}",
        "short": lambda digest: digest.partition(":")[2][:12],
    }
    environment.globals |= {"count": text.count, "strip": _strip, "slab": _slab, "arc": _arc}
    style, script = (_source(name) for name in ("style.css", "script.js"))
    return environment.get_template("report.html").render(
        report=told,
        style=style,
        script=script,
        style_digest=_digest(style),
        script_digest=_digest(script),
        data=_data(told),
    )


def _source(name: str) -> str:
    from importlib.resources import files

    return (files("layerbuild.views") / "page" / name).read_text("utf-8")


def _digest(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _data(told: Report) -> str:
    # Inside of <script> nothing is unescaped, so what could end it or begin a comment may not stand there (HTML,
    # "Restrictions for contents of script elements").
    plain = json.dumps(as_json(told), separators=(",", ":"))
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# -- shapes ------------------------------------------------------------------------------------------------------------


def _strip(begin: float, end: float, whole: float) -> dict[str, float]:
    """Where a bar of a strip begins and how wide it is, in thousandths; wide enough to be seen."""
    if whole <= 0:
        return {"x": 0.0, "width": 0.0}
    width = max((end - begin) / whole * _STRIP, 4.0 if end > begin else 0.0)
    return {"x": round(min(begin / whole * _STRIP, _STRIP - width), 1), "width": round(width, 1)}


def _slab(size: int, largest: int) -> int:
    """How tall a layer is in the picture of the stack, 0 to ``_SLABS``: by the root of its size, so that a small one
    beside a large one can still be told from an empty one."""
    return round(math.sqrt(size / largest) * _SLABS) if largest else 0


def _arc(below: int, above: int, layers: int) -> str:
    """The path of an arc from one layer to the one that hides it, in the picture with a row of 32 for each layer. It
    comes in above the middle and goes out below it."""
    hidden, hides = (layers - below) * 32 + 11, (layers - above) * 32 + 21
    reach = 84 + min(150, 30 + 14 * (above - below))
    return f"M 84 {hidden} C {reach} {hidden}, {reach} {hides}, 84 {hides}"
