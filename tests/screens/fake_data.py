"""Rows and linear models for the fake service: ``digits`` (images), ``cells`` (a table), ``words`` (hostile texts)."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from influence_core.service import views

HOSTILE = '<img src=x onerror="alert(1)">'
FAMILIES = {
    "grad_cos": ("Gradient cosine", "gradient", "rank", "rank order only: a cosine between -1 and 1"),
    "tracin_cp": ("TracIn over checkpoints", "gradient", "gradient", "learning-rate-weighted gradient product"),
    "if_ggn": ("Influence function", "curvature", "measurement", "nats of log-probability, as leave-one-out"),
    "knn_shapley": ("k-NN Shapley value", "neighbor", "value", "share of a k-NN vote's accuracy"),
}


def png(pixels: np.ndarray, size: int = 0) -> str:
    """Return a PNG data URI of ``pixels`` [h, w] or [h, w, 3], uint8."""
    picture = Image.fromarray(pixels)
    if size:
        picture = picture.resize((size, size), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@dataclass
class Material:
    """The rows, the fitted linear model and its probabilities of one fake study."""

    card: views.StudyCard
    classes: tuple[str, ...]
    inputs: dict[str, np.ndarray]
    given: dict[str, np.ndarray]
    planted: np.ndarray
    truth: np.ndarray
    probabilities: dict[str, np.ndarray]
    columns: tuple[str, ...] = ()
    raw: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)


@cache
def material(name: str) -> Material:
    """Return the fake study ``name``: "digits", "cells" or "words"."""
    if name == "words":
        return _words()
    source: Any = load_digits() if name == "digits" else load_breast_cancer()
    order = np.random.default_rng(0).permutation(len(source.target))
    raw, labels = source.data[order], source.target[order]
    n_train, n_test = (900, 450) if name == "digits" else (340, 150)
    scaled = raw / 16.0 if name == "digits" else StandardScaler().fit_transform(raw)
    parts = {
        "train": slice(0, n_train),
        "test": slice(n_train, n_train + n_test),
        "locked": slice(n_train + n_test, None),
    }
    classes = tuple(str(c) for c in source.target_names)
    rng = np.random.default_rng(1)
    truth = labels[parts["train"]].copy()
    planted = rng.random(n_train) < 0.1
    noisy = np.where(planted, (truth + rng.integers(1, len(classes), n_train)) % len(classes), truth)
    given = {split: labels[part] for split, part in parts.items()} | {"train": noisy}
    inputs = {split: scaled[part] for split, part in parts.items()}
    model = LogisticRegression(C=0.3, max_iter=400).fit(inputs["train"], noisy)
    title, modality = ("Handwritten digits", "image") if name == "digits" else ("Breast cancer cells", "table")
    sizes = [len(given[split]) for split in parts]
    card = views.StudyCard(name, title, modality, *sizes, n_classes=len(classes))
    probabilities = {split: model.predict_proba(x) for split, x in inputs.items()}
    columns = tuple(str(c) for c in getattr(source, "feature_names", ()))
    raws = {split: raw[part] for split, part in parts.items()}
    return Material(card, classes, inputs, given, planted, truth, probabilities, columns, raws)


def _words() -> Material:
    rng = np.random.default_rng(2)
    classes = (HOSTILE, 'a "quoted" & <b>bold</b> class')
    card = views.StudyCard("words", "Texts <b>with</b> HTML", "text", 40, 20, 10, 2)
    sizes = {"train": 40, "test": 20, "locked": 10}
    inputs = {split: rng.normal(size=(n, 4)) for split, n in sizes.items()}
    given = {split: (x[:, 0] > 0).astype(int) for split, x in inputs.items()}
    chance = {split: 1 / (1 + np.exp(-2 * x[:, 0] + x[:, 1])) for split, x in inputs.items()}
    probabilities = {split: np.stack([1 - p, p], axis=1) for split, p in chance.items()}
    texts = {split: [f"<script>alert({i})</script> text & row {i}" for i in range(n)] for split, n in sizes.items()}
    return Material(card, classes, inputs, given, np.zeros(40, bool), given["train"], probabilities, (), inputs, texts)
