"""How fragile influence functions are here: one setting is changed at a time, and the agreement with retraining read.

Basu, Pope & Feizi (ICLR 2021) find that the agreement of influence functions with leave-one-out hangs on the depth and
width of the network, on weight decay, and on how the system is solved. The panel changes, one at a time: the damping,
the solver, the seed of training, the weight decay, the width and the depth; everything else stays as it is. For every
setting it reads

- the Spearman correlation with *cold* leave-one-out (trained again from the untrained model, same seed and order) and
  with *warm* leave-one-out (trained on from the explained weights, ``warm_start.py``): different truths, both kept;
- the share of each prediction's top rows that the unchanged setting has at the top too;
- the effective damping and the ends of the Hessian's spectrum, by Lanczos' method.

On a strongly convex model the panel is flat. Where it is not, the settings that move it are what a score here hangs on.

Cost: ``2 (left_out + 1)`` trainings per setting that changes the model; of the others, the method alone.

Reference: Basu, Pope & Feizi, Influence Functions in Deep Learning Are Fragile, ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import nn

from influence_core import architectures, registry
from influence_core.config import Config
from influence_core.curvature_cache import Curvature
from influence_core.ensembles import trained_variant
from influence_core.errors import BadInput, NumericalProblem, Unavailable
from influence_core.estimator import Estimator, Fitted
from influence_core.fitting import fit
from influence_core.measurement import Measurement, Rows
from influence_core.metrics.intervals import mean_correlation
from influence_core.metrics.scoring import chosen_rows, judged_measurement
from influence_core.metrics.table import Judging
from influence_core.metrics.truth import left_out_truth
from influence_core.run import Run
from influence_core.task import Task
from influence_core.workflows.diagnostics.catalogue import METHOD_HELP, Findings, diagnostic
from influence_core.workflows.diagnostics.warm_start import warm_differences

Factory = Callable[[], nn.Module]
COLUMNS = (
    "changed", "setting", "method", "n_params", "damping", "smallest", "largest", "spearman_cold", "cold_low",
    "cold_high", "spearman_warm", "warm_low", "warm_high", "top_shared", "note",
)  # fmt: skip
_SOLVERS = ("if_ggn", "if_cg", "if_lissa", "if_arnoldi", "if_ekfac")
_DECAY = 1e-3  # tried where the recipe has none


class FragilityConfig(Config):
    """What is changed, and how much is retrained to judge it."""

    method: str = Field("influence", description=METHOD_HELP)
    dampings: tuple[float, ...] = Field((0.1, 10.0), description="Multiples of the damping chosen for this model.")
    solvers: tuple[str, ...] = Field(_SOLVERS, description="Other methods that solve the same system.")
    seeds: int = Field(2, ge=0, le=20, description="Further trainings, each with its own seed.")
    weight_decays: tuple[float, ...] | None = Field(
        None, description="Weight decays to train with; empty: none, and ten times the recipe's."
    )
    widths: tuple[float, ...] = Field(
        (0.5, 2.0), description="Multiples of the hidden layers' widths, of a built-in network."
    )
    depths: tuple[int, ...] = Field((1,), description="Hidden layers more (or fewer, below 0), of a built-in mlp.")
    left_out: int = Field(16, ge=3, description="Training rows left out one at a time.")
    rows: int = Field(16, ge=1, description="Test rows that are looked at.")
    top: int = Field(10, ge=1, description="Top rows that are compared with the unchanged setting's.")
    warm_epochs: int | None = Field(
        None, ge=1, description="Passes of the training on from the explained weights; empty: the recipe's."
    )


@dataclass(frozen=True)
class _Setting:
    """One line of the panel: what is changed to what, and the task and the method that this makes."""

    changed: str
    setting: str
    made: Callable[[], tuple[Task, Estimator]]


@diagnostic(
    "fragility_suite", "Fragility of influence functions",
    "Changes damping, solver, seed, weight decay, width and depth one at a time and compares with retraining.",
    "Basu, Pope & Feizi, Influence Functions in Deep Learning Are Fragile, ICLR 2021", FragilityConfig,
)  # fmt: skip
def _reported(findings: Findings, config: FragilityConfig) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the table and what it comes to.

    Columns: what is ``changed``, to which ``setting``; the ``method`` and ``n_params`` then; the effective ``damping``;
    ``smallest`` and ``largest`` eigenvalue of the Hessian; the Spearman correlation with cold and warm leave-one-out,
    each with its 95% interval; ``top_shared`` with the unchanged setting; a ``note`` where it could not be measured.
    """
    return fragility_suite(findings.task, findings.run, config)


def fragility_suite(
    task: Task, run: Run, config: FragilityConfig | None = None, models: Mapping[str, Factory] | None = None
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the panel, one line per setting, and what it comes to.

    Args:
        task: With a trained model, a recipe, a model factory and a built-in loss.
        run: Device, precision, store, progress; its seed draws the rows.
        config: What is changed.
        models: Further models by name, for a network that is not built in: tried as widths and depths are.

    Raises:
        BadInput: A method without pairwise scores.
        Unavailable: The task cannot be retrained.
    """
    config = config or FragilityConfig.checked({})
    if task.recipe is None or task.factory is None:
        raise Unavailable(
            "Fragility cannot be measured here", "The task has no recipe or no model factory to retrain with.",
            "Give recipe=Recipe(...) and the model as a function.",
        )  # fmt: skip
    base = registry.made(config.method, None, task)
    if not base.named.scores:
        raise BadInput(f"{base.named.title} has no score for a pair of rows", "It ranks no rows.", "Use if_exact.")
    rows, notes = chosen_rows(task, run, config.rows), []
    judge = _Judge(run, rows, judged_measurement(task, base), config)
    first = judge.line(task, base, "nothing", "as it is")
    lines = [first]
    settings = list(_settings(task, base, run, config, models or {}, judge, notes))
    for setting in run.track(settings, "settings of the panel", len(settings)):
        try:
            changed, estimator = setting.made()
            lines.append(judge.line(changed, estimator, setting.changed, setting.setting))
        except (BadInput, NumericalProblem, Unavailable) as error:
            lines.append(_line(setting.changed, setting.setting, note=str(error)))
    table = pd.DataFrame(lines, columns=list(COLUMNS))
    return table, (*_said(table, config.top), *notes)


def _settings(
    task: Task, base: Estimator, run: Run, config: FragilityConfig, given: Mapping[str, Factory], judge: _Judge,
    notes: list[str],
) -> Iterator[_Setting]:  # fmt: skip
    recipe = task.recipe
    assert recipe is not None
    method = base.named.name
    own = judge.damping
    if own is None:
        notes.append(f"{base.named.title} has no damping of its own that could be changed.")
    elif own == 0 and config.dampings:
        notes.append("No damping was added to this model's curvature, so that there is nothing to multiply.")
    else:
        for factor in config.dampings:
            options = {"damping": float(f"{factor * own:.6g}")}
            yield _Setting("damping", f"{factor:g} times", partial(_with, task, method, options))
    for name in config.solvers:
        if name != method:
            yield _Setting("solver", name, partial(_with, task, name, None))

    def trained(changed: Any, factory: Factory | None = None) -> tuple[Task, Estimator]:
        variant = trained_variant(task, run, changed, factory)
        return variant, registry.made(method, None, variant)

    if recipe.optimizer == "lbfgs":
        notes.append("Training ends at the same weights whatever the seed, so that no other seed was tried.")
    else:
        for seed in range(recipe.seed + 1, recipe.seed + 1 + config.seeds):
            yield _Setting("seed", str(seed), partial(trained, recipe.changed(seed=seed)))
    for decay in _decays(recipe.weight_decay) if config.weight_decays is None else config.weight_decays:
        if decay != recipe.weight_decay:
            yield _Setting("weight decay", f"{decay:g}", partial(trained, recipe.changed(weight_decay=decay)))
    shapes = [*_shapes(task.factory, config, notes), *(("architecture", *pair) for pair in given.items())]
    for changed, setting, factory in shapes:
        yield _Setting(changed, setting, partial(trained, recipe, factory))


def _with(task: Task, method: str, options: dict[str, Any] | None) -> tuple[Task, Estimator]:
    return task, registry.made(method, options, task)


def _decays(own: float) -> tuple[float, ...]:
    return (0.0, 10 * own) if own else (_DECAY, 10 * _DECAY)


def _shapes(factory: Any, config: FragilityConfig, notes: list[str]) -> Iterator[tuple[str, str, Factory]]:
    """Yield the wider, narrower, deeper and shallower versions of a built-in network."""
    kind = factory.func if isinstance(factory, partial) else None
    if kind is None or kind not in (architectures.mlp, architectures.cnn):
        if config.widths or config.depths:
            notes.append("Width and depth were left as they are: they can be changed of the built-in mlp and cnn only.")
        return
    options: dict[str, Any] = dict(factory.keywords)
    name = "hidden" if kind is architectures.mlp else "widths"
    widths = tuple(options.get(name, (32,) if name == "hidden" else (8, 16)))
    if not widths:
        notes.append("There is no hidden layer, so that width and depth were left as they are.")
        return
    for factor in config.widths:
        changed = {name: tuple(max(1, round(factor * width)) for width in widths)}
        yield "width", f"{factor:g} times", partial(kind, **{**options, **changed})
    if name == "widths":
        if config.depths:
            notes.append("Depth was left as it is: the built-in cnn has two convolutions.")
        return
    for more in config.depths:
        if len(widths) + more < 1:
            notes.append(f"Depth {more:+d} was left out: the network has {len(widths)} hidden layers.")
            continue
        deeper = widths[: len(widths) + more] if more < 0 else (*widths, *(widths[-1],) * more)
        yield "depth", f"{len(deeper)} hidden layers", partial(kind, **{**options, "hidden": deeper})


class _Judge:
    """Reads the panel's figures of one setting; remembers those of the first, which the others are compared with."""

    def __init__(self, run: Run, rows: Rows, measurement: Measurement, config: FragilityConfig) -> None:
        self.run, self.rows, self.measurement, self.config = run, rows, measurement, config
        self.tops: np.ndarray | None = None
        self.damping: float | None = None
        self.truths: dict[str, tuple[list[int], np.ndarray, np.ndarray]] = {}
        self.ends: dict[str, tuple[float, float]] = {}

    def line(self, task: Task, estimator: Estimator, changed: str, setting: str) -> dict[str, Any]:
        """Return a line of the panel."""
        fitted = fit(task, estimator, self.run)
        scores = fitted.scores(self.rows, self.measurement).double().cpu().numpy()
        top = min(self.config.top, task.n_train)
        tops = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        if self.tops is None:
            self.tops, self.damping = tops, _damping(fitted, own=True)
        shared = np.mean([len(set(a) & set(b)) / top for a, b in zip(tops, self.tops, strict=True)])
        left, cold, warm = self._truth(task)
        figures = {}
        for name, truth in (("cold", cold), ("warm", warm)):
            found = mean_correlation(scores[:, left], truth)
            figures |= {f"spearman_{name}": found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        smallest, largest = self._spectrum(task)
        return _line(
            changed, setting, method=estimator.named.name, n_params=task.n_params, damping=_damping(fitted),
            smallest=smallest, largest=largest, top_shared=float(shared), **figures,
        )  # fmt: skip

    def _truth(self, task: Task) -> tuple[list[int], np.ndarray, np.ndarray]:
        if task.fingerprint not in self.truths:
            options = Judging(left_out=self.config.left_out, seeds=1)  # type: ignore[call-arg]
            cold = left_out_truth(task, self.run, options)
            batch = task.query(self.rows, self.measurement, torch.float64)
            differences = cold.differences(batch, self.measurement, self.rows)[0].double().cpu().numpy()
            warm = warm_differences(
                task, cold.rows, self.rows, self.measurement, self.run, self.config.warm_epochs
            )  # fmt: skip
            self.truths[task.fingerprint] = cold.rows, differences, warm.cpu().numpy()
        return self.truths[task.fingerprint]

    def _spectrum(self, task: Task) -> tuple[float, float]:
        if task.fingerprint not in self.ends:
            plan = fit(task, registry.made("if_cg", None, task), self.run).cache.plan  # type: ignore[attr-defined]
            self.ends[task.fingerprint] = Curvature(task, self.run, plan, "hessian").ends()
        return self.ends[task.fingerprint]


def _damping(fitted: Fitted, own: bool = False) -> float | None:
    """Return what a method adds to the curvature, without the weight decay where only its own part is asked for."""
    chosen = getattr(fitted, "chosen", None)
    return None if chosen is None else float(chosen.own if own else chosen.total)


def _line(changed: str, setting: str, **figures: Any) -> dict[str, Any]:
    blank = dict.fromkeys(COLUMNS, np.nan)
    return {**blank, "method": "", "note": "", "changed": changed, "setting": setting, **figures}


def _said(table: pd.DataFrame, top: int) -> tuple[str, ...]:
    notes = []
    for name, truth in (("cold", "leave-one-out from the start"), ("warm", "leave-one-out from the explained weights")):
        values = table[f"spearman_{name}"].dropna()
        if len(values):
            least, most = table.loc[values.idxmin()], table.loc[values.idxmax()]
            notes.append(
                f"Spearman with {truth}: {values.min():.2f} ({least.changed}: {least.setting}) to {values.max():.2f} "
                f"({most.changed}: {most.setting}) over {len(values)} settings."
            )
    shared = table["top_shared"].iloc[1:].dropna()
    if len(shared):
        least = table.loc[shared.idxmin()]
        notes.append(
            f"Of the top {top} rows, {shared.min():.0%} stay in the setting that shares least with the unchanged one "
            f"({least.changed}: {least.setting})."
        )
    return tuple(notes)
