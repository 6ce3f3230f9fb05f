"""What a RUN may have only if whoever builds grants it."""

from __future__ import annotations

from layerbuild.errors import BuildError
from layerbuild.steps import LayerPlan, RunStep

INSECURE = "security.insecure"  # what RUN --security=insecure needs


def check_entitlements(plan: LayerPlan, granted: frozenset[str]) -> None:
    """BuildError for the first step that asks for more than ``granted``; before anything runs."""
    for step in (step for stage in plan.stages for step in stage.steps):
        if isinstance(step, RunStep) and step.security == "insecure" and INSECURE not in granted:
            raise BuildError(
                f"entitlement {INSECURE} is not allowed", hint=f"build --allow {INSECURE}", span=step.origin.span
            )
