"""Commands that run methods: what there is, fit, rank, measure."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from influence_core.commands.base import (
    ConfigText,
    Format,
    MethodName,
    Out,
    StudyPath,
    app,
    opened,
    options,
    progress,
    write_table,
)
from influence_core.errors import BadInput


@app.command()
def methods(
    name: Annotated[str, typer.Argument(help="An id: say what it is, what it asks for, and its options.")] = "",
    study: Annotated[Path | None, typer.Option(help="Say what can run on this study, at which cost.")] = None,
    format: Format = "",
) -> None:
    """List the methods, and for a study what can run, at which cost, and why not."""
    import pandas as pd

    from influence_core import registry

    if name:
        print(_about(name))
        return
    rows: list[dict[str, Any]] = [
        {
            "method": name,
            "title": entry.info.title,
            "family": entry.info.family,
            "units": entry.info.units,
            "summary": entry.info.summary,
        }
        for name, entry in registry.entries().items()
    ]
    if study is not None:
        from influence_core.costs import cost, cost_in_words
        from influence_core.run import Run

        task = opened(study).task
        for row in rows:
            entry = registry.entries()[row["method"]]
            row["reason"] = registry.missing(entry.info, task)
            row["cost"] = "" if row["reason"] else cost_in_words(cost(task, entry.make(), Run()))
    if format:
        write_table(pd.DataFrame(rows), format, None)
        return
    for row in rows:
        tail = "" if study is None else f"  [{'not here: ' + row['reason'] if row['reason'] else row['cost']}]"
        print(f"{row['method']:<22} {row['units']:<12} {row['summary']}{tail}")


def _about(name: str) -> str:
    """Return what an id stands for and what to call, for a person.

    Raises:
        BadInput: Nothing is called so.
    """
    from influence_core import registry
    from influence_core.other_names import OTHER_NAMES

    if name in OTHER_NAMES and name not in registry.entries():
        other = OTHER_NAMES[name]
        return f"{name} is {other.what}.\n{other.fix}"
    entry = registry.found(name)
    info, own = entry.info, "" if entry.info.name == name else f"{name} stands for {entry.info.name} here.\n"
    needs = "; ".join(words for need, (words, _) in registry.NEEDS_IN_WORDS.items() if need in info.needs)
    if name == "cross_loss_if":
        own += "Any number of a row is a Measurement(function); two are ready: diagnose --workflow cross_loss_if.\n"
    lines = [
        f"  {option:<18} {field.description} (default: {getattr(entry.defaults, option)!r})"
        for option, field in entry.cls.Config.model_fields.items()
    ]
    asked = "attribute" if info.scores else "self-influence"
    return "\n".join([
        f"{own}{info.title} ({info.name}). {info.summary}", f"Estimates: {info.estimand}; units: {info.units}.",
        f"Needs: {needs or 'nothing beyond the data'}.",
        f"Call {asked.replace('-', '_')}(study, '{info.name}'{', test=[...]' if info.scores else ''}), or "
        f"python -m influence_core {asked} STUDY --method {info.name}{' --test ID' if info.scores else ''}.",
        "Options, as config:" if lines else "It has no options.", *lines,
    ])  # fmt: skip


@app.command()
def fit(study: StudyPath, method: MethodName, config: ConfigText = "{}") -> None:
    """Do all train-side work of a method; resumes what was interrupted."""
    from influence_core import fitting, registry

    held = opened(study)
    with progress() as run:
        estimator = registry.made(method, options(config), held.task)
        fitting.fit(held.task, estimator, run.with_store(held.store))
    print(f"{estimator.named.title} is fitted on {held.header.title}.")


@app.command()
def attribute(
    study: StudyPath, method: MethodName,
    test: Annotated[
        list[str] | None, typer.Option("--test", help="Test row ids; may be repeated or follow one another.")
    ] = None,
    typed: Annotated[
        str, typer.Option(help='A row in no split, as JSON: {"text": "..."}, {"image": "file.png"}, or its columns.')
    ] = "",
    more: Annotated[list[str] | None, typer.Argument(help="Further test row ids.")] = None,
    top: Annotated[int, typer.Option(help="Rows per side; 0: all scores.")] = 10,
    measurement: Annotated[str, typer.Option(help="loss, margin, probability or logit; empty: the method's own.")] = "",
    target: Annotated[
        str, typer.Option(help="true, predicted, or a class name; empty: true, of a typed row predicted.")
    ] = "",
    reduce: Annotated[str, typer.Option(help="mean: the rows are one query.")] = "",
    config: ConfigText = "{}", format: Format = "csv", out: Out = None,
) -> None:  # fmt: skip
    """Rank the training rows that pushed predictions up or down."""
    from influence_core import api, registry
    from influence_core.fitting import default_measurement
    from influence_core.measurement import Measurement

    held = opened(study)
    estimator = registry.made(method, options(config), held.task)
    kind = measurement or default_measurement(estimator).kind
    rows = _query(held, [*(test or []), *(more or [])], typed, reduce)
    if not target:
        target = "predicted" if typed and held.header.task == "classification" else "true"
    with progress() as run:
        answer = api.attribute(
            held, method, rows, config=options(config), measurement=Measurement(kind, held.target(target)), run=run
        )
    if top:
        write_table(answer.to_frame(top), format, out)
        return
    import pandas as pd

    write_table(
        pd.DataFrame(
            answer.scores.cpu().numpy(),
            index=pd.Index(answer.test_ids, name="test_id"),
            columns=answer.train_ids.tolist(),
        ).reset_index(),
        format,
        out,
    )


@app.command("self-influence")
def self_influence(
    study: StudyPath, method: MethodName, config: ConfigText = "{}", format: Format = "csv", out: Out = None
) -> None:
    """Write the influence of every training row on itself, highest first."""
    import pandas as pd

    from influence_core import api

    held = opened(study)
    with progress() as run:
        values = api.self_influence(held, method, config=options(config), run=run)
    table = pd.DataFrame({"train_id": held.task.ids("train"), "self_influence": values.cpu().numpy(), "method": method})
    write_table(table.sort_values("self_influence", ascending=False, kind="stable"), format, out)


@app.command()
def evaluate(
    study: StudyPath,
    method: Annotated[
        list[str] | None, typer.Option("--method", "--methods", "-m", help="Method ids; may follow one another.")
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(help="Further method ids.")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", "--metrics",
            help="lds, loo, pbrf, removal, mislabel, agreement, randomised; may follow one another.",
        ),
    ] = None,
    subsets: Annotated[int, typer.Option(help="Random halves that are retrained, for lds.")] = 50,
    seeds: Annotated[int, typer.Option(help="Trainings of each.")] = 3,
    rows: Annotated[int, typer.Option(help="Test rows that are looked at.")] = 64,
    config: Annotated[
        str, typer.Option("--config", help="Further options as JSON, such as '{\"left_out\": 48}'.")
    ] = "{}",
    preview: Annotated[
        bool, typer.Option("--preview", help="Only say what would be done and how long it takes.")
    ] = False,
    format: Annotated[str, typer.Option("--format", help="csv, json, parquet or text.")] = "csv",
    out: Out = None,
) -> None:  # fmt: skip
    """Measure which method to believe: against retraining, against planted label errors, and against each other."""
    from influence_core import api

    held, names, metrics = opened(study), [*(method or []), *(more or [])], metric or ["mislabel"]
    if not names:
        raise BadInput("No method is given", "There is nothing to measure.", "Name one or more with --methods.")
    chosen = {"subsets": subsets, "seeds": seeds, "rows": rows, **options(config)}
    if preview or sys.stderr.isatty():  # like a progress bar: where a person is looking
        said = api.evaluation_plan(held, names, metrics, options=chosen)
        print(said, file=sys.stdout if preview else sys.stderr)
    if preview:
        return
    with progress() as run:
        table = api.evaluate(held, names, metrics, run=run, options=chosen)
    if format != "text":
        write_table(table, format, out)
        return
    from influence_core.workflows.trust import measured

    text = "\n".join([table.drop(columns="note").round(3).to_string(index=False), "", measured(held).advice]).strip()
    if out is None:
        print(text)
    else:
        out.write_text(text + "\n")


@app.command(hidden=True)
def answer(
    study: StudyPath, method: MethodName, test: Annotated[list[str], typer.Option("--test")],
    split: Annotated[str, typer.Option()] = "test", measurement: Annotated[str, typer.Option()] = "loss",
    target: Annotated[str, typer.Option()] = "true", reduce: Annotated[str, typer.Option()] = "",
    config: ConfigText = "{}",
) -> None:  # fmt: skip
    """Compute and keep one answer of a method that solves for every query; started by the app."""
    from influence_core import registry
    from influence_core.answers import obtained_answer
    from influence_core.measurement import TYPED, Measurement, Rows
    from influence_core.workflows.typed_rows import with_typed

    held = opened(study)
    if split == TYPED:
        held = with_typed(held, test)
    rows = Rows(split, tuple(held.row_id(split, text) for text in test), reduce or None)
    with progress() as run:
        estimator = registry.made(method, options(config), held.task)
        kept = Measurement(measurement, held.target(target))
        obtained_answer(held.task, estimator, rows, kept, run.with_store(held.store))


def _query(study: Any, ids: list[str], typed: str, reduce: str) -> Any:
    """Return the rows that were asked for: of the test split, or a typed one."""
    from influence_core.measurement import Rows
    from influence_core.workflows.typed_values import fields

    if bool(typed) == bool(ids):
        both = "Both --test and --typed are given." if typed else "Neither --test nor --typed is given."
        raise BadInput("The query is not clear", both, "Give row ids with --test, or a row of your own with --typed.")
    if not typed:
        return Rows("test", tuple(study.row_id("test", text) for text in ids), reduce or None)
    values = options(typed, "--typed")
    pictures = {name for field in fields(study) if field.kind == "image" for name in (field.name, "image")}
    return study.typed({
        name: Path(value) if name in pictures and isinstance(value, str) else value for name, value in values.items()
    })  # fmt: skip
