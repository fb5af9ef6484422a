"""After which steps a checkpoint is due, and which ones give way so that their number stays bounded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from influence_core.adapters.recording import Entry
from influence_core.errors import BadInput

DEFAULT_KEEP = 12


@dataclass
class Spacing:
    """Steps at which checkpoints are due.

    Attributes:
        interval: Steps between them; doubled when they are thinned.
        at: The steps themselves, in place of an interval.
        keep: How many stay, or None: all.
    """

    interval: int
    at: frozenset[int] | None
    keep: int | None

    @classmethod
    def checked(
        cls, every: int | None, at: Iterable[int] | None, epochs_length: int | None, keep: int | None
    ) -> Spacing:
        """Return the spacing that a Recorder's arguments ask for.

        Raises:
            BadInput: One of them cannot be used, or two exclude each other.
        """
        _check_whole("epochs_length", epochs_length, 1)
        _check_whole("every", every, 1)
        _check_whole("keep", keep, 2)
        if at is None:
            start = every or (-(-epochs_length // 4) if epochs_length else 1)
            return cls(start, None, DEFAULT_KEEP if keep is None and every is None else keep)
        steps = list(at)
        for step in steps:
            _check_whole("at", step, 0)
        if every is not None or keep is not None:
            other = "every" if every is not None else "keep"
            raise BadInput("The recording's steps are given twice", f"at and {other} were given.", "Give one of them.")
        return cls(1, frozenset(steps), None)

    def is_due(self, step: int) -> bool:
        """Return whether a checkpoint is due after this step."""
        if self.at is not None:
            return step in self.at
        return step > 0 and step % self.interval == 0

    def thinned(self, entries: list[Entry]) -> list[Entry]:
        """Take the entries that are too many out of the list and return them; the newest always stays."""
        dropped: list[Entry] = []
        while self.keep is not None and len(entries) > self.keep:
            self.interval *= 2
            gone = [entry for entry in entries[:-1] if entry.step % self.interval]
            if not gone:  # checkpoints taken by hand may all be multiples of the new interval
                continue
            entries[:] = [entry for entry in entries if entry not in gone]
            dropped += gone
        return dropped


def _check_whole(name: str, value: Any, least: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise BadInput(f"{name} cannot be used", f"It is {value!r}.", f"Give a whole number of at least {least}.")
