"""Reading a recording: the format, and one clear message for everything that can be wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from influence_core.adapters.recorder import Recorder
from influence_core.adapters.recording import FORMAT, load_recording, merged_trajectory, steps_table
from influence_core.errors import BadInput, StoreProblem


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recording of three steps with two checkpoints."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    with Recorder(tmp_path / "r", model, optimizer, at=[2]) as recorder:
        for step in range(3):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            recorder.step([step])
    return tmp_path / "r"


def changed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = folder / "recording.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(change(content) or content))


def test_the_format_on_the_disk(folder: Path) -> None:
    content = json.loads((folder / "recording.json").read_text())
    assert content["format"] == FORMAT == 1
    assert content["entries"] == [
        {"file": f"checkpoints/step-00000{s}.safetensors", "step": s, "epoch": None, "learning_rate": 0.5}
        for s in (2, 3)
    ]
    assert pq.read_schema(folder / "trajectory.parquet").remove_metadata() == pa.schema(
        [("step", pa.int64()), ("learning_rate", pa.float64()), ("batch", pa.list_(pa.int64()))]
    )
    names = ["checkpoints", "recording.json", "start.safetensors", "trajectory.parquet"]
    assert sorted(path.name for path in folder.iterdir()) == names
    recording = load_recording(str(folder))
    assert recording.checkpoints == [folder / "checkpoints" / f"step-00000{s}.safetensors" for s in (2, 3)]
    assert recording.learning_rates == [0.5, 0.5] and recording.trajectory_path == folder / "trajectory.parquet"


def entry(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["entries"][0].update(values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(format=FORMAT + 1), "The recording is from a newer version: .* has format 2"),
        (lambda c: c.update(format="1"), "has format '1'"),
        (lambda c: c.update(format=True), "has format True"),
        (lambda c: c.pop("format") and None, "has format None"),
        (lambda c: [c], "holds no JSON object"),
        (lambda c: c.update(entries=[]), "has no checkpoint"),
        (lambda c: c.pop("entries") and None, "The recording is incomplete"),
        (lambda c: c.update(entries=3), "The recording is incomplete"),
        (lambda c: c.update(entries=[3]), "The recording is incomplete"),
        (lambda c: c.update(entries=c["entries"][::-1]), r"its steps \[3, 2\] are not in order"),
        (lambda c: c.update(optimizer="SGD"), "The recording is incomplete"),
        (entry(learning_rate=float("nan")), "the learning rate of .* is nan"),
        (entry(learning_rate=-1), "is -1.0"),
        (entry(learning_rate=None), "The recording is incomplete"),
        (entry(step=float("inf")), "The recording is incomplete"),
        (entry(step="two"), "The recording is incomplete"),
        (entry(file="../../secret.safetensors"), "is no .safetensors file in this folder"),
        (entry(file="/etc/passwd"), "is no .safetensors file in this folder"),
        (entry(file="checkpoints/step-000002.pt"), "is no .safetensors file in this folder"),
        (entry(file="checkpoints/step-000009.safetensors"), "A recorded checkpoint is gone: .*step-000009"),
    ],
)
def test_what_is_wrong_with_the_index(folder: Path, change: Callable[[dict[str, Any]], Any], words: str) -> None:
    changed(folder, change)
    with pytest.raises(BadInput, match=words):
        load_recording(folder)


@pytest.mark.parametrize("text", ["", "{", '{"format": 1', "[" * 100_000, "\udcff"])
def test_damaged_json(folder: Path, text: str) -> None:
    (folder / "recording.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BadInput, match="The recording cannot be read"):
        load_recording(folder)


def test_no_recording(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(BadInput, match="There is no recording here"):
            load_recording(place)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="There is no recording here"):
        load_recording(tmp_path / "file")


def test_damaged_steps(folder: Path) -> None:
    good = (folder / "trajectory.parquet").read_bytes()
    (folder / "trajectory.parquet").write_bytes(good[:-9])
    with pytest.raises(BadInput, match="The recorded steps cannot be read"):
        load_recording(folder)
    pq.write_table(pa.table({"a": [1]}), folder / "trajectory.parquet")
    with pytest.raises(BadInput, match="has the columns a"):
        load_recording(folder)
    (folder / "trajectory.parquet").unlink()
    assert load_recording(folder).trajectory_path is None
    changed(folder, lambda content: content.update(complete=False))
    (folder / "trajectory").mkdir()
    (folder / "trajectory" / "part-00000000.parquet").write_bytes(good[:-9])
    with pytest.raises(BadInput, match="The recorded steps cannot be read"):
        load_recording(folder)


def test_parts_from_before_the_first_known_ids_are_merged(tmp_path: Path) -> None:
    (tmp_path / "trajectory").mkdir()
    pq.write_table(steps_table([1], [0.5], [None], pa.int64()), tmp_path / "trajectory" / "part-00000000.parquet")
    pq.write_table(
        steps_table([2], [0.25], [["a", "b"]], pa.string()), tmp_path / "trajectory" / "part-00000001.parquet"
    )
    path = merged_trajectory(tmp_path)
    assert path is not None
    assert pq.read_table(path).to_pydict() == {
        "step": [1, 2], "learning_rate": [0.5, 0.25], "batch": [None, ["a", "b"]],
    }  # fmt: skip


def test_a_running_recording_reads_as_far_as_it_is(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    recorder = Recorder(tmp_path / "r", model, optimizer, every=2)
    for step in range(1, 7):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        recorder.step([step])
        if step >= 2:
            recording = load_recording(tmp_path / "r")
            assert not recording.complete and recording.entries[-1].step == step - step % 2
            assert pq.read_table(recording.trajectory_path)["step"].to_pylist() == list(range(1, step - step % 2 + 1))
    recorder.close()
    assert load_recording(tmp_path / "r").complete


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    model = nn.Linear(2, 1)
    recorder = Recorder(tmp_path / "r", model, torch.optim.SGD(model.parameters(), 0.5))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreProblem, match="The disk is full"):
        recorder.checkpoint()
