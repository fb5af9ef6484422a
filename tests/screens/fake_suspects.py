"""The functions about suspects, on the fake studies: five rows in three columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from influence_core import service
from tests.screens.fake_data import material

FUNCTIONS = (
    "suspects",
    "suspect_rows",
    "start_suspects",
    "save_queue",
    "oddities",
    "suspect_batch",
    "pred_probs",
    "save_pred_probs",
    "remove_pred_probs",
)
COMBINED = service.SuspectColumn("combined", "Combined", "sum of margins", "Both together.", True, False)
VOTES = service.SuspectColumn("neighbour_votes", "Neighbours' labels", "lead in votes", "What is near.", False, True)
LOSS = service.SuspectColumn("loss", "Training loss", "loss", "How wrong <it> is.", True, False)
NEEDED = service.FitNeeded("suspects", "Label suspects", "key", 90.0, 2.0, "About 90 seconds. Once.", None)
JOB = service.JobView(7, "key", "Label suspects", "running", "looking for label errors", 0.4, 30.0, 90.0, "", True)


@dataclass
class FakeSuspects:
    """Rows in three columns; what was asked is kept."""

    datum: Callable[..., service.Datum]
    answer: Any = None
    asked: list[service.SuspectFilter] = field(default_factory=list)
    done: list[tuple[Any, ...]] = field(default_factory=list)
    more: service.FitNeeded | None = None
    likely: int | None = 30
    decided: tuple[service.Decided, ...] = ()
    own: service.OwnProbabilities | None = None
    refuses: Exception | None = None

    def suspects(self, study: str, filter: service.SuspectFilter) -> Any:
        self.asked.append(filter)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return self.answer
        m = material(study)
        rows = [] if filter.text == "nothing" else [
            service.SuspectRow(
                i + 1, self.datum(m, "train", i), m.classes[-1], *((0.97, 0.98), (0.3, 0.8), (0.1, 0.2))[i % 3], 1.5, 2,
                ("8 of 10 neighbours say <b>3</b>", "the model said 3 until epoch 40"),
                (self.datum(m, "test", 4),) if i == 0 else (), self.decided if i == 1 else (),
            ) for i in range(5)
        ]  # fmt: skip
        column = next(c for c in (COMBINED, VOTES, LOSS) if c.name == (filter.column or "combined"))
        total = 0 if not rows else 70
        budget = (service.BudgetPrecision(60, 0.9, 0.88, 0.5, False),)
        return service.SuspectPage(
            tuple(rows), total, 1200, column, (COMBINED, VOTES, LOSS), 3, self.likely, None, budget, ("A note.",),
            (("KNN-Shapley value", "needs labels"),), "", self.more, ("<i>sex", "age"),
            (("men", 700), ("women", 500)) if filter.sliced else (),
        )  # fmt: skip

    def suspect_rows(self, study: str, filter: service.SuspectFilter) -> list[int]:
        return [4, 2]

    def suspect_batch(self, study: str, filter: service.SuspectFilter, action: str, label: str = "") -> service.Batch:
        self.done.append(("batch", action, label))
        labels = {"suggested": ("3", "8", "8"), "relabel": (label,) * 3}.get(action, ())
        left = ((67, "no suggestion for <them> is more likely right than wrong"),) if action == "suggested" else ()
        what: Any = "relabel" if labels else action
        return service.Batch("train", what, (4, 2, 9), labels, {"filter": filter.given}, left, 0.91)

    def pred_probs(self, study: str) -> service.OwnProbabilities | None:
        return self.own

    def save_pred_probs(self, study: str, name: str, content: Any) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.done.append(("save", name, content.read()))

    def remove_pred_probs(self, study: str) -> None:
        self.done.append(("remove", study))

    def start_suspects(self, study: str, retrain: bool, client: str) -> service.JobView:
        self.done.append(("start", study, retrain))
        return JOB

    def save_queue(self, study: str, title: str, split: str, row_ids: list[int], source: str) -> str:
        self.done.append(("queue", study, split, tuple(row_ids), source))
        return "0" * 32

    def oddities(self, study: str, kind: str, page: int = 0, limit: int = 24) -> service.OddityPage:
        m = material(study)
        if kind == "leakage":
            return service.OddityPage(kind, (), 0, "distance", "")
        rows = (service.Oddity(1, self.datum(m, "train", 1), 0.0, self.datum(m, "train", 2), "the same as"),)
        return service.OddityPage(kind, rows, 1, "distance over the typical one", "")
