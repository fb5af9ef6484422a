"""Mixed columns as numbers, against scikit-learn and by hand."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from influence_core.encoder import ColumnsEncoder, load_encoder
from influence_core.errors import BadInput


def people(n: int = 500) -> pa.Table:
    random = np.random.default_rng(0)
    height = random.normal(170, 10, n)
    height[::7] = np.nan
    return pa.table({
        "height": height,
        "city": random.choice(["Oslo", "Rome", "Lima"], n).tolist(),
        "member": random.choice([True, False], n),
        "since": [datetime.date(2020, 1, 1) + datetime.timedelta(days=int(d)) for d in random.integers(0, 900, n)],
        "same": [1] * n,
    })  # fmt: skip


def fitted(table: pa.Table, columns: list[str] | None = None, **options: int) -> ColumnsEncoder:
    def batches() -> Iterator[pa.Table]:
        return (table.slice(start, 64) for start in range(0, len(table), 64))

    return ColumnsEncoder.fitted(batches, columns or table.column_names, **options)


def test_numbers_words_and_dates_equal_the_usual_encoders() -> None:
    table = people()
    encoder = fitted(table)
    found = encoder.encoded(table)
    parts = dict(encoder.parts)
    assert list(parts) == ["height", "city", "member", "since"], "a constant column says nothing"
    assert found.dtype == np.float32 and found.shape == (500, *encoder.shape)
    assert len(encoder.feature_names) == found.shape[1]

    height = table["height"].to_numpy()[:, None]
    scaled = StandardScaler().fit_transform(SimpleImputer(strategy="median").fit_transform(height))
    np.testing.assert_allclose(found[:, parts["height"]][:, 0], scaled[:, 0], atol=1e-6)
    assert np.array_equal(found[:, parts["height"]][:, 1], np.isnan(height[:, 0]))

    words = np.asarray(table["city"].to_pylist())[:, None]
    names = [name.rsplit(" = ", 1)[-1] for name in encoder.feature_names[parts["city"]]][:3]
    expected = OneHotEncoder(categories=[names], sparse_output=False).fit_transform(words)
    assert np.array_equal(found[:, parts["city"]][:, :3], expected)

    days = np.asarray([value.toordinal() for value in table["since"].to_pylist()], np.float64)[:, None]
    np.testing.assert_allclose(found[:, parts["since"]][:, 0], StandardScaler().fit_transform(days)[:, 0], atol=1e-5)


def test_what_train_never_had_is_other_missing_or_the_end_of_its_range() -> None:
    encoder = fitted(people(), ["height", "city"])
    parts = dict(encoder.parts)
    new = pa.table({"height": [np.inf, None, 171.0], "city": ["Quito", None, "Rome"]})
    found = encoder.encoded(new)
    assert np.isfinite(found).all()
    highest = encoder.encoded(people())[:, parts["height"]][:, 0].max()
    assert found[0, parts["height"]][0] == pytest.approx(highest)
    assert found[1, parts["height"]][1] == 1
    oslo_rome_lima = found[:, parts["city"]][:, :3].sum(1).tolist()
    assert oslo_rome_lima == [0, 0, 1]


def test_only_the_frequent_words_get_a_place_of_their_own() -> None:
    words = [f"w{i}" for i in range(30) for _ in range(31 - i)]
    encoder = fitted(pa.table({"word": words}), max_categories=5)
    names = [name for name in encoder.feature_names if any(name.endswith(f" = w{i}") for i in range(30))]
    assert [name.rsplit(" = ", 1)[-1] for name in names] == ["w0", "w1", "w2", "w3", "w4"]


def test_batches_of_any_size_give_the_same_encoder() -> None:
    table = people()
    whole = ColumnsEncoder.fitted(lambda: iter([table]), table.column_names)
    for a, b in zip(whole.to_json()["columns"], fitted(table).to_json()["columns"], strict=True):
        for key, value in a.items():
            assert b[key] == pytest.approx(value) if isinstance(value, float) else b[key] == value


def test_json_brings_it_back(tmp_path: Path) -> None:
    encoder = fitted(people())
    (tmp_path / "encoder.json").write_text(json.dumps(encoder.to_json()))
    again = load_encoder(tmp_path / "encoder.json")
    assert again == encoder
    np.testing.assert_array_equal(again.encoded(people(20)), encoder.encoded(people(20)))


def test_lists_are_refused_with_the_column() -> None:
    with pytest.raises(BadInput, match="'tags'"):
        fitted(pa.table({"tags": [["a"], ["b"]]}))


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf"), 1e300, -1e120])
def test_a_row_is_encoded_alike_whatever_stands_beside_it(odd: float) -> None:
    draw = np.random.default_rng(0)
    numbers = np.append(draw.normal(size=40) * 3, [odd, odd])
    words = [None if i % 9 == 0 else f"w{i % 4}" for i in range(42)]
    table = pa.table({"x": numbers, "w": pa.array(words, pa.string())})
    encoder = ColumnsEncoder.fitted(lambda: iter([table.slice(0, 20), table.slice(20)]), ("x", "w"))
    together = encoder.encoded(table)
    alone = np.concatenate([encoder.encoded(table.slice(i, 1)) for i in range(42)])
    chunked = encoder.encoded(pa.concat_tables([table.slice(0, 13), table.slice(13)]))
    assert np.isfinite(together).all() and (together == alone).all() and (together == chunked).all()
    assert encoder.encoded(table.slice(0, 0)).shape == (0, together.shape[1])
