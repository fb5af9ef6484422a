"""Options of a method, between text in the address, typed value for the service and value of a widget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from influence_core import service
from pages.components.view import View


def typed_options(view: View, method: service.MethodView) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the options in the address that differ from the method's defaults, and what cannot be used.

    Args:
        view: Its ``config`` holds ``(name, text)`` pairs.
        method: Its ``fields`` give names, kinds and bounds.

    Returns:
        Options for :class:`ExplainRequest`, and a sentence for every option that is dropped.
    """
    fields = {field.name: field for field in method.fields}
    options: dict[str, Any] = {}
    problems: list[str] = []
    for name, text in view.config:
        if name not in fields:
            problems.append(f"The address sets c.{name}, but {method.title} has no such option; it is ignored.")
            continue
        try:
            value = typed_value(text, fields[name])
        except ValueError as problem:
            problems.append(
                f"The address says c.{name}={text[:40]!r}, but {problem} is needed; "
                f"using {fields[name].default!r} instead."
            )
            continue
        if value != fields[name].default:
            options[name] = value
    return options, tuple(problems)


def typed_value(text: str, field: service.ConfigField) -> Any:
    """Return the value that ``text`` stands for.

    Raises:
        ValueError: Its message is what is needed instead, as a noun phrase.
    """
    if text == "" and field.optional:
        return None
    if field.kind == "bool":
        if text not in {"0", "1"}:
            raise ValueError("0 or 1")
        return text == "1"
    if field.kind in {"int", "float"}:
        return _number(text, field)
    if field.kind == "choice" and text not in field.choices:
        raise ValueError("one of " + ", ".join(field.choices))
    return text


def _number(text: str, field: service.ConfigField) -> int | float:
    low = -math.inf if field.low is None else field.low
    high = math.inf if field.high is None else field.high
    bounds = f" from {low:g} to {high:g}" if field.low is not None or field.high is not None else ""
    needed = f"a {'whole ' if field.kind == 'int' else ''}number{bounds}"
    try:
        value = int(text) if field.kind == "int" else float(text)
    except ValueError:
        raise ValueError(needed) from None
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(needed)
    return value


def option_text(value: Any) -> str:
    """Return a typed value as it stands in the address; floats keep every digit."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (list, tuple)):
        return ",".join(str(part).strip() for part in value)
    return repr(value) if isinstance(value, float) else str(value)


def option_pairs(values: Mapping[str, Any], method: service.MethodView) -> tuple[tuple[str, str], ...]:
    """Return the values that differ from the defaults as pairs for the address."""
    defaults = {field.name: option_text(field.default) for field in method.fields}
    pairs = ((name, option_text(value)) for name, value in values.items() if name in defaults)
    return tuple(sorted(pair for pair in pairs if pair[1] != defaults[pair[0]]))
