"""Models in files: skops read type by type, hostile and damaged files refused, pickles never read."""

from __future__ import annotations

import io
import json
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from influence_core import Study
from influence_core.errors import BadInput
from tests.adapters.sklearn_case import MLP, fitted, made, probabilities, rows

SAFE: dict[str, Callable[[], Any]] = {
    "logistic": LogisticRegression, "mlp": lambda: MLPClassifier((4,), **MLP),
    "pipeline": lambda: make_pipeline(
        make_column_transformer((StandardScaler(), [0, 1]), remainder="passthrough"), LogisticRegression()
    ),
    "function": lambda: make_pipeline(FunctionTransformer(np.tanh), SGDClassifier(loss="log_loss", random_state=0)),
}  # fmt: skip


@pytest.mark.parametrize("name", SAFE)
def test_a_skops_file_gives_the_same_study(tmp_path: Path, name: str) -> None:
    model = fitted(SAFE[name]())
    skops.io.dump(model, tmp_path / "model.skops")
    train, test = rows()
    study = Study.from_sklearn("mine", tmp_path / "model.skops", train=train, test=test, out=tmp_path / "mine")
    np.testing.assert_allclose(probabilities(study), model.predict_proba(rows()[1][0]), atol=1e-6)


def test_an_unfitted_model_in_a_file_opens_no_cache_of_pickles(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    model = Pipeline([("scale", StandardScaler()), ("model", LogisticRegression())], memory=str(cache))
    skops.io.dump(model, tmp_path / "model.skops")
    made(tmp_path, str(tmp_path / "model.skops"))
    assert not cache.exists()


def changed(model: Any, path: Path, old: str, new: str) -> Path:
    """A skops file whose table of contents was edited."""
    content = skops.io.dumps(model)
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(path, "w") as hostile:
        for entry in archive.namelist():
            data = archive.read(entry)
            hostile.writestr(entry, data.replace(old.encode(), new.encode()) if entry == "schema.json" else data)
    return path


def test_a_hostile_skops_file_is_refused_without_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil_module.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = fitted(make_pipeline(FunctionTransformer(np.tanh), LogisticRegression()))
    names = {
        ('"sklearn.linear_model._logistic"', '"evil_module"'): "evil_module.LogisticRegression",
        ('"tanh"', '"fromfile"'): "numpy.fromfile",
        ('"sklearn.pipeline"', '"sklearn.pipeline.evil_module"'): "sklearn.pipeline.evil_module",
        ('"numpy",\n', '"os",\n'): "os.",
        ('"FunctionTransformer"', '"check_array"'): "check_array",
    }
    for (old, new), said in names.items():
        path = changed(model, tmp_path / "evil.skops", old, new)
        with pytest.raises(BadInput) as caught:
            made(tmp_path, path)
        assert said in str(caught.value) and "not trusted" in str(caught.value), str(caught.value)
    assert not (tmp_path / "ran").exists() and "evil_module" not in sys.modules


class Bomb:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("name", ["model.pkl", "model.JOBLIB", "model.skops"])
def test_a_pickle_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BadInput, match=r"skops\.io\.dump"):
        made(tmp_path, Path(name))
    assert not Path("exploded").exists()


def test_damaged_and_oversized_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, model = tmp_path / "model.skops", fitted(LogisticRegression())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.json", "{}")
    with pytest.raises(BadInput, match="without a schema"):
        made(tmp_path, path)
    for content in (
        "{",
        "[" * 100_000,
        json.dumps({"__class__": "LogisticRegression", "__module__": "sklearn.pipeline"}),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("schema.json", content)
        with pytest.raises(BadInput, match="cannot be used"):
            made(tmp_path, path)
    skops.io.dump(model, path)
    monkeypatch.setattr("influence_core.adapters.sklearn_files.LARGEST_MODEL", 100)
    with pytest.raises(BadInput, match="too large"):
        made(tmp_path, path)
    model.coef_ = "weights"
    monkeypatch.undo()
    skops.io.dump(model, path)
    with pytest.raises(BadInput, match="damaged"):
        made(tmp_path, path)
