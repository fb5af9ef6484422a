"""What there is: studies, their overview, their predictions, and the methods that can explain them."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from influence_core import fitting, registry
from influence_core.config import Config
from influence_core.errors import BadInput, InfluenceError
from influence_core.primitives.statistics import wilson_interval
from influence_core.service import access
from influence_core.service import data as rows
from influence_core.service.opened import OpenStudy, opened, studies_folder
from influence_core.service.quality import group_figures, training_figures
from influence_core.service.regression import regression_figures
from influence_core.service.views import (
    ConfigField,
    Interval,
    MethodView,
    Overview,
    PredictionFilter,
    PredictionList,
    StudyCard,
)  # fmt: skip
from influence_core.study import Study
from influence_core.workflows.default_method import default_method as workflows_default

CONFIDENT = 0.8
LARGEST_SHARE = 0.1  # of the test rows, that "largest errors" are
_NONE = PredictionList((), 0)
UNITS_IN_WORDS = {
    "measurement": "estimated change of the measurement if the row were left out",
    "gradient": "gradient units: how far training on the row moved the measurement, up to a constant",
    "value": "share of the value that the row adds to the neighbours' vote",
    "rank": "order only: larger means more influence, the amount has no unit",
}


def studies() -> list[StudyCard]:
    """Return the studies in the folder that whoever asks may see, in the order of their names."""
    names = access.may_see(path.parent.name for path in sorted(studies_folder().glob("*/study.toml")))
    return [_card(studies_folder() / name) for name in names]


def _card(path: Any) -> StudyCard:
    try:
        header = Study(path).header
        sizes = {
            s: pq.read_metadata(path / f"{s}.parquet").num_rows
            for s in ("train", "test", "locked")
            if (path / f"{s}.parquet").exists()
        }
    except (InfluenceError, OSError, ValueError):
        # It stays in the list, so that opening it says what is wrong.
        return StudyCard(path.name, f"{path.name} (cannot be opened)", "", 0, 0, 0, 0)
    return StudyCard(
        path.name, header.title, header.modality, sizes.get("train", 0), sizes.get("test", 0), sizes.get("locked", 0),
        len(header.classes), header.task,
    )  # fmt: skip


def overview(study: str) -> Overview:
    """Return the first screen of a study."""
    held = opened(study)
    header, task = held.study.header, held.study.task
    planted = held.study.planted
    method, reason = default_method(study)
    regression = regression_figures(held) if rows.is_regression(held) else None
    counts, accuracy, confusion = ({}, {}, np.zeros((0, 0), dtype=int)) if regression else _class_figures(held)
    wrong = predictions(study, PredictionFilter(status="wrong", limit=8)) if regression is None else _NONE
    card = replace(
        _card(held.study.path), title=header.title, n_train=held.study.n_rows("train"),
        n_test=held.study.n_rows("test"), n_classes=len(header.classes),
    )  # fmt: skip
    return Overview(
        card, header.description, _model_in_words(held), task.n_params, task.n_checkpoints,
        header.classes, counts, accuracy, confusion, wrong.rows, wrong.total,
        float(planted.mean()) if planted is not None else None, method, reason, regression,
        header.notes + parity_in_words(header.parity), group_figures(held), training_figures(held, accuracy),
    )  # fmt: skip


def _class_figures(held: OpenStudy) -> tuple[dict[str, tuple[int, ...]], dict[str, Interval], np.ndarray]:
    """Return rows per class and accuracy by split, and the confusion matrix of the test rows."""
    n = len(held.study.header.classes)
    counts, accuracy = {}, {}
    for split in held.study.splits:
        labels = rows.given_labels(held, split)
        right = int((rows.probabilities(held, split).argmax(1) == labels).sum())
        counts[split] = tuple(np.bincount(labels, minlength=n).tolist())
        accuracy[split] = Interval(right / len(labels), *wilson_interval(right, len(labels)), len(labels))
    confusion = np.zeros((n, n), dtype=int)
    np.add.at(confusion, (rows.given_labels(held, "test"), rows.probabilities(held, "test").argmax(1)), 1)
    return counts, accuracy, confusion


def parity_in_words(parity: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the comparison with the user's own model gave, as a sentence; nothing where there was none."""
    if not parity:
        return ()
    n, difference = parity["rows"], parity["largest_difference"]
    compared = "test row" if n == 1 else "test rows"
    if not parity["agree"]:
        return (f"On {n} {compared} the predictions differ from your model's, by up to {difference:.2g}.",)
    exact = "exactly" if difference == 0 else f"but for rounding (largest difference {difference:.1g})"
    return (f"On {n} {compared} the predictions here were compared with your model's own: they agree {exact}.",)


def _model_in_words(held: OpenStudy) -> str:
    names = {"cnn": "small convolutional network", "mlp": "multi-layer perceptron", "logistic": "logistic regression"}
    if rows.is_regression(held):
        names["logistic"] = "linear regression"
    header = held.study.header
    recipe = header.recipe
    how = (
        f", trained by {recipe.optimizer} for {recipe.epochs} epochs" if recipe and recipe.optimizer != "lbfgs" else ""
    )
    if "reference" in header.model:
        return f"your model {header.model['reference']}{how}"
    architecture = str(header.model["architecture"])
    if architecture == "transformers":
        options = header.model.get("options", {})
        return f"Hugging Face model ({options.get('auto', 'transformers')}){how}"
    return names.get(architecture, architecture) + how


def predictions(study: str, chosen: PredictionFilter) -> PredictionList:
    """Return the test predictions that pass a filter.

    Raises:
        BadInput: An unknown word or class in the filter, or a number that is none.
    """
    held = opened(study)
    _check_filter(chosen)
    regression = rows.is_regression(held)
    keep = _with_size_of_error(held, chosen) if regression else _with_labels(held, chosen)
    if chosen.text.strip():
        keep &= _matching(held, chosen.text.strip())
    found = np.flatnonzero(keep)
    strength = np.abs(rows.errors(held, "test")) if regression else rows.probabilities(held, "test").max(1)
    found = found[_order(chosen, found, strength, "error" if regression else "confidence")]
    return PredictionList(rows.data(held, "test", found[: chosen.limit].tolist()), len(found))


def _with_labels(held: OpenStudy, chosen: PredictionFilter) -> np.ndarray:
    """Return which test rows a classification's filter keeps, its text left out."""
    labels, chances = rows.given_labels(held, "test"), rows.probabilities(held, "test")
    predicted, confidence = chances.argmax(1), chances.max(1)
    statuses = {
        "all": np.ones(len(labels), dtype=bool), "wrong": predicted != labels, "right": predicted == labels,
        "confident-wrong": (predicted != labels) & (confidence >= CONFIDENT),
    }  # fmt: skip
    keep = _status(statuses, chosen.status)
    for name, column in ((chosen.given, labels), (chosen.predicted, predicted)):
        if name is not None:
            keep = keep & (column == _class_index(held.study.header.classes, name))
    return keep


def _with_size_of_error(held: OpenStudy, chosen: PredictionFilter) -> np.ndarray:
    """Return which test rows a regression's filter keeps, its text left out."""
    for name in (chosen.given, chosen.predicted):
        if name is not None:
            raise BadInput("There are no classes here", f"'{name}' was asked for.", "Leave the class filters empty.")
    order = rows.worst_first(held, "test")
    worst = np.zeros(len(order), dtype=bool)
    worst[order[: math.ceil(len(order) * LARGEST_SHARE)]] = True
    return _status({"all": np.ones(len(order), dtype=bool), "largest-errors": worst}, chosen.status)


def _status(statuses: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name not in statuses:
        raise BadInput("Unknown filter", f"status is '{name}'.", f"Use {', '.join(statuses)}.")
    return statuses[name]


def _check_filter(chosen: PredictionFilter) -> None:
    whole = [isinstance(number, int) for number in (chosen.limit, chosen.seed)]
    if not all(whole) or chosen.limit < 1 or not isinstance(chosen.text, str):
        raise BadInput(
            "This filter cannot be used",
            f"limit is {chosen.limit!r}, seed {chosen.seed!r}, text {chosen.text!r}.",
            "Use a limit of 1 or more, a whole number as seed, and any text.",
        )


def _class_index(classes: tuple[str, ...], name: str) -> int:
    if name not in classes:
        raise BadInput(
            "Unknown class", f"'{name}' is no class of this study.", f"Use one of: {', '.join(classes[:20])}."
        )
    return classes.index(name)


def _order(chosen: PredictionFilter, found: np.ndarray, strength: np.ndarray, name: str) -> Any:
    """Return the order of the found rows; ``name`` is what ``strength`` is called, the strongest coming first."""
    if chosen.order in (name, "confidence"):
        return np.argsort(-strength[found], kind="stable")
    if chosen.order == "random":
        return random.Random(chosen.seed).sample(range(len(found)), len(found))
    if chosen.order != "id":
        raise BadInput("Unknown order", f"order is '{chosen.order}'.", f"Use {name}, id or random.")
    return np.arange(len(found))


def _matching(held: OpenStudy, text: str) -> np.ndarray:
    """Return which test rows contain a text in their id, labels or values, whatever the case."""

    def haystack() -> list[str]:
        ids, said = held.study.task.ids("test").tolist(), rows.answers(held, "test", slice(None))
        words = rows.searched_words(held, "test")
        plain = [f"{ids[i]} {said.given[i]} {said.predicted[i]} {line}" for i, line in enumerate(words)]
        return [_searched(line) for line in plain]

    lines = held.remembered(("haystack",), haystack)
    wanted = _searched(text)
    return np.asarray([wanted in line for line in lines], dtype=bool)


def _searched(text: str) -> str:
    """Return a text as it is compared: whatever its case, and with the minus sign that keyboards have."""
    return text.casefold().replace("−", "-")


def default_method(study: str) -> tuple[str, str]:
    """Return the method that Explain starts with, and why it does."""
    return workflows_default(opened(study).study.task)


def methods(study: str) -> list[MethodView]:
    """Return every method, with what it needs or how to use it on this study."""
    held = opened(study)
    return [_method_view(held, name) for name in registry.entries()]


def _method_view(held: OpenStudy, name: str) -> MethodView:
    entry, task = registry.entries()[name], held.study.task
    view = held.remembered(("method", name), lambda: _described(held, entry))
    # Asked anew each time, unlike the words: a job may end, or the cache lose a result, between two reruns.
    reason = registry.missing(entry.info, task)
    fitted = not reason and fitting.is_fitted(task, entry.make(), held.run)
    return replace(view, available=not reason, reason=reason, fitted=fitted)


def _described(held: OpenStudy, entry: registry.Entry) -> MethodView:
    """Return what stays true of a method while the study is open; most of the time goes into reading its options."""
    info, fields = entry.info, tuple(config_fields(entry.defaults))
    modules = held.study.task.module.named_modules()
    layers = tuple(n for n, m in modules if n and any(True for _ in m.parameters(recurse=False)))
    measured = info.measurements
    if rows.is_regression(held):
        measured = tuple(kind for kind in measured if kind == "loss")  # the others are about classes
    return MethodView(
        info.name, info.title, info.family, info.summary, info.units, UNITS_IN_WORDS[info.units], info.reference,
        measured, info.utility, False, "", False, info.scores, fields,
        layers if any(field.name == "layers" for field in fields) else (),
    )  # fmt: skip


def config_fields(config: Config) -> list[ConfigField]:
    """Return the options of a method as form fields, read from its Config."""
    schema = type(config).model_json_schema()
    return [_field(name, part, schema, getattr(config, name)) for name, part in schema.get("properties", {}).items()]


def _field(name: str, part: dict[str, Any], schema: dict[str, Any], default: Any) -> ConfigField:
    options = part.get("anyOf", [part])
    optional = any(option.get("type") == "null" for option in options)
    main = next(option for option in options if option.get("type") != "null")
    if "$ref" in main:
        main = schema["$defs"][main["$ref"].rsplit("/", 1)[-1]]
    kinds = {"boolean": "bool", "integer": "int", "number": "float"}
    kind = "choice" if "enum" in main else kinds.get(main.get("type", ""), "text")
    low, high = main.get("minimum", main.get("exclusiveMinimum")), main.get("maximum", main.get("exclusiveMaximum"))
    shown = ", ".join(str(item) for item in default) if isinstance(default, (list, tuple)) else default
    return ConfigField(
        name, name.replace("_", " ").capitalize(), kind, shown, part.get("description", ""), low, high,
        tuple(str(item) for item in main.get("enum", ())), optional,
    )  # fmt: skip
