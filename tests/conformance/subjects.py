"""What the conformance checks run on: every registered method with every small case that offers what it needs.

A pair exists because the registry says that the method is available on the case; nothing is left out by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from influence_core import registry
from influence_core.config import Config
from influence_core.errors import BadInput
from influence_core.estimator import Fitted, Info
from influence_core.examples import Batch, taken
from influence_core.fitting import default_measurement, fit
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.losses import CustomLoss
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Needs, Task
from tests.cases import CASES

SMALL = ("convex", "mlp_with_str_ids", "cnn_inplace", "transformer", "regression", "dict_input")
FORMS = ("convex", "transformer", "regression")  # for what depends on how a layer's gradients are held
STEPS = ("stepped",)  # for methods that follow the steps of training
CORE = ("convex", "regression")  # for what depends on the method more than on the shape of the model


@cache
def _reasons(case: str) -> dict[str, str]:
    return registry.available(CASES[case]())


def pairs(keep: Callable[[Info], bool] = lambda info: True, cases: tuple[str, ...] = SMALL) -> Any:
    """Parametrise a test over the pairs of an available method and a case, by what the method says of itself."""
    found = [
        pytest.param(name, case, id=f"{name}-{case}")
        for name, entry in registry.entries().items()
        for case in _told_apart(entry.info, cases)
        if keep(entry.info) and not _reasons(case)[name]
    ]
    assert found, "no method is left to check"
    return pytest.mark.parametrize(("method", "case"), found)


def _told_apart(info: Info, cases: tuple[str, ...]) -> tuple[str, ...]:
    """Return the cases that can show a fault: methods that solve meet a model by its products alone, whatever it is."""
    if Needs.STEPS in info.needs:
        return STEPS
    return tuple(case for case in cases if case in CORE) or cases if info.query == "solve" else cases


def scoring(info: Info) -> bool:
    """Whether a method scores pairs."""
    return info.scores


class Answer(NamedTuple):
    """All that a method says about a task."""

    scores: Tensor | None
    self_influence: Tensor | None


def run_in(folder: Path, **settings: Any) -> Run:
    """A float64 run with a store of its own."""
    return Run(**{"device": "cpu", "dtype": torch.float64, "batch_size": 16, "store": Store(folder), **settings})


def fitted_on(task: Task, method: str, run: Run, options: dict[str, Any] | None = None) -> Fitted:
    return fit(task, registry.entries()[method].make(options), run)


def asked(fitted: Fitted) -> Measurement:
    return default_measurement(fitted.estimator)


def rows_of(task: Task, split: str = "test") -> Rows:
    return Rows(split, tuple(task.ids(split).tolist()))


def answer(task: Task, method: str, run: Run, options: dict[str, Any] | None = None) -> Answer:
    """Fit, score every test row, and take the self-influence: the whole of a method."""
    fitted = fitted_on(task, method, run, options)
    scores = fitted.scores(rows_of(task), asked(fitted)) if fitted.info.scores else None
    return Answer(scores, fitted.self_influence() if fitted.info.self_influence else None)


@cache
def usual(method: str, case: str) -> Answer:
    """The answer at the default settings, computed once."""
    with TemporaryDirectory() as folder:
        found = answer(CASES[case](), method, run_in(Path(folder)))
    return Answer(*(None if values is None else values.clone() for values in found))


def tolerance(info: Info) -> float:
    """Rounding for a closed form; the solver's own tolerance where there is one."""
    return 1e-5 if info.query == "solve" or Needs.RECIPE in info.needs else 1e-9


def assert_same(found: Tensor | None, expected: Tensor | None, info: Info, *, overlap: bool = False) -> None:
    """Compare relative to the largest score; NaN must agree, or with ``overlap`` be ignored where either is NaN."""
    if expected is None or found is None:
        assert found is expected
        return
    assert found.shape == expected.shape
    if overlap and info.partial:
        both = found.isfinite() & expected.isfinite()
        assert both.any()
        found, expected = found[both], expected[both]
    scale = float(expected.nan_to_num(0).abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance(info) * scale + 1e-300, equal_nan=info.partial)


def assert_answers(found: Answer, expected: Answer, info: Info) -> None:
    assert_same(found.scores, expected.scores, info)
    assert_same(found.self_influence, expected.self_influence, info)


def whole(task: Task, split: str) -> Batch:
    return task.split(split).batch(slice(None), "cpu", torch.float64)


def permuted(task: Task, train: Tensor | None = None, test: Tensor | None = None) -> Task:
    """The same task with its rows in another order, ids included."""

    def part(split: str, order: Tensor | None) -> tuple[tuple[Any, Tensor], Any]:
        order = torch.arange(len(task.ids(split))) if order is None else order
        return tuple(taken(whole(task, split), order)), task.ids(split)[order.numpy()]  # type: ignore[return-value]

    train_rows, train_ids = part("train", train)
    test_rows, test_ids = part("test", test)
    loss = task.loss.function if isinstance(task.loss, CustomLoss) else task.loss.name
    assert task.factory is not None
    return Task(
        task.factory, train_rows, test_rows, loss, checkpoints=[task.state(c) for c in range(task.n_checkpoints)],
        learning_rates=task.learning_rates, recipe=task.recipe, train_ids=train_ids, test_ids=test_ids,
    )  # fmt: skip


def other_values(value: Any) -> Iterator[Any]:
    """Values that an option might take instead; the Config decides which it accepts."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, (int, float)):
        yield from (value + 1, value * 2, value / 2, value - 1)
    else:
        yield from (16, 0.5, (0, 1), ("last",), None)


def choices(cls: type[Config], name: str) -> list[Any]:
    """The words an option may be, from the schema that the forms are drawn from."""
    schema = cls.model_json_schema()["properties"][name]
    parts = [schema, *schema.get("anyOf", [])]
    return [word for part in parts for word in part.get("enum", [part["const"]] if "const" in part else [])]


def variants(config: Config) -> dict[str, Config]:
    """For every option, a Config that differs in it alone."""
    found: dict[str, Config] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        for candidate in [*choices(type(config), name), *other_values(value), "input"]:
            try:
                changed = config.changed(**{name: candidate})
            except BadInput:
                continue
            if changed != config:
                found[name] = changed
                break
        else:
            raise AssertionError(f"{type(config).__name__}.{name}: no other value was found to try")
    return found


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
