"""What the linter found: as text, as plain data in the shape of ``docker build --check``, and as SARIF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from layerbuild import __version__
from layerbuild.errors import LayerbuildError, RecipeWarning, Span

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def as_text(warnings: Sequence[RecipeWarning], *, quote_lines: Callable[[Span], Sequence[str]]) -> str:
    """Each warning with the lines that it is about, as ``quote_lines`` has them, and where to read about its rule."""
    shown = [
        "\n".join([str(warning), *quote_lines(warning.span), *([f"  {warning.url}"] if warning.url else [])])
        for warning in warnings
    ]
    return "\n\n".join([*shown, count(warnings)])


def count(warnings: Sequence[RecipeWarning]) -> str:
    """How many there are: ``no warnings``, ``1 warning``, ``2 warnings``."""
    return f"{len(warnings) or 'no'} warning{'' if len(warnings) == 1 else 's'}"


def as_json(warnings: Sequence[RecipeWarning], *, file: str, failure: LayerbuildError | None) -> dict[str, Any]:
    """The keys are BuildKit's, so that what reads its result reads ours."""
    data: dict[str, Any] = {
        "warnings": [
            {
                "ruleName": warning.rule,
                "description": warning.description,
                "url": warning.url,
                "detail": warning.detail,
                "location": _location(warning.span),
            }
            for warning in warnings
        ],
        "sources": [{"filename": file}],
    }
    if failure is not None:
        location = {} if failure.span is None else {"location": _location(failure.span)}
        data["buildError"] = {"message": failure.message, **location}
    return data


def as_sarif(
    warnings: Sequence[RecipeWarning], *, file: str, failure: LayerbuildError | None, strict: bool
) -> dict[str, Any]:
    """A log of the Static Analysis Results Interchange Format, version 2.1.0 (OASIS). ``strict``: warnings count as
    errors."""
    rules = {warning.rule: warning for warning in warnings}
    order = list(rules)
    invocation: dict[str, Any] = {"executionSuccessful": failure is None}
    if failure is not None:
        notification: dict[str, Any] = {"level": "error", "message": {"text": failure.message}}
        if failure.span is not None:
            notification["locations"] = [_physical(file, failure.span)]
        invocation["toolExecutionNotifications"] = [notification]
    driver = {"name": "layerbuild", "version": __version__, "rules": [_rule(rules[name]) for name in order]}
    results = [
        {
            "ruleId": warning.rule,
            "ruleIndex": order.index(warning.rule),
            "level": "error" if strict else "warning",
            "message": {"text": warning.detail},
            "locations": [_physical(file, warning.span)],
        }
        for warning in warnings
    ]
    run = {"tool": {"driver": driver}, "invocations": [invocation], "results": results}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _last(span: Span) -> int:
    return max(span.line, span.end_line)


def _location(span: Span) -> dict[str, Any]:
    return {"ranges": [{"start": {"line": span.line}, "end": {"line": _last(span)}}]}


def _rule(warning: RecipeWarning) -> dict[str, Any]:
    rule: dict[str, Any] = {"id": warning.rule, "shortDescription": {"text": warning.description}}
    return {**rule, "helpUri": warning.url} if warning.url else rule


def _physical(file: str, span: Span) -> dict[str, Any]:
    path = PurePath(file)
    uri = path.as_uri() if path.is_absolute() else quote(path.as_posix())
    region = {"startLine": span.line, "endLine": _last(span)}
    return {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}}
