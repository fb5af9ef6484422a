"""Projections against scikit-learn, their determinism, and what is kept with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from influence_core import Run, Task
from influence_core.errors import Cancelled, Unavailable
from influence_core.store import Store
from influence_core.workflows import projection as module
from influence_core.workflows.projection import (
    ProjectionConfig,
    fitted_sample,
    found_projection,
    principal_axes,
    projection,
    projection_key,
    said_of_rows,
    umap_coordinates,
)  # fmt: skip

N_TRAIN, N_TEST, WIDTH = 90, 30, 6


def rows_with_spectrum(n: int, width: int, seed: int = 0) -> np.ndarray:
    """Rows whose variances fall by a factor of two from axis to axis, rotated at random, far from the origin."""
    random = np.random.default_rng(seed)
    scaled = random.standard_normal((n, width)) * 2.0 ** -np.arange(width)
    return scaled @ np.linalg.qr(random.standard_normal((width, width)))[0] + 100


@pytest.fixture
def task() -> Task:
    values = torch.from_numpy(rows_with_spectrum(N_TRAIN + N_TEST, WIDTH) - 100).float()
    labels = (values[:, 0] > 0).long() + (values[:, 1] > 0.3).long()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), nn.Linear(5, 3))
    train, test = slice(0, N_TRAIN), slice(N_TRAIN, None)
    return Task(model=model, train=(values[train], labels[train]), test=(values[test], labels[test]),
                loss="cross_entropy")  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(dtype=torch.float64, store=Store(tmp_path))


def up_to_sign(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return ours * np.sign((ours * theirs).sum(0))


@pytest.mark.parametrize(("width", "tolerance"), [(7, 1e-9), (40, 1e-9), (module._EXACT + 20, 1e-6)])
def test_axes_equal_scikit_learns(run: Run, width: int, tolerance: float) -> None:
    rows = rows_with_spectrum(300, width) if width < 100 else rows_with_spectrum(300, 12) @ np.eye(12, width)
    axes = principal_axes(lambda start, stop: torch.from_numpy(rows[start:stop]), len(rows), 3, run)
    theirs = PCA(3, svd_solver="full").fit(rows)
    ours = ((torch.from_numpy(rows) - axes.mean) @ axes.directions).numpy()
    wanted = theirs.transform(rows)
    np.testing.assert_allclose(up_to_sign(ours, wanted), wanted, atol=tolerance)
    np.testing.assert_allclose(axes.shares.numpy(), theirs.explained_variance_ratio_, rtol=1e-6)
    largest = axes.directions.gather(0, axes.directions.abs().argmax(0, keepdim=True))
    assert bool((largest > 0).all())


def test_axes_of_many_blocks_are_those_of_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.from_numpy(rows_with_spectrum(50, 4))
    once = principal_axes(lambda start, stop: rows[start:stop], 50, 2, run)
    monkeypatch.setattr(module, "_BLOCK", 7)
    again = principal_axes(lambda start, stop: rows[start:stop], 50, 2, run)
    torch.testing.assert_close(once.directions, again.directions)
    torch.testing.assert_close(once.mean, again.mean)


def test_components_of_the_input_are_scikit_learns_and_test_rows_lie_on_the_same_axes(task: Task, run: Run) -> None:
    found = projection(task, run, ProjectionConfig(place="input", kind="pca"))
    train, test = (task.split(split).batch(slice(None)).inputs.numpy() for split in ("train", "test"))
    theirs = PCA(2, svd_solver="full").fit(train)
    for split, rows in (("train", train), ("test", test)):
        wanted = theirs.transform(rows)
        np.testing.assert_allclose(up_to_sign(found.xy[split], wanted), wanted, atol=1e-5)
    assert found.share == pytest.approx(theirs.explained_variance_ratio_.sum(), abs=1e-6)


def test_the_penultimate_place_is_what_enters_the_last_layer(task: Task, run: Run) -> None:
    found = projection(task, run, ProjectionConfig(kind="pca"))
    with torch.no_grad():
        hidden = task.model_at(-1)[:2](task.split("train").batch(slice(None)).inputs).numpy()  # type: ignore[index]
    wanted = PCA(2, svd_solver="full").fit_transform(hidden)
    np.testing.assert_allclose(up_to_sign(found.xy["train"], wanted), wanted, atol=1e-5)


def test_gradients_of_train_and_test_rows_have_one_sign(task: Task, run: Run) -> None:
    """A test row that repeats a training row has the same gradient of the loss, so the same place."""
    train = task.split("train").batch(slice(0, 40))
    twin = Task(model=task.model_at(-1), train=(train.inputs, train.targets), test=(train.inputs, train.targets),
                loss="cross_entropy")  # fmt: skip
    found = projection(twin, run, ProjectionConfig(place="gradients", kind="pca"))
    np.testing.assert_allclose(found.xy["train"], found.xy["test"], atol=1e-6)
    assert found.xy["train"].std(0).min() > 1e-6


def test_what_the_model_says_is_kept_with_the_components(task: Task, run: Run) -> None:
    config = ProjectionConfig(kind="pca")
    assert found_projection(task.fingerprint, config, run) is None
    projection(task, run, config)
    kept = found_projection(task.fingerprint, config, run)
    assert kept is not None and kept[0].key == projection_key(task.fingerprint, config, run)
    said = said_of_rows(kept[1])
    for split in ("train", "test"):
        batch = task.split(split).batch(slice(None))
        outputs = task.outputs_of(split)
        np.testing.assert_array_equal(said[split].predicted, outputs.argmax(1))
        wanted = nn.functional.cross_entropy(outputs, batch.targets, reduction="none")
        np.testing.assert_allclose(said[split].loss, wanted, rtol=1e-5)


def test_umap_is_the_same_by_seed_and_keeps_clusters(run: Run) -> None:
    random = np.random.default_rng(0)
    centres = np.repeat(np.eye(3, 5, dtype=np.float32) * 20, 40, axis=0)
    rows = centres + random.standard_normal(centres.shape).astype(np.float32)
    chosen = np.arange(0, 120, 2)  # the others are placed by transform
    first, again = (umap_coordinates(rows, chosen, 3, run) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, umap_coordinates(rows, chosen, 4, run))
    middle = np.stack([first[cluster * 40 : cluster * 40 + 40][::2].mean(0) for cluster in range(3)])
    nearest = np.linalg.norm(first[:, None] - middle, axis=2).argmin(1)
    np.testing.assert_array_equal(nearest, np.repeat(np.arange(3), 40))


def test_umap_of_a_task_reports_epochs_and_can_be_cancelled_between_them(task: Task, tmp_path: Path) -> None:
    stages: list[str] = []

    def progress(stage: str, done: float, total: float) -> None:
        stages.append(stage)
        assert 0 <= done <= total

    run = Run(store=Store(tmp_path), progress=progress)
    found = projection(task, run, ProjectionConfig())
    assert {split: len(xy) for split, xy in found.xy.items()} == {"train": N_TRAIN, "test": N_TEST}
    assert all(np.isfinite(xy).all() for xy in found.xy.values())
    assert stages.count("UMAP: laying out") > 20 and "UMAP: placing the other rows" in stages

    laying = Run(store=Store(tmp_path), progress=progress, cancel=lambda: stages[-1] == "UMAP: laying out")
    with pytest.raises(Cancelled):
        projection(task, laying, ProjectionConfig(seed=1))
    assert stages[-1] == "UMAP: laying out"
    assert found_projection(task.fingerprint, ProjectionConfig(seed=1), run) is None


def test_few_rows_and_one_number_still_have_a_place(run: Run) -> None:
    assert umap_coordinates(np.ones((3, 1), np.float32), np.arange(2), 0, run).tolist() == [[1, 0]] * 3
    values, labels = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 1, 1])
    tiny = Task(model=nn.Linear(1, 2), train=(values, labels), test=(values, labels), loss="cross_entropy")
    found = projection(tiny, run, ProjectionConfig(place="input", kind="pca"))
    assert found.xy["train"][:, 1].tolist() == [0, 0, 0]
    assert np.ptp(found.xy["train"][:, 0]) == pytest.approx(3)


def test_a_sample_is_fitted_of_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fitted_sample(12, 9, 0).tolist() == list(range(9))
    monkeypatch.setattr(module, "MAX_FITTED", 5)
    chosen = fitted_sample(12, 9, 0)
    assert len(set(chosen.tolist())) == 5 and chosen.max() < 9 and (np.diff(chosen) > 0).all()
    assert fitted_sample(12, 9, 1).tolist() != chosen.tolist()


def test_a_place_that_the_model_lacks_says_so(run: Run) -> None:
    values, labels = torch.randn(8, 3), torch.zeros(8, dtype=torch.long)
    task = Task(model=lambda: nn.Linear(3, 2), train=(values, labels), test=(values, labels), loss="cross_entropy")
    for place in ("penultimate", "gradients"):
        with pytest.raises(Unavailable, match="trained model"):
            projection(task, run, ProjectionConfig(place=place, kind="pca"))
    assert said_of_rows(found_projection(task.fingerprint, _drawn(task, run), run)[1]) == {}  # type: ignore[index]


def _drawn(task: Task, run: Run) -> ProjectionConfig:
    config = ProjectionConfig(place="input", kind="pca")
    projection(task, run, config)
    return config
