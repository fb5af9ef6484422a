"""The public calls: attribute, self_influence, evaluate, diagnose. For tasks in memory and studies alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from influence_core import registry
from influence_core.attribution import Attribution
from influence_core.config import Config
from influence_core.errors import BadInput
from influence_core.fitting import default_measurement, fit
from influence_core.measurement import TYPED, Measurement, Rows
from influence_core.run import Run
from influence_core.study import Study
from influence_core.task import Task
from influence_core.workflows.diagnostics.catalogue import Report, diagnosed, diagnostics
from influence_core.workflows.typed_rows import typed, with_typed

_MORE_COLUMNS, _MORE_ROWS = 20, 1000  # beyond what fits, up to which a message says which ones


def list_estimators() -> list[str]:
    """Return the ids of all methods."""
    return list(registry.entries())


def attribute(
    task: Task | Study, method: str | Config, test: Rows | Iterable[Any] | int | str, *,
    config: Mapping[str, Any] | None = None, measurement: Measurement | None = None, run: Run | None = None,
) -> Attribution:  # fmt: skip
    """Score every training row for every query row.

    Args:
        task: A ``Task`` or a ``Study``.
        method: An id of ``list_estimators()``, an alias, or a Config of a method.
        test: Row ids of the test split, one of them, or ``Rows``; ``study.typed(...)`` is a row that is in no split.
        config: Options over the method's defaults.
        measurement: What is explained; default minus the loss at the row's own label, or at the predicted one for a
            typed row, which has none.
        run: Device, precision, store, progress.

    Returns:
        Scores ``[n_test, n_train]``, positive = proponent, with row ids and units.

    Raises:
        InfluenceError: What was given, what is needed, what to do.
    """
    rows = _rows(test)
    if rows.split == TYPED and isinstance(task, Study):
        task = with_typed(task, rows.ids)
    task, run = _resolved(task, run)
    estimator = registry.made(method, config, task)
    if measurement is None:
        unlabelled = rows.split == TYPED and task.n_classes is not None
        measurement = Measurement(default_measurement(estimator).kind, "predicted" if unlabelled else "true")
    fitted = fit(task, estimator, run)
    scores = fitted.scores(rows, measurement)
    ids = rows.ids if rows.reduce is None else (f"mean of {len(rows.ids)} rows",)
    return Attribution(
        scores, ids, task.ids("train"), estimator.named.name, estimator.config.to_json(),
        {"kind": measurement.name, "target": measurement.target}, estimator.named.units, fitted.share, fitted.notes,
    )  # fmt: skip


def typed_row(study: Study, values: Mapping[str, Any] | str | bytes | Path | None, named: Mapping[str, Any]) -> Rows:
    """Return a row that is in no split as a query; see ``Study.typed``."""
    return typed(study, values, named)


def _rows(test: Rows | Iterable[Any] | int | str) -> Rows:
    if isinstance(test, Rows):
        return test
    return Rows("test", tuple(test) if isinstance(test, Iterable) and not isinstance(test, str) else (test,))


def self_influence(
    task: Task | Study, method: str | Config, *, config: Mapping[str, Any] | None = None, run: Run | None = None
) -> Tensor:
    """Return the influence ``[n_train]`` of each training row on itself.

    Raises:
        InfluenceError: As ``attribute``.
    """
    task, run = _resolved(task, run)
    return fit(task, registry.made(method, config, task), run).self_influence()


def evaluate(
    task: Task | Study, methods: Sequence[str | Config], metrics: Sequence[str] = ("mislabel",), *,
    run: Run | None = None, options: Mapping[str, Any] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Return one table of how well methods do: a row per method, metric and figure.

    Retrained models are shared by all metrics and methods and kept: a stopped evaluation goes on where it was. A method
    that a metric cannot be measured of has a row with the figure ``not measured`` and the reason as its note. Of a
    study the result is kept with it, for the app (``workflows.trust.measured``).

    Args:
        task: A task or study; ``mislabel`` needs a study whose planted truth is known.
        methods: Method ids, or Configs.
        metrics: ``"lds"`` and ``"loo"`` (does it track retraining?), ``"pbrf"`` (the proximal Bregman response),
            ``"removal"`` (what does taking proponents away do?), ``"mislabel"``, ``"agreement"`` (between methods) and
            ``"randomised"`` (does it look at the model?).
        run: Device, precision, store, progress; its seed draws rows and subsets.
        options: Over those of ``metrics.Judging``: ``subsets``, ``seeds``, ``rows``, ...

    Returns:
        Columns ``method, metric, figure, value, low, high`` (95% interval), ``n`` (rows it is a mean of), ``ceiling``
        (what the noise of the truth lets a perfect method reach), ``note, seconds`` (of fitting, and of
        scoring 100 test rows). Rows of
        the method ``(truth)`` say how well one seed's retraining agrees with another's.

    Raises:
        InfluenceError: Unknown metric, method or option, or no truth to compare with.
    """
    from influence_core.metrics import Judging
    from influence_core.workflows.trust import evaluated

    found, run = _resolved(task, run)
    estimators = [registry.made(method, None, found) for method in methods]
    return evaluated(task, estimators, metrics, run, Judging.checked(options or {}))


def evaluation_plan(
    task: Task | Study, methods: Sequence[str | Config], metrics: Sequence[str], *, run: Run | None = None,
    options: Mapping[str, Any] | None = None,
) -> str:  # fmt: skip
    """Return in one sentence what ``evaluate`` would have to train and fit, and how long it would take."""
    from influence_core.metrics import Judging
    from influence_core.metrics.planning import planned
    from influence_core.workflows.trust import check_metrics

    check_metrics(metrics)
    found, run = _resolved(task, run)
    estimators = [registry.made(method, None, found) for method in methods]
    return planned(found, estimators, metrics, run, Judging.checked(options or {})).words


def list_diagnostics() -> list[str]:
    """Return the ids of all diagnostics."""
    return list(diagnostics())


def diagnose(
    task: Task | Study, workflow: str, *, config: Mapping[str, Any] | None = None, run: Run | None = None
) -> Report:
    """Answer a question about the model, the method or the data as a whole, rather than about one prediction.

    Args:
        task: A ``Task`` or a ``Study``.
        workflow: An id of ``list_diagnostics()``; ``docs/diagnostics.md`` explains each.
        config: Options over its defaults.
        run: Device, precision, seed of what is drawn, store, progress.

    Returns:
        A ``table`` and ``notes`` that say what it comes to.

    Raises:
        InfluenceError: Unknown id or option, or what the task lacks.
    """
    return diagnosed(task, workflow, config, run)


def open_demo(name: str, path: Path) -> Study:
    """Open a built-in study, building it first if it is not there.

    Raises:
        BadInput: Unknown name.
    """
    from influence_core.demos import build_demo

    return Study(path) if (path / "study.toml").exists() else build_demo(name, path)


def study_from_torch(name: str, model: Any, **options: Any) -> Study:
    """Make a study of a user's PyTorch model; see ``Study.from_torch``."""
    from influence_core.adapters.from_torch import study_from_torch as made

    return made(name, model, **options)


def study_from_trainer(name: str, folder: str | Path, **options: Any) -> Study:
    """Make a study of a Trainer's output folder; see ``Study.from_trainer``."""
    from influence_core.adapters.hf_trainer import study_from_trainer as made

    return made(name, folder, **options)


def study_from_sklearn(name: str, model: Any, **options: Any) -> Study:
    """Make a study of a scikit-learn model; see ``Study.from_sklearn``."""
    from influence_core.adapters.sklearn_study import study_from_sklearn as made

    return made(name, model, **options)


def read_pred_probs(study: Study, path: Path | str, run: Run | None = None, title: str = "") -> Tensor:
    """Return a user's held-out probabilities from a file, float64 ``[n_train, C]``, for ``suspects(pred_probs=...)``.

    Args:
        study: A classification.
        path: A table (CSV, JSON, Parquet, Arrow) with a column of row ids, named as in the study, and one per class,
            named by it; or an array ``.npy`` in the order of the train rows and classes. Nothing is unpickled.
        run: Progress and cancel.
        title: How messages name the file; default: its path.

    Raises:
        BadInput: It cannot be read, or does not fit: missing or unknown rows or classes, or no probabilities.
    """
    import numpy as np

    from influence_core.readers import open_source
    from influence_core.workflows.suspects.held_out import check_classified, checked_probabilities
    from influence_core.workflows.suspects.own_probabilities import matched_probabilities

    check_classified(study.task)
    path = Path(path)
    shown = title or str(path)
    if path.suffix.lower() == ".npy":
        try:
            return checked_probabilities(study.task, np.load(path, allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            why = " ".join(str(error).split())[:200].rstrip(".")
            fix = "Give csv, parquet or npy."
            raise BadInput("The probabilities cannot be read", f"{shown}: {why}.", fix) from None
    try:
        with open_source(path, run) as source:
            names, known = [name.strip() for name in source.names], len(study.header.classes)
            if len(names) > known + _MORE_COLUMNS or source.n_rows > 2 * study.n_rows("train") + _MORE_ROWS:
                why = f"It has {source.n_rows:,} rows and {len(names):,} columns."
                fix = f"Give {study.n_rows('train'):,} rows, with an id and {known:,} classes."
                raise BadInput("The probabilities do not fit the study", why, fix)
            parts = list(source.batches())
            columns = {
                name: np.concatenate([part.column(i).to_numpy() for part in parts]) for i, name in enumerate(names)
            }
            return matched_probabilities(study, names, columns)
    except BadInput as error:
        why, fix = (words.replace(str(path), shown) for words in (error.why, error.fix))
        raise BadInput(error.what, why if Path(shown).name in why else f"{shown}: {why}", fix) from None


def _resolved(task: Task | Study, run: Run | None) -> tuple[Task, Run]:
    if isinstance(task, Study):
        return task.task, (run or Run()).with_store(task.store)
    return task, run or Run()
