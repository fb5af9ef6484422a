"""The functions about checks, on the fake studies: one made, one under way, a price."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from influence_core import service
from influence_core.service.views import Interval, JobView

FUNCTIONS = ("checks", "check_labels", "check_offer", "start_check")
HOSTILE = "<script>alert(1)</script>"
JOB = JobView(11, "check-key", "Check: 5 proponents dropped", "running", "training", 0.4, 30.0, 90.0, "", True)
MADE = service.CheckView(
    "key", f"5 proponents by {HOSTILE} dropped",
    "Without these 5 rows the model says 3 instead of 8 in 4 of 5 trainings.",
    ("5 random rows do almost nothing.", f"{HOSTILE} foresaw −0.42."), "the log-probability the model gives to “8”", 5,
    service.Moved(Interval(-0.5, -0.75, -0.25, 5), (-0.3, -0.4, -0.5, -0.6, -0.7), 4),
    service.Moved(Interval(0.01, -0.02, 0.04, 5), (0.0, 0.0, 0.01, 0.02, 0.02), 0),
    (service.ForeseenView(HOSTILE, None, -1, HOSTILE), service.ForeseenView("Influence functions", -0.42, -1, "Sum.")),
    (HOSTILE,), "2026-01-31T12:00:00+00:00", False,
)  # fmt: skip


@dataclass
class FakeChecks:
    """Switches: ``made``, ``problem``, ``job``, ``owner``, ``offer``; what was started is kept."""

    made: tuple[service.CheckView, ...] = ()
    problem: str = ""
    job: JobView | None = None
    owner: bool = True
    classifies: bool = True
    converged: bool = False
    offer: service.CheckOffer = field(
        default_factory=lambda: service.CheckOffer("15 models to train, about 5 seconds.")
    )
    asked: list[service.CheckRequest] = field(default_factory=list)
    started: list[tuple[Any, ...]] = field(default_factory=list)

    def checks(self, study: str, request: service.ExplainRequest) -> service.ChecksView:
        """Return what the switches say."""
        return service.ChecksView(self.made, self.problem, self.classifies, self.converged, self.job, self.owner)

    def check_labels(self, study: str, request: service.ExplainRequest) -> tuple[str, ...]:
        """Return some classes."""
        return (service.SUGGESTED, "3", "8")

    def check_offer(
        self, study: str, request: service.ExplainRequest, change: service.CheckRequest
    ) -> service.CheckOffer:
        """Keep what was asked, and say the price."""
        self.asked.append(change)
        return self.offer

    def start_check(
        self, study: str, request: service.ExplainRequest, change: service.CheckRequest, client: str
    ) -> JobView:
        """Keep what was asked, and be under way."""
        self.started.append((study, request.ids, change))
        self.job = JOB
        return JOB
