"""The built-in data sets: rows as tables, and labels flipped on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from influence_core.encoder import Encoder, ImageEncoder, TableEncoder

# Digits that people and models confuse.
CONFUSABLE = {1: 7, 7: 1, 3: 8, 8: 3, 4: 9, 9: 4, 5: 6, 6: 5}


@dataclass(frozen=True)
class DemoData:
    """Three splits, their encoder and the truth about planted errors."""

    tables: dict[str, pa.Table]
    encoder: Encoder
    classes: tuple[str, ...]
    modality: str
    truth: pa.Table | None
    feature_names: tuple[str, ...] = ()


def split_positions(rows: np.ndarray, sizes: tuple[int, int], seed: int) -> list[np.ndarray]:
    """Return positions of train, test and locked; identical rows share a split.

    Args:
        rows: Raw rows ``[n, d]``.
        sizes: Rows of train and of test, at least; the rest is locked.
        seed: Of the shuffle.
    """
    _, groups = np.unique(rows, axis=0, return_inverse=True)
    order = np.random.default_rng(seed).permutation(groups.max() + 1)
    members = [np.flatnonzero(groups == group) for group in order]
    ends = np.cumsum([len(group) for group in members])
    cuts = [int(np.searchsorted(ends, total)) + 1 for total in (sizes[0], sizes[0] + sizes[1])]
    parts = (members[: cuts[0]], members[cuts[0] : cuts[1]], members[cuts[1] :])
    nothing = np.empty(0, dtype=np.int64)  # a part that large groups have left without rows
    return [np.sort(np.concatenate([nothing, *part])) for part in parts]


def flipped_labels(labels: np.ndarray, share: float, n_classes: int, seed: int) -> np.ndarray:
    """Return labels with a share of them wrong: half towards a confusable class, half towards any other class."""
    random = np.random.default_rng(seed)
    count = round(share * len(labels))
    wrong = labels.copy()
    paired = random.permutation(np.flatnonzero(np.isin(labels, list(CONFUSABLE))))[: count // 2]
    wrong[paired] = [CONFUSABLE[int(label)] for label in labels[paired]]
    others = random.permutation(np.setdiff1d(np.arange(len(labels)), paired))[: count - len(paired)]
    wrong[others] = (labels[others] + random.integers(1, n_classes, len(others))) % n_classes
    return wrong


def digits_data() -> DemoData:
    """Return scikit-learn's 8 x 8 digits: 1,000 train rows with 10% wrong labels, about 400 test, the rest locked."""
    from sklearn.datasets import load_digits

    images, labels = (np.asarray(part) for part in load_digits(return_X_y=True))
    pixels = np.round(images * 255 / 16).astype(np.uint8)
    positions = split_positions(pixels, (1000, 400), seed=1)
    given = labels.copy()
    given[positions[0]] = flipped_labels(labels[positions[0]], 0.1, 10, seed=2)
    tables = {
        split: pa.table({
            "id": rows, "label": [str(label) for label in given[rows]],
            "pixels": pa.FixedSizeListArray.from_arrays(pa.array(pixels[rows].ravel()), 64),
        })
        for split, rows in zip(("train", "test", "locked"), positions, strict=True)
    }  # fmt: skip
    scale = pixels[positions[0]] / 255
    encoder = ImageEncoder("pixels", (1, 8, 8), round(float(scale.mean()), 6), round(float(scale.std()), 6))
    truth = pa.table({"id": positions[0], "label": [str(label) for label in labels[positions[0]]]})
    return DemoData(tables, encoder, tuple(str(digit) for digit in range(10)), "image", truth)


def breast_cancer_data() -> DemoData:
    """Return scikit-learn's breast-cancer table: 30 measurements of 569 tumours, labels as published."""
    from sklearn.datasets import load_breast_cancer

    bunch: Any = load_breast_cancer()
    names = tuple(str(name) for name in bunch.feature_names)
    positions = split_positions(bunch.data, (300, 150), seed=1)
    words = np.asarray(["malignant", "benign"])
    tables = {
        split: pa.table({
            "id": rows, "label": words[bunch.target[rows]].tolist(),
            **{name: bunch.data[rows, i] for i, name in enumerate(names)},
        })
        for split, rows in zip(("train", "test", "locked"), positions, strict=True)
    }  # fmt: skip
    encoder = TableEncoder.fitted(tables["train"], names)
    return DemoData(tables, encoder, ("malignant", "benign"), "table", None, names)
