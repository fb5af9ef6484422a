"""The command that checks an explanation by training again: predicted against actual change of one prediction."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from influence_core.commands.base import ConfigText, StudyPath, app, opened, options, progress
from influence_core.errors import BadInput


@app.command()
def check(
    study: StudyPath,
    method: Annotated[str, typer.Option("--method", "-m", help="Whose scores choose the rows.")],
    test: Annotated[list[str], typer.Option("--test", help="Test row id; several are one query, their mean.")],
    drop: Annotated[str, typer.Option(help="Drop these rows: proponents, opponents, or rows (of --row).")] = "",
    flip: Annotated[str, typer.Option(help="Give them another label (see --to).")] = "",
    downweight: Annotated[str, typer.Option(help="Let them count less (see --weight).")] = "",
    k: Annotated[int, typer.Option("--k", help="How many proponents or opponents.")] = 10,
    row: Annotated[
        list[str] | None, typer.Option("--row", help="A training row id; these rows rather than the k strongest.")
    ] = None,
    to: Annotated[list[str] | None, typer.Option("--to", help="The new label: one for all, or one per --row.")] = None,
    weight: Annotated[float, typer.Option(help="How much a down-weighted row still counts.")] = 0.5,
    seeds: Annotated[int, typer.Option(help="Pairs of models, with and without the change.")] = 5,
    draws: Annotated[int, typer.Option(help="Pairs with random rows, to compare with.")] = 5,
    split: Annotated[str, typer.Option(help="Of the explained rows: test or locked.")] = "test",
    measurement: Annotated[str, typer.Option(help="loss, margin, probability or logit; empty: the method's own.")] = "",
    target: Annotated[str, typer.Option(help="true, predicted, or a class name; empty: predicted.")] = "",
    config: ConfigText = "{}",
    preview: Annotated[bool, typer.Option("--preview", help="Only say what would be trained.")] = False,
    format: Annotated[str, typer.Option("--format", help="text or json.")] = "text",
) -> None:
    """Change the rows behind a prediction, train again, and compare what happened with what was foreseen."""
    from influence_core import registry
    from influence_core.fitting import default_measurement
    from influence_core.measurement import Measurement, Rows
    from influence_core.workflows import check as checks

    held = opened(study)
    action, side = _what(drop, flip, downweight)
    estimator = registry.made(method, options(config), held.task)
    label = target or ("predicted" if held.header.task == "classification" else "true")
    measured = Measurement(measurement or default_measurement(estimator).kind, held.target(label))
    ids = tuple(held.row_id(split, text) for text in dict.fromkeys(test))
    rows = Rows(split, ids, "mean" if len(ids) > 1 else None)
    checks.check_possible(held, rows)
    with progress() as run:
        if row or side == "rows":
            changed = tuple(held.row_id("train", text) for text in row or ())
        else:
            changed = _ranked(held, method, rows, options(config), measured, side, k, run)
        labels = tuple(to or ())
        labels = labels * len(changed) if len(labels) == 1 else labels
        asked = checks.Asked(rows, measured, estimator, changed, action, labels, weight, side, seeds, draws)
        if preview:
            print(checks.check_plan(held, asked, run).in_words)
            return
        found = checks.check(held, asked, run)
    print(_as_json(found) if format == "json" else "\n".join(_lines(found)))


def _what(drop: str, flip: str, downweight: str) -> tuple[Any, str]:
    """Return the action and the side of the one option that is given."""
    given = [(name, side) for name, side in (("drop", drop), ("flip", flip), ("downweight", downweight)) if side]
    if len(given) != 1:
        why = f"{len(given)} of --drop, --flip and --downweight are given."
        raise BadInput("What is to be changed is not said", why, "Give one of them, such as --drop proponents.")
    return given[0]


def _ranked(
    held: Any, method: str, rows: Any, config: dict[str, Any], measured: Any, side: str, k: int, run: Any
) -> tuple[Any, ...]:
    from influence_core import api

    if side not in ("proponents", "opponents"):
        raise BadInput("There are no such rows", f"'{side}' was given.", "Use proponents, opponents or rows.")
    found = api.attribute(held, method, rows, config=config, measurement=measured, run=run)
    ranked = tuple((found.proponents if side == "proponents" else found.opponents)(k).ids[0])
    if not ranked:
        raise BadInput("There is nothing to change", f"The prediction has no {side} here.", "Use the other side.")
    return ranked


def _lines(found: Any) -> list[str]:
    """Return a check for a person."""
    lines = [found.headline, ""]
    for name, pairs in (("Actual", found.actual), (f"{len(found.changed)} random rows", found.random)):
        change = pairs.change
        if change.n:
            interval = f" (95% {change.low:+.4g} to {change.high:+.4g})" if change.low == change.low else ""
            flips = f", other prediction in {pairs.flips}" if pairs.said_before and not found.regression else ""
            lines.append(f"{name}: {change.value:+.4g}{interval} over {change.n} pairs{flips}")
    for one in found.foreseen:
        amount = f"{one.change:+.4g}" if one.change is not None else ("?", "rises", "falls")[one.sign]
        lines.append(f"Foreseen by {one.title}: {amount}. {one.note}")
    lines.append(f"Measured: {found.kind} of the {found.target} label; higher is better.")
    return [*lines, *found.findings, *found.notes]


def _as_json(found: Any) -> str:
    import json
    from dataclasses import asdict

    change = found.actual.change
    said = {"headline": found.headline, "change": change.value, "low": change.low, "high": change.high}
    plain = {name: None if value != value else value for name, value in said.items()}  # JSON has no NaN
    return json.dumps({**plain, "flips": found.actual.flips, "findings": found.findings, **asdict(found)}, indent=2)
