"""Rules about single instructions, and what holds where they stand."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from layerbuild.recipe.ignore import IgnoreRules
from layerbuild.recipe.instructions.command import Cmd, Entrypoint
from layerbuild.recipe.instructions.copy import Add, Copy, is_git, is_url
from layerbuild.recipe.instructions.expose import Expose
from layerbuild.recipe.instructions.healthcheck import Healthcheck
from layerbuild.recipe.instructions.place import Workdir
from layerbuild.recipe.instructions.spelling import quote
from layerbuild.recipe.instructions.variables import Arg, Env
from layerbuild.recipe.lint.facts import Facts, Visit
from layerbuild.recipe.lint.rule import Finding
from layerbuild.recipe.nearest import nearest
from layerbuild.recipe.scope import STEERING
from layerbuild.recipe.syntax import Statement
from layerbuild.recipe.words import expand

_SECRET = "apikey|auth|credentials?|key|password|pword|passwd|secret|token"
_HARMLESS = "public|file|version"
_SECRET_NAME, _HARMLESS_NAME = (
    re.compile(rf"(?:_|\A)(?:{words})(?:_|\Z)", re.IGNORECASE | re.ASCII) for words in (_SECRET, _HARMLESS)
)

# Patterns that leave out all that a context has.
_WHOLE_CONTEXT = frozenset(("*", "**", "**/*"))


def undefined_variable(facts: Facts) -> Iterator[Finding]:
    for expanded in facts.expanded:
        if not facts.knows_base(expanded.stage):
            continue
        declared = {name for name, _ in expanded.scope.args}
        for name in sorted(expanded.found.unset - declared - STEERING):
            near = nearest(name, (key for key, _ in expanded.scope.env))
            meant = f" (did you mean ${near}?)" if near else ""
            yield Finding(expanded.statement, f"Usage of undefined variable '${name}'{meant}")


def shell_form(facts: Facts) -> Iterator[Finding]:
    # A base that is not at hand might bring a SHELL; few do, and the warning is worth more than that doubt.
    for visit in facts.visits:
        instruction = visit.instruction
        if not isinstance(instruction, Cmd | Entrypoint) or instruction.arguments.json:
            continue
        if not visit.scope.config.shell:
            word = instruction.statement.spelling
            detail = f"JSON arguments recommended for {word} to prevent unintended behavior related to OS signals"
            yield Finding(instruction.statement, detail)


def relative_workdir(facts: Facts) -> Iterator[Finding]:
    # Only the first WORKDIR counts: whoever mends it mends those behind it.
    settled: set[int] = set()
    for visit in facts.visits:
        instruction = visit.instruction
        if not isinstance(instruction, Workdir) or not settled.isdisjoint(facts.ancestry(visit.stage)):
            continue
        settled.add(visit.stage)
        path = expand(instruction.path.text, visit.scope.variables, escape=instruction.statement.escape)
        if not path.startswith("/"):
            detail = f"Relative workdir {quote(path)} can have unexpected results if the base image changes"
            yield Finding(instruction.statement, detail)


def repeated(facts: Facts) -> Iterator[Finding]:
    before: dict[tuple[int, type], Statement] = {}
    for visit in facts.visits:
        instruction = visit.instruction
        if not isinstance(instruction, Cmd | Entrypoint | Healthcheck):
            continue
        key = (visit.stage, type(instruction))
        statement = instruction.statement
        if key in before:
            what = f"Multiple {statement.spelling} instructions should not be used in the same stage"
            yield Finding(before[key], f"{what} because only the last one will be used", partner=statement)
        before[key] = statement


def secret_name(facts: Facts) -> Iterator[Finding]:
    for visit in facts.visits:
        keyword = visit.instruction.statement.keyword
        for name in _variable_names(visit):
            if _SECRET_NAME.search(name) and not _HARMLESS_NAME.search(name):
                detail = f"Do not use ARG or ENV instructions for sensitive data ({keyword} {quote(name)})"
                yield Finding(visit.instruction.statement, detail)


def _variable_names(visit: Visit) -> Iterator[str]:
    match visit.instruction:
        case Arg(defaults=defaults):
            yield from (name for name, _ in defaults)
        case Env(pairs=pairs, statement=statement):
            for name, _ in pairs:
                yield expand(name.text, visit.scope.variables, escape=statement.escape)


def ignored_source(facts: Facts) -> Iterator[Finding]:
    rules = facts.setting.ignore
    # With exceptions it can't be told from here: a folder may be left out, and a file in it taken back in.
    if rules.has_exceptions:
        return
    for visit in facts.visits:
        for source in _context_sources(visit):
            path = posixpath.normpath(source)
            if _is_ignored(path, rules):
                verb = visit.instruction.statement.keyword.capitalize()
                detail = f"Attempting to {verb} file {quote(path)} that is excluded by .dockerignore"
                yield Finding(visit.instruction.statement, detail)


def _context_sources(visit: Visit) -> Iterator[str]:
    """The paths that an ADD or COPY takes from the build context."""
    instruction = visit.instruction
    if not isinstance(instruction, Add | Copy) or instruction.references:
        return
    for word in instruction.sources:
        source = expand(word.text, visit.scope.variables, escape=instruction.statement.escape)
        if not is_git(source) and not is_url(source):
            yield source


def _is_ignored(path: str, rules: IgnoreRules) -> bool:
    bare = path.lstrip("/")
    if bare in ("", "."):
        return any(pattern.glob in _WHOLE_CONTEXT for pattern in rules.patterns)
    return rules.verdict(bare.encode("utf-8", "surrogateescape")).ignored


def protocol_casing(facts: Facts) -> Iterator[Finding]:
    for statement, spec in _exposed(facts):
        protocol = spec.rpartition(":")[2].partition("/")[2]
        if protocol != protocol.lower():
            yield Finding(statement, f"Defined protocol '{spec}' in EXPOSE instruction should be lowercase")


def mapped_port(facts: Facts) -> Iterator[Finding]:
    for statement, spec in _exposed(facts):
        if spec.rpartition(":")[0].strip(":"):
            detail = f"should not define an IP address or host-port mapping, found '{spec}'"
            yield Finding(statement, f"EXPOSE instruction {detail}")


def _exposed(facts: Facts) -> Iterator[tuple[Statement, str]]:
    for visit in facts.visits:
        if isinstance(visit.instruction, Expose):
            for spec in visit.instruction.specs(visit.scope):
                yield visit.instruction.statement, spec
