"""A recipe: everything that retraining needs, so that the same seed gives the same model bit for bit."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from influence_core.config import Config


class Recipe(Config):
    """How the model was trained, and is trained again without some rows.

    The loss of a step is the sum of its batch's losses over the number of rows in that batch of the full run, plus
    ``weight_decay / 2 * |theta|^2``: a row left out leaves the weight of the others unchanged.
    """

    optimizer: Literal["sgd", "adam", "lbfgs"] = Field(
        "sgd", description="sgd, adam, or lbfgs (full batch, to convergence, for convex models)."
    )
    learning_rate: float = Field(0.1, gt=0, description="Step size at the start.")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum of sgd.")
    weight_decay: float = Field(0.0, ge=0, description="L2: weight_decay / 2 * |theta|^2 is part of the mean loss.")
    schedule: Literal["constant", "cosine", "linear"] = Field(
        "constant", description="How the step size falls to zero over the run."
    )
    batch_size: int = Field(64, ge=1, description="Rows per step.")
    epochs: int = Field(10, ge=1, description="Passes over the data; for lbfgs, at most this many iterations.")
    seed: int = Field(0, ge=0, description="Seed of initial weights, of the order of rows, and of dropout.")
    checkpoints: tuple[int, ...] = Field(
        (), description="Epochs after which the weights are recorded; empty: the last one only."
    )
    dtype: Literal["float32", "float64"] = Field("float32", description="Precision of training.")
