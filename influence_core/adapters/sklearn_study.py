"""A scikit-learn model and its data as a study: linear models, MLPs, and pipelines that end in one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from influence_core.adapters.sklearn_files import load_estimator
from influence_core.adapters.sklearn_models import check_supported, copied, how_fitted
from influence_core.adapters.sklearn_rows import (
    fitted_model,
    model_inputs,
    n_rows,
    rows_at,
    shown_rows,
    split_model,
)
from influence_core.adapters.torch_study import Split, saved_torch_study
from influence_core.errors import BadInput
from influence_core.run import Run
from influence_core.study import Study

Pair = tuple[Any, Any]


def study_from_sklearn(
    name: str, model: Any, *, train: Pair, test: Pair, locked: Pair | None = None,
    class_names: Sequence[str] | None = None, train_ids: Sequence[Any] | None = None,
    test_ids: Sequence[Any] | None = None, locked_ids: Sequence[Any] | None = None, out: str | Path | None = None,
    title: str | None = None, description: str = "", run: Run | None = None,
) -> Study:  # fmt: skip
    """Make a study of a scikit-learn model.

    The transformers of a pipeline are applied to the rows once; what the model at its end reads is kept, in float32,
    beside the columns or texts that people see. Its weights are copied into one of our models in float32, and the two
    are compared on test rows. Sample weights given to ``fit`` leave no trace in an estimator: if they were, the study
    weighs every row alike, and for linear models a note says that the weights do not fit the rows. An estimator keeps
    no earlier checkpoints and no step sizes, so that methods which follow the training (TracIn) are unavailable.

    Args:
        name: Short name of the study.
        model: A fitted estimator; an unfitted one, which is copied and fitted on ``train`` with open random states set
            to 0; or the path of a ``.skops`` file. Pickles are never read.
        train: ``(X, y)``: a data frame, an array, a sparse matrix or a list of texts, and one label for each row.
        test: The same.
        locked: The same, for rows that are reported on and never used to choose anything.
        class_names: In the order of the estimator's ``classes_``; default their own names.
        train_ids: One id per row; default 0, 1, 2, ...
        test_ids: Likewise.
        locked_ids: Likewise.
        out: The study folder to make; default ``studies/<name>``.
        title: What people read; default the name.
        description: A sentence about the study.
        run: Progress and cancel.

    Raises:
        BadInput: The model or the rows cannot be used, with the reason; or predictions differ from scikit-learn's.
    """
    from_file = isinstance(model, (str, Path))
    estimator = load_estimator(Path(model)) if from_file else model
    _check_estimator(estimator)
    check_supported(split_model(estimator)[1])
    given = {"train": train, "test": test} | ({} if locked is None else {"locked": locked})
    pairs = {split: _checked_pair(pair, split) for split, pair in given.items()}
    notes: list[str] = []
    if not _is_fitted(estimator):
        estimator, notes = fitted_model(estimator, *pairs["train"], from_file=from_file)
        notes.insert(0, "Fitted on the train rows.")
    before, last = split_model(estimator)
    check_supported(last)
    copy = copied(last)
    ids = {"train": train_ids, "test": test_ids, "locked": locked_ids}
    names = getattr(estimator, "feature_names_in_", None)
    splits = {
        split: Split(
            model_inputs(before, rows, split, copy.n_inputs), _targets(copy.classes, labels, split), ids[split],
            shown_rows(rows, names),
        )
        for split, (rows, labels) in pairs.items()
    }  # fmt: skip
    fit = how_fitted(last, splits["train"].inputs, splits["train"].targets)

    def answers(split: str, positions: Any) -> np.ndarray:
        rows = rows_at(pairs[split][0], np.asarray(positions))
        return np.asarray(estimator.predict(rows) if copy.classes is None else estimator.predict_proba(rows))

    return saved_torch_study(
        Path(out) if out is not None else Path("studies") / name,
        name=name, title=title, description=description,
        model={"architecture": copy.architecture, "options": copy.options}, splits=splits, loss=copy.loss,
        class_names=_class_names(copy.classes, class_names), checkpoints=[copy.state],
        recipe=fit.recipe, parity_reference=answers, notes=[_origin(estimator), *notes, *fit.notes], run=run,
    )  # fmt: skip


def _check_estimator(model: Any) -> None:
    if isinstance(model, type) or not (hasattr(model, "fit") and hasattr(model, "get_params")):
        what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        fix = "Give a scikit-learn estimator, or the path of a .skops file."
        raise BadInput("The model is no estimator", f"It is {what}.", fix)


def _is_fitted(model: Any) -> bool:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(split_model(model)[1])
    except NotFittedError:
        return False
    return True


def _checked_pair(pair: Any, split: str) -> Pair:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or isinstance(pair[0], (str, bytes)):
        raise BadInput(f"The {split} data cannot be read", "It is not a pair of rows and labels.", "Give (X, y).")
    rows, labels = pair
    frame = hasattr(rows, "columns")
    if not (hasattr(rows, "iloc") if frame else hasattr(rows, "shape") or isinstance(rows, (list, tuple))):
        fix = "Give a data frame of pandas, an array, a sparse matrix or a list of texts."
        raise BadInput(f"The {split} data cannot be read", f"Its rows are a {type(rows).__name__}.", fix)
    values = np.asarray(labels)
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1:
        why = f"Its labels have the shape {list(values.shape)}."
        raise BadInput(f"The {split} rows have several labels", why, "Give one label for each row.")
    if len(values) != n_rows(rows) or not len(values):
        why = f"There are {n_rows(rows):,} rows and {len(values):,} labels."
        raise BadInput(f"The {split} rows do not match", why, "Give one label for each row, and at least one row.")
    return rows, values


def _targets(classes: np.ndarray | None, labels: np.ndarray, split: str) -> np.ndarray:
    """Return class indices by the estimator's order ``[n]``, int64; or numbers, float32."""
    if classes is not None:
        index = {value: i for i, value in enumerate(classes.tolist())}
        found = np.asarray([index.get(value, -1) for value in labels.tolist()], dtype=np.int64)
        unknown = np.flatnonzero(found < 0)
        if len(unknown):
            known = ", ".join(str(value) for value in classes.tolist()[:12])
            why = f"Row {unknown[0] + 1:,} has '{str(labels[unknown[0]])[:80]}'; the model knows {known}."
            raise BadInput(f"A {split} label is no class of the model", why, "Correct the label, or leave the row out.")
        return found
    numbers = labels.astype(np.float32) if labels.dtype.kind in "iufb" else np.full(len(labels), np.nan, np.float32)
    broken = np.flatnonzero(~np.isfinite(numbers))
    if len(broken):
        why = f"Row {broken[0] + 1:,} has '{str(labels[broken[0]])[:80]}'."
        raise BadInput(f"A {split} label is no number", why, "Correct the label, or leave the row out.")
    return numbers


def _class_names(classes: np.ndarray | None, given: Sequence[str] | None) -> list[str] | None:
    if classes is None:
        if given is not None:
            raise BadInput("A regression has no classes", "class_names was given.", "Leave it out.")
        return None
    if given is None:
        whole = classes.dtype.kind == "f" and all(float(value).is_integer() for value in classes)
        return [str(int(value)) if whole else str(value) for value in classes.tolist()]
    if len(given) != len(classes) or len(set(map(str, given))) < len(given):
        why = f"class_names has {len(given)} names, of {len(set(map(str, given)))} kinds; the model has {len(classes)}."
        raise BadInput("The class names do not fit", why, "Give one name for each of the model's classes_.")
    return [str(one) for one in given]


def _origin(model: Any) -> str:
    import sklearn

    before, last = split_model(model)
    steps = [type(step).__name__ for part in before for _, step in part.steps if not isinstance(step, str)]
    read = f"; the rows pass through {', '.join(steps)} first" if steps else ""
    return f"{type(last).__name__} of scikit-learn {sklearn.__version__}, weights kept in float32{read}."
