"""``pbrf`` by id: agreement of methods with the proximal Bregman response, as ``evaluate`` measures it."""

from __future__ import annotations

from pydantic import Field

from influence_core import registry
from influence_core.config import Config
from influence_core.metrics.pbrf import pbrf
from influence_core.metrics.table import Judging
from influence_core.workflows.diagnostics.catalogue import Answer, Findings, diagnostic


class PbrfConfig(Config):
    """Which methods, against which response."""

    methods: tuple[str, ...] = Field(("influence", "grad_dot"), min_length=1, description="Methods that are compared.")
    damping: float = Field(1e-2, gt=0, description="Proximity of the response, per mean loss.")
    left_out: int = Field(24, ge=3, description="Training rows whose response is computed.")
    rows: int = Field(64, ge=1, description="Test rows that are looked at.")


@diagnostic(
    "pbrf", "Proximal Bregman response",
    "Whether methods follow the model as it is: a truth that a network which has not converged can pass.",
    "Bae et al., If Influence Functions are the Answer, Then What is the Question?, NeurIPS 2022", PbrfConfig,
)  # fmt: skip
def _compared(findings: Findings, config: PbrfConfig) -> Answer:
    """Return the table and what it comes to.

    Columns are those of ``evaluate``.
    """
    methods = [registry.made(name, None, findings.task) for name in config.methods]
    judging = Judging(damping=config.damping, left_out=config.left_out, rows=config.rows)  # type: ignore[call-arg]
    table = pbrf(findings.task, methods, findings.run, options=judging)
    return table, ("Correlation over the left-out rows, mean over test rows, with its 95% interval.",)
