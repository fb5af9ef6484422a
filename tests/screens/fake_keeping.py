"""The functions about studies as a whole, for the fake service: lines, and what was asked for, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from influence_core import service
from influence_core.errors import BadInput


def line(name: str, title: str, **changes: Any) -> service.StudyLine:
    rows = {"train": 1200, "test": 300, "locked": 280}
    made = service.StudyLine(
        name, title, "image · 10 classes · multi-layer perceptron", rows, 2_400_000, 1_800_000, 0, ("format 1",), "",
        "", True,
    )  # fmt: skip
    return replace(made, **changes)


@dataclass
class FakeKeeping:
    """Lines of studies, and what was done to them.

    Attributes:
        lines: What there is.
        done: What was asked for.
        too_large: A download is refused in favour of a command.
        refuses: Every change is refused with this.
    """

    lines: list[service.StudyLine] = field(default_factory=lambda: [
        line("digits", "Digits"), line("cells", "Cells <b>x</b>", cache=0, total=500_000),
        line("words", "Words", busy="Leave-one-out", reviews=40_000),
    ])  # fmt: skip
    done: list[tuple[Any, ...]] = field(default_factory=list)
    too_large: bool = False
    refuses: BadInput | None = None
    gone: Callable[[str], None] = print

    def study_lines(self) -> list[service.StudyLine]:
        return list(self.lines)

    def tidy_studies(self) -> None:
        """Nothing is left behind here."""

    def _note(self, *what: Any) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.done.append(what)

    def rename_study(self, study: str, title: str) -> None:
        self._note("rename", study, title)
        self.lines = [replace(item, title=title) if item.name == study else item for item in self.lines]

    def delete_study(self, study: str) -> int:
        self._note("delete", study)
        freed = next(item.total for item in self.lines if item.name == study)
        self.lines = [item for item in self.lines if item.name != study]
        self.gone(study)
        return freed

    def clear_cache(self, study: str) -> int:
        self._note("clear", study)
        freed = next(item.cache for item in self.lines if item.name == study)
        self.lines = [replace(item, cache=0) if item.name == study else item for item in self.lines]
        return freed

    def backup_size(self, study: str, *, reviews: bool = False, cache: bool = False) -> int:
        return 600_000 + 40_000 * reviews + 1_800_000 * cache

    def backup_problem(self, study: str, *, reviews: bool = False, cache: bool = False) -> str:
        command = f"python -m influence_core backup studies/{study} --out {study}.zip"
        return f"Above 500 MB it is made on the server: {command}" if self.too_large else ""

    def backup(self, study: str, *, reviews: bool = False, cache: bool = False) -> Callable[[], bytes]:
        return lambda: f"{study} {reviews} {cache}".encode()


FUNCTIONS = ("study_lines tidy_studies rename_study delete_study clear_cache backup_size backup_problem backup").split()
