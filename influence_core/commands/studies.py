"""Commands about whole studies: build a demo, list, rename, delete, pack, bring forward."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from influence_core.commands.base import StudyPath, app, progress
from influence_core.errors import BadInput, StoreProblem
from influence_core.study_files import checked_title

STUDIES = Annotated[Path, typer.Argument(envvar="INFLUENCE_STUDIES", help="The folder of studies.")]


@app.command()
def demo(
    name: Annotated[str, typer.Argument(help="digits, breast-cancer, ...")],
    out: Annotated[Path | None, typer.Option(help="The study folder to make.")] = None,
) -> None:
    """Build a demo study: trains a model, records its checkpoints, and fits the method that Explain starts with."""
    from influence_core.demos import build_demo

    out = out or Path("studies") / name
    with progress() as run:
        study = readied(build_demo(name, out, run), run)
    print(f"{study.header.title}: {out}")


def readied(study: Any, run: Any) -> Any:
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
def studies(folder: STUDIES = Path("studies")) -> None:
    """List the studies of a folder with what they use of the disk."""
    from influence_core.service.manage import study_line

    if not folder.is_dir():
        raise BadInput("There is no such folder", f"{folder} is none.", "Give the folder of your studies.")
    lines = [study_line(path.parent) for path in sorted(folder.glob("*/study.toml"))]
    width = max((len(line.name) for line in lines), default=0)
    for line in lines:
        sizes = f"{_size(line.total):>8}, {_size(line.cache):>8} of it cache"
        rows = ", ".join(f"{count:,} {split}" for split, count in line.rows.items())
        print(f"{line.name:<{width}}  {sizes}  {line.problem or f'{line.title} · {line.kind} · {rows} rows'}")
    if not lines:
        print(f"There are no studies in {folder}.")


@app.command()
def rename(study: StudyPath, title: Annotated[str, typer.Argument(help="The name that people read.")]) -> None:
    """Give a study another title; its folder and its results stay."""
    from influence_core.service import study_folders

    study_folders.rename(study, title)
    print(f"{study} is called {checked_title(title)} now.")


@app.command()
def delete(
    study: StudyPath, yes: Annotated[bool, typer.Option("--yes", help="Really: it cannot be undone.")] = False
) -> None:
    """Delete a study with everything in it; without --yes, say what that would free."""
    from influence_core.service import study_folders

    study_folders.check_study(study)
    size = study_folders.sizes(study)
    if not yes:
        why = f"{study} uses {_size(size.total)}, {_size(size.cache)} of it cache."
        fix = f"If it may go for ever: python -m influence_core delete {study} --yes"
        raise BadInput("Nothing was deleted", why, fix)
    print(f"{study} is deleted; {_size(study_folders.delete(study))} are free again.")


@app.command()
def backup(
    study: StudyPath,
    out: Annotated[Path, typer.Option("--out", help="The zip file to write.")],
    reviews: Annotated[bool, typer.Option("--reviews", help="With the decisions about labels.")] = False,
    cache: Annotated[bool, typer.Option("--cache", help="With computed results.")] = False,
) -> None:
    """Pack a study into a zip file that `import` takes; the study may be in use meanwhile."""
    from influence_core.study_archive import write_archive

    with progress() as run:
        write_archive(study, out, run, reviews=reviews, cache=cache)
    print(f"{out}: {_size(out.stat().st_size)}")


@app.command()
def migrate(study: StudyPath) -> None:
    """Bring a study of an older version forward; the originals of what changes are kept in it."""
    from influence_core.study_files import FORMAT
    from influence_core.study_versions import migrated

    for sentence in migrated(study, FORMAT) or [f"{study} has the present format {FORMAT}; nothing was changed."]:
        print(sentence)


def _size(count: int) -> str:
    """Return a number of bytes as people say it."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"
