"""A callback for the Hugging Face Trainer that records the training for a study.

Importing this module imports transformers; nothing else of this package does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from influence_core.adapters.batch_order import BatchOrder
from influence_core.adapters.recorder import Recorder
from influence_core.pretrained import transformers_library

TrainerCallback: Any = transformers_library().TrainerCallback

_NO_ORDER = (
    "The order of the rows is not known: the Trainer's data loader draws them in a form that cannot be followed "
    "(several processes, a sampler of one's own, or a resumed run)."
)


class InfluenceCallback(TrainerCallback):
    """Records checkpoints, learning rates and the order of rows of a ``Trainer``.

    ``Trainer(..., callbacks=[InfluenceCallback("recording")])``; the Trainer's own checkpoints are not needed then. The
    Trainer does not tell callbacks which rows a batch held, so its sampler is listened to, where it is the usual one.

    Args:
        folder: Where the recording goes.
        ids: Row ids by position in ``train_dataset``; default the positions.
        options: Further ones of ``Recorder``: ``every``, ``at``, ``keep``, ``optimizer_state``.
    """

    def __init__(self, folder: str | Path, *, ids: Sequence[Any] | None = None, **options: Any) -> None:
        """Keep the options; the recording starts with the training."""
        self.folder, self.ids, self.options = Path(folder), ids, options
        self._recorder: Recorder | None = None
        self._order: BatchOrder | None = None
        self._batch: list[Any] | None = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the recording."""
        loader = kwargs.get("train_dataloader")
        try:
            epoch = math.ceil(len(loader) / args.gradient_accumulation_steps)  # type: ignore[arg-type]
        except TypeError:  # rows that have no number
            epoch = None
        options = {"epochs_length": epoch, **self.options}
        self._recorder = Recorder(self.folder, kwargs["model"], kwargs["optimizer"], **options)
        if state.global_step:
            self._recorder.note(
                f"Training was resumed at step {state.global_step}; the recording's steps count from there."
            )
        else:
            self._order = BatchOrder(loader, self.ids)
        if self._order is None or not self._order.heard:
            self._order = None
            self._recorder.note(_NO_ORDER)

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the rows of a micro-batch."""
        drawn = self._order.next() if self._order else None
        self._batch = None if drawn is None or self._batch is None else self._batch + drawn

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record a step; the last one's weights at once, as the Trainer may load others before it ends."""
        if self._recorder is None:
            return
        self.on_substep_end(args, state, control)
        self._recorder.step(self._batch)
        self._batch = []
        if control.should_training_stop or state.global_step >= state.max_steps:
            self._recorder.checkpoint()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the recording."""
        if self._order is not None:
            self._order.close()
        if self._recorder is not None:
            if args.load_best_model_at_end:
                self._recorder.note(
                    "The Trainer ended with its best weights; the recording ends with the last ones kept."
                )
            self._recorder.close(last=not args.load_best_model_at_end)
        self._recorder = self._order = None
