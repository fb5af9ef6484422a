"""What scores foresee of a change, before anything is trained again.

A score in units of the measurement says how much it drops if the row is left out. To first order, the measurement
moves by ``-sum S_i`` if the rows are dropped, and by ``-(1 - w) sum S_i`` if they count w. What a new label does is not
in the scores; influence functions say it (``predicted_gain``). Scores in other units foresee a direction alone, and
influence functions are asked for an amount beside.
"""

from __future__ import annotations

import numpy as np

from influence_core import registry
from influence_core.answers import obtained_answer
from influence_core.errors import NumericalProblem, Unavailable
from influence_core.estimator import Estimator, Fitted, Info
from influence_core.estimators.inverse_curvature import Influence, InfluenceFitted
from influence_core.fitting import fit
from influence_core.measurement import Measurement, Rows
from influence_core.outcomes import Correction
from influence_core.run import Run
from influence_core.task import Task
from influence_core.workflows.check_records import Foreseen
from influence_core.workflows.predicted_gain import PredictedGain, gain_by, influence_method, predicted_gain

_UNITS = {
    "gradient": "Its scores are products of gradients, not changes of the measurement",
    "value": "Its scores are shares of a vote, not changes of the measurement",
    "rank": "Its scores are an order, not amounts",
    "measurement": "Its scores are not meant to be summed",
}


def gives_amounts(info: Info, action: str) -> bool:
    """Tell whether a method's scores say how far the measurement moves, as far as its description tells."""
    return info.units == "measurement" and info.additive and (action != "flip" or _solves(info))


def _solves(info: Info) -> bool:
    """Tell whether a method divides by a curvature, so that it can be asked about a row with another label."""
    return issubclass(registry.found(info.name).cls, Influence)


def foreseen(
    task: Task, rows: Rows, measurement: Measurement, estimator: Estimator, change: Correction, run: Run
) -> tuple[Foreseen, ...]:
    """Return what a method foresees of a change, and influence functions where it gives no amount.

    Args:
        task: The one that is explained.
        rows: The prediction, or several with ``reduce="mean"``.
        measurement: Of them.
        estimator: Whose scores are read.
        change: Of the task's training rows.
        run: Store, device, progress.
    """
    first = _by_scores(task, rows, measurement, estimator, change, run)
    if first.change is not None:
        return (first,)
    beside = _by_influence(task, rows, measurement, change, run)
    return (first,) if beside is None or beside.method == first.method else (first, beside)


def _by_scores(
    task: Task, rows: Rows, measurement: Measurement, estimator: Estimator, change: Correction, run: Run
) -> Foreseen:
    info, fitted = estimator.named, fit(task, estimator, run)
    named, title = info.name, info.title
    places = [*change.removed, *change.labels, *change.weights]
    values = _scores(task, rows, measurement, fitted, run)[places]
    if not np.isfinite(values).all():
        return Foreseen(named, title, None, 0, "It has no score for some of these rows.")
    share = 1 - next(iter(change.weights.values())) if change.weights else 1.0
    total = -share * float(values.sum())
    sign = int(np.sign(total))
    if info.units != "measurement" or not info.additive:
        return Foreseen(named, title, None, sign, f"{_UNITS[info.units]}: only the direction is foreseen.")
    if change.labels:
        if isinstance(fitted, InfluenceFitted):
            gain = gain_by(fitted, change, task.query(rows, measurement, run.dtype), measurement)
            return _of_gain(gain, title)
        why = "Its scores say what leaving rows out does, not what another label does: only the direction is foreseen."
        return Foreseen(named, title, None, sign, why)
    if type(fitted).group is not Fitted.group:
        ids = task.ids("train")[places].tolist()
        total = -share * float(fitted.group(rows, [ids], measurement).double().mean())
        return Foreseen(named, title, total, int(np.sign(total)), "Minus its influence of the rows as a group.")
    lost = f", times {share:g}: what the rows lose of their weight" if change.weights else ""
    return Foreseen(named, title, total, sign, f"Minus the sum of its scores{lost}.")


def _scores(task: Task, rows: Rows, measurement: Measurement, fitted: Fitted, run: Run) -> np.ndarray:
    """Return the scores ``[n_train]``; those that are a solve each are kept in the store."""
    if fitted.info.query == "solve":
        scores = obtained_answer(task, fitted.estimator, rows, measurement, run).scores
    else:
        scores = fitted.scores(rows, measurement)
    return scores[0].double().cpu().numpy()


def _by_influence(
    task: Task, rows: Rows, measurement: Measurement, change: Correction, run: Run
) -> Foreseen | None:  # fmt: skip
    """Return what influence functions foresee; None where they cannot run."""
    name, _ = influence_method(task)
    title = registry.found(name).info.title
    try:
        gain = predicted_gain(task, change, task.query(rows, measurement, run.dtype), run, measurement)
    except (NumericalProblem, Unavailable) as error:
        return Foreseen(name, title, None, 0, str(error))
    return None if gain.why_not else _of_gain(gain, title)


def _of_gain(gain: PredictedGain, title: str) -> Foreseen:
    how = "Minus the sum of the scores"
    if gain.relabelled:
        how = "The sum of each row's score with its new label minus its score with the old one"
    return Foreseen(gain.method, title, gain.total, int(np.sign(gain.total)), how + ".")
