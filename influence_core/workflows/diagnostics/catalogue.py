"""The diagnostics by id: each is a function of a task and options that answers with a table and some sentences.

A file of this package registers its own with ``@diagnostic``; nobody edits a list.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import pandas as pd

from influence_core import registry
from influence_core.config import Config
from influence_core.errors import BadInput
from influence_core.estimator import Estimator, Fitted
from influence_core.fitting import default_measurement, fit
from influence_core.measurement import Measurement, Rows
from influence_core.metrics.scoring import chosen_rows
from influence_core.run import Run
from influence_core.study import Study
from influence_core.task import Task
from influence_core.workflows.proposals import resolved

Kind = Literal["", "loss", "margin", "probability", "logit"]
METHOD_HELP = "A method with pairwise scores; influence: if_exact, or if_cg for a large model."
KIND_HELP = "What is explained; empty: the method's own."


@dataclass(frozen=True)
class Findings:
    """What a diagnostic needs beside its options: the task, the study where there is one, and how to run."""

    task: Task
    study: Study | None
    run: Run


@dataclass(frozen=True)
class Report:
    """What a diagnostic found.

    Attributes:
        name: Its id.
        title: Its name in words.
        table: The figures; the columns are explained in ``docs/diagnostics.md``. Rows of data are named by their ids.
        notes: What they come to, and what could not be looked at, one sentence each.
    """

    name: str
    title: str
    table: pd.DataFrame
    notes: tuple[str, ...] = ()


Answer = tuple[pd.DataFrame, tuple[str, ...]]
C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class Diagnostic:
    """A registered diagnostic."""

    name: str
    title: str
    summary: str
    reference: str
    Config: type[Config]
    function: Callable[[Findings, Any], Answer]


_ENTRIES: dict[str, Diagnostic] = {}
_LOADED: list[str] = []


def diagnostic(
    name: str, title: str, summary: str, reference: str, config: type[C]
) -> Callable[[Callable[[Findings, C], Answer]], Callable[[Findings, C], Answer]]:
    """Add a function to the catalogue (decorator)."""

    def wrap(function: Callable[[Findings, C], Answer]) -> Callable[[Findings, C], Answer]:
        if name in _ENTRIES:
            raise ValueError(f"two diagnostics are called {name!r}")
        _ENTRIES[name] = Diagnostic(name, title, summary, reference, config, function)
        return function

    return wrap


def diagnostics() -> dict[str, Diagnostic]:
    """Return every diagnostic by id, importing the files of this package on first use."""
    if not _LOADED:
        import influence_core.workflows.diagnostics as package

        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
        _LOADED.append(package.__name__)
    return dict(sorted(_ENTRIES.items()))


def found(name: str) -> Diagnostic:
    """Return the diagnostic of an id.

    Raises:
        BadInput: There is none; says which is spelt nearly so, or that it is a method.
    """
    known = diagnostics()
    if name in known:
        return known[name]
    if name in registry.entries():
        raise BadInput(f"'{name}' is a method", "It scores rows and diagnoses nothing.", "Use attribute, or evaluate.")
    near = difflib.get_close_matches(name, list(known), n=1)
    fix = f"Did you mean '{near[0]}'?" if near else f"Use one of: {', '.join(known)}."
    raise BadInput("Unknown diagnostic", f"'{name}' is not registered.", fix)


def diagnosed(
    given: Task | Study, name: str, options: Mapping[str, Any] | None = None, run: Run | None = None
) -> Report:
    """Run a diagnostic.

    Args:
        given: A task or a study.
        name: Its id.
        options: Over its defaults.
        run: Device, precision, seed of what is drawn, store, progress.

    Raises:
        InfluenceError: Unknown id or option, or what the task lacks.
    """
    entry = found(name)
    config = entry.Config.checked(options or {})
    task, run = resolved(given, run)
    table, notes = entry.function(Findings(task, given if isinstance(given, Study) else None, run), config)
    return Report(name, entry.title, table, notes)


# -- what several of them need ----------------------------------------------------------------------------------------


def fitted_method(findings: Findings, method: str) -> tuple[Estimator, Fitted]:
    """Return a method by id, fitted.

    Raises:
        BadInput: Unknown method.
        Unavailable: It cannot run here.
    """
    estimator = registry.made(method, None, findings.task)
    return estimator, fit(findings.task, estimator, findings.run)


def explained(estimator: Estimator, kind: str, target: str | int = "true") -> Measurement:
    """Return the measurement of an option."""
    return Measurement(kind or default_measurement(estimator).kind, target)


def query_rows(findings: Findings, ids: tuple[int | str, ...] | None, count: int) -> Rows:
    """Return the named test rows, or some drawn by the run's seed."""
    if ids is None:
        return chosen_rows(findings.task, findings.run, count)
    return Rows("test", tuple(known_ids(findings, "test", ids)))


def known_ids(findings: Findings, split: str, ids: tuple[int | str, ...]) -> list[Any]:
    """Return ids in the form of the data: a command line gives text, whatever they are."""
    if findings.study is not None:
        return [findings.study.row_id(split, value) for value in ids]
    return list(ids)
