"""A study: a task and its data as a folder that can be copied, opened elsewhere, and worked on for months."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from influence_core.config import digest
from influence_core.encoder import Encoder
from influence_core.errors import BadInput
from influence_core.examples import Examples
from influence_core.measurement import Rows, module_identity
from influence_core.model_reference import model_factory
from influence_core.recorded_training import RecordedTraining, recorded_in
from influence_core.store import Artifact, Store, Writer
from influence_core.study_data import StudyData
from influence_core.study_files import States, file_hash, read_header, write_study
from influence_core.tables import check_finite, reading
from influence_core.task import Task

if TYPE_CHECKING:
    from influence_core.versions import Version

CACHE_BYTES = 20 << 30


class Study(StudyData):
    """An opened study folder.

    Args:
        path: The folder that holds ``study.toml``.

    Attributes:
        made: The version that this is; None for the study as it was made first.

    Raises:
        BadInput: No study there, damaged, or written by a newer version.
    """

    made: Version | None = None

    def __init__(self, path: str | Path) -> None:
        """Read the header; data and model are read when asked for."""
        self.path = Path(path)
        self.header = read_header(self.path)
        self.store = Store(self.path / "cache", CACHE_BYTES)

    @classmethod
    def open(cls, path: str | Path) -> Study:
        """Open a study folder, or with ``folder@id`` one of its versions."""
        folder, at, version = str(path).rpartition("@")
        if at and not Path(path).exists() and (Path(folder) / "study.toml").is_file():
            return cls(folder).version(version)
        return cls(path)

    def version(self, version_id: str) -> Study:
        """Return a version: the same study with corrected labels and a model trained on them; "" is the original.

        Everything that works on a study works on it. Its rows, labels, checkpoints and fingerprint are its own;
        folder, store and reviews are the study's.

        Raises:
            BadInput: No such version, or it is damaged.
        """
        from influence_core.versions import opened_version

        return opened_version(self, version_id)

    @classmethod
    def demo(cls, name: str, out: str | Path | None = None) -> Study:
        """Open a built-in study, building it first if it is not in ``out`` (default ``studies/<name>``)."""
        from influence_core import api

        return api.open_demo(name, Path(out) if out is not None else Path("studies") / name)

    @classmethod
    def from_torch(cls, name: str, model: str | Callable[[], nn.Module], **options: Any) -> Study:
        """Make a study of your own PyTorch model, its checkpoints and its data, and open it.

        The folder holds copies of the rows and the weights, and the *name* of the function that builds the model: its
        code stays yours. The study is checked before it is kept: on up to 64 test rows it must predict what your model
        does. The app opens it with ``make run MODELS=mypackage.models:make_net``.

        Example::

            # In mypackage/models.py: def make_net(): return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
            # In train.py, after training:
            study = Study.from_torch(
                "digits-mine",
                model="mypackage.models:make_net",        # or the function itself, imported from its module
                train=(X_train, y_train),                 # or a Dataset, or a split of the `datasets` library
                test=(X_test, y_test),
                checkpoints=["epoch1.pt", "epoch5.pt", "epoch20.pt"],
                learning_rates=[0.1, 0.1, 0.05],
                class_names=[f"digit {i}" for i in range(10)],
                predictions=logits_test,                  # optional: what your model said of the test rows
            )                                             # -> studies/digits-mine

        Args:
            name: Short name, also of the folder.
            model: ``"package.module:factory"``, or that function or class: importable, called without arguments.
            **options: By name:

                - ``train``, ``test``, ``locked`` (optional): ``(inputs, targets)`` of tensors or arrays, inputs also a
                  mapping (called by keywords) or a tuple (by positions); a torch ``Dataset`` of such pairs or of
                  mappings with ``labels``; or a split of the ``datasets`` library: columns that ``forward`` names are
                  inputs, the rest is shown.
                - ``checkpoints``: state dicts, ``.pt`` files (weights only) or ``.safetensors``, in the order of
                  training; the last one is explained. ``learning_rates``: one each. Or ``recording``: the folder that
                  a ``Recorder`` wrote.
                - ``recipe``: a ``Recipe`` or its options, for methods that retrain.
                - ``loss``: ``"cross_entropy"`` (default), ``"bce"`` (one logit) or ``"mse"``, or the plain ``nn`` loss.
                - ``class_names`` by index; ``train_ids``, ``test_ids``, ``locked_ids``: default 0..n-1.
                - ``show``: what people see of a row beside the inputs: a data frame for each split by name, or one of
                  all rows (train, test, locked). Its column ``text`` is shown as the row's text.
                - ``predictions``: your model's outputs, probabilities or classes on the test rows, to compare with.
                - ``gradient_accumulation``: batches in each step of your training.
                - ``title``, ``description``, ``out`` (default ``studies/<name>``), ``run``.

        Returns:
            The opened study.

        Raises:
            BadInput: What cannot be kept, with the reason and what to do: weights or smoothing in the loss, several
                labels a row, code that does not import, predictions that differ from yours.
        """
        from influence_core import api

        return api.study_from_torch(name, model, **options)

    @classmethod
    def from_trainer(cls, name: str, folder: str | Path, **options: Any) -> Study:
        """Make a study of a ``Trainer``'s output folder; options as ``adapters.hf_trainer.study_from_trainer``."""
        from influence_core import api

        return api.study_from_trainer(name, folder, **options)

    @classmethod
    def from_sklearn(cls, name: str, model: Any, **options: Any) -> Study:
        """Make a study of a scikit-learn model; options as ``adapters.sklearn_study.study_from_sklearn``."""
        from influence_core import api

        return api.study_from_sklearn(name, model, **options)

    # -- what people type ---------------------------------------------------------------------------------------------

    def row_id(self, split: str, text: object) -> int | str:
        """Return a row id from its text, as typed or found in a URL.

        Raises:
            BadInput: No such row.
        """
        ids = self.task.ids(split)
        value: int | str = str(text)
        if ids.dtype.kind in "iu":
            try:
                value = int(str(text))
            except ValueError:
                raise BadInput(
                    "Unknown row id",
                    f"'{text}' is not a number, and the ids of the {split} split are.",
                    f"Use an id such as {ids[0]}.",
                ) from None
        self.task.positions(Rows(split, (value,)))
        return value

    def typed(self, values: Mapping[str, Any] | str | bytes | Path | None = None, /, **named: Any) -> Rows:
        """Return a row that is in no split as a query: ``attribute(study, "gas", study.typed(text="WIN a prize"))``.

        It has no label: its predicted one is explained unless the measurement names a class. A number is explained by
        its error, so a regression needs the expected number under the label's name.

        Args:
            values: Column name -> value, for every column that the model looks at (None: missing); or the one text; or
                a picture, as a file's path or bytes.
            named: The same by keyword; ``text`` and ``image`` stand for the one such column, whatever it is called.

        Raises:
            BadInput: A column is missing or unknown, or a value cannot be one of its column.
        """
        from influence_core import api

        return api.typed_row(self, values, named)

    def target(self, text: str) -> str | int:
        """Return a measurement's target from its text: ``true``, ``predicted`` or a class name.

        Raises:
            BadInput: No such class.
        """
        if text in ("true", "predicted"):
            return text
        if text not in self.header.classes:
            raise BadInput(
                "Unknown target label",
                f"'{text}' is no class of this study.",
                f"Use true, predicted, or one of: {', '.join(self.header.classes[:20])}.",
            )
        return self.header.classes.index(text)

    # -- the task ---------------------------------------------------------------------------------------------------

    @cached_property
    def fingerprint(self) -> str:
        """Return the hash of everything that numbers depend on: every byte of data, encoder and weights."""
        files = [self._file(split) for split in self.splits] + [self.path / "encoder.json"]
        files += [self._checkpoint_file(entry) for entry in self.header.checkpoints]
        header = self.header
        recipe = header.recipe.to_json() if header.recipe else None
        rates = [entry.get("learning_rate") for entry in header.checkpoints]
        # What a built-in model computes is told by its name; the code behind a reference may change.
        with torch.random.fork_rng(devices=[]):
            code = [module_identity(self._factory())] if "reference" in header.model else []
        version = [self.made.key] if self.made is not None else []
        return digest(
            [
                [file_hash(path) for path in files], [header.label, header.id], dict(header.model), header.loss,
                header.classes, recipe, rates, *code, *version,
            ]
        )  # fmt: skip

    def _checkpoint_file(self, entry: Mapping[str, Any]) -> Path:
        path = (self.path / str(entry["file"])).resolve()
        if not path.is_relative_to(self.path.resolve()):
            raise BadInput(
                "A checkpoint lies outside the study",
                f"study.toml names '{entry['file']}'.",
                "Copy it into the study's checkpoints folder.",
            )
        if not path.exists():
            raise BadInput(
                "A checkpoint is gone",
                f"{path} does not exist.",
                "Put the file back, or take its entry out of study.toml.",
            )
        return path

    @cached_property
    def _factory(self) -> Callable[[], nn.Module]:
        return model_factory(self.header.model)

    def _learning_rates(self) -> list[float] | None:
        rates = [entry["learning_rate"] for entry in self.header.checkpoints if "learning_rate" in entry]
        return rates if len(rates) == len(self.header.checkpoints) else None

    def _recorded(self) -> RecordedTraining | None:
        """Return the training that was recorded; a version's was ours, by the recipe."""
        if self.made is not None:
            return None
        marks = [entry.get("step") for entry in self.header.checkpoints]
        return recorded_in(self.path, [mark if isinstance(mark, int) else None for mark in marks])

    @cached_property
    def task(self) -> Task:
        """Return the task: encoded data memory-mapped, checkpoints read when used."""
        header = self.header
        splits = dict.fromkeys(("train", "test", *self.splits))  # the first two must be there
        data = {split: self._examples(split) for split in splits}
        ids = {split: self._ids(split) for split in splits}
        task = Task(
            self._factory,
            data["train"], data["test"], header.loss,
            checkpoints=[self._checkpoint_file(entry) for entry in header.checkpoints],
            learning_rates=self._learning_rates(),
            recipe=header.recipe, class_names=header.classes or None, train_ids=ids["train"], test_ids=ids["test"],
            locked=data.get("locked"), locked_ids=ids.get("locked"), fingerprint=self.fingerprint,
            recorded=self._recorded(),
        )  # fmt: skip
        return task

    def _examples(self, split: str) -> Examples:
        encoded, targets = self._encoded(split), torch.from_numpy(self.targets(split))
        inputs = self.encoder.called({name: encoded.tensor(name) for name in self.encoder.layout})
        with self._reading(split):
            return Examples((inputs, targets), split)

    def _encoded(self, split: str) -> Artifact:
        """Return the encoded split, made once by streaming through the file, memory-mapped afterwards."""
        parts = [file_hash(self._file(split)), self.encoder.to_json(), *self._changes(split).key]
        inputs = {"kind": "encoded rows", "split": split, "parts": parts}
        path, fix = self._file(split), "Restore the file or encoder.json from a copy."

        def produce(writer: Writer) -> None:
            for name, (shape, dtype) in self.encoder.layout.items():
                writer.create(name, (self.n_rows(split), *shape), np.dtype(dtype))
            start = 0
            for table in self._batches(split):
                with reading(path, "The rows do not fit encoder.json", fix), np.errstate(all="ignore"):
                    arrays = self.encoder.arrays(table)
                for name, values in arrays.items():
                    check_finite(values, table, self.header.id, path)
                    writer.write(name, start, values)
                start += len(table)

        return self.store.obtain(digest(inputs), inputs, produce, lambda: None)


def save_study(
    path: Path, header: Mapping[str, Any], tables: Mapping[str, pa.Table | Path], encoder: Encoder, states: States,
    truth: pa.Table | None = None,
) -> Study:  # fmt: skip
    """Write a study folder, all of it or nothing, and open it; the arguments are those of ``write_study``."""
    write_study(path, header, tables, encoder, states, truth)
    return Study(path)
