"""The command line: ``python -m influence_core --help``.

Every output names rows by their ids. Exit code 0, 2 for bad input (one line: what, why, fix), 130 when cancelled.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from influence_core.allocation import keep_freed_memory
from influence_core.errors import BadInput, Cancelled, InfluenceError, StoreProblem

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

StudyPath = Annotated[Path, typer.Argument(help="A study folder.")]
MethodName = Annotated[str, typer.Option("--method", "-m", help="A method id; `methods` lists them.")]
ConfigText = Annotated[str, typer.Option("--config", help="Options as JSON, such as '{\"damping\": 0.1}'.")]
Format = Annotated[str, typer.Option("--format", help="csv, json or parquet.")]
_CANCELLED = 130
Out = Annotated[Path | None, typer.Option("--out", help="Write here instead of standard output.")]


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    keep_freed_memory()
    try:
        result = app(_spread(argv if argv is not None else sys.argv[1:]), standalone_mode=False)
        if result == _CANCELLED:  # typer turns Ctrl-C into this code without a word
            raise Cancelled
        return result if isinstance(result, int) else 0
    except InfluenceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (Cancelled, KeyboardInterrupt, typer.Abort):
        print("cancelled: everything finished so far is kept.", file=sys.stderr)
        return _CANCELLED
    except typer.Exit as error:
        return error.exit_code
    except Exception as error:
        # typer's own complaints format themselves; anything else is a fault of ours and keeps its trace.
        complaint = getattr(error, "format_message", None)
        if complaint is None:
            raise
        print(f"error: {complaint()}", file=sys.stderr)
        return 2


def _spread(argv: list[str]) -> list[str]:
    """Return ``--metric loo mislabel`` as ``--metric loo --metric mislabel``: a bare word would count as a method."""
    if "--metric" not in argv:
        return argv
    from influence_core.metrics import METRICS

    words, follows = [], False
    for i, word in enumerate(argv):
        follows = word in METRICS and (argv[i - 1] == "--metric" or follows)
        words += ["--metric", word] if follows and argv[i - 1] != "--metric" else [word]
    return words


@app.command()
def demo(
    name: Annotated[str, typer.Argument(help="digits, breast-cancer, ...")],
    out: Annotated[Path | None, typer.Option(help="The study folder to make.")] = None,
) -> None:
    """Build a demo study: trains a model, records its checkpoints, and fits the method that Explain starts with."""
    from influence_core.demos import build_demo

    out = out or Path("studies") / name
    with _progress() as run:
        study = _readied(build_demo(name, out, run), run)
    print(f"{study.header.title}: {out}")


@app.command("import")
def import_data(
    source: Annotated[Path, typer.Argument(help="A table: CSV, TSV, JSON, JSON lines, Parquet or Arrow.")],
    out: Annotated[Path, typer.Option("--out", help="The study folder to make.")],
    label: Annotated[str | None, typer.Option(help="The column to predict; guessed where not given.")] = None,
    roles: Annotated[
        str, typer.Option(help='Further roles of columns as JSON, such as \'{"id": "key", "text": "message"}\'.')
    ] = "{}",
    title: Annotated[str | None, typer.Option(help="The name that people read.")] = None,
) -> None:
    """Build a study from your own data: guesses what is not said, trains a model, records its checkpoints."""
    _imported(source, out, label, _options(roles), title)


@app.command(hidden=True)
def finish_import(study: StudyPath, token: str, roles: str, title: str) -> None:
    """Import an upload of the app into a folder that holds nothing yet but its job."""
    from influence_core.service.imports import drop_upload, uploaded_file

    if (study / "study.toml").exists():  # its worker died between writing the study and the first fit
        with _progress() as run:
            _readied(_opened(study), run)
    else:
        _imported(uploaded_file(study.parent, token), study, None, _options(roles), title)
    drop_upload(token)


def _imported(source: Path, out: Path, label: str | None, roles: dict[str, Any], title: str | None) -> None:
    from influence_core.readers import guessed_roles, import_table, open_source

    with _progress() as run, open_source(source, run) as opened:
        chosen = guessed_roles(opened, label or roles.get("label")).changed(**roles)
        study = _readied(import_table(opened, chosen, out, run, name=out.name, title=title), run)
    for note in study.header.notes:
        print(note)
    print(f"{study.header.title}: {out}")


def _readied(study: Any, run: Any) -> Any:
    """Fit the method that Explain starts with, so that the first look needs no waiting."""
    from influence_core import fitting, registry
    from influence_core.workflows.default_method import default_method

    try:
        method, _ = default_method(study.task)
        fitting.fit(study.task, registry.made(method, {}, study.task), run.with_store(study.store))
    except StoreProblem as error:  # building it again would find the folder taken
        fix = f"The study itself is whole, in {study.path}: free some space and open it."
        raise StoreProblem(error.what, error.why, fix) from error
    return study


@app.command()
def methods(
    study: Annotated[Path | None, typer.Option(help="Say what can run on this study, at which cost.")] = None,
    format: Format = "",
) -> None:
    """List the methods, and for a study what can run, at which cost, and why not."""
    import pandas as pd

    from influence_core import registry

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

        task = _opened(study).task
        for row in rows:
            entry = registry.entries()[row["method"]]
            row["reason"] = registry.missing(entry.info, task)
            row["cost"] = "" if row["reason"] else cost_in_words(cost(task, entry.make(), Run()))
    if format:
        _written(pd.DataFrame(rows), format, None)
        return
    for row in rows:
        tail = "" if study is None else f"  [{'not here: ' + row['reason'] if row['reason'] else row['cost']}]"
        print(f"{row['method']:<22} {row['units']:<12} {row['summary']}{tail}")


@app.command()
def fit(study: StudyPath, method: MethodName, config: ConfigText = "{}") -> None:
    """Do all train-side work of a method; resumes what was interrupted."""
    from influence_core import fitting, registry

    opened = _opened(study)
    with _progress() as run:
        estimator = registry.made(method, _options(config), opened.task)
        fitting.fit(opened.task, estimator, run.with_store(opened.store))
    print(f"{estimator.named.title} is fitted on {opened.header.title}.")


@app.command()
def attribute(
    study: StudyPath, method: MethodName,
    test: Annotated[list[str], typer.Option("--test", help="Test row ids; may be repeated or follow one another.")],
    more: Annotated[list[str] | None, typer.Argument(help="Further test row ids.")] = None,
    top: Annotated[int, typer.Option(help="Rows per side; 0: all scores.")] = 10,
    measurement: Annotated[str, typer.Option(help="loss, margin, probability or logit; empty: the method's own.")] = "",
    target: Annotated[str, typer.Option(help="true, predicted, or a class name.")] = "true",
    reduce: Annotated[str, typer.Option(help="mean: the rows are one query.")] = "",
    config: ConfigText = "{}", format: Format = "csv", out: Out = None,
) -> None:  # fmt: skip
    """Rank the training rows that pushed predictions up or down."""
    from influence_core import api, registry
    from influence_core.fitting import default_measurement
    from influence_core.measurement import Measurement, Rows

    opened = _opened(study)
    estimator = registry.made(method, _options(config), opened.task)
    kind = measurement or default_measurement(estimator).kind
    rows = Rows("test", tuple(_row_ids(opened, [*test, *(more or [])])), reduce or None)
    with _progress() as run:
        answer = api.attribute(
            opened, method, rows, config=_options(config), measurement=Measurement(kind, opened.target(target)), run=run
        )
    if top:
        _written(answer.to_frame(top), format, out)
        return
    import pandas as pd

    _written(
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

    opened = _opened(study)
    with _progress() as run:
        values = api.self_influence(opened, method, config=_options(config), run=run)
    table = pd.DataFrame(
        {"train_id": opened.task.ids("train"), "self_influence": values.cpu().numpy(), "method": method}
    )
    _written(table.sort_values("self_influence", ascending=False, kind="stable"), format, out)


@app.command()
def evaluate(
    study: StudyPath,
    method: Annotated[list[str], typer.Option("--method", "-m", help="Method ids; may follow one another.")],
    more: Annotated[list[str] | None, typer.Argument(help="Further method ids.")] = None,
    metric: Annotated[list[str] | None, typer.Option("--metric", help="loo, mislabel; may follow one another.")] = None,
    format: Format = "csv", out: Out = None,
) -> None:  # fmt: skip
    """Measure methods against leave-one-out and against planted label errors."""
    from influence_core import api

    opened = _opened(study)
    with _progress() as run:
        table = api.evaluate(opened, [*method, *(more or [])], metric or ["mislabel"], run=run)
    _written(table, format, out)


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
    from influence_core.measurement import Measurement, Rows

    opened = _opened(study)
    rows = Rows(split, tuple(opened.row_id(split, text) for text in test), reduce or None)
    with _progress() as run:
        estimator = registry.made(method, _options(config), opened.task)
        kept = Measurement(measurement, opened.target(target))
        obtained_answer(opened.task, estimator, rows, kept, run.with_store(opened.store))


@app.command(hidden=True)
def worker(studies: Annotated[Path, typer.Argument(help="The folder of studies.")]) -> None:
    """Run queued jobs until there are none; started by the app."""
    from influence_core.service.worker import run_worker

    run_worker(studies, execute)


def execute(study_dir: Path, argv: list[str], progress: Any, cancelled: Any) -> None:
    """Run a job's command in this process, with the job's own progress and cancel."""
    global _job
    _job = (progress, cancelled)
    try:
        if app([argv[0], str(study_dir), *argv[1:]], standalone_mode=False) == _CANCELLED:
            raise Cancelled
    finally:
        _job = None


_job: tuple[Any, Any] | None = None


def _progress() -> Any:
    """Return a context that yields a Run: with a job's progress, or a progress bar where a person is looking."""
    from influence_core.console import console_run, job_run

    return job_run(*_job) if _job is not None else console_run()


def _opened(path: Path) -> Any:
    from influence_core.study import Study

    return Study(path)


def _options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except ValueError as error:
        raise BadInput(
            "The options cannot be read", f"--config is {text!r} ({error}).", 'Give JSON such as {"damping": 0.1}.'
        ) from None
    if not isinstance(options, dict):
        raise BadInput(
            "The options cannot be read", f"--config is {text!r}.", 'Give a JSON object such as {"damping": 0.1}.'
        )
    return options


def _row_ids(study: Any, texts: list[str]) -> list[Any]:
    return [study.row_id("test", text) for text in texts]


def _written(table: Any, format: str, out: Path | None) -> None:
    from influence_core.tables import table_bytes

    data = table_bytes(table, format)
    if out is not None:
        try:
            out.write_bytes(data)
        except OSError as error:
            raise BadInput(
                "The file cannot be written", f"{out}: {error.strerror}.", "Choose another place for --out."
            ) from None
    elif format == "parquet":
        sys.stdout.buffer.write(data)
    else:
        print(data.decode(), end="")


if __name__ == "__main__":
    sys.exit(main())
