"""Rows in two dimensions: principal components at once, UMAP later; what the map draws.

A projection is an artifact keyed by the task's fingerprint, the place in the model and the kind. Both kinds have axes
that come from the training rows alone; test rows are placed among them. Locked rows are never projected. The artifact
of the principal components also keeps what the model says of every row, so that a map of a million rows is drawn
without calling the model.

``umap`` and ``numba`` are imported in one function only: they take seconds to load, so the app leaves UMAP to its
worker. UMAP is fitted on a sample of at most 50,000 rows and the others are placed by its ``transform``. It can be
cancelled at every epoch of a layout; the search for neighbours before it (seconds, up to a minute) runs to its end.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from influence_core.config import Config, digest
from influence_core.embedding_cache import train_embeddings
from influence_core.errors import NumericalProblem, Unavailable
from influence_core.gradient_cache import GradientSpec, TrainGradients, resolved_layers
from influence_core.primitives.losses import BuiltinLoss
from influence_core.run import Run
from influence_core.store import Artifact, Writer
from influence_core.task import Task

VERSION = 1
PLACES = ("penultimate", "input", "gradients")
SPLITS = ("train", "test")
MAX_FITTED = 50_000
_BLOCK = 4096  # rows at a time
_NARROW = 50  # numbers per row that UMAP is given; wider rows are reduced to so many principal components
_EXACT = 1024  # up to this width the covariance is built; above it, axes come from a randomised search
_SAMPLE = 20_000  # rows of that search
_GRADIENT_DIMENSIONS = 128
_NEIGHBOURS = 15
Progress = Callable[[str, float, float], None]


class ProjectionConfig(Config):
    """Where rows are looked at, and how two numbers are made of many."""

    place: Literal["penultimate", "input", "gradients"] = Field(
        "penultimate",
        description="penultimate: what enters the last layer; input: the raw input; gradients: of the last layer.",
    )
    kind: Literal["pca", "umap"] = Field("umap", description="pca: principal components; umap: neighbours stay near.")
    seed: int = Field(
        default=0, ge=0, le=2**31 - 1, description="Seed of the sample, of UMAP and of random projections."
    )


@dataclass(frozen=True)
class Projection:
    """Two-dimensional places of rows.

    Attributes:
        key: Of the artifact.
        xy: Split -> coordinates ``[n, 2]``, float32, memory-mapped.
        share: Principal components: share of the variance that the two axes keep; else None.
    """

    key: str
    xy: dict[str, np.ndarray]
    share: float | None


@dataclass(frozen=True)
class Said:
    """What the explained model says of a split: class index ``[n]`` int32, or number; and its loss ``[n]`` float32."""

    predicted: np.ndarray
    loss: np.ndarray


class _Axes(NamedTuple):
    """Mean ``[d]`` and principal directions ``[d, k]`` of the training rows, and their share of the variance."""

    mean: Tensor
    directions: Tensor
    shares: Tensor


def projection_key(fingerprint: str, config: ProjectionConfig, run: Run) -> str:
    """Return the key of a projection; it needs no task, so that a stored one is found without opening the data."""
    return digest(_inputs(fingerprint, config, run))


def _inputs(fingerprint: str, config: ProjectionConfig, run: Run) -> dict[str, Any]:
    return {"kind": "projection", "version": VERSION, "task": fingerprint, "config": config.to_json(),
            "precision": run.precision}  # fmt: skip


def found_projection(fingerprint: str, config: ProjectionConfig, run: Run) -> tuple[Projection, Artifact] | None:
    """Return a stored projection with its artifact, or None if it has to be computed."""
    found = run.artifacts.find(projection_key(fingerprint, config, run))
    return None if found is None else (_read(found), found)


def said_of_rows(pca: Artifact) -> dict[str, Said]:
    """Return what the model says of every row, from the artifact of principal components; empty without a model."""
    if "loss.train" not in pca.names():
        return {}
    return {split: Said(pca.array(f"predicted.{split}"), pca.array(f"loss.{split}")) for split in SPLITS}


def projection(task: Task, run: Run, config: ProjectionConfig) -> Projection:
    """Return the coordinates of all train and test rows, from the store or computed now.

    Principal components: exact up to 1,024 numbers per row (the covariance of all training rows), randomised from
    20,000 of them above. The sign of an axis is such that its largest entry is positive.

    Args:
        task: With a trained model, unless the place is the input.
        run: Device, precision, store, progress, cancel. The seed is the config's.
        config: Place, kind, seed.

    Raises:
        Unavailable: The model has no such place.
        NumericalProblem: A row is not finite there.

    Cost: one pass over all rows; UMAP besides about a minute for 50,000 rows on two cores.
    """
    inputs = _inputs(task.fingerprint, config, run)
    produce = _produce_umap if config.kind == "umap" else _produce_pca
    found = run.artifacts.obtain(
        digest(inputs), inputs, lambda writer: produce(writer, task, run, config), run.waiting
    )  # fmt: skip
    return _read(found)


def _read(found: Artifact) -> Projection:
    return Projection(found.key, {split: found.array(f"xy.{split}") for split in SPLITS}, found.meta.get("share"))


# -- rows at a place --------------------------------------------------------------------------------------------------

Reader = Callable[[str, int, int], Tensor]  # split, first and last row -> ``[m, d]``


def _reader(task: Task, run: Run, config: ProjectionConfig) -> Reader:
    """Return what reads rows at the place; the training rows' are computed once and kept."""
    if config.place == "gradients":
        return _gradient_reader(task, run, config.seed)
    kept = train_embeddings(task, run, config.place)

    def read(split: str, start: int, stop: int) -> Tensor:
        if split == "train":
            return kept.features[start:stop]
        return kept.query(task.split(split).batch(slice(start, stop), "cpu", run.dtype))

    return read


def _gradient_reader(task: Task, run: Run, seed: int) -> Reader:
    """Return what reads the gradients of the loss by the last layer, projected at random to 128 dimensions."""
    if task.n_checkpoints == 0 or task.last_layer is None:
        raise Unavailable(
            "There are no last-layer gradients", "The study has no trained model that ends with a Linear layer.",
            "Draw the map of the input.",
        )  # fmt: skip
    seeded = Run(run.device, run.dtype, run.batch_size, seed, run.artifacts, run.progress, run.cancel)
    spec = GradientSpec(-1, resolved_layers(task, ("last",)), _GRADIENT_DIMENSIONS)
    kept = TrainGradients(task, seeded, spec)

    def read(split: str, start: int, stop: int) -> Tensor:
        if split == "train":
            return kept.block(slice(start, stop))[0].dense()
        return kept.query(task.split(split).batch(slice(start, stop), run.device, run.dtype), task.loss)[0].dense()

    return read


def _blocks(n: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK))


def _sizes(task: Task) -> dict[str, int]:
    return {"train": task.n_train, "test": task.n_test}


# -- principal components ---------------------------------------------------------------------------------------------


def principal_axes(read: Callable[[int, int], Tensor], n: int, k: int, run: Run, seed: int = 0) -> _Axes:
    """Return the first ``k`` principal axes of ``n`` rows, read block by block, in float64.

    Args:
        read: First and last row -> values ``[m, d]``.
        n: Rows.
        k: Axes wanted; at most ``min(n, d)`` are returned.
        run: Progress and cancel.
        seed: Of the randomised search above 1,024 numbers per row.
    """
    width = read(0, 1).shape[1]
    if width > _EXACT:
        chosen = np.random.default_rng(seed).permutation(n)[:_SAMPLE] if n > _SAMPLE else np.arange(n)
        return _randomised(_gathered(read, n, np.sort(chosen), run), k, seed)
    total, products = torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
    shift = read(0, 1)[0].double().cpu()  # near the mean: a large mean costs digits of the difference
    for start, stop in run.track(_blocks(n), "principal components", -(-n // _BLOCK)):
        rows = read(start, stop).double().cpu() - shift
        total += rows.sum(0)
        products += rows.T @ rows
    mean = total / n
    values, vectors = torch.linalg.eigh(products / n - mean.outer(mean))
    k = min(k, width, n)
    values, vectors = values.clamp_min(0).flip(0), vectors.flip(1)
    return _Axes(mean + shift, _signed(vectors[:, :k]), values[:k] / values.sum().clamp_min(1e-300))


def _randomised(rows: Tensor, k: int, seed: int) -> _Axes:
    """Return the axes of dense rows by subspace iteration (Halko et al. 2011, algorithm 4.4), 10 more than wanted."""
    mean = rows.mean(0)
    rows = rows - mean
    k = min(k, *rows.shape)
    size = min(k + 10, *rows.shape)
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(rows.shape[1], size, generator=generator, dtype=rows.dtype)
    for _ in range(6):
        basis = torch.linalg.qr(rows.T @ torch.linalg.qr(rows @ basis).Q).Q
    _, values, right = torch.linalg.svd(rows @ basis, full_matrices=False)
    shares = values.square() / rows.square().sum().clamp_min(1e-300)
    return _Axes(mean, _signed(basis @ right.T)[:, :k], shares[:k])


def _signed(directions: Tensor) -> Tensor:
    """Return directions whose entry of largest size is positive."""
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    return directions * torch.where(largest < 0, -1.0, 1.0)


def _gathered(read: Callable[[int, int], Tensor], n: int, positions: np.ndarray, run: Run) -> Tensor:
    """Return chosen rows (positions ascending), float64; only blocks that hold some are read."""
    parts = []
    for start, stop in run.track(_blocks(n), "reading rows", -(-n // _BLOCK)):
        here = positions[np.searchsorted(positions, start) : np.searchsorted(positions, stop)] - start
        if len(here):
            parts.append(read(start, stop)[torch.from_numpy(here)].double().cpu())
    return torch.cat(parts)


def _produce_pca(writer: Writer, task: Task, run: Run, config: ProjectionConfig) -> None:
    read = _reader(task, run, config)
    axes = principal_axes(lambda start, stop: read("train", start, stop), task.n_train, 2, run, config.seed)
    writer.meta["share"] = float(axes.shares.sum())
    for split, n in _sizes(task).items():
        writer.create(f"xy.{split}", (n, 2), np.float32)
        for start, stop in run.track(_blocks(n), f"placing the {split} rows", -(-n // _BLOCK)):
            placed = _placed(read(split, start, stop), axes)
            _check(placed, task, split, start)
            writer.write(f"xy.{split}", start, torch.nn.functional.pad(placed, (0, 2 - placed.shape[1])))
        if task.n_checkpoints and isinstance(task.loss, BuiltinLoss):
            _write_said(writer, task, task.loss, split)


def _write_said(writer: Writer, task: Task, loss: BuiltinLoss, split: str) -> None:
    outputs = task.outputs_of(split)
    with torch.no_grad():
        losses = loss.from_outputs(outputs, task.split(split).targets)
    flat = outputs.reshape(len(outputs), -1)
    predicted = flat[:, 0] if task.n_classes is None else (flat[:, 0] > 0 if loss.name == "bce" else flat.argmax(1))
    writer.save(f"predicted.{split}", predicted.float() if task.n_classes is None else predicted.int())
    writer.save(f"loss.{split}", losses.reshape(len(outputs), -1).sum(1).float())


def _placed(rows: Tensor, axes: _Axes) -> Tensor:
    return (rows.double().cpu() - axes.mean) @ axes.directions


def _check(placed: Tensor, task: Task, split: str, start: int) -> None:
    bad = ~placed.isfinite().all(1)
    if bool(bad.any()):
        row = task.ids(split)[start + int(bad.nonzero()[0])]
        raise NumericalProblem(
            "A row has no place on the map", f"{split.capitalize()} row {row} has a NaN or an infinity at this place.",
            "Correct the row, or draw the map of the input.",
        )  # fmt: skip


# -- UMAP -------------------------------------------------------------------------------------------------------------


def _produce_umap(writer: Writer, task: Task, run: Run, config: ProjectionConfig) -> None:
    projection(task, run, config.changed(kind="pca"))  # what the model says of the rows is kept there
    reduced = _reduced(task, run, config)
    sizes = _sizes(task)
    rows = torch.cat([reduced(split, 0, n) for split, n in sizes.items()]).float().numpy()
    chosen = fitted_sample(len(rows), task.n_train, config.seed)
    xy = umap_coordinates(rows, chosen, config.seed, run)
    for split, part in zip(SPLITS, (xy[: task.n_train], xy[task.n_train :]), strict=True):
        writer.save(f"xy.{split}", np.ascontiguousarray(part, np.float32))


def _reduced(task: Task, run: Run, config: ProjectionConfig) -> Reader:
    """Return what reads rows with at most 50 numbers each."""
    read = _reader(task, run, config)
    if read("train", 0, 1).shape[1] <= _NARROW:
        return read
    axes = principal_axes(lambda start, stop: read("train", start, stop), task.n_train, _NARROW, run, config.seed)

    def reduced(split: str, start: int, stop: int) -> Tensor:
        parts = [_placed(read(split, start + a, start + b), axes).float() for a, b in _blocks(stop - start)]
        return torch.cat(parts)

    return reduced


def fitted_sample(n: int, n_train: int, seed: int) -> np.ndarray:
    """Return the positions that UMAP is fitted on, ascending: all training rows, or 50,000 of them at random."""
    if n_train <= MAX_FITTED:
        return np.arange(min(n, n_train))
    return np.sort(np.random.default_rng(seed).permutation(n_train)[:MAX_FITTED])


def umap_coordinates(rows: np.ndarray, chosen: np.ndarray, seed: int, run: Run) -> np.ndarray:
    """Return UMAP coordinates ``[n, 2]``: fitted on the chosen rows, the others placed among them.

    Args:
        rows: Values ``[n, d]``, float32.
        chosen: Positions to fit on, ascending.
        seed: Equal seeds give equal coordinates on one machine.
        run: Progress by epoch, and cancel between epochs.
    """
    if len(chosen) < 4:
        return _too_few(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of umap and numba, about threads and disconnected points
        import umap

        bar = {"disable": False, "file": _Ticks(run, "UMAP: laying out"), "bar_format": "{n}/{total}", "mininterval": 0}
        model = umap.UMAP(
            n_neighbors=min(_NEIGHBOURS, len(chosen) - 1), random_state=seed, transform_seed=seed, init="pca",
            n_jobs=1, low_memory=True, tqdm_kwds=bar,
        )  # fmt: skip
        run.progress("UMAP: finding neighbours", 0, 1)
        run.check_cancelled()
        result = np.empty((len(rows), 2), np.float32)
        result[chosen] = model.fit_transform(rows[chosen])
        others = np.setdiff1d(np.arange(len(rows)), chosen)
        model.tqdm_kwds = {"disable": True}
        starts = range(0, len(others), _BLOCK)
        for start in run.track(starts, "UMAP: placing the other rows", len(starts)):
            part = others[start : start + _BLOCK]
            result[part] = model.transform(rows[part])
    return result


def _too_few(rows: np.ndarray) -> np.ndarray:
    """Return the first two numbers of rows too few for neighbours."""
    result = np.zeros((len(rows), 2), np.float32)
    result[:, : min(2, rows.shape[1])] = rows[:, :2]
    return result


class _Ticks(io.StringIO):
    """Where UMAP's progress bar writes: turns "30/200" into progress, and is where a cancel gets in."""

    def __init__(self, run: Run, stage: str) -> None:
        super().__init__()
        self._run, self._stage = run, stage

    def write(self, text: str) -> int:
        self._run.check_cancelled()
        done, _, total = text.strip().partition("/")
        if done.isdigit() and total.isdigit():
            self._run.progress(self._stage, int(done), int(total))
        return len(text)
