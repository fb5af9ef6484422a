"""A user's own held-out probabilities, brought by a browser: checked, kept in the study, forgotten again."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from influence_core.api import read_pred_probs
from influence_core.errors import BadInput, InfluenceError
from influence_core.service import access
from influence_core.service.folder import base_name
from influence_core.service.opened import OpenStudy, opened, told_if_gone
from influence_core.service.uploads import copied, safe_name
from influence_core.store import disk_errors
from influence_core.workflows.suspects import own_probabilities as own

MAX_BYTES = 200 << 20
ENDINGS = (".csv", ".parquet")


@dataclass(frozen=True)
class OwnProbabilities:
    """Held-out probabilities that were given for a study.

    Attributes:
        file: Name of the file that they came in.
        by: Who gave it; empty where nobody signs in.
        at: When, in seconds since 1970.
        problem: Why they are not used; empty if they are.
    """

    file: str
    by: str
    at: float
    problem: str


def save_pred_probs(study: str, name: str, content: BinaryIO) -> None:
    """Keep probabilities of a file that a browser sent, in place of earlier ones; a refused file changes nothing.

    Args:
        study: The study's name.
        name: What the browser calls the file: a CSV or Parquet file by its ending.
        content: Its bytes, read in pieces.

    Raises:
        BadInput: They do not own the study, or the file is too large, cannot be read, or does not fit.
        StoreProblem: The disk is full or refuses.
    """
    access.check(base_name(study), "owner")
    held, plain = opened(base_name(study)), safe_name(name)
    if not plain.lower().endswith(ENDINGS):
        why = f"'{plain}' is neither."
        raise BadInput("Give the probabilities as CSV or Parquet", why, "Save the table as one of them.")
    with tempfile.TemporaryDirectory(prefix="influence-probabilities-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / plain
        with disk_errors(path):
            copied(
                content, path, MAX_BYTES, "Use the command line: python -m influence_core suspects --pred-probs FILE"
            )
        shares = read_pred_probs(held.study, path, title=plain)
    own.keep_probabilities(held.study, shares, own.Origin(plain, access.visitor().person))


def remove_pred_probs(study: str) -> None:
    """Forget the probabilities that were given.

    Raises:
        BadInput: They do not own the study.
    """
    access.check(base_name(study), "owner")
    own.remove_probabilities(opened(base_name(study)).study)


@told_if_gone
def pred_probs(study: str) -> OwnProbabilities | None:
    """Return the probabilities that were given for a study or version; None without any."""
    held = opened(study)
    return held.remembered(("own probabilities shown",), lambda: (_shown(held),))[0]


def _shown(held: OpenStudy) -> OwnProbabilities | None:
    try:
        origin = own.kept_origin(held.study)
        if origin is None:
            return None
        own.kept_probabilities(held.study)
    except InfluenceError as problem:
        return OwnProbabilities("", "", 0.0, str(problem))
    return OwnProbabilities(origin.file, origin.by, origin.at, "")


__all__ = ["OwnProbabilities", "pred_probs", "remove_pred_probs", "save_pred_probs"]
