"""``Study.from_torch``: what a user has of a PyTorch training, in the forms that users have it in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from influence_core.adapters.torch_data import Forward, shown_table, split_rows
from influence_core.adapters.torch_rows import Split
from influence_core.adapters.torch_study import ParityReference, saved_torch_study
from influence_core.adapters.torch_targets import check_unweighted, loss_name
from influence_core.checkpoints import StateDict
from influence_core.errors import BadInput
from influence_core.model_reference import allow_model, model_factory, reference_of
from influence_core.recipe import Recipe
from influence_core.run import Run
from influence_core.study import Study
from influence_core.study_files import SPLITS, check_free


def study_from_torch(
    name: str, model: str | Callable[[], torch.nn.Module], *, train: Any, test: Any, locked: Any = None,
    checkpoints: Sequence[StateDict | str | Path] | None = None, learning_rates: Sequence[float] | None = None,
    recipe: Recipe | Mapping[str, Any] | None = None, loss: Any = "cross_entropy",
    class_names: Sequence[str] | None = None, train_ids: Sequence[Any] | None = None,
    test_ids: Sequence[Any] | None = None, locked_ids: Sequence[Any] | None = None, show: Any = None,
    predictions: Any = None, recording: str | Path | None = None, title: str | None = None, description: str = "",
    out: str | Path | None = None, gradient_accumulation: int = 1, run: Run | None = None, **options: Any,
) -> Study:  # fmt: skip
    """Write and open a study; the arguments are those of ``Study.from_torch``, which explains them."""
    check_unweighted(options)
    target, reference = _place(name, out), model if isinstance(model, str) else reference_of(model)
    check_free(target)
    word = loss_name(loss)
    allow_model(reference)
    with torch.random.fork_rng(devices=[]):
        forward = Forward(model_factory({"reference": reference})())
    given = {"train": (train, train_ids), "test": (test, test_ids), "locked": (locked, locked_ids)}
    read = {split: (*split_rows(data, forward, split), ids) for split, (data, ids) in given.items() if data is not None}
    extra = _shown(show, {split: len(rows) for split, (rows, _, _) in read.items()})
    splits = {split: _split(rows, seen, extra.get(split), ids) for split, (rows, seen, ids) in read.items()}
    recipe, notes = _recipe(recipe, gradient_accumulation)
    recorded = _recorded(recording, checkpoints, learning_rates)
    return saved_torch_study(
        target, name=name, title=title, description=description, model={"reference": reference}, splits=splits,
        loss=word, class_names=class_names, recipe=recipe, notes=[*notes, *recorded.pop("notes", ())], run=run,
        parity_reference=_predicted(predictions, len(splits["test"].inputs)),
        **(recorded or {"checkpoints": checkpoints or [], "learning_rates": learning_rates}),
    )  # fmt: skip


def _place(name: str, out: str | Path | None) -> Path:
    if not name or (out is None and (name in (".", "..") or Path(name).name != name)):
        raise BadInput("The study needs another name", f"It is {name!r}.", "Give a word without slashes.")
    return Path(out) if out is not None else Path("studies") / name


def _shown(show: Any, lengths: Mapping[str, int]) -> dict[str, pa.Table]:
    """Return what is shown of each split: given for each, or as one table of all rows, train first."""
    if show is None:
        return {}
    if isinstance(show, Mapping) and set(show) <= set(SPLITS):
        tables = {split: shown_table(show[split], n, split) for split, n in lengths.items() if split in show}
        return {split: table for split, table in tables.items() if table is not None}
    whole, start, parts = shown_table(show, sum(lengths.values()), ", ".join(lengths)), 0, {}
    assert whole is not None
    for split, n in lengths.items():
        parts[split] = whole.slice(start, n)
        start += n
    return parts


def _split(rows: Any, seen: pa.Table | None, extra: pa.Table | None, ids: Any) -> Split:
    """Return a split; what the data itself has to show stands behind what was given for it."""
    tables = [table for table in (extra, seen) if table is not None]
    columns = {title: table.column(title) for table in reversed(tables) for title in table.column_names}
    order = dict.fromkeys(title for table in tables for title in table.column_names)
    return Split(rows, None, ids, pa.table({title: columns[title] for title in order}) if columns else None)


def _recipe(recipe: Any, accumulated: int) -> tuple[Recipe | None, list[str]]:
    """Return the recipe, a step of several accumulated batches as one batch."""
    if not isinstance(accumulated, int) or accumulated < 1:
        why = f"gradient_accumulation is {accumulated!r}."
        raise BadInput("The number of accumulated batches cannot be used", why, "Give a whole number of 1 or more.")
    found = Recipe.checked(dict(recipe)) if isinstance(recipe, Mapping) else recipe
    if found is not None and not isinstance(found, Recipe):
        raise BadInput(
            "The recipe cannot be used", f"It is a {type(found).__name__}.", "Give a Recipe, or its options."
        )
    if accumulated == 1:
        return found, []
    note = f"{accumulated} batches were accumulated for each step: a step is one batch of all their rows."
    if found is None:
        return None, [note]
    return Recipe.checked({**found.to_json(), "batch_size": found.batch_size * accumulated}), [note]


def _recorded(recording: str | Path | None, checkpoints: Any, rates: Any) -> dict[str, Any]:
    if recording is None:
        return {}
    if checkpoints is not None or rates is not None:
        why = "Both a recording and checkpoints or learning rates were given."
        raise BadInput("The checkpoints are given twice", why, "Leave one of them out.")
    from influence_core.adapters.recording import load_recording

    found = load_recording(Path(recording))
    facts = [{"step": entry.step, "epoch": entry.epoch} for entry in found.entries]
    facts = [{name: value for name, value in fact.items() if value is not None} for fact in facts]
    return {
        "checkpoints": found.checkpoints, "learning_rates": found.learning_rates, "facts": facts,
        "recorded": found.training, "notes": found.notes,
    }  # fmt: skip


def _predicted(predictions: Any, n_test: int) -> ParityReference | None:
    """Return the user's own predictions of the test rows by position."""
    if predictions is None:
        return None
    values = torch.as_tensor(predictions)
    if not values.dim() or len(values) != n_test:
        why = f"There are {len(values) if values.dim() else 1} for {n_test} test rows."
        raise BadInput("The predictions do not match", why, "Give one for each test row, in their order.")

    def of(split: str, positions: Tensor) -> Tensor:
        assert split == "test"
        return values[positions]

    return of
