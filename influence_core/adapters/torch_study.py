"""A user's own PyTorch model, its checkpoints and its data, as a study that the app opens."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from influence_core.adapters.parity import check_parity, parity
from influence_core.adapters.torch_rows import Split, WrittenSplits, moved_inputs, read_rows
from influence_core.adapters.torch_targets import checked_names
from influence_core.adapters.torch_weights import Weights
from influence_core.checkpoints import StateDict
from influence_core.errors import BadInput
from influence_core.examples import Examples
from influence_core.model_reference import model_factory, running_user_code
from influence_core.primitives.losses import LOSSES, outputs
from influence_core.recipe import Recipe
from influence_core.recorded_training import RecordedTraining
from influence_core.run import Run
from influence_core.store import disk_errors
from influence_core.study import Study
from influence_core.study_files import SPLITS, StudyParts, check_free, write_parts

__all__ = ["ParityReference", "Split", "saved_torch_study"]

ParityReference = Callable[[str, Tensor], Any]
_PARITY_ROWS = 64
NO_LOCKED = "There is no locked split: every figure is of rows that people look at while they choose what to change."


def saved_torch_study(
    out: Path, *, name: str, title: str | None = None, description: str = "", model: Mapping[str, Any],
    splits: Mapping[str, Split], loss: str, class_names: Sequence[str] | None = None,
    checkpoints: Sequence[StateDict | Path], learning_rates: Sequence[float] | None = None,
    recipe: Recipe | None = None, parity_reference: ParityReference | None = None, notes: Sequence[str] = (),
    run: Run | None = None, facts: Sequence[Mapping[str, Any]] | None = None, recorded: RecordedTraining | None = None,
) -> Study:  # fmt: skip
    """Write a study from a model by name, arrays and checkpoints, and check that it predicts what the user's does.

    Rows are read and written some megabytes at a time; nothing of the user's is moved or changed. All of the study is
    written, or nothing.

    Args:
        out: The study folder to make.
        name: Short name.
        title: What people read; default the name.
        description: A sentence about the study.
        model: ``{"reference": "package.module:factory"}``, which must be allowed in this process, or
            ``{"architecture": ..., "options": {...}}``.
        splits: ``train`` and ``test``, and ``locked`` if there is one.
        loss: ``"cross_entropy"``, ``"bce"`` or ``"mse"``.
        class_names: By index; default ``"0"``, ``"1"``, ... as many as the model has outputs.
        checkpoints: State dicts, or files of them (``.pt`` weights only, ``.safetensors``), in the order of training.
        learning_rates: One per checkpoint; None: methods that need them are unavailable.
        recipe: How the model was trained; None: methods that retrain are unavailable.
        parity_reference: ``f(split, positions [k]) -> outputs [k, ...]`` of the user's own model, asked for up to 64
            test rows: raw outputs as the model gives them, probabilities, or predicted class indices. None: the model
            with its last checkpoint, on the data as given.
        notes: Sentences that the Overview shows.
        run: Progress and cancel.
        facts: More about each checkpoint, such as ``{"step": 120, "epoch": 1.5}``.
        recorded: The recorded steps, whose files are copied.

    Raises:
        BadInput: What does not fit together, or predictions that differ from the user's.
        StoreProblem: The disk is full or refuses.
    """
    run = run or Run()
    check_free(out)
    _check_splits(splits)
    weights, module = _explained(model, checkpoints)
    rows = {split: splits[split].examples(split) for split in SPLITS if split in splits}
    told = str(model.get("reference", model.get("architecture")))
    n_outputs = _n_outputs(module, rows["test"], loss, told)
    names = checked_names(class_names, loss, n_outputs)
    own = partial(_own_outputs, module, rows, told)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as place:
            written = WrittenSplits(Path(place), loss, names, n_outputs, run)
            for split, examples in rows.items():
                written.add(split, examples, splits[split])
            header = {
                "name": name, "title": title or name, "description": description, "modality": written.modality,
                "label": "label", "classes": names, "loss": loss, "model": dict(model),
                "task": "regression" if loss == "mse" else "classification",
                "checkpoints": _entries(weights, learning_rates, facts),
                **({"recipe": recipe.to_json()} if recipe is not None else {}),
            }  # fmt: skip
            files = {} if recorded is None else recorded.files
            said = [*notes, *written.notes, *([] if "locked" in rows else [NO_LOCKED])]

            def check(whole: Path) -> dict[str, Any]:
                found = _compared(
                    Study(whole), parity_reference or own, bool(weights.half) and parity_reference is not None
                )
                return {"parity": found, "notes": [*said, *weights.notes]}

            write_parts(out, StudyParts(header, written.tables, written.encoder, weights, None, files, check))
    return Study(out)


def _explained(model: Mapping[str, Any], checkpoints: Sequence[StateDict | Path]) -> tuple[Weights, nn.Module]:
    """Return the checkpoints, and the model with the last of them, as it predicts."""
    factory = model_factory(model)
    with torch.random.fork_rng(devices=[]):
        module = factory()
    weights = Weights(checkpoints, module)
    module.load_state_dict(dict(weights.last))
    return weights, module.eval().requires_grad_(False)


def _check_splits(splits: Mapping[str, Split]) -> None:
    unknown, missing = sorted(set(splits) - set(SPLITS)), [s for s in ("train", "test") if s not in splits]
    if unknown or missing:
        why = f"There is no '{missing[0]}' split." if missing else f"'{unknown[0]}' is no split."
        raise BadInput("The data cannot be kept", why, "Give train and test, and locked if there is one.")


def _entries(
    weights: Weights, rates: Sequence[float] | None, facts: Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """Return what ``study.toml`` says of the checkpoints."""
    for what, given in (("learning rates", rates), ("facts", facts)):
        if given is not None and len(given) != len(weights):
            why = f"There are {len(weights)} checkpoints and {len(given)} {what}."
            raise BadInput(f"Checkpoints and {what} do not match", why, "Give one for each checkpoint.")
    entries: list[dict[str, Any]] = [{"file": file, **(facts[i] if facts else {})} for i, file in enumerate(weights)]
    for entry, rate in zip(entries, rates or (), strict=False):
        entry["learning_rate"] = float(rate)
    return entries


def _n_outputs(module: nn.Module, rows: Examples, loss: str, told: str) -> int:
    """Return how many numbers the model gives for a row; refuse answers that are not one prediction for each row."""
    n = min(2, len(rows))
    answer = _own_outputs(module, {"test": rows}, told, "test", torch.arange(n))
    if not isinstance(answer, Tensor) or not answer.dim() or len(answer) != n or not answer.is_floating_point():
        shape = list(answer.shape) if isinstance(answer, Tensor) else ""
        why = f"For {n} rows, '{told}' returned a {type(answer).__name__} {shape}."
        raise BadInput("The model's answer cannot be used", why, "Return a tensor [n, ...] of outputs, or .logits.")
    if answer.dim() > 2 or (answer.dim() == 1 and loss == "cross_entropy"):
        why = f"For {n} rows, '{told}' returned {list(answer.shape)}: not one prediction for each row."
        raise BadInput("The model's answer cannot be used", why, "Save a study whose rows are what is predicted.")
    return answer[0].numel()


def _own_outputs(module: nn.Module, rows: Mapping[str, Examples], told: str, split: str, positions: Tensor) -> Any:
    """Return what the user's model says of the user's own rows."""
    first = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(0))
    inputs = moved_inputs(read_rows(rows[split], positions, split).inputs, first.dtype)
    fix = "Give inputs as the model's forward takes them."
    with torch.no_grad(), running_user_code("The model cannot be called with the data", told, fix):
        return outputs(module, inputs)


def _compared(study: Study, reference: ParityReference, half: bool) -> dict[str, Any]:
    """Compare the outputs of the study, read from its folder, with the user's."""
    task = study.task
    positions = torch.linspace(0, task.n_test - 1, min(task.n_test, _PARITY_ROWS)).long()
    with torch.no_grad():
        ours = outputs(task.model_at(-1), task.split("test").batch(positions).inputs)
    loss = LOSSES[study.header.loss]
    found = parity(ours, reference("test", positions), loss, half)
    check_parity(found)
    return found.to_json()
