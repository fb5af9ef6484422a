"""The catalogue of methods: files register themselves, nobody edits a list."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from influence_core.config import Config
from influence_core.errors import BadInput, Unavailable
from influence_core.estimator import Estimator, Info, Units
from influence_core.other_names import OTHER_NAMES
from influence_core.task import Needs, Task

E = TypeVar("E", bound=type[Estimator])

NEEDS_IN_WORDS = {
    Needs.MODEL: ("a trained model", "give checkpoints=[...] or a trained module"),
    Needs.CHECKPOINTS: ("checkpoints recorded during training", "give checkpoints=[...]"),
    Needs.LEARNING_RATES: ("the learning rate at each checkpoint", "give learning_rates=[...]"),
    Needs.RECIPE: ("a training recipe and a model factory", "give recipe=Recipe(...) and the model as a function"),
    Needs.STEPS: (
        "recorded steps, or a recipe of gradient steps and a model factory",
        "record the training with a Recorder, or give recipe=Recipe(optimizer='sgd' or 'adam', ...)",
    ),
    Needs.LABELS: ("class labels", "use it on a classification task"),
    Needs.OUTPUTS: ("a built-in loss", "use cross_entropy, bce or mse"),
    Needs.WORD_EMBEDDING: ("a word embedding", "use a model with an nn.Embedding layer"),
    Needs.LAST_LAYER: ("a last Linear layer", "end the model with a Linear layer and use a built-in loss"),
}

# ``if_exact`` stands for ``if_cg`` too where the model is too large to write its curvature out.
ALIASES = {"tracin": "tracin_cp", "representer": "rps_l2", "influence": "if_exact", "cross_loss_if": "if_exact"}
_LARGE = 5_000  # parameters


@dataclass(frozen=True)
class Entry:
    """One registered method: a class, or a preset of one."""

    info: Info
    cls: type[Estimator]
    options: Mapping[str, Any]

    def make(self, options: Mapping[str, Any] | None = None) -> Estimator:
        """Return the estimator with these options over the preset's."""
        return self.cls(self.cls.Config.checked({**self.options, **(options or {})}), self.info)

    @property
    def defaults(self) -> Config:
        """Return the default options."""
        return self.cls.Config.checked(self.options)


_ENTRIES: dict[str, Entry] = {}
_LOADED: list[str] = []


def register(cls: E) -> E:
    """Add an estimator class to the catalogue (decorator)."""
    return _added(cls.info, cls, {})


def preset(
    name: str, title: str, summary: str, needs: Needs = Needs.NONE, units: Units | None = None, **options: Any
) -> Any:
    """Add a named set of options of the decorated class to the catalogue (decorator).

    ``needs`` come on top of the class's; ``units`` replace its own where the options make other numbers of the scores.
    """

    def wrap(cls: E) -> E:
        info = replace(
            cls.info, name=name, title=title, summary=summary, needs=cls.info.needs | needs,
            units=units or cls.info.units,
        )  # fmt: skip
        return _added(info, cls, options)

    return wrap


def _added(info: Info, cls: E, options: Mapping[str, Any]) -> E:
    if info.name in _ENTRIES:
        raise ValueError(f"two methods are called {info.name!r}")
    _ENTRIES[info.name] = Entry(info, cls, options)
    return cls


def entries() -> dict[str, Entry]:
    """Return every method by id, importing the estimator files on first use."""
    if not _LOADED:
        import influence_core.estimators as package

        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
        _LOADED.append(package.__name__)
    return dict(sorted(_ENTRIES.items()))


def found(name: str, task: Task | None = None) -> Entry:
    """Return the method of an id or alias.

    Raises:
        BadInput: No such method; says what the name stands for if it is another thing's, or which is spelt nearly so.
    """
    known = entries()
    called = ALIASES.get(name, name)
    if called == "if_exact" and name != called and task is not None and task.n_params > _LARGE:
        called = "if_cg"
    if called in known:
        return known[called]
    if name in OTHER_NAMES:
        other = OTHER_NAMES[name]
        raise BadInput(f"'{name}' is not called as a method", f"It is {other.what}.", other.fix)
    near = difflib.get_close_matches(name, [*known, *ALIASES, *OTHER_NAMES], n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"Use one of: {', '.join(known)}."
    raise BadInput("Unknown method", f"'{name}' is not registered.", hint)


def made(method: str | Config, options: Mapping[str, Any] | None = None, task: Task | None = None) -> Estimator:
    """Return an estimator from an id with options, or from a Config of its own.

    Raises:
        BadInput: Unknown id or option.
    """
    if isinstance(method, Config):
        fitting = [e for e in entries().values() if e.cls.Config is type(method) and not e.options]
        if len(fitting) == 1:
            return fitting[0].cls(method)
        if fitting:
            names = ", ".join(entry.info.name for entry in fitting)
            raise BadInput(
                "More than one method is meant", f"{names} have the options {type(method).__qualname__}.",
                "Give the method's id, and the options as config.",
            )  # fmt: skip
        raise BadInput(
            "Unknown method", f"No method has the options {type(method).__qualname__}.", "Give a method's id."
        )
    return found(method, task).make(options)


def missing(info: Info, task: Task) -> str:
    """Return why a method cannot run on a task and what would make it available; empty if it can."""
    absent = [need for need in NEEDS_IN_WORDS if need in info.needs & ~task.provides]
    parts = [f"needs {NEEDS_IN_WORDS[need][0]}: {NEEDS_IN_WORDS[need][1]}" for need in absent]
    packages = [name for name in info.packages if importlib.util.find_spec(name) is None]
    parts += [f"needs the package {name}: pip install {name}" for name in packages]
    return "; ".join(parts)


def refusal(estimator: Estimator, task: Task) -> str:
    """Return why a method with its options cannot run on a task, as far as can be known without work; empty if it can.

    Beyond ``missing``: the model is too large for it, was trained by another optimiser than it follows, and the like.
    """
    reason = missing(estimator.named, task)
    if not reason:
        try:
            estimator.check(task)
        except Unavailable as error:
            return f"{error.why} {error.fix}"
    return reason


def check_available(info: Info, task: Task) -> None:
    """Raise ``Unavailable``, in the words of ``missing``."""
    reason = missing(info, task)
    if reason:
        what, _, fix = reason.partition(": ")
        raise Unavailable(f"{info.title} cannot run here", f"It {what}.", f"To make it available, {fix}.")


def available(task: Task) -> dict[str, str]:
    """Return every method id with the reason why it cannot run on this task, empty where it can."""
    return {name: missing(entry.info, task) for name, entry in entries().items()}
