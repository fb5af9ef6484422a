"""The Lightning callback: a recording of what Lightning's own Trainer did."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from influence_core.adapters.recording import load_recording
from influence_core.errors import BadInput
from influence_core.pretrained import transformers_library

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def lightning_library() -> ModuleType:
    """Import Lightning, also where torchvision is installed and cannot be imported: its metrics look for it."""
    transformers_library()  # leaves a broken torchvision hidden
    if sys.modules.get("torchvision", 1) is not None:
        return importlib.import_module("lightning.pytorch")
    from lightning_utilities.core import imports

    known = imports._version

    def version(name: str) -> str:
        if name == "torchvision":
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    imports._version = version
    try:
        return importlib.import_module("lightning.pytorch")
    finally:
        imports._version = known


@pytest.fixture(scope="module")
def library() -> ModuleType:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning's own imports
        return lightning_library()


N_ROWS = 18


def module(library: ModuleType, seen: list[list[int]], n_optimizers: int = 1) -> Any:
    class Regression(library.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 1)
            self.automatic_optimization = n_optimizers == 1

        def training_step(self, batch: Any, number: int) -> torch.Tensor:
            x, y, position = batch
            seen.append(position.tolist())
            return (self.net(x)[:, 0] - y).square().mean()

        def configure_optimizers(self) -> Any:
            made = [torch.optim.SGD(self.parameters(), 0.1) for _ in range(n_optimizers)]
            if n_optimizers > 1:
                return made
            schedule = torch.optim.lr_scheduler.ExponentialLR(made[0], 0.5)
            return {"optimizer": made[0], "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    torch.manual_seed(0)
    return Regression()


def fitted(library: ModuleType, folder: Path, callback: Any, seen: list[list[int]], **options: Any) -> Any:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(N_ROWS, 3), torch.randn(N_ROWS), torch.arange(N_ROWS))
    model = options.pop("model", None) or module(library, seen)
    trainer = library.Trainer(
        default_root_dir=folder, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[callback],
        **{"max_epochs": 2, **options},
    )  # fmt: skip
    trainer.fit(model, DataLoader(data, batch_size=4, shuffle=True))
    return model


def callback(*given: Any, **options: Any) -> Any:
    from influence_core.adapters.lightning_callback import InfluenceCallback

    return InfluenceCallback(*given, **options)


def test_a_run_is_recorded_as_it_was(library: ModuleType, tmp_path: Path) -> None:
    seen: list[list[int]] = []
    model = fitted(library, tmp_path, callback(tmp_path / "r", part="net", every=4), seen)
    recording = load_recording(tmp_path / "r")
    assert [entry.step for entry in recording.entries] == [4, 8, 10] and recording.complete and not recording.notes
    assert [entry.epoch for entry in recording.entries] == [0.8, 1.6, 2.0]
    np.testing.assert_allclose(recording.learning_rates, [0.1 * 0.5 ** (s - 1) for s in (4, 8, 10)], rtol=1e-12)
    assert recording.optimizer["class"] == "SGD"
    torch.testing.assert_close(load_file(recording.checkpoints[-1]), dict(model.net.state_dict()), rtol=0, atol=0)
    assert recording.trajectory_path is not None
    assert pq.read_table(recording.trajectory_path)["batch"].to_pylist() == seen
    assert sorted(i for batch in seen[:5] for i in batch) == list(range(N_ROWS))


@pytest.mark.parametrize("ids", ["positions", "names", "function"])
def test_accumulated_and_cut_epochs_keep_their_rows(library: ModuleType, tmp_path: Path, ids: str) -> None:
    seen: list[list[int]] = []
    names = [f"row{i}" for i in range(N_ROWS)]
    given = {"positions": None, "names": names, "function": lambda batch: batch[2]}[ids]
    fitted(
        library, tmp_path, callback(tmp_path / "r", ids=given), seen,
        accumulate_grad_batches=2, limit_train_batches=3, max_epochs=3,
    )  # fmt: skip
    expected = []
    for epoch in range(3):  # three batches an epoch: two accumulated, then one
        one, two, three = seen[3 * epoch : 3 * epoch + 3]
        expected += [one + two, three]
    recording = load_recording(tmp_path / "r")
    found = pq.read_table(recording.trajectory_path)["batch"].to_pylist()
    assert found == ([[names[i] for i in batch] for batch in expected] if ids == "names" else expected)
    assert "net.weight" in load_file(recording.checkpoints[0]) and not recording.notes


def test_an_error_closes_the_recording(library: ModuleType, tmp_path: Path) -> None:
    class Failing(library.Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 3:
                raise RuntimeError("no more")

    seen: list[list[int]] = []
    recorder = callback(tmp_path / "r")
    trainer_callbacks = [recorder, Failing()]
    with pytest.raises(RuntimeError, match="no more"):
        torch.manual_seed(0)
        data = TensorDataset(torch.randn(N_ROWS, 3), torch.randn(N_ROWS), torch.arange(N_ROWS))
        library.Trainer(
            default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=1,
            enable_progress_bar=False, enable_model_summary=False, callbacks=trainer_callbacks,
        ).fit(module(library, seen), DataLoader(data, batch_size=4))  # fmt: skip
    recording = load_recording(tmp_path / "r")
    assert recording.entries[-1].step == 3 and recording.complete
    assert pq.read_table(recording.trajectory_path)["batch"].to_pylist() == seen[:3]


def test_what_cannot_be_recorded_is_refused(library: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="There is no part 'nett': The LightningModule has net"):
        fitted(library, tmp_path, callback(tmp_path / "r", part="nett"), [])
    with pytest.raises(BadInput, match="has 2 optimizers"):
        fitted(library, tmp_path, callback(tmp_path / "r"), [], model=module(library, [], 2))
    with pytest.raises(BadInput, match="2 ids for 18 rows"):
        fitted(library, tmp_path, callback(tmp_path / "r", ids=["a", "b"]), [])


def test_the_missing_library_is_named_with_the_line_that_installs_it(
    library: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from influence_core.adapters.lightning_callback import _callback_base

    assert _callback_base() is library.Callback
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BadInput, match=r"pip install 'influence-dashboard\[lightning\]'"):
        _callback_base()
