"""The functions about versions, for the fake service: what can be retrained, versions, one comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from influence_core import service
from influence_core.errors import BadInput
from influence_core.service import views
from influence_core.workflows.comparison import Slice, SplitChange, alarm, doubt

NOTHING = {"relabelled": 0, "dropped": 0, "downweighted": 0, "test": 0}
FUNCTIONS = "versions retrain_offer start_retrain rename_version delete_version comparison same_prediction role".split()


def made_version(version_id: str, name: str) -> service.Version:
    counts = {**NOTHING, "relabelled": 41, "dropped": 2}
    notes = ("Train: 41 <relabelled>.",)
    return service.Version(version_id, name, "", 1.7e9, "key", (0, 1, 2), (), counts, notes=notes)


def job(state: str, message: str = "") -> views.JobView:
    return views.JobView(
        7, "retrain-key", "Retraining: corrected", state, "training pairs of models", 0.4, 12.0, 30.0, message,
        state in ("queued", "running"),
    )  # fmt: skip


@dataclass
class FakeVersions:
    """What the Compare screen can be in.

    Attributes:
        made: The versions there are.
        offered: What retraining would do.
        locked: The change of the accuracy on locked rows; alarm and doubt are written by the real functions.
        row: Makes the card of a test row of a study.
        explained: Explains a test row of a study.
        done: What was asked for, in order.
    """

    row: Callable[[str, str], views.Datum]
    explained: Callable[[str, str], views.Explanation | views.FitNeeded]
    made: list[service.Version] = field(default_factory=list)
    offered: service.RetrainOffer = field(
        default_factory=lambda: service.RetrainOffer(dict(NOTHING), 0, "", "", "", None, True)
    )
    locked: service.Paired = service.Paired(0.9, 0.94, 0.04, 0.01, 0.07, 280)
    done: list[tuple[Any, ...]] = field(default_factory=list)
    rights: str = "owner"

    def role(self, study: str) -> str:
        return self.rights

    def versions(self, study: str) -> list[service.Version]:
        return list(self.made)

    def retrain_offer(self, study: str, seeds: int = 5) -> service.RetrainOffer:
        return self.offered

    def start_retrain(self, study: str, title: str, client: str, seeds: int = 5) -> views.JobView:
        if not title.strip():
            raise BadInput("This name cannot be used", "It has 0 characters.", "Choose another one.")
        self.done.append(("retrain", study, title))
        self.offered = replace(self.offered, job=job("running"))
        return job("running")

    def finish(self, title: str) -> None:
        """End the job well."""
        self.made.append(made_version(f"v{len(self.made) + 1}", title))
        self.offered = replace(self.offered, job=None, known=self.made[-1].id)

    def rename_version(self, study: str, version: str, title: str) -> None:
        self.done.append(("rename", study, version, title))
        self.made = [replace(one, name=title) if one.id == version else one for one in self.made]

    def delete_version(self, study: str, version: str) -> None:
        self.done.append(("delete", study, version))
        self.made = [one for one in self.made if one.id != version]

    def comparison(self, study: str, before: str, after: str) -> service.Comparison:
        names = {"": "original", **{one.id: one.name for one in self.made}}
        if before == after or not {before, after} <= set(names):
            raise BadInput("There is nothing to compare", "It is the same version twice.", "Choose two versions.")
        loss = service.Paired(0.4, 0.3, -0.1, -0.15, -0.05, 280)
        locked = SplitChange("locked", 280, self.locked, loss)
        agreement = service.Paired(0.9, 0.97, 0.07, 0.05, 0.09, 1198)
        counts = np.array([[90.0, 10.0], [20.0, 160.0]]), np.array([[95.0, 5.0], [22.0, 158.0]])
        return service.Comparison(
            before, after, (names[before], names[after]), (0, 1, 2), "locked",
            (locked, SplitChange("test", 300, self.locked, loss)), (Slice("", "ant <x>", self.locked),), (), counts,
            ("ant <x>", "bee"), agreement, alarm(locked, agreement), doubt(locked), 0.08, "if_cg", 0.1,
            "After 43 corrected training rows, a headline.", ("Means over 3 pairs of models.",), "Digits <title>",
        )  # fmt: skip

    def same_prediction(self, study: str, before: str, after: str, row_id: Any = "") -> service.SamePrediction:
        row = str(row_id) or "9"
        seen = [
            service.Seen(f"{study}@{one}" if one else study, one or "original", self.row(study, row), (("ant", 0.7),),
                         f"{k} of 3 models of this version right", self.explained(study, row))
            for one, k in ((before, 0), (after, 3))
        ]  # fmt: skip
        chosen = "You chose this row." if row_id else "The most confident mistake of 'original', chosen without regard."
        others = ((9, "right in 0, then in 3 of 3 models"), (4, "right in 1, then in 0 of 3 models"))
        return service.SamePrediction(row, chosen, seen[0], seen[1], others)


def waiting(fake: FakeVersions) -> service.RetrainOffer:
    """Let there be decisions that are in no version yet."""
    counts = {**NOTHING, "relabelled": 41, "dropped": 2, "test": 1}
    fake.offered = service.RetrainOffer(counts, 3, "11 models to train, about a minute", "", "", None, True)
    return fake.offered
