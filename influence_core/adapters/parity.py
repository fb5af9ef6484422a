"""The check that a study predicts what the user's own model does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from influence_core.errors import BadInput
from influence_core.primitives.losses import BuiltinLoss

TOLERANCE = 1e-4  # of the spread of the outputs
HALF_TOLERANCE = 2e-2  # the same, where the user's model ran in half precision
_ROUNDING = 16 * float(np.finfo(np.float32).eps)  # of the largest output: float32 on both sides
_CAUSES = (
    "Usual causes: the model was in train mode (call model.eval()), the rows went through other preprocessing or a "
    "random augmentation, the last checkpoint is not the model that predicted, predictions are in another order, or "
    "were computed in half precision (autocast) from float32 weights."
)


@dataclass(frozen=True)
class Parity:
    """How far two sets of predictions are apart, on the scale of ``kind``: outputs, probabilities or classes."""

    kind: str
    rows: int
    largest_difference: float
    allowed: float

    @property
    def agree(self) -> bool:
        """Return whether they are the same but for rounding."""
        return self.largest_difference <= self.allowed

    def to_json(self) -> dict[str, Any]:
        """Return what ``study.toml`` keeps."""
        return {
            "rows": self.rows, "largest_difference": self.largest_difference, "agree": self.agree, "of": self.kind,
        }  # fmt: skip


def parity(ours: Tensor, theirs: Any, loss: BuiltinLoss, half: bool = False) -> Parity:
    """Compare predictions of some rows.

    Args:
        ours: Outputs of the study's model ``[n, ...]``.
        theirs: The user's: outputs of that shape, probabilities ``[n, n_classes]``, or class indices ``[n]``.
        loss: Says what the outputs are.
        half: Whether the user's model ran in half precision.

    Raises:
        BadInput: They have another number of rows or columns, or hold no finite numbers.
    """
    given = torch.as_tensor(theirs).detach().cpu()
    if not len(given) or len(given) != len(ours):
        raise _unlike(f"There are {len(given)} for {len(ours)} rows.")
    if loss.classifies and given.dim() == 1 and not given.is_floating_point() and not given.is_complex():
        classes = loss.probabilities(ours).argmax(1)  # type: ignore[union-attr]
        share = float((classes != given.long()).double().mean())
        return Parity("classes", len(given), share, 0.0)
    mine, yours = ours.double().reshape(len(ours), -1), given.double().reshape(len(given), -1)
    if not bool(yours.isfinite().all()):
        raise _unlike("They hold a NaN or an infinity.")
    kind, chances = "outputs", loss.classifies and _is_distribution(yours)
    if chances and not _is_distribution(mine):
        kind, mine = "probabilities", loss.probabilities(ours).double()  # type: ignore[union-attr]
    if mine.shape != yours.shape:
        raise _unlike(f"They are {list(given.shape)}; the model's outputs are {list(ours.shape)}.")
    difference = float((mine - yours).abs().max())
    spread = 1.0 if kind == "probabilities" else float(yours.max() - yours.min())
    rounding = (HALF_TOLERANCE if half else _ROUNDING) * float(yours.abs().max())
    allowed = (HALF_TOLERANCE if half else TOLERANCE) * spread + rounding
    return Parity(kind, len(given), difference, allowed)


def check_parity(found: Parity) -> None:
    """Refuse predictions that differ.

    Raises:
        BadInput: Says by how much, and what usually causes it.
    """
    if found.agree:
        return
    if found.kind == "classes":
        how = f"On {found.largest_difference:.0%} of {found.rows} test rows the predicted class is another one."
    else:
        how = (
            f"On {found.rows} test rows the {found.kind} differ by up to {found.largest_difference:.3g}; "
            f"{found.allowed:.2g} would be rounding."
        )
    raise BadInput("The study does not predict what your model does", how, _CAUSES)


def _is_distribution(values: Tensor) -> bool:
    """Tell whether every row holds probabilities: two or more of them, adding up to 1."""
    whole = bool(((values.sum(1) - 1).abs() < 1e-3).all()) and values.shape[1] > 1
    return whole and bool(((values >= 0) & (values <= 1)).all())


def _unlike(why: str) -> BadInput:
    return BadInput(
        "The predictions cannot be compared",
        why,
        "Give the model's outputs, probabilities or predicted class indices, one for each test row in their order.",
    )
