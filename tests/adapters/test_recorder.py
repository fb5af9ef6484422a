"""Two lines in one's own loop: what is kept, when, and that it is kept exactly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from influence_core.adapters.recorder import Recorder
from influence_core.adapters.recording import load_recording
from influence_core.adapters.spacing import DEFAULT_KEEP
from influence_core.errors import BadInput


def small(dtype: torch.dtype = torch.float32) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).to(dtype)


def moved(model: nn.Module, optimizer: torch.optim.Optimizer, n_rows: int = 5) -> None:
    optimizer.zero_grad()
    model(torch.randn(n_rows, 3, dtype=next(model.parameters()).dtype)).square().sum().backward()
    optimizer.step()


def recorded(folder: Path, n_steps: int, **options) -> dict[int, dict[str, torch.Tensor]]:
    """Train and record, and return the true weights after every step."""
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    truth = {0: {name: value.clone() for name, value in model.state_dict().items()}}
    with Recorder(folder, model, optimizer, **options) as recorder:
        for step in range(1, n_steps + 1):
            moved(model, optimizer)
            recorder.step([step, step + 1])
            truth[step] = {name: value.clone() for name, value in model.state_dict().items()}
    return truth


def test_weights_rates_and_batches_are_those_of_their_steps(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    states, recorder = [], Recorder(tmp_path / "r", model, optimizer, every=2, epochs_length=4)
    for step in range(5):
        moved(model, optimizer)
        scheduler.step()  # before the recorder's: the rate must still be the one that was used
        recorder.step(torch.arange(step, step + 3))
        states.append({name: value.clone() for name, value in model.state_dict().items()})
    recorder.close()
    recorder.close()

    recording = load_recording(tmp_path / "r")
    assert [entry.step for entry in recording.entries] == [2, 4, 5]
    assert [entry.epoch for entry in recording.entries] == [0.5, 1.0, 1.25]
    np.testing.assert_allclose(recording.learning_rates, [0.05, 0.0125, 0.00625], rtol=1e-12)
    for path, step in zip(recording.checkpoints, [2, 4, 5], strict=True):
        torch.testing.assert_close(load_file(path), states[step - 1], rtol=0, atol=0)
    assert recording.complete and not recording.notes
    assert recording.optimizer["class"] == "SGD" and recording.optimizer["groups"][0]["momentum"] == 0.9
    assert recording.optimizer["groups"][0]["n_params"] == sum(p.numel() for p in model.parameters())
    assert recording.trajectory_path is not None
    rows = pq.read_table(recording.trajectory_path).to_pydict()
    assert rows["step"] == [1, 2, 3, 4, 5]
    assert rows["batch"] == [[s, s + 1, s + 2] for s in range(5)]
    np.testing.assert_allclose(rows["learning_rate"], [0.1 * 0.5**s for s in range(5)], rtol=1e-12)


@pytest.mark.parametrize("n_steps", [1, 7, 12, 13, 100, 500])
def test_the_default_keeps_few_checkpoints_spread_over_the_run(tmp_path: Path, n_steps: int) -> None:
    truth = recorded(tmp_path / "r", n_steps)
    recording = load_recording(tmp_path / "r")
    steps = [entry.step for entry in recording.entries]
    assert steps[-1] == n_steps
    assert min(n_steps, DEFAULT_KEEP // 2) <= len(steps) <= DEFAULT_KEEP
    gaps = np.diff([0, *steps])
    assert max(gaps) <= 2 * n_steps / (DEFAULT_KEEP // 2) + 1  # no stretch of the run is left out
    assert {path.name for path in (tmp_path / "r" / "checkpoints").iterdir()} == {p.name for p in recording.checkpoints}
    for path, step in zip(recording.checkpoints, steps, strict=True):
        torch.testing.assert_close(load_file(path), truth[step], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"every": 4}, [4, 8, 10]),
        ({"every": 1, "keep": 4}, [4, 8, 10]),
        ({"at": [0, 3, 9, 50]}, [0, 3, 9, 10]),
        ({"at": []}, [10]),
        ({"epochs_length": 16}, [4, 8, 10]),
    ],
)
def test_checkpoints_stand_where_they_were_asked_for(tmp_path: Path, options: dict, steps: list[int]) -> None:
    truth = recorded(tmp_path / "r", 10, **options)
    recording = load_recording(tmp_path / "r")
    assert [entry.step for entry in recording.entries] == steps
    torch.testing.assert_close(load_file(recording.checkpoints[0]), truth[steps[0]], rtol=0, atol=0)


def test_tied_transposed_and_half_precision_weights_come_back_as_they_were(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(7, 4)
            self.head = nn.Linear(4, 7, bias=False)
            self.head.weight = self.embedding.weight
            self.mixed = nn.Parameter(torch.randn(4, 3).T)
            whole = torch.randn(10)
            self.register_buffer("part", whole[2:5])
            self.register_buffer("count", torch.tensor(3))

    model = Tied().to(torch.bfloat16)
    with Recorder(tmp_path / "r", model, torch.optim.SGD(model.parameters(), 0.1)):
        pass
    found = load_file(load_recording(tmp_path / "r").checkpoints[-1])
    assert found["mixed"].dtype == torch.bfloat16 and found["count"] == 3
    torch.testing.assert_close(found, dict(model.state_dict()), rtol=0, atol=0)
    fresh = Tied().to(torch.bfloat16)
    fresh.load_state_dict(found)
    assert fresh.head.weight is fresh.embedding.weight


def test_the_optimizer_state_is_kept_by_parameter_name(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    with Recorder(tmp_path / "r", model, optimizer, at=[], optimizer_state=True) as recorder:
        for _ in range(3):
            moved(model, optimizer)
            recorder.step()
    found = load_file(tmp_path / "r" / "optimizer" / "step-000003.safetensors")
    for name, parameter in model.named_parameters():
        for key in ("exp_avg", "exp_avg_sq", "step"):
            torch.testing.assert_close(found[f"{name}:{key}"], optimizer.state[parameter][key], rtol=0, atol=0)
    assert len(found) == 3 * 4


def test_thinning_takes_the_optimizer_states_along(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.5)
    with Recorder(tmp_path / "r", model, optimizer, optimizer_state=True, keep=3) as recorder:
        for _ in range(20):
            moved(model, optimizer)
            recorder.step()
    names = {path.name for path in load_recording(tmp_path / "r").checkpoints}
    assert len(names) <= 3 and {path.name for path in (tmp_path / "r" / "optimizer").iterdir()} == names


def test_ids_of_micro_batches_and_texts(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with Recorder(tmp_path / "r", model, optimizer) as recorder:
        for ids in (None, [np.array(["a", "b"]), ["c"]], [], "d"):
            moved(model, optimizer)
            recorder.step(ids)
        with pytest.raises(BadInput, match="They are int, not str as in the steps before"):
            recorder.step([1])
    path = load_recording(tmp_path / "r").trajectory_path
    assert path is not None
    assert pq.read_table(path)["batch"].to_pylist() == [None, ["a", "b", "c"], [], ["d"]]


@pytest.mark.parametrize("ids", [[1.5], [True], [1, "a"], [None], [2**70], {1, 2}])
def test_odd_ids_are_refused(tmp_path: Path, ids) -> None:
    model = small()
    recorder = Recorder(tmp_path / "r", model, torch.optim.SGD(model.parameters(), 0.01))
    with pytest.raises(BadInput, match="The ids of a step cannot be used"):
        recorder.step(ids)


def test_a_skipped_step_has_rate_zero_and_a_note(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    with Recorder(tmp_path / "r", model, optimizer, at=[]) as recorder:
        recorder.step([0])
        moved(model, optimizer)
        recorder.step([1])
    recording = load_recording(tmp_path / "r")
    assert pq.read_table(recording.trajectory_path)["learning_rate"].to_pylist() == [0.0, 0.5]
    assert len(recording.notes) == 1 and recording.notes[0].startswith("1 recorded step came without")


def test_several_rates_are_named_in_a_note(tmp_path: Path) -> None:
    model = small()
    groups = [{"params": model[0].parameters(), "lr": 0.25}, {"params": model[2].parameters(), "lr": 0.5}]
    optimizer = torch.optim.SGD(groups)
    with Recorder(tmp_path / "r", model, optimizer, at=[]) as recorder:
        moved(model, optimizer)
        recorder.step([1])
    recording = load_recording(tmp_path / "r")
    assert recording.learning_rates == [0.25]  # 16 parameters against 10
    assert "several learning rates" in recording.notes[0]
    assert [group["lr"] for group in recording.optimizer["groups"]] == [0.25, 0.5]


def test_wrappers_are_taken_off(tmp_path: Path) -> None:
    class Wrapper:
        def __init__(self, inner: object) -> None:
            self.optimizer = inner

    model = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    with Recorder(tmp_path / "r", nn.DataParallel(model), Wrapper(optimizer)) as recorder:  # type: ignore[arg-type]
        moved(model, optimizer)
        recorder.step([1])
    recording = load_recording(tmp_path / "r")
    assert recording.learning_rates == [0.5]
    torch.testing.assert_close(load_file(recording.checkpoints[0]), dict(model.state_dict()), rtol=0, atol=0)


def test_of_several_processes_the_first_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank in (1, 0):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        recorded(tmp_path / "r", 3)
        assert (tmp_path / "r").exists() == (rank == 0)


def test_training_is_left_as_it_was(tmp_path: Path) -> None:
    def trained(folder: Path | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        model = small()
        optimizer = torch.optim.Adam(model.parameters(), 0.1)
        recorder = Recorder(folder, model, optimizer, optimizer_state=True) if folder else None
        for step in range(6):
            moved(model, optimizer)
            if recorder:
                recorder.step([step])
        if recorder:
            recorder.close()
            assert model.training and not optimizer._optimizer_step_pre_hooks
        return model.state_dict()

    torch.testing.assert_close(trained(tmp_path / "r"), trained(None), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": 0}, "every cannot be used"),
        ({"every": True}, "every cannot be used"),
        ({"keep": 1}, "keep cannot be used"),
        ({"at": [-1]}, "at cannot be used"),
        ({"at": [1], "every": 2}, "given twice"),
        ({"at": [1], "keep": 2}, "given twice"),
        ({"epochs_length": 1.5}, "epochs_length cannot be used"),
    ],
)
def test_wrong_options_leave_no_folder(tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        recorded(tmp_path / "r", 1, **options)
    assert not (tmp_path / "r").exists()


def test_a_taken_folder_no_model_no_optimizer_and_a_late_step(tmp_path: Path) -> None:
    recorded(tmp_path / "r", 1)
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(BadInput, match="holds a recording already"):
        Recorder(tmp_path / "r", model, optimizer)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="is a file"):
        Recorder(tmp_path / "file", model, optimizer)
    with pytest.raises(BadInput, match="The model cannot be recorded"):
        Recorder(tmp_path / "new", dict(model.state_dict()), optimizer)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="The optimizer cannot be recorded"):
        Recorder(tmp_path / "new", model, "adam")  # type: ignore[arg-type]
    recorder = Recorder(tmp_path / "new", model, optimizer)
    recorder.close()
    with pytest.raises(BadInput, match="The recording is closed"):
        recorder.step([1])


def test_weights_that_are_no_dense_tensors_are_refused_by_name(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def get_extra_state(self) -> dict:
            return {"a": 1}

        def set_extra_state(self, state: dict) -> None:
            pass

    model = Odd()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(BadInput, match="'_extra_state' is a dict"):
        Recorder(tmp_path / "r", model, optimizer)
    recorder = Recorder(tmp_path / "r", model, optimizer, start=False)  # the first call has left no recording
    with pytest.raises(BadInput, match="'_extra_state' is a dict"):
        recorder.checkpoint()


LOOP = """
import sys
import torch
from torch import nn
from influence_core.adapters import recorder as module

module._STEPS_AT_ONCE = 7  # many parts in little time
torch.manual_seed(0)
model = nn.Linear(40, 40)
optimizer = torch.optim.SGD(model.parameters(), 0.01)
recorder = module.Recorder(sys.argv[1], model, optimizer, optimizer_state=True)
for step in range(1, 1_000_000):
    optimizer.zero_grad()
    model(torch.randn(2, 40)).square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        model.bias.fill_(step)
    recorder.step([step, -step])
    if step == 1:
        print("started", flush=True)
"""


def killed_after(folder: Path, seconds: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LOOP), str(folder)], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).resolve().parents[2], env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def check_readable(folder: Path) -> None:
    recording = load_recording(folder)
    assert not recording.complete and "had not come to its end" in recording.notes[-1]
    for path, entry in zip(recording.checkpoints, recording.entries, strict=True):
        assert bool((load_file(path)["bias"] == entry.step).all())
        assert (folder / "optimizer" / path.name).exists()
    assert recording.trajectory_path is not None
    rows = pq.read_table(recording.trajectory_path).to_pydict()
    assert rows["step"] == list(range(1, len(rows["step"]) + 1)) and len(rows["step"]) >= recording.entries[-1].step
    assert rows["batch"] == [[step, -step] for step in rows["step"]]


def kill_series(tmp_path: Path, moments: list[float]) -> None:
    for number, seconds in enumerate(moments):
        folder = tmp_path / str(number)
        killed_after(folder, seconds)
        check_readable(folder)


def test_a_kill_leaves_a_readable_recording(tmp_path: Path) -> None:
    kill_series(tmp_path, [0.3])


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_readable_recording(tmp_path: Path) -> None:
    kill_series(tmp_path, np.random.default_rng(0).uniform(0.05, 1.5, 40).tolist())


def test_every_prefix_of_the_writes_is_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die before each rename in turn: what stands then must read as a recording of the steps before."""
    replace, survived = Path.replace, 0

    class Died(BaseException):
        pass

    for fatal in range(1, 60):
        calls = 0

        def dying(self: Path, target: Path, fatal: int = fatal) -> Path:
            nonlocal calls
            calls += 1
            if calls >= fatal:
                raise Died
            return replace(self, target)

        folder = tmp_path / str(fatal)
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", dying)
            try:
                recorded(folder, 5, keep=2)
                finished = True
            except Died:
                finished = False
        if finished:
            assert load_recording(folder).complete
            break
        try:
            recording = load_recording(folder)
        except BadInput as error:
            assert error.what in ("There is no recording here", "The recording has no checkpoint")
            continue
        survived += 1
        for path in recording.checkpoints:
            load_file(path)
        rows = pq.read_table(recording.trajectory_path).to_pydict()
        assert rows["step"] == list(range(1, len(rows["step"]) + 1)) and len(rows["step"]) >= recording.entries[-1].step
    else:
        pytest.fail("the recording never came to its end")
    assert survived > 10


def test_memory_does_not_grow_with_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from influence_core.adapters import recorder as module

    monkeypatch.setattr(module, "_STEPS_AT_ONCE", 50)
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    recorder = Recorder(tmp_path / "r", model, optimizer, at=[])
    for step in range(1, 1001):
        recorder.step([step])
        assert len(recorder._pending) < 50
    recorder.close()
    path = load_recording(tmp_path / "r").trajectory_path
    assert path is not None
    file = pq.ParquetFile(path)
    assert file.metadata.num_rows == 1000 and file.num_row_groups == 20
    assert not (tmp_path / "r" / "trajectory").exists()
