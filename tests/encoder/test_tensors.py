"""Tensors as rows: what goes into the columns comes back, number by number; what does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_core.config import digest
from influence_core.encoder import Encoder, TensorEncoder, load_encoder, rows_at_once
from influence_core.errors import BadInput
from influence_core.study import Study
from influence_core.study_files import file_hash

DTYPES = ("float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")


def written(encoder: TensorEncoder, inputs: Any, path: Path, **options: Any) -> pa.Table:
    """The columns of some inputs, through a Parquet file."""
    pq.write_table(pa.table(encoder.columns(inputs)), path, **options)
    return pq.read_table(path)


def reloaded(encoder: Encoder, path: Path) -> Encoder:
    (path / "encoder.json").write_text(json.dumps(encoder.to_json()))
    return load_encoder(path / "encoder.json")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 2, 4)])
def test_numbers_come_back_as_they_were(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = (100 * random.normal(size=(11, *shape))).astype(dtype)
    encoder = TensorEncoder.of(values)
    again = encoder.encoded(written(encoder, torch.from_numpy(values), tmp_path / "a.parquet", row_group_size=4))
    assert again.dtype == values.dtype
    np.testing.assert_array_equal(again, values)
    assert encoder.layout == {"inputs": (shape, dtype)} and encoder.called({"inputs": 5}) == 5
    assert reloaded(encoder, tmp_path) == encoder


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    values = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    encoder = TensorEncoder.of(values)
    again = encoder.encoded(written(encoder, values, tmp_path / "a.parquet"))
    assert again.dtype == np.float32 and torch.equal(torch.tensor(again).to(dtype), values)


def test_several_inputs_keep_their_names_order_and_types(tmp_path: Path) -> None:
    mapping = {"input_ids": torch.arange(12).reshape(4, 3), "attention_mask": torch.ones(4, 3, dtype=torch.bool)}
    encoder = TensorEncoder.of(mapping)
    table = written(encoder, mapping, tmp_path / "a.parquet")
    assert table.column_names == ["input.input_ids", "input.attention_mask"]
    called = encoder.called(encoder.arrays(table))
    assert list(called) == ["input_ids", "attention_mask"] and called["attention_mask"].dtype == bool
    np.testing.assert_array_equal(called["input_ids"], mapping["input_ids"])
    assert list(encoder.encoded(table)) == ["input_ids", "attention_mask"]
    assert set(encoder.layout) == {"inputs.0", "inputs.1"} and reloaded(encoder, tmp_path) == encoder
    positions = TensorEncoder.of((torch.zeros(4, 2), torch.ones(4, dtype=torch.int16)))
    table = written(positions, (np.zeros((4, 2), "f4"), np.ones(4, "i2")), tmp_path / "b")
    again = positions.called(positions.arrays(table))
    assert isinstance(again, tuple) and again[1].shape == (4,) and again[1].dtype == np.int16


def test_lists_of_another_writer_are_read_too() -> None:
    encoder = TensorEncoder.of(np.zeros((1, 2, 2), np.float32))
    for kind in (pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 4)):
        chunks = [
            pa.array([[1, 2, 3, 4]], kind),
            pa.array([[0, 0, 0, 0], [5, 6, 7, 8], [0, 0, 0, 0]], kind).slice(1, 1),
        ]
        table = pa.table({"input": pa.chunked_array(chunks)})
        np.testing.assert_array_equal(encoder.encoded(table), np.arange(1, 9, dtype="f4").reshape(2, 2, 2))
    assert encoder.encoded(table.slice(0, 0)).shape == (0, 2, 2)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1.0, 2.0], [3.0]]),
        pa.array([[1.0], [2.0, 3.0, 4.0]]),  # as many numbers as there should be, in other places
        pa.array([[1.0, 2.0], None]),
        pa.array([[1.0, 2.0], [None, 1.0]]),
        pa.array([1.0, 2.0]),
        pa.array(["ab", "cd"]),
        pa.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], pa.list_(pa.float32(), 3)),
    ],
)
def test_rows_that_do_not_fit_are_refused(column: pa.Array) -> None:
    with pytest.raises(BadInput, match="'input' does not fit the model"):
        TensorEncoder.of(np.zeros((1, 2), np.float32)).encoded(pa.table({"input": column}))


def test_rows_that_are_not_alike_are_refused() -> None:
    encoder = TensorEncoder.of({"ids": np.zeros((2, 3), np.int64)})
    for other in (np.zeros((2, 4), np.int64), np.zeros((2, 3), np.int32)):
        with pytest.raises(BadInput, match=r"not alike: The input 'ids' had the shape \[3\] of int64.*pad texts"):
            encoder.columns({"ids": other})


@pytest.mark.parametrize(
    "inputs",
    [
        torch.zeros(3, 0),
        torch.zeros(3, dtype=torch.complex64),
        torch.zeros(2, 2).to_sparse(),
        {"a b": torch.zeros(2)},
        {"1": torch.zeros(2)},
        (),
        {},
        np.asarray(["a"]),
    ],
)
def test_what_cannot_be_kept_is_refused(inputs: Any) -> None:
    with pytest.raises(BadInput, match="cannot be kept"):
        TensorEncoder.of(inputs)


GOOD = {
    "kind": "tensors", "form": "tensor", "inputs": [{"column": "input", "shape": [1, 6, 6], "dtype": "float32"}],
    "picture": {"low": 0.0, "high": 1.0},
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"form": "call"},
        {"inputs": []},
        {"inputs": [{"column": "../../x", "shape": [2], "dtype": "float32"}], "picture": None},
        {"inputs": [{"column": "input.../x", "shape": [2], "dtype": "float32"}], "form": "keywords", "picture": None},
        {"inputs": [{"column": "input.0", "shape": [2], "dtype": "float32"}], "form": "keywords", "picture": None},
        {"inputs": [{"column": "input", "shape": [1 << 40], "dtype": "float32"}], "picture": None},
        {"inputs": [{"column": "input", "shape": [-1, 2], "dtype": "float32"}], "picture": None},
        {"inputs": [{"column": "input", "shape": ["2"], "dtype": "float32"}], "picture": None},
        {"inputs": [{"column": "input", "shape": [2], "dtype": "object"}], "picture": None},
        {"inputs": [{"column": "input", "shape": [2], "dtype": "float32"}]},  # no picture can be seen in that
        {"picture": {"low": 1.0, "high": 1.0}},
        {"picture": {"low": "black", "high": 1.0}},
        {"more": 1},
    ],
)
def test_a_damaged_or_hostile_encoder_is_one_clear_message(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "encoder.json").write_text(json.dumps(GOOD))
    assert isinstance(load_encoder(tmp_path / "encoder.json"), TensorEncoder)
    (tmp_path / "encoder.json").write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(BadInput, match="The encoder cannot be read"):
        load_encoder(tmp_path / "encoder.json")


def test_pixels_are_the_numbers_between_black_and_white() -> None:
    values = np.linspace(-1, 2, 36, dtype=np.float32).reshape(1, 1, 6, 6)
    encoder = TensorEncoder("tensor", TensorEncoder.of(values).inputs, (-1.0, 1.0))
    expected = np.clip(np.round((values + 1) / 2 * 255), 0, 255)
    np.testing.assert_array_equal(encoder.pixels(pa.table(encoder.columns(values))), expected)
    flags = {(1, 4, 4): True, (3, 9, 5): True, (4, 4, 4): False, (1, 3, 9): False, (8, 8): False}
    assert {shape: TensorEncoder.of(np.zeros((1, *shape))).is_image for shape in flags} == flags


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 4), max_size=3), st.sampled_from(DTYPES), st.integers(1, 9), st.integers(1, 5))
def test_any_shape_comes_back(shape: list[int], dtype: str, n: int, chunk: int) -> None:
    values = np.random.default_rng(n).integers(0, 2, (n, *shape)).astype(dtype)
    encoder = TensorEncoder.of(values)
    parts = [pa.table(encoder.columns(values[i : i + chunk])) for i in range(0, n, chunk)]
    np.testing.assert_array_equal(encoder.encoded(pa.concat_tables(parts)), values)


def test_long_rows_are_encoded_a_few_at_a_time() -> None:
    assert rows_at_once(TensorEncoder.of(np.zeros((1, 10), np.float32))) == 4096
    assert rows_at_once(TensorEncoder.of(np.zeros((1, 3, 224, 224), np.float32))) == (64 << 20) // (3 * 224 * 224 * 4)


@pytest.mark.parametrize("name", ["table", "linear", "image"])
def test_studies_of_other_encoders_keep_fingerprint_and_cache_keys(name: str, studies: Path) -> None:
    study = Study(studies / name)
    header, folder = study.header, studies / name
    files = [folder / f"{split}.parquet" for split in study.splits] + [folder / "encoder.json"]
    files += [folder / entry["file"] for entry in header.checkpoints]
    rates = [entry["learning_rate"] for entry in header.checkpoints]
    assert study.fingerprint == digest(
        [
            [file_hash(path) for path in files], [header.label, header.id], dict(header.model), header.loss,
            header.classes, header.recipe.to_json() if header.recipe else None, rates,
        ]
    )  # fmt: skip
    assert study.task.n_train == study.n_rows("train")
    parts = [file_hash(folder / "train.parquet"), study.encoder.to_json()]
    found = study.store.find(digest({"kind": "encoded rows", "split": "train", "parts": parts}))
    assert found is not None and found.names() == ["inputs"] and found.array("inputs").dtype == np.float32
