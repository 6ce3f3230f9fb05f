"""A recipe, held against all the rules that are in force."""

from __future__ import annotations

from layerbuild.errors import BuildError, RecipeError, RecipeWarning
from layerbuild.frozen import frozen
from layerbuild.recipe.lint.control import Control
from layerbuild.recipe.lint.facts import Setting, gather
from layerbuild.recipe.lint.rule import Finding, Rule
from layerbuild.recipe.lint.table import RULES
from layerbuild.recipe.syntax import Recipe


@frozen
class Report:
    """``warnings`` by line. ``strict`` tells that the recipe wants them to count as errors. ``failure`` is what is
    wrong with the recipe, as a build would say it: what lies behind was not examined."""

    warnings: tuple[RecipeWarning, ...]
    strict: bool = False
    failure: RecipeError | None = None

    @property
    def violation(self) -> BuildError | None:
        """What makes a build of the recipe fail although it is right: ``error=true``, and a rule is broken."""
        if not self.strict or not self.warnings:
            return None
        names = dict.fromkeys(warning.rule for warning in self.warnings)
        return BuildError(
            f"lint violation found for rules: {', '.join(names)}",
            hint="`layerbuild lint` shows each; `# check=skip=RULE` above an instruction silences one there",
            span=self.warnings[0].span,
        )


def lint(recipe: Recipe, setting: Setting) -> Report:
    """Hold ``recipe`` against the rules. RecipeError or UsageError for a control that can't be read, UsageError for an
    unknown target; all else that is wrong with the recipe is the report's ``failure``."""
    control = Control.of(recipe, setting.build_args)
    facts = gather(recipe, setting)
    found = [(rule, finding) for rule in RULES for finding in rule.check(facts) if _in_force(rule, finding, control)]
    warnings = sorted((rule.warning(finding) for rule, finding in found), key=lambda warning: warning.span.line)
    return Report(tuple(warnings), control.error, facts.failure)


def _in_force(rule: Rule, finding: Finding, control: Control) -> bool:
    statements = [each for each in (finding.statement, finding.partner) if each is not None]
    return all(control.above(statement).allows(rule) for statement in statements)
