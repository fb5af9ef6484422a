"""Rows of data in every form they come in."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from influence_core.errors import BadInput
from influence_core.examples import Batch, Examples, content_hash, moved, taken
from influence_core.task import Task
from tests.cases import integers, normal


def digest_of(source: Any) -> str:
    state = hashlib.blake2b()
    Examples(source).hash_into(state)
    return state.hexdigest()


X, Y = normal(7, 3, seed=1), integers(3, 7, seed=2)
SOURCES = {
    "tensors": (X, Y), "arrays": (X.numpy(), Y.numpy()), "dataset": TensorDataset(X, Y),
    "list of pairs": list(zip(X, Y.tolist(), strict=True)), "a column of plain numbers": (X, Y.tolist()),
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES.values(), ids=list(SOURCES))
def test_every_source_gives_the_same_batches(source: Any) -> None:
    rows = Examples(source)
    assert len(rows) == 7
    for index in (slice(None), slice(2, 5), torch.tensor([6, 0, 0])):
        batch = rows.batch(index, "cpu", torch.float64)
        assert isinstance(batch, Batch)
        torch.testing.assert_close(batch.inputs, X[index], rtol=0, atol=0)
        assert batch.targets.tolist() == Y[index].tolist() and batch.targets.dtype == torch.int64
    assert rows.targets.tolist() == Y.tolist()
    seen = list(rows.batches(3, "cpu", torch.float32))
    assert [start for start, _ in seen] == [0, 3, 6]
    assert [len(batch.targets) for _, batch in seen] == [3, 3, 1]
    torch.testing.assert_close(torch.cat([batch.inputs for _, batch in seen]), X.float(), rtol=0, atol=0)
    assert seen[0][1].inputs.dtype == torch.float32


def test_mappings_and_tuples_of_inputs() -> None:
    for inputs in ({"a": X, "b": Y}, (X, Y)):
        batch = Examples((inputs, Y)).batch(torch.tensor([5, 1]), "cpu", torch.float32)
        parts = batch.inputs.values() if isinstance(inputs, dict) else batch.inputs
        assert [part.dtype for part in parts] == [torch.float32, torch.int64]
        assert [len(part) for part in parts] == [2, 2]


def test_arrays_on_disk_are_read_without_a_warning(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X.numpy())
    rows = Examples((np.load(tmp_path / "x.npy", mmap_mode="r"), Y.numpy()))
    torch.testing.assert_close(rows.batch(slice(None), "cpu", torch.float64).inputs, X, rtol=0, atol=0)


class Broken(Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Tensor:
        return torch.ones(3)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ((X, Y[:3]), "rows do not match"), (({"a": X, "b": X[:2]}, Y), "rows do not match"),
        ((X[:0], Y[:0]), "is empty"),
        ([], "is empty"), (3, "cannot be read"), (iter([1, 2]), "cannot be read"),
        ((X, {"y": Y}), "targets cannot be used"),
        ((pd.DataFrame({"a": [1.0, 2.0]}), Y[:2]), "cannot be read"),
        ((X[:2], pd.Series([0, 1])), "targets cannot be used"),
        ((X[:2], ["cat", "dog"]), "cannot be read"),
        ((np.asarray([["a"], ["b"]]), Y[:2]), "cannot be read"),
    ],
)  # fmt: skip
def test_unusable_data_is_named(source: Any, what: str) -> None:
    with pytest.raises(BadInput) as error:
        Examples(source, "locked")
    assert what in error.value.what and "locked" in error.value.what


def test_a_dataset_of_single_things_is_named() -> None:
    with pytest.raises(BadInput, match="not \\(input, target\\) pairs"):
        Examples(Broken()).batch(slice(None))


def test_the_hash_is_that_of_the_content() -> None:
    hashes = {name: digest_of(source) for name, source in SOURCES.items()}
    assert len(set(hashes.values())) == 1, hashes
    for i in range(7):
        x, y = X.clone(), Y.clone()
        x[i, i % 3] += 1e-12  # below single precision
        assert digest_of((x, Y)) != hashes["tensors"]
        y[i] = (y[i] + 1) % 3
        assert digest_of((X, y)) != hashes["tensors"]
    assert digest_of((X.flip(0), Y.flip(0))) != hashes["tensors"]
    assert digest_of((X[:6], Y[:6])) != hashes["tensors"]
    assert digest_of((X.reshape(7, 1, 3), Y)) != hashes["tensors"]
    assert digest_of(({"a": X}, Y)) != digest_of(({"b": X}, Y))


def test_the_hash_reads_every_row_of_large_data() -> None:
    x, y = torch.zeros(9000, 2), torch.zeros(9000)
    before = digest_of((x, y))
    for i in (0, 4095, 4096, 8999):
        changed = x.clone()
        changed[i, 1] = 1
        assert digest_of((changed, y)) != before


def test_moved_and_taken_go_through_everything() -> None:
    nested = {"a": X, "b": (Y, X)}
    single = moved(nested, torch.device("cpu"), torch.float32)
    assert single["a"].dtype == torch.float32 and single["b"][0].dtype == torch.int64
    part = taken(Batch(nested, Y), slice(1, 3))
    assert isinstance(part, Batch) and part.inputs["b"][1].shape == (2, 3)


def test_content_hash_tells_texts_and_tensors_apart() -> None:
    assert content_hash("ab", "c") != content_hash("a", "bc")
    assert content_hash(torch.zeros(2)) != content_hash(torch.zeros(2, dtype=torch.float64))
    assert content_hash(torch.zeros(2, 3)) != content_hash(torch.zeros(3, 2))
    assert content_hash(torch.tensor([True, False])) != content_hash(torch.tensor([True, True]))
    assert content_hash(torch.arange(4)[::2][1:]) == content_hash(torch.tensor([2]))  # one number keeps its stride
    assert content_hash(torch.arange(6).reshape(2, 3).T) == content_hash(torch.arange(6).reshape(2, 3).T.contiguous())


class Shuffled(Dataset):
    """Draws a new order whenever a pass begins, as a loader with ``shuffle=True`` does."""

    def __init__(self, n: int) -> None:
        self.random, self.order = np.random.default_rng(0), np.arange(n)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 0:
            self.order = self.random.permutation(len(self.order))
        return torch.full((2,), float(self.order[index])), int(self.order[index]) % 3


class Augmented(Dataset):
    """The last row alone is never the same twice."""

    def __init__(self) -> None:
        self.reads = 0

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.reads += 1
        return torch.full((2,), index + (self.reads if index == 99 else 0.0)), 0


@pytest.mark.parametrize(("source", "row"), [(Shuffled(1000), 0), (Shuffled(5), 0), (Augmented(), 99)])
def test_rows_that_change_between_passes_are_refused(source: Dataset, row: int) -> None:
    with pytest.raises(BadInput, match=rf"Row {row} was another one.*shuffles.*random augmentation") as caught:
        Examples(source, "test")
    assert "The test rows" in str(caught.value) and "without shuffling" in caught.value.fix


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_loader_is_refused_with_its_data_set_as_the_way_out(shuffle: bool) -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=2, shuffle=shuffle)
    with pytest.raises(BadInput, match=r"may shuffle.*loader\.dataset"):
        Task(lambda: torch.nn.Linear(3, 3), loader, (X, Y), checkpoints=[torch.nn.Linear(3, 3).state_dict()])
    assert len(Examples(loader.dataset)) == 7


def test_a_data_set_is_read_twice_in_a_few_places_only() -> None:
    read: list[int] = []

    class Counted(TensorDataset):
        def __getitem__(self, index: int) -> tuple[Tensor, ...]:
            read.append(index)
            return super().__getitem__(index)

    Examples(Counted(normal(10_000, 3, seed=1), integers(3, 10_000, seed=2)))
    assert len(read) == 16 and read[:8] == read[8:] and read[0] == 0 and read[7] == 9999
