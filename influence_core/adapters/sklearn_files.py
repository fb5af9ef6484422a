"""Reading a scikit-learn model from a ``.skops`` file: every type in it is looked at before anything is made of it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from influence_core.errors import BadInput

LARGEST_MODEL = 1 << 30  # bytes of everything in the file, unpacked
_LARGEST_SCHEMA = 64 << 20
_PICKLES = (".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle", ".sav")
# Where a type may come from. Within these, skops itself knows which are harmless; _VETTED adds to them by name.
_PLACES = (
    "builtins", "collections", "numpy", "scipy.sparse", "sklearn._loss", "sklearn.compose",
    "sklearn.feature_extraction", "sklearn.impute", "sklearn.linear_model", "sklearn.neural_network",
    "sklearn.pipeline", "sklearn.preprocessing",
)  # fmt: skip
# Plain holders of numbers and settings, read through: nothing of theirs runs code that a file could choose.
_VETTED = (
    "numpy.dtype",
    "sklearn.compose._column_transformer.make_column_selector",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
)
_WHAT = "The model file cannot be used"
_SAVE = "Save it with skops.io.dump(model, 'model.skops'), or give the estimator itself."


def load_estimator(path: Path) -> Any:
    """Return the estimator in a ``.skops`` file.

    Args:
        path: The file. Pickles (``.pkl``, ``.joblib``) run code when they are read and are refused unread.

    Raises:
        BadInput: A pickle, a damaged or oversized file, or a type that is not on the list of vetted ones.
    """
    if path.suffix.lower() in _PICKLES:
        why = f"{path.name} is a pickle, and reading one runs whatever code it holds."
        raise BadInput("Pickled models are not read", why, _SAVE)
    try:
        import skops.io
    except ImportError:
        fix = "Install it: pip install skops. Or give the estimator itself."
        raise BadInput("skops is not installed", f"{path.name} is read with it.", fix) from None
    try:
        _check_types(_types(path), path)
        # By the tree that skops itself would build, in which nothing is made yet.
        unknown = set(skops.io.get_untrusted_types(file=path)) - set(_VETTED)
        if unknown:
            raise _refused(unknown, path)
        return skops.io.load(path, trusted=list(_VETTED))
    except FileNotFoundError:
        raise BadInput("There is no model file", f"{path} does not exist.", "Correct the path.") from None
    except BadInput:
        raise
    # A damaged or hostile file can fail in any part of skops, numpy or zipfile; nothing of ours runs in between.
    except Exception as error:
        why = f"{path}: {' '.join(str(error).split())[:200].rstrip('.') or type(error).__name__}."
        raise BadInput(_WHAT, why, f"Is it a file of skops, of this scikit-learn version? {_SAVE}") from None


def _types(path: Path) -> set[str]:
    """Return the full name of every type that the file mentions, from its table of contents alone."""
    if not zipfile.is_zipfile(path):
        if not path.exists():
            raise FileNotFoundError(path)
        raise BadInput(_WHAT, f"{path.name} is no file of skops.", _SAVE)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        size = sum(entry.file_size for entry in entries)
        schema = next((entry for entry in entries if entry.filename == "schema.json"), None)
        if schema is None:
            raise BadInput(_WHAT, f"{path.name} is a zip without a schema.json.", _SAVE)
        if size > LARGEST_MODEL or schema.file_size > _LARGEST_SCHEMA:
            why = f"{path.name} unpacks to {size / 1e9:.1f} GB; up to {LARGEST_MODEL / 1e9:.1f} GB are read."
            raise BadInput("The model file is too large", why, "Give the estimator itself.")
        waiting: list[Any] = [json.loads(archive.read(schema))]
    found: set[str] = set()
    while waiting:  # no recursion: a hostile file may be nested deeply
        item = waiting.pop()
        if isinstance(item, dict):
            if "__class__" in item or "__module__" in item:
                found.add(f"{item.get('__module__')}.{item.get('__class__')}")
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return found


def _check_types(names: set[str], path: Path) -> None:
    unknown = {name for name in names if not any(name.startswith(f"{place}.") for place in _PLACES)}
    if unknown:
        raise _refused(unknown, path)


def _refused(names: set[str], path: Path) -> BadInput:
    some = ", ".join(sorted(name[:100] for name in names)[:8])
    return BadInput(
        "The model file holds types that are not trusted",
        f"{path.name}: {some}. Nothing of it was loaded.",
        "Only scikit-learn's linear models, MLPs, preprocessing, imputing, text features and pipelines are read from "
        "a file. If the model is your own, load it yourself and give the estimator.",
    )
