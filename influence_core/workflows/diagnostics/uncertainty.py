"""How sure scores and measurements are: what ``bayes_tda`` and ``infinitesimal_jackknife`` know beside a score."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from influence_core import registry
from influence_core.config import Config
from influence_core.estimators.classical.jackknife import JackknifeFitted
from influence_core.estimators.members import Inner
from influence_core.estimators.wrapper.bayes_tda import BayesFitted
from influence_core.fitting import fit
from influence_core.measurement import Measurement, measured_values
from influence_core.workflows.diagnostics.catalogue import (
    KIND_HELP,
    Answer,
    Findings,
    Kind,
    diagnostic,
    explained,
    query_rows,
)


class UncertaintyConfig(Config):
    """Which scores, over how many trainings."""

    method: Inner = Field("tracin_cp", description="The method whose scores are taken from every training.")
    measurement: Kind = Field("", description=KIND_HELP)
    seeds: int = Field(5, ge=2, le=100, description="Trainings by the recipe, each with its own seed.")
    last_checkpoints: int = Field(1, ge=1, le=100, description="Last recorded checkpoints of each training.")
    test: tuple[int | str, ...] | None = Field(None, min_length=1, description="Ids of test rows; empty: some drawn.")
    rows: int = Field(4, ge=1, description="Test rows, where none is named.")
    top: int = Field(10, ge=1, description="Training rows per test row, the largest means first.")


class ErrorBarConfig(Config):
    """Which predictions."""

    measurement: Kind = Field("", description="What has the error bar; empty: the loss.")
    test: tuple[int | str, ...] | None = Field(None, min_length=1, description="Ids of test rows; empty: some drawn.")
    rows: int = Field(64, ge=1, description="Test rows, where none is named.")


@diagnostic(
    "score_uncertainty", "Uncertainty of scores",
    "Mean, standard deviation, standard error and p-values of a method's scores over trainings and checkpoints.",
    "Nguyen, Seo & Oh, A Bayesian Approach to Analysing Training Data Attribution, NeurIPS 2023", UncertaintyConfig,
)  # fmt: skip
def _scores(findings: Findings, config: UncertaintyConfig) -> Answer:
    """Return the table and what it comes to.

    Columns: ``mean`` of the score over draws; ``standard_deviation`` over seeds and checkpoints; ``standard_error`` of
    the mean, a seed counting as one draw; the variance ``between_seeds`` and ``within_seeds``; ``p_one_draw``, that one
    training's score is zero; ``p_mean``, that the mean is. Empty p: nothing varies.
    """
    options = {"method": config.method, "seeds": config.seeds, "last_checkpoints": config.last_checkpoints}
    estimator = registry.made("bayes_tda", options, findings.task)
    fitted = fit(findings.task, estimator, findings.run)
    assert isinstance(fitted, BayesFitted)
    rows = query_rows(findings, config.test, config.rows)
    found = fitted.uncertainty(rows, explained(estimator, config.measurement))
    figures = {
        "mean": found.mean, "standard_deviation": found.deviation, "standard_error": found.error,
        "between_seeds": found.between_seeds, "within_seeds": found.within_seeds,
        "p_one_draw": found.p_values("deviation"), "p_mean": found.p_values("error"),
    }  # fmt: skip
    order = found.mean.abs().argsort(dim=1, descending=True, stable=True)[:, : config.top].cpu()
    parts = []
    for t, places in enumerate(order):
        part = {name: values[t].cpu()[places].double().numpy() for name, values in figures.items()}
        ids = {"test_id": rows.ids[t], "train_id": findings.task.ids("train")[places.numpy()]}
        parts.append(pd.DataFrame({**ids, **part}))
    p_one, p_mean = figures["p_one_draw"], figures["p_mean"]
    share = [float((p < 0.05).double().mean()) for p in (p_one, p_mean)]
    said = (
        f"Of all scores of these rows, {share[0]:.0%} differ from zero in one draw of training (by the standard "
        f"deviation), and {share[1]:.0%} in the mean over {found.seeds} trainings (by its standard error); p below .05."
    )
    return pd.concat(parts, ignore_index=True), (said, *fitted.notes)


@diagnostic(
    "error_bars", "Error bars of predictions",
    "The standard error of each test row's measurement over draws of the training rows, of the last layer.",
    "Jaeckel, The Infinitesimal Jackknife, Bell Laboratories memorandum, 1972", ErrorBarConfig,
)  # fmt: skip
def _bars(findings: Findings, config: ErrorBarConfig) -> Answer:
    """Return the table and what it comes to.

    Columns: ``measurement`` and its ``standard_error``, ``low`` and ``high`` (95%).
    """
    task, run = findings.task, findings.run
    fitted = fit(task, registry.made("infinitesimal_jackknife", None, task), run)
    assert isinstance(fitted, JackknifeFitted)
    rows = query_rows(findings, config.test, config.rows)
    measurement = Measurement(config.measurement or "loss")
    errors = fitted.standard_errors(rows, measurement).double().cpu().numpy()
    targets = task.query(rows, measurement, torch.float64).targets
    said = task.outputs_of("test")[task.positions(rows)].double()
    values = measured_values(said, targets, task.loss, measurement).numpy()
    table = pd.DataFrame({
        "test_id": np.asarray(rows.ids), "measurement": values, "standard_error": errors,
        "low": values - 1.96 * errors, "high": values + 1.96 * errors,
    })  # fmt: skip
    name = "minus the loss" if measurement.kind == "loss" else measurement.name
    return table, (
        f"The measurement is {name}; low and high are 1.96 standard errors away.", "Only the last layer is looked at.",
    )  # fmt: skip
