"""The functions about trust, on the fake studies: two methods measured, one that could not be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from influence_core.service.trust import Candidate, TrustLine, TrustPage
from influence_core.service.views import JobView

FUNCTIONS = ("trust", "fidelity", "measuring_plan", "start_measuring")
HOSTILE = "<script>alert(1)</script>"
LINES = (
    TrustLine("sgd_influence", "SGD-influence", 0.92, 0.88, 0.95, 0.99, 1.5, "margin; 50 subsets"),
    TrustLine("grad_dot", f"Gradients {HOSTILE}", 0.54, 0.43, 0.64, 0.99, 0.04, HOSTILE),
)
CANDIDATES = (
    Candidate("grad_dot", "Gradient dot product", 0.1, True),
    Candidate("magic", "MAGIC", 7200.0, False, True),
)
JOB = JobView(9, "trust-key", "Measuring methods", "running", "retraining", 0.4, 30.0, 90.0, "", True)


@dataclass
class FakeTrust:
    """Switches: ``known``, ``problem``, ``job``, ``owner``; what was started is kept."""

    known: bool = True
    problem: str = ""
    job: JobView | None = None
    owner: bool = True
    started: list[tuple[Any, ...]] = field(default_factory=list)

    def trust(self, study: str) -> TrustPage:
        """Return two lines, or none."""
        lines = LINES if self.known else ()
        return TrustPage(
            lines, "SGD-influence tracks retraining best (0.92 of a possible 0.99)." if lines else "",
            tuple(line.title for line in lines), np.eye(len(lines)), (("GAS", HOSTILE),) if lines else (),
            () if self.problem else CANDIDATES, (("CosIn", HOSTILE),), self.problem, self.job, self.owner,
        )  # fmt: skip

    def fidelity(self, study: str, method: str) -> str:
        """Say what is known of a method."""
        return next((f"tracks retraining {line.value}" for line in LINES if self.known and line.method == method), "")

    def measuring_plan(self, study: str, methods: Any, subsets: int = 50, seeds: int = 2) -> str:
        """Say a price."""
        return f"{subsets * seeds} models to train: about 20 seconds."

    def start_measuring(self, study: str, methods: Any, client: str, subsets: int = 50, seeds: int = 2) -> JobView:
        """Keep what was asked."""
        self.started.append((study, tuple(methods), subsets, seeds))
        return JOB
