"""A callback for Lightning that records the training for a study.

Importing this module imports Lightning; nothing else of this package does.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from influence_core.adapters.batch_order import BatchOrder
from influence_core.adapters.recorder import Recorder
from influence_core.errors import BadInput

_NAMES = ("lightning.pytorch", "pytorch_lightning")
_NO_ORDER = (
    "The order of the rows is not known: the data loader draws them in a form that cannot be followed. Give "
    "ids=f(batch) to InfluenceCallback."
)


def _callback_base() -> Any:
    """Return the Callback of whichever of Lightning's two packages is in use."""
    for name in sorted(_NAMES, key=lambda name: name not in sys.modules):
        try:
            return importlib.import_module(name).Callback
        except ModuleNotFoundError as error:
            if error.name not in (name, name.split(".")[0]):
                raise
    raise BadInput(
        "Lightning is not installed",
        "The callback is one of its callbacks.",
        "Install it: pip install 'influence-dashboard[lightning]'",
    )


Callback: Any = _callback_base()


class InfluenceCallback(Callback):
    """Records checkpoints, learning rates and the order of rows of a Lightning ``Trainer``.

    ``Trainer(..., callbacks=[InfluenceCallback("recording", part="net")])``.

    Args:
        folder: Where the recording goes.
        part: Name of the attribute of the LightningModule that is the model to explain, such as ``"net"``; default the
            whole LightningModule, whose weights are then named as its own.
        ids: Row ids by position in the training data, or a function of the batch that returns its rows' ids; default
            the positions, heard from the loader's sampler where it is the usual one.
        options: Further ones of ``Recorder``: ``every``, ``at``, ``keep``, ``optimizer_state``, ``epochs_length``.
    """

    def __init__(
        self, folder: str | Path, *, part: str | None = None, ids: Sequence[Any] | Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        """Keep the options; the recording starts with the training."""
        super().__init__()
        self.folder, self.part, self.ids, self.options = Path(folder), part, ids, options
        self._recorder: Recorder | None = None
        self._order: BatchOrder | None = None
        self._batch: list[Any] | None = []
        self._steps = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the recording.

        Raises:
            BadInput: Several optimisers, no such part, or what a Recorder refuses.
        """
        if len(trainer.optimizers) != 1:
            why = f"The LightningModule has {len(trainer.optimizers)} optimizers."
            raise BadInput("The training cannot be recorded", why, "Record a model that one optimizer trains.")
        try:
            model = pl_module.get_submodule(self.part) if self.part else pl_module
        except AttributeError:
            names = ", ".join(name for name, _ in pl_module.named_children())
            raise BadInput(
                f"There is no part '{self.part}'", f"The LightningModule has {names}.", "Name one."
            ) from None
        batches, every = trainer.num_training_batches, trainer.accumulate_grad_batches
        epoch = math.ceil(batches / every) if math.isfinite(batches) else None
        options = {"epochs_length": epoch, **self.options}
        self._recorder = Recorder(self.folder, model, trainer.optimizers[0], **options)
        self._steps = trainer.global_step
        if self._steps:
            self._recorder.note(f"Training was resumed at step {self._steps}; the recording's steps count from there.")
        if not callable(self.ids):
            self._order = None if self._steps else BatchOrder(trainer.train_dataloader, self.ids)
            if self._order is None or not self._order.heard:
                self._order = None
                self._recorder.note(_NO_ORDER)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record a step, or keep the rows of a micro-batch until there is one."""
        if self._recorder is None:
            return
        drawn = [self.ids(batch)] if callable(self.ids) else self._order.next() if self._order else None
        self._batch = None if drawn is None or self._batch is None else self._batch + drawn
        if trainer.global_step > self._steps:
            self._steps = trainer.global_step
            self._recorder.step(self._batch)
            self._batch = []

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the recording."""
        self._closed()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the recording: what was trained so far is kept."""
        self._closed()

    def _closed(self) -> None:
        if self._order is not None:
            self._order.close()
        if self._recorder is not None:
            self._recorder.close()
        self._recorder = self._order = None
