"""The functions about reviewing, on the fake studies: two reviewers who disagree about one row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from influence_core.errors import BadInput
from influence_core.service import patch_views
from influence_core.service import review_views as views
from influence_core.service.dealing import Dealing, Shares
from tests.screens.fake_data import material

FUNCTIONS = (
    "review_place review_batch record_acts known_reviewer guidelines save_guidelines "
    "class_definitions definable_classes save_class_definition decisions_page decisions_log "
    "resolve_conflict patch_file cleaned_data dealing save_dealing shares "
    "frozen_queue has_moved next_steps undo_last cleaned_original review_states "
    "apply_patch patch_lines patch_page relabelling decided_among decide_together undo_batch batches"
).split()
HOSTILE = "<b>bold</b> <script>alert(1)</script> <img src=x>"


@dataclass
class FakeReviews:
    """Switches, and what was written, which is kept.

    Attributes:
        nothing: Nobody has decided yet.
        owner: Whoever asks may resolve conflicts.
        lists: Grows when the list of suspects moves.
        fitting: Lines of a patch fit.
        meanings: What classes mean.
        decided: Rows of every batch that somebody has decided already; ``spared``: those found when it is written.
        lines: The batches that hold.
    """

    nothing: bool = False
    owner: bool = True
    lists: int = 0
    fitting: bool = True
    decided: int = 0
    spared: int = 0
    lines: list[views.BatchLine] = field(default_factory=list)
    meanings: dict[str, str] = field(default_factory=dict)
    written: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)

    def review_place(self, study: str, token: str) -> tuple[str, str, int, tuple[str, ...], str]:
        """Name a queue of three rows."""
        return token or "suspects", "Suspects", 3, material(study).classes, "classification"

    def review_batch(self, study: str, token: str, reviewer: str, *_: Any) -> views.ReviewBatch:
        """Return no cards: the browser asks for them."""
        return views.ReviewBatch(0, 3, 0, ())

    def record_acts(self, study: str, reviewer: str, acts: Any) -> views.Receipt:
        """Keep what was sent."""
        self.written.append(("record_acts", (reviewer, acts)))
        return views.Receipt(tuple((act["tab"], act["number"], (), 0) for act in acts))

    def review_states(self, study: str, token: str, reviewer: str, first: int, n: int = 100) -> views.ReviewStates:
        """Say that nothing was decided meanwhile."""
        return views.ReviewStates(first, n, 0, ())

    def relabelling(self, study: str, split: str, row_ids: Any, label: str, evidence: Any) -> views.Batch:
        """Leave one row out that has the label."""
        left = ((1, f"labelled {label} already"),)
        return views.Batch(split, "relabel", tuple(row_ids[1:]), (label,) * (len(row_ids) - 1), evidence, left)

    def decided_among(self, study: str, batch: views.Batch) -> int:
        """Return what the switch says."""
        return self.decided

    def decide_together(
        self, study: str, reviewer: str, token: str, batch: views.Batch, again: bool = False
    ) -> views.BatchDone:
        """Keep a batch, once for each token."""
        self.written.append(("decide_together", (reviewer, token, batch, again)))
        left = len(batch.rows) - (0 if again else self.spared)
        line = views.BatchLine(reviewer, f"batch {token}", 1, 1e9, left, f"{left} rows {batch.action}: {HOSTILE}")
        if line not in self.lines:
            self.lines.insert(0, line)
        return views.BatchDone(line, self.spared)

    def undo_batch(self, study: str, reviewer: str, tab: str, number: int) -> str:
        """Take a batch back."""
        self.written.append(("undo_batch", (reviewer, tab, number)))
        self.lines = [line for line in self.lines if (line.reviewer, line.tab, line.number) != (reviewer, tab, number)]
        return "Undone."

    def batches(self, study: str, reviewer: str = "", limit: int = 20) -> tuple[views.BatchLine, ...]:
        """Return the batches that hold."""
        return tuple(line for line in self.lines if reviewer in ("", line.reviewer))

    def known_reviewer(self, study: str) -> str:
        """Nobody is signed in."""
        return ""

    def guidelines(self, study: str) -> str:
        """Return words that must stay words."""
        return HOSTILE

    def save_guidelines(self, study: str, text: str) -> None:
        """Keep them."""
        self.written.append(("save_guidelines", (text,)))

    def definable_classes(self, study: str) -> tuple[str, ...]:
        """Return the study's classes."""
        return material(study).classes

    def class_definitions(self, study: str) -> dict[str, str]:
        """Return what the switch says."""
        return self.meanings

    def save_class_definition(self, study: str, label: str, text: str) -> None:
        """Keep it."""
        self.written.append(("save_class_definition", (label, text)))

    def frozen_queue(self, study: str) -> str:
        """Return a token that changes with the list."""
        return "f" * 31 + str(self.lists)

    def has_moved(self, study: str, token: str) -> bool:
        """Tell whether the list is another than the frozen one."""
        return token[-1] != str(self.lists)

    def next_steps(self, study: str, reviewer: str) -> views.NextSteps:
        """Return a batch of ann's; of others nothing."""
        step = views.StepView(11, f"relabelled 37 rows as '{HOSTILE}'", 1e9, "2 min ago")
        return views.NextSteps(step if reviewer == "ann" else None, None)

    def undo_last(self, study: str, reviewer: str, expects: int | None = None) -> str:
        """Keep whose act was undone."""
        self.written.append(("undo_last", (reviewer, expects)))
        return f"Undone: train row 7: keep ({HOSTILE})."

    def cleaned_original(self, study: str, name: str, content: bytes) -> tuple[bytes, str]:
        """Return the file as it came."""
        return content, ".csv"

    def patch_page(self, study: str, files: Any, follow: bool = False) -> patch_views.PatchPage:
        """Return a line that fits, one that was decided otherwise and one that moved, or refuse what is no patch."""
        if not all(file.content.startswith(b"row_id") for file in files):
            raise BadInput("This is no patch", f"{files[-1].name} has no column row_id.", "Give a patch.")
        counts = dict.fromkeys(patch_views.PATCH_STATES, 0) | {"decided": 1, "moved": 0 if follow else 1}
        counts["fits"] = (30 if self.fitting else 0) + (follow and self.fitting)
        lines = {
            state: tuple(patch_views.PatchLine(state, "train", i, f"3 → {HOSTILE}", HOSTILE, f"why {state}")
                         for i in range(min(count, 20)))
            for state, count in counts.items() if count
        }  # fmt: skip
        return patch_views.PatchPage(counts, lines, (HOSTILE,), 2)

    def patch_lines(self, study: str, files: Any, follow: bool, format: str) -> bytes:
        """Return a table without lines."""
        return b"result,why\n"

    def apply_patch(
        self, study: str, reviewer: str, token: str, files: Any, follow: bool = False, again: bool = False
    ) -> views.BatchDone:
        """Keep what was applied."""
        self.written.append(("apply_patch", (reviewer, token, tuple(file.name for file in files), follow, again)))
        line = views.BatchLine(reviewer, f"patch {token}", 1, 1e9, 30, f"30 rows decided as in {HOSTILE}")
        return views.BatchDone(line, self.spared)

    def dealing(self, study: str) -> Dealing:
        """Return two reviewers."""
        return Dealing(("ann", HOSTILE), 0.2)

    def save_dealing(self, study: str, reviewers: Any, overlap: float) -> None:
        """Keep the deal."""
        self.written.append(("save_dealing", (list(reviewers), overlap)))

    def shares(self, study: str) -> Shares:
        """Return what it comes to."""
        return Shares("Suspects", 100, 20, (("ann", 43), (HOSTILE, 37)))

    def decisions_page(self, study: str) -> views.DecisionsPage:
        """Return two reviewers and one conflict."""
        if self.nothing:
            empty = views.Agreement("", float("nan"), 0, ())
            return views.DecisionsPage((), {}, 0, (), empty, self.owner)
        votes = (
            views.Decided("ann", "keep", None, None, "", 1e9),
            views.Decided("ben", "relabel", HOSTILE, None, "", 2e9),
        )
        return views.DecisionsPage(
            (views.Pace("ann", 12, 1e9, 1e9 + 60, 12.0), views.Pace(HOSTILE, 1, 2e9, 2e9, None)),
            {"relabel": 3, "keep": 9}, 1, (views.ConflictView("train", 7, "3", votes),),
            views.Agreement("Cohen's kappa", 0.4, 5, ("ann", HOSTILE), ((HOSTILE, 0.2, 3),)), self.owner,
            ("ann", HOSTILE),
        )  # fmt: skip

    def decisions_log(self, study: str, text: str = "", reviewer: str = "", *_: Any) -> tuple[views.LogLine, ...]:
        """Return one line that contains what was searched."""
        words = f"train row 7: relabel 3 → {HOSTILE}"
        line = views.LogLine(4, "ann", 1e9, "decide", True, 1, words, {"method": "gas"})
        return (line,) if not self.nothing and text in words and reviewer in ("", "ann") else ()

    def resolve_conflict(self, study: str, *vote: Any) -> None:
        """Keep the vote."""
        self.written.append(("resolve_conflict", vote))

    def patch_file(self, study: str, format: str) -> bytes:
        """Return a patch without lines."""
        return b"row_id,split,action\n"

    def cleaned_data(self, study: str, format: str) -> bytes:
        """Return a table without rows."""
        return b"id,label\n"
