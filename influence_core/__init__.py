"""Which training rows made the model say this? One engine for the training-data influence literature.

Names are loaded when first used, so that ``import influence_core`` is quick and pulls in no optional library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from influence_core.adapters.recorder import Recorder
    from influence_core.adapters.recording import load_recording
    from influence_core.api import attribute, diagnose, evaluate, list_diagnostics, list_estimators, self_influence
    from influence_core.attribution import Attribution
    from influence_core.errors import InfluenceError
    from influence_core.measurement import Measurement, Rows
    from influence_core.recipe import Recipe
    from influence_core.run import Run
    from influence_core.store import Store
    from influence_core.study import Study
    from influence_core.task import Task

__version__ = "0.1.0"

_HOME = {
    "attribute": "api", "diagnose": "api", "evaluate": "api", "list_diagnostics": "api", "list_estimators": "api",
    "self_influence": "api",
    "Recorder": "adapters.recorder", "load_recording": "adapters.recording",
    "Attribution": "attribution", "InfluenceError": "errors", "Measurement": "measurement", "Recipe": "recipe",
    "Rows": "measurement", "Run": "run", "Store": "store", "Study": "study", "Task": "task",
}  # fmt: skip

__all__ = [
    "Attribution", "InfluenceError", "Measurement", "Recipe", "Recorder", "Rows", "Run", "Store", "Study", "Task",
    "attribute", "diagnose", "evaluate", "list_diagnostics", "list_estimators", "load_recording", "self_influence",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'influence_core' has no attribute {name!r}")
    return getattr(importlib.import_module(f"influence_core.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
