"""The functions about trust, on the fake studies: two methods measured, one that could not be."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from influence_core.errors import BadInput
from influence_core.service.trust_views import (
    Agreement,
    Candidate,
    MeasuringPlan,
    MetricChoice,
    MetricTable,
    RemovalLine,
    RemovalPage,
    TrustLine,
    TrustPage,
)
from influence_core.service.views import Datum, JobView

FUNCTIONS = (
    "trust", "fidelity", "measuring_plan", "start_measuring", "resume_measuring", "removal", "removal_plan",
    "start_removal",
)  # fmt: skip
HOSTILE = "<script>alert(1)</script>"
LINES = (
    TrustLine("sgd_influence", "SGD-influence", 0.92, 0.88, 0.95, 0.99, 1.5, "margin; 50 subsets"),
    TrustLine("grad_dot", f"Gradients {HOSTILE}", 0.54, 0.43, 0.64, 0.99, 0.04, HOSTILE),
)
TABLES = (
    MetricTable("mislabel", "Finds wrong labels", "Words.", ("AUC",), (
        ("SGD-influence", ((0.97, 0.95, 0.99),), ""),
        (f"Training loss {HOSTILE}", ((0.91, 0.88, 0.93),), HOSTILE)), ""),
    MetricTable("randomised", "Notices an untrained model", "Words.", ("rank correlation",), (
        ("SGD-influence", ((0.03, np.nan, np.nan),), ""),), "The noise of the truth."),
)  # fmt: skip
METRICS = (
    MetricChoice("lds", "Tracks retraining", "Question?", "", True),
    MetricChoice("agreement", "Agrees with other methods", "Question?", "", True),
    MetricChoice("mislabel", "Finds wrong labels", "Question?", f"No planted errors {HOSTILE}.", False),
    MetricChoice("loo", "Tracks leaving one row out", "Question?", "", False),
)
CANDIDATES = (
    Candidate("grad_dot", "Gradient dot product", 0.1, True, "", {}),
    Candidate("gas", "GAS", 0.2, False, "", {"lds": "its scores are an order"}),
    Candidate("magic", "MAGIC", 9000.0, False, "This is very dear here: about 2.5 hours.", {}),
)
JOB = JobView(9, "trust-key", "Measuring methods", "running", "retraining", 0.4, 30.0, 90.0, "", True)
DATA = tuple(Datum("test", row, "table", None, (), None, "3", "8", 0.9, None, None, "a row") for row in (4, 7))
CURVE = RemovalLine("SGD-influence", (0, 5, 9), (2.0, 0.5, -1.0), (2.0, 0.5, -1.0), (2.0, 0.5, -1.0), 1, 7.0, 1.0)
RANDOM = RemovalLine("Random rows", (0, 5, 9), (2.0, 1.9, 1.8), (2.0, 1.7, 1.5), (2.0, 2.1, 2.1), 20, None, 0.0)


@dataclass
class FakeTrust:
    """Switches: ``known``, ``problem``, ``job``, ``removing``, ``owner``, ``curved``; what was started is kept."""

    known: bool = True
    problem: str = ""
    job: JobView | None = None
    removing: JobView | None = None
    owner: bool = True
    curved: bool = True
    started: list[tuple[Any, ...]] = field(default_factory=list)

    def trust(self, study: str) -> TrustPage:
        """Return two lines, or none."""
        lines = LINES if self.known else ()
        titles = tuple(line.title for line in lines)
        metrics = tuple(replace(one, problem=one.problem or self.problem) for one in METRICS)
        return TrustPage(
            lines, "random halves of the data",
            "SGD-influence tracks retraining best (0.92 of a possible 0.99)." if lines else "",
            TABLES if lines else (), Agreement(titles, (1, 2), np.eye(2), np.eye(2) / 2, 10) if lines else None,
            (("GAS", HOSTILE),) if lines else (), metrics, CANDIDATES, (("SOURCE", f"needs SGD {HOSTILE}"),), self.job,
            self.owner,
        )  # fmt: skip

    def fidelity(self, study: str, method: str) -> str:
        """Say what is known of a method."""
        return next((f"tracks retraining {line.value}" for line in LINES if self.known and line.method == method), "")

    def measuring_plan(
        self, study: str, methods: Any, metrics: Any = ("lds",), subsets: int = 50, seeds: int = 2
    ) -> MeasuringPlan:
        """Say a price."""
        prices = {one.name: f"price of {one.name}" for one in METRICS}
        dear = tuple(f"{one.title}: {one.dear}" for one in CANDIDATES if one.method in methods and one.dear)
        return MeasuringPlan(f"{subsets * seeds} models to train: about 20 seconds.", prices, dear)

    def start_measuring(
        self, study: str, methods: Any, client: str, metrics: Any = ("lds",), subsets: int = 50, seeds: int = 2
    ) -> JobView:
        """Keep what was asked."""
        self.started.append((study, tuple(methods), tuple(metrics), subsets, seeds))
        return JOB

    def resume_measuring(self, study: str, job_id: int, client: str) -> JobView:
        """Keep what was asked."""
        self.started.append((study, job_id))
        return JOB

    def removal(self, study: str, row: str = "") -> RemovalPage:
        """Return a curve of one prediction, or none."""
        if row not in ("", "4", "7"):
            raise BadInput("Unknown row id", f"'{row}' is not in the test split.", "Use another id.")
        datum = DATA[1] if row == "7" else DATA[0]
        problem = self.problem or ""
        if problem:
            return RemovalPage(None, (), (), (), None, "", (), problem, None, self.owner)
        lines = (CURVE,) if self.curved else ()
        return RemovalPage(
            datum, DATA, (4,) if lines else (), lines, RANDOM if lines else None,
            "Removing the top 7 rows flips this prediction." if lines else "", CANDIDATES, "", self.removing,
            self.owner,
        )  # fmt: skip

    def removal_plan(self, study: str, row: str, methods: Any) -> str:
        """Say a price."""
        return f"Up to {len(methods)} retrainings for row {row}."

    def start_removal(self, study: str, row: str, methods: Any, client: str) -> JobView:
        """Keep what was asked."""
        self.started.append((study, row, tuple(methods)))
        return JOB
