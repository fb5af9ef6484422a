"""Which method to believe on this study: measures methods, keeps what was measured with the study, and says it.

``evaluated`` measures and keeps; ``measured`` only reads what is known, at once, so that a screen can show it. What is
known is a file beside the study's data, ``trust/<fingerprint>.json``: a study or version with other labels or weights
has another fingerprint, and knows nothing yet.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from influence_core.errors import BadInput, StoreProblem
from influence_core.estimator import Estimator
from influence_core.metrics import METRICS, NOT_MEASURED, Judging
from influence_core.metrics.agreement import OVERLAP, SPEARMAN, matrix
from influence_core.metrics.removal_curve import RANDOM, removal_curves
from influence_core.metrics.table import COLUMNS, framed
from influence_core.registry import missing
from influence_core.run import Run
from influence_core.store import disk_errors
from influence_core.study import Study
from influence_core.task import Task

VERSION = 2
TRUTHS = {"lds": "lds", "loo": "spearman"}  # metrics that say how well a method tracks retraining, best first
_MUCH_CHEAPER = 3.0
_TIE = 0.005  # scores that read the same: the cheaper method is named
_BESIDES = ("config", "options", "measured")


@dataclass(frozen=True)
class Trust:
    """What is known of methods on one study.

    Attributes:
        table: A row per method, metric and figure, as ``evaluate`` returns it, and ``config`` (the method's options),
            ``options`` (how it was measured) and ``measured`` (when).
        removals: Removal curves, one per prediction and method: ``id, method, counts, margins, low, high, draws, flip,
            flipped, measured``; the last one measured.
    """

    table: pd.DataFrame
    removals: Sequence[Mapping[str, Any]] = ()

    @property
    def fidelity(self) -> pd.DataFrame:
        """Return how well each method tracks retraining, best first: value, low, high, ceiling, seconds, note."""
        for metric, figure in TRUTHS.items():
            rows = (self.table["metric"] == metric) & (self.table["figure"] == figure) & self.table["value"].notna()
            if bool(np.asarray(rows).any()):
                return self.table.loc[rows].sort_values(by=["value"], ascending=False).reset_index(drop=True)
        return self.table.iloc[:0]

    @property
    def agreement(self) -> pd.DataFrame:
        """Return the square table of rank correlations between methods."""
        return matrix(self.table, SPEARMAN)

    @property
    def shared(self) -> pd.DataFrame:
        """Return the square table of the share of top rows that two methods have in common."""
        return matrix(self.table, OVERLAP)

    @property
    def unmeasured(self) -> dict[str, str]:
        """Return method -> why it could not be measured, of those that no truth was compared with."""
        found = self.table[self.table["figure"] == NOT_MEASURED]
        known = set(self.fidelity["method"])
        return {name: note for name, note in zip(found["method"], found["note"], strict=True) if name not in known}

    @property
    def followed(self) -> list[Any]:
        """Return the ids of the predictions whose removal curves are known, the last measured first."""
        known = sorted(self.removals, key=lambda one: one["measured"], reverse=True)
        return list(dict.fromkeys(one["id"] for one in known if one["method"] != RANDOM))

    def curve(self, test_id: Any) -> dict[str, Mapping[str, Any]]:
        """Return method -> removal curve of one prediction; that of random rows under ``(random)``."""
        return {one["method"]: one for one in self.removals if one["id"] == test_id}

    @property
    def advice(self) -> str:
        """Return one plain sentence made from the numbers; empty while nothing is known."""
        return advice(self.fidelity)


class _Known(NamedTuple):
    """One line of fidelity in plain numbers."""

    method: str
    value: float
    low: float
    high: float
    ceiling: float
    seconds: float


def advice(fidelity: pd.DataFrame) -> str:
    """Return which method tracks retraining best, and what the cheapest of the others gives up."""
    columns = (fidelity[name].tolist() for name in _Known._fields)
    known = [_Known(*values) for values in zip(*columns, strict=True)]
    if not known:
        return ""
    highest = max(one.value for one in known)
    best = min((one for one in known if one.value >= highest - _TIE), key=lambda one: one.seconds)
    possible = f" of a possible {best.ceiling:.2f}" if math.isfinite(best.ceiling) else ""
    if best.low <= 0:
        return (
            f"On this model, no measured method tracks retraining: the best, {best.method}, reaches "
            f"{best.value:.2f}{possible}, which chance could give."
        )
    said = f"On this model, {best.method} tracks retraining best ({best.value:.2f}{possible})"
    cheaper = [one for one in known if one.seconds * _MUCH_CHEAPER <= best.seconds]
    if not cheaper:
        return said + "."
    alike = [one for one in cheaper if one.high >= best.value]
    other = min(alike, key=lambda one: one.seconds) if alike else max(cheaper, key=lambda one: one.value)
    times = best.seconds / max(other.seconds, 1e-9)
    words = f"{times:.0f} times" if times < 1000 else "more than 1,000 times"
    tail = f"and hardly worse ({other.value:.2f})" if alike else f"but only {other.value:.2f}"
    return f"{said}; {other.method} is {words} cheaper {tail}."


def evaluated(
    task: Task | Study, methods: Sequence[Estimator], metrics: Sequence[str], run: Run, options: Judging
) -> pd.DataFrame:
    """Measure methods, keep the result with the study, and return the table.

    Raises:
        BadInput: Unknown metric; or a metric that cannot be measured here at all, before anything is done.
    """
    study = task if isinstance(task, Study) else None
    task = task.task if isinstance(task, Study) else task
    check_metrics(metrics)
    truth = study.planted if study is not None else None
    if "mislabel" in metrics and (truth is None or not truth.any()):
        METRICS["mislabel"](task, [], run, truth, options)  # says why
    tables = []
    for name in metrics:
        table = METRICS[name](task, methods, run, truth, options)
        tables.append(table)
        if study is not None:
            able = [one for one in methods if not missing(one.named, task)]
            curves = _curves(task, table, able, run, options) if name == "removal" else []
            # What named predictions show is kept as their curves: it is no figure of the study's predictions.
            named = name == "removal" and options.predictions is not None
            _keep(study, methods, table.iloc[:0] if named else table, options, curves)
    return pd.concat(tables, ignore_index=True) if tables else framed([])


def check_metrics(names: Sequence[str]) -> None:
    """Raise ``BadInput`` if one of these is no metric."""
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise BadInput("Unknown metric", f"'{unknown[0]}' is not a metric.", f"Use one of: {', '.join(METRICS)}.")


def _curves(
    task: Task, table: pd.DataFrame, methods: Sequence[Estimator], run: Run, options: Judging
) -> list[dict[str, Any]]:
    """Return the removal curves of the methods that were measured; every model is in the table of outcomes by now."""
    known = set(table[table["figure"] != NOT_MEASURED]["method"])
    able = [estimator for estimator in methods if estimator.named.name in known]
    if not able:
        return []
    found = removal_curves(task, able, run, options)
    return [{"method": name, **record} for name, curve in found.items() for record in curve.to_json()]


def measured(study: Study) -> Trust:
    """Return what is known of methods on a study, without any work.

    Raises:
        StoreProblem: The record cannot be read.
    """
    known = _read(record_file(study))
    rows = [
        {**line, **{name: part[name] for name in _BESIDES}} for part in known["parts"].values() for line in part["rows"]
    ]
    table = pd.DataFrame(rows, columns=[*COLUMNS, *_BESIDES])
    for name in ("value", "low", "high", "ceiling", "seconds"):
        table[name] = table[name].astype(float)  # JSON has no NaN: None
    return Trust(table, known["removals"])


def record_file(study: Study) -> Path:
    """Return the file that holds what is known; it is there once something was measured, and replaced as a whole."""
    return study.path / "trust" / f"{study.task.fingerprint}.json"


def _read(path: Path) -> dict[str, Any]:
    blank: dict[str, Any] = {"version": VERSION, "parts": {}, "removals": []}
    if not path.exists():
        return blank
    try:
        found = json.loads(path.read_text())
        if found["version"] == 1:
            return {"version": VERSION, "parts": found["parts"], "removals": _of_version_1(found["curves"])}
        return found if found["version"] == VERSION else blank
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreProblem(
            "What was measured cannot be read", f"{path}: {error}.", "Delete this file and measure again."
        ) from error


def _of_version_1(curves: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return curves as they are kept now, of the time when each method had one record of all its predictions."""
    return [
        {
            "method": name, "id": test_id, "counts": curve["counts"], "margins": margins, "low": margins,
            "high": margins, "draws": 1, "flip": flip, "flipped": float(flip is not None), "measured": "",
        }
        for name, curve in curves.items()
        for test_id, margins, flip in zip(curve["ids"], curve["margins"], curve["flips"], strict=True)
    ]  # fmt: skip


def _keep(
    study: Study, methods: Sequence[Estimator], table: pd.DataFrame, options: Judging, curves: Sequence[dict[str, Any]]
) -> None:
    """Put the rows of one metric in the place of what was known of these methods before."""
    path = record_file(study)
    with disk_errors(path.parent), _alone(path):
        known = _read(path)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        configs = {estimator.named.name: estimator.config for estimator in methods}
        for (method, metric), rows in _grouped(table).items():
            config = configs.get(method)
            known["parts"][f"{method}/{config.key() if config else ''}/{metric}"] = {
                "config": config.to_json() if config else {}, "options": options.to_json(), "measured": now,
                "rows": rows,
            }  # fmt: skip
        known["removals"] = _joined(known["removals"], [{**curve, "measured": now} for curve in curves])
        beside = path.with_suffix(".part")
        beside.write_text(json.dumps(known, allow_nan=False))
        os.replace(beside, path)


def _joined(known: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the curves with new ones in the place of old ones; random rows drawn more often are kept over fewer."""
    found = {(type(one["id"]).__name__, one["id"], one["method"]): one for one in known}
    for one in new:
        key = type(one["id"]).__name__, one["id"], one["method"]
        if key not in found or one["draws"] >= found[key]["draws"]:
            found[key] = one
    return list(found.values())


def _grouped(table: pd.DataFrame) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return method and metric -> lines in JSON, which has no NaN."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for values in zip(*(table[name].tolist() for name in COLUMNS), strict=True):
        line = {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in zip(COLUMNS, values, strict=True)
        }
        # A pair of methods is a measurement of its own: comparing one of them with a third must not forget it.
        what = line["figure"] if line["metric"] == "agreement" else ""
        found.setdefault((str(line["method"]), f"{line['metric']}{what}"), []).append(line)
    return found


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the record while it is changed: two evaluations of one study must not lose each other's rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
