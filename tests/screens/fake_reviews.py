"""The functions about reviewing, on the fake studies: two reviewers who disagree about one row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from influence_core.service import review_views as views
from influence_core.service.dealing import Dealing, Shares
from tests.screens.fake_data import material

FUNCTIONS = (
    "review_place review_batch record_acts known_reviewer guidelines save_guidelines decisions_page decisions_log "
    "resolve_conflict patch_file cleaned_data dealing save_dealing shares "
    "frozen_queue has_moved next_steps undo_last cleaned_original"
).split()
HOSTILE = "<b>bold</b> <script>alert(1)</script> <img src=x>"


@dataclass
class FakeReviews:
    """Switches: ``nothing``: nobody has decided yet; ``owner``: may resolve. What was written is kept."""

    nothing: bool = False
    owner: bool = True
    lists: int = 0
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
        return views.Receipt(tuple((act["tab"], act["number"], ()) for act in acts))

    def known_reviewer(self, study: str) -> str:
        """Nobody is signed in."""
        return ""

    def guidelines(self, study: str) -> str:
        """Return words that must stay words."""
        return HOSTILE

    def save_guidelines(self, study: str, text: str) -> None:
        """Keep them."""
        self.written.append(("save_guidelines", (text,)))

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
