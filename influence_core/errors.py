"""The errors a user can meet: each says what happened, why, and what to do about it."""

from __future__ import annotations


class InfluenceError(Exception):
    """A problem the user can understand and act on.

    Args:
        what: What went wrong, as one clause without a full stop.
        why: What was given, against what is needed.
        fix: The next thing to do.
    """

    def __init__(self, what: str, why: str, fix: str) -> None:
        """Keep the three parts apart, so that each surface can lay them out."""
        super().__init__(what, why, fix)
        self.what, self.why, self.fix = what, why, fix

    def __str__(self) -> str:
        """Return one line for the command line and the logs."""
        return f"{self.what}: {self.why} {self.fix}".replace("\n", " ").strip()


class BadInput(InfluenceError):
    """Something given by the user cannot be used."""


class Unavailable(InfluenceError):
    """A method needs something that this task does not have."""


class StoreProblem(InfluenceError):
    """The disk refused, or holds something that cannot be read."""


class NumericalProblem(InfluenceError):
    """The model or the solver gave numbers that no score can be made of."""


class Cancelled(Exception):  # noqa: N818  (a signal, not a fault)
    """The user cancelled the running computation; everything finished so far is kept."""
