"""The output folder of a Hugging Face Trainer, with the data it was trained on, as a study."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from influence_core.adapters.hf_folder import (
    Checkpoint,
    checkpoint_facts,
    recorded_rates,
    trainer_checkpoints,
)
from influence_core.adapters.hf_rows import Columns, PaddedRows, columns_of, split_of, token_decoder
from influence_core.adapters.torch_study import saved_torch_study
from influence_core.errors import BadInput
from influence_core.pretrained import AUTO_CLASSES, checked_configuration, configured_model
from influence_core.primitives.losses import outputs
from influence_core.run import Run
from influence_core.study import Study
from influence_core.study_files import check_free

_UNSEEN = (
    "training_args.bin is never opened, as it is a pickle: if the Trainer smoothed labels or used a loss of its own, "
    "these scores are of the plain loss all the same."
)


def study_from_trainer(
    name: str, folder: str | Path, *, train: Any, test: Any, locked: Any = None,
    class_names: Sequence[str] | None = None, out: str | Path | None = None, show: str | Sequence[str] | None = None,
    learning_rates: Sequence[float] | None = None, title: str | None = None, description: str = "",
    run: Run | None = None,
) -> Study:  # fmt: skip
    """Make a study of a Trainer's output folder.

    The model is built from ``config.json`` alone and takes the weights of every ``checkpoint-N``; the last one is
    explained. No code of the folder is run and no pickle opened (``training_args.bin``, ``optimizer.pt``). Dropout is
    off, and attention is computed in plain operations, which gives the same predictions: on up to 64 test rows they are
    compared with those of the checkpoint as the library itself loads it.

    Args:
        name: Short name of the study.
        folder: The Trainer's ``output_dir``.
        train: The tokenised rows it was trained on: a ``datasets.Dataset``, or any sequence of mappings, with the
            model's inputs (``input_ids``, ``attention_mask``, ... or ``pixel_values``) and ``label`` or ``labels``.
            Short rows are padded. A column ``id`` gives row ids; else they are 0..n-1.
        test: Rows to look at, likewise.
        locked: Rows that are only reported on, likewise.
        class_names: By index; default those of ``config.json`` (``id2label``), or of the data set.
        out: Study folder; default ``studies/<name>``.
        show: Column or columns that people see, the first text among them as the row's text; default all texts and
            numbers that are no input. Without any, tokens are shown as text where a ``tokenizer.json`` lies beside.
        learning_rates: One per checkpoint; default from ``trainer_state.json``.
        title: What people read; default the name.
        description: A sentence about the study.
        run: Progress and cancel.

    Raises:
        BadInput: What is missing or does not fit, or predictions that differ.
        StoreProblem: The disk is full or refuses.
    """
    given = {"train": train, "test": test, **({"locked": locked} if locked is not None else {})}
    for split, rows in given.items():
        _check_rows(rows, split)
    source = _source(Path(folder))
    columns = columns_of(source.model, given, source.pad_token, source.loss == "mse")
    rates, how = (list(learning_rates), "") if learning_rates is not None else recorded_rates(source.checkpoints)
    shown = [show] if isinstance(show, str) else show
    decode = token_decoder(source.last.path) if columns.length is not None else None
    place = Path(out) if out is not None else Path("studies") / name
    check_free(place)
    with tempfile.TemporaryDirectory(prefix="influence-") as spare:
        return saved_torch_study(
            place, name=name, title=title, description=description,
            model={"architecture": "transformers", "options": {"auto": source.auto, "config": source.config}},
            splits={split: split_of(rows, columns, split, shown, decode) for split, rows in given.items()},
            loss=source.loss, class_names=class_names or source.names or _dataset_names(train, columns.label),
            checkpoints=source.weights(Path(spare)), learning_rates=rates,
            parity_reference=_Reference(source, given, columns), run=run, facts=checkpoint_facts(source.checkpoints),
            notes=[note for note in (how, _UNSEEN) if note],
        )  # fmt: skip


@dataclass(frozen=True)
class _Source:
    """What the folder says: checkpoints, kind and configuration of the model, a model for its structure."""

    checkpoints: list[Checkpoint]
    auto: str
    config: str
    model: nn.Module
    loss: str
    names: list[str] | None

    @property
    def last(self) -> Checkpoint:
        return self.checkpoints[-1]

    def weights(self, spare: Path) -> list[Path]:
        """Return a file of weights for every checkpoint, some of them written into a folder."""
        names = set(self.model.state_dict())
        files = [spare / f"{index}.safetensors" for index in range(len(self.checkpoints))]
        return [
            checkpoint.weights(self.auto, names, index, files[index])
            for index, checkpoint in enumerate(self.checkpoints)
        ]

    @property
    def pad_token(self) -> int:
        value = getattr(self.model.config, "pad_token_id", None)
        return int(value) if isinstance(value, int) else 0


def _source(folder: Path) -> _Source:
    checkpoints = trainer_checkpoints(folder)
    file = checkpoints[-1].path / "config.json"
    content = checkpoints[-1].read_json("config.json")
    if content is None:
        raise BadInput("A checkpoint has no configuration", f"{file} does not exist.", "Put the file back.")
    content = checked_configuration(content, str(file))
    auto = _auto_class(content, file)
    text = json.dumps(content)
    with torch.random.fork_rng(devices=[]):
        model = configured_model(auto, text).eval()
    problem, n_outputs = content.get("problem_type"), int(getattr(model.config, "num_labels", 0))
    if problem == "multi_label_classification":
        raise BadInput(
            "Multi-label models are not supported",
            f"{file} says problem_type '{problem}': a row has several labels at once.",
            "Train one model per label, or use Task with a loss of your own.",
        )
    number = problem == "regression" or (problem is None and n_outputs == 1)
    return _Source(checkpoints, auto, text, model, "mse" if number else "cross_entropy", _names(model, number))


def _auto_class(content: Mapping[str, Any], file: Path) -> str:
    kinds = [str(kind) for kind in content.get("architectures") or ()]
    for auto in AUTO_CLASSES:
        if any(kind.endswith(auto.removeprefix("AutoModel")) for kind in kinds):
            return auto
    raise BadInput(
        "This kind of model is not supported",
        f"{file} says {', '.join(kinds) or 'no architecture'}.",
        "Use a model ...ForSequenceClassification or ...ForImageClassification.",
    )


def _names(model: nn.Module, number: bool) -> list[str] | None:
    """Return the class names of the configuration; None where it only numbers them."""
    known = getattr(model.config, "id2label", None) or {}
    names = [str(known[index]) for index in sorted(known)]
    return None if number or names == [f"LABEL_{index}" for index in range(len(names))] else names


def _dataset_names(rows: Any, label: str) -> list[str] | None:
    feature = (getattr(rows, "features", None) or {}).get(label)
    names = getattr(feature, "names", None)
    return [str(name) for name in names] if names else None


def _check_rows(rows: Any, split: str) -> None:
    if isinstance(rows, Mapping) or not (hasattr(rows, "__len__") and hasattr(rows, "__getitem__")):
        why = f"It is a {type(rows).__name__}."
        raise BadInput(f"The {split} data cannot be read", why, "Give one split, a data set with a length.")
    if not len(rows):
        raise BadInput(f"The {split} data is empty", "It has no rows.", "Give at least one row.")


class _Reference:
    """The user's own predictions: the checkpoint as the library loads it, called with each row as it is."""

    def __init__(self, source: _Source, given: Mapping[str, Any], columns: Columns) -> None:
        self._source, self._columns = source, columns
        self._given = given

    def __call__(self, split: str, positions: Tensor) -> Tensor:
        """Return the outputs ``[k, ...]`` of some rows."""
        model = self._source.last.loaded(self._source.auto, len(self._source.checkpoints) - 1)
        rows = PaddedRows(self._given[split], self._columns, split, padded=False)
        found = []
        with torch.no_grad():
            for position in positions.tolist():
                inputs = {key: value[None] for key, value in rows[position][0].items()}
                found.append(outputs(model, inputs))
        return torch.cat(found).float()
