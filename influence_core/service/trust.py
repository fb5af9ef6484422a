"""How far each method can be believed on a study: what was measured, what it would cost to measure, and the job."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from influence_core import registry
from influence_core.config import digest
from influence_core.costs import QUERIES, absurdity, cost, seconds_in_words
from influence_core.errors import BadInput
from influence_core.metrics import METRICS, TRUTH, Judging
from influence_core.metrics.planning import RETRAINS, planned, unjudged, unmeasurable
from influence_core.service import access, tasks
from influence_core.service.folder import parts_of
from influence_core.service.opened import OpenStudy, opened
from influence_core.service.trust_views import (
    Agreement,
    Candidate,
    Figure,
    MeasuringPlan,
    MetricChoice,
    MetricTable,
    TrustLine,
    TrustPage,
)
from influence_core.service.views import JobView
from influence_core.workflows.trust import Trust, check_metrics, measured, record_file

SUBSETS, SEEDS, ROWS = 50, 2, 64
PREFIX = "trust-"
_CHEAP_SECONDS = 30.0
_SUGGESTED = (
    "tracin_cp", "grad_dot", "if_ggn", "if_ekfac", "trak", "source", "sgd_influence", "magic", "knn_shapley",
)  # fmt: skip
_TRUTHS = {"lds": "random halves of the data", "loo": "single rows left out"}
_METRICS = {
    "lds": ("Tracks retraining", "Your model is trained again on random halves of the rows: does the method foresee "
            "which halves help a prediction and which harm it? (Linear datamodeling score.)"),
    "agreement": ("Agrees with other methods", "Do two methods put the same rows first? Nothing is retrained: two that "
                  "agree may both be wrong."),
    "mislabel": ("Finds wrong labels", "Does it rank the label errors that were planted first, and better than the "
                 "plain loss?"),
    "loo": ("Tracks leaving one row out", "Your model is trained again without single rows: does the method foresee "
            "what each did? Noisy on networks."),
    "pbrf": ("Tracks the model as it is", "Against the proximal Bregman response, which holds for networks that have "
             "not converged."),
    "removal": ("Flips predictions", "How many of its top proponents must go before a prediction flips, against random "
                "rows?"),
    "randomised": ("Notices an untrained model", "Do its scores change when the model forgets all that it learned? "
                   "They should."),
}  # fmt: skip
# The figures of each metric: as they are kept, as they are shown. The first one orders the methods.
_FIGURES = {
    "mislabel": {
        "auc": "AUC", "average_precision": "average precision", "recall_at_10": "found in the first 10%",
        "recall_at_20": "found in the first 20%",
    },
    "loo": {"spearman": "rank correlation", "pearson": "correlation"},
    "pbrf": {"spearman": "rank correlation", "pearson": "correlation"},
    "removal": {"rows to flip": "rows until it flips (median)", "flipped": "share that flips"},
    "randomised": {"spearman": "rank correlation with the untrained model"},
}  # fmt: skip
_LOWEST_FIRST = ("removal", "randomised")


def known_of(held: OpenStudy) -> Trust:
    """Return what was measured on a study; its file is read again only when it has changed."""
    try:
        state = record_file(held.study).stat()
        stamp: tuple[int, ...] = state.st_mtime_ns, state.st_size, state.st_ino
    except FileNotFoundError:
        stamp = ()
    found = held.recalled("trust")
    if found is None or found[0] != stamp:
        found = stamp, measured(held.study)
        held.remember("trust", found)
    return found[1]


def trust(study: str) -> TrustPage:
    """Return what was measured of the methods on a study, and what can be."""
    held = opened(study)
    known = known_of(held)
    fidelity = known.fidelity
    lines = tuple(map(_line, fidelity.to_dict("records")))
    said = str(fidelity["metric"].iloc[0]) if len(fidelity) else "lds"
    tables = tuple(table for metric in _FIGURES if (table := _table(known, metric)) is not None)
    return TrustPage(
        lines, _TRUTHS[said], in_titles(known.advice, [line.method for line in lines]), tables, _agreement(known),
        tuple((titled(name), why) for name, why in known.unmeasured.items()), _choices(held), candidates(held),
        _cannot(held), latest_job(study, PREFIX), access.role(parts_of(study)[0]) == "owner",
    )  # fmt: skip


def fidelity(study: str, method: str) -> str:
    """Return in a few words how well a method tracks retraining on a study; empty if nobody has measured it."""
    known = known_of(opened(study)).fidelity
    for line in map(_line, known.to_dict("records")):
        if line.method == method:
            possible = f" of a possible {line.ceiling:.2f}" if np.isfinite(line.ceiling) else ""
            return f"tracks retraining {line.value:.2f}{possible}"
    return ""


def measuring_plan(
    study: str, methods: Sequence[str], metrics: Sequence[str] = ("lds", "agreement"), subsets: int = SUBSETS,
    seeds: int = SEEDS,
) -> MeasuringPlan:  # fmt: skip
    """Return what measuring would train and fit, how long it takes, and the price of every metric that can be asked.

    Raises:
        InfluenceError: An unknown method or metric, or numbers out of bounds.
    """
    held = opened(study)
    check_metrics(metrics)
    task, options = held.study.task, Judging.checked({"subsets": subsets, "seeds": seeds, "rows": ROWS})
    estimators = [registry.made(name, None, task) for name in methods]
    prices = {}
    for choice in _choices(held):
        if not choice.problem:
            one = planned(task, estimators, [choice.name], held.run, options)
            prices[choice.name] = priced(one.models.get(choice.name, 0), one.metrics[choice.name], choice.name)
    whole = planned(task, estimators, metrics, held.run, options)
    models = sum(whole.models.values())
    parts = [f"{models:,} models to train"] if models else []
    parts += [f"{_counted(len(whole.fits), 'method')} to fit"] if whole.fits else []
    words = f"{', '.join(parts) or 'Only scores are left'}: {seconds_in_words(whole.seconds)} in all, an estimate."
    dear = [f"{titled(name)}: {said}" for name, spent in whole.methods.items() if (said := absurdity(spent))]
    return MeasuringPlan(words, prices, tuple(dear))


def start_measuring(
    study: str, methods: Sequence[str], client: str, metrics: Sequence[str] = ("lds", "agreement"),
    subsets: int = SUBSETS, seeds: int = SEEDS,
) -> JobView:  # fmt: skip
    """Queue the measurement of methods, or join the job that is at it already.

    Raises:
        BadInput: No method or metric, one that cannot be measured here, or they are not an owner of the study.
    """
    access.check(parts_of(study)[0], "owner")
    chosen, asked = list(dict.fromkeys(methods)), [name for name in METRICS if name in metrics]
    check_metrics(metrics)
    if not chosen:
        raise BadInput("There is nothing to measure", "No method is chosen.", "Choose one or more.")
    if not asked:
        raise BadInput("There is nothing to measure", "No question is chosen.", "Choose one or more.")
    if asked == ["agreement"] and len(chosen) < 2:
        raise BadInput("Agreement cannot be measured", "It compares methods, and one is chosen.", "Choose two or more.")
    if len(chosen) < 2:
        asked = [name for name in asked if name != "agreement"]
    for choice in _choices(opened(study)):
        if choice.name in asked and choice.problem:
            raise BadInput(f"“{choice.title}” cannot be measured here", choice.problem, "Leave it out.")
    flags = [word for name in chosen for word in ("--methods", registry.found(name).info.name)]
    flags += [word for name in asked for word in ("--metrics", name)]
    argv = ["evaluate", *flags, "--subsets", str(subsets), "--seeds", str(seeds), "--rows", str(ROWS)]
    return tasks.submitted(study, f"{PREFIX}{digest(argv)}", "Measuring methods", argv, client, 60.0)


def resume_measuring(study: str, job_id: int, client: str) -> JobView:
    """Queue a failed or cancelled measurement again; it goes on from what it had finished.

    Raises:
        BadInput: There is no such job, or they are not an owner of the study.
    """
    access.check(parts_of(study)[0], "owner")
    return tasks.resubmitted(study, job_id, client)


def latest_job(study: str, prefix: str) -> JobView | None:
    """Return the latest job whose key begins so, unless it is done."""
    job = next((job for job in tasks.listed_jobs(study) if job.key.startswith(prefix)), None)
    return None if job is None or job.state == "done" else job


def candidates(held: OpenStudy) -> tuple[Candidate, ...]:
    """Return the methods that run on a study, the cheapest first; the price is of fitting and scoring 100 rows."""

    def found() -> tuple[Candidate, ...]:
        task, several = held.study.task, []
        for name, entry in registry.entries().items():
            estimator = entry.make()
            if registry.refusal(estimator, task):
                continue
            seconds = cost(task, estimator, held.run).total(QUERIES)
            reasons = {metric: why for metric in METRICS if (why := unjudged(estimator, task, metric))}
            if len(reasons) == len(METRICS):
                continue
            cheap = name in _SUGGESTED and seconds <= _CHEAP_SECONDS
            several.append(Candidate(name, entry.info.title, seconds, cheap, absurdity(seconds), reasons))
        return tuple(sorted(several, key=lambda one: one.seconds))

    return held.remembered("trust candidates", found)


def titled(method: str) -> str:
    """Return the title of a method, or its id where it is not registered any more."""
    entry = registry.entries().get(method)
    return method if entry is None else entry.info.title


def in_titles(sentence: str, methods: Sequence[str]) -> str:
    """Return a sentence with the ids of methods as their titles; a word that only contains an id stays."""
    if not methods:
        return sentence
    ids = "|".join(re.escape(name) for name in sorted(methods, key=len, reverse=True))
    return re.sub(rf"(?<![\w-])({ids})(?![\w-])", lambda found: titled(found[1]), sentence)


def priced(models: int, seconds: float, metric: str = "removal") -> str:
    """Return a price in words: models to be trained, and the time."""
    if not models and seconds < 0.5:
        return "nothing left to compute"
    upto = "up to " if metric == "removal" else ""
    trained = f"{upto}{_counted(models, 'retraining')}, " if models else "no retraining, " if metric in RETRAINS else ""
    return f"{trained}{seconds_in_words(seconds)}"


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _choices(held: OpenStudy) -> tuple[MetricChoice, ...]:
    def found() -> tuple[MetricChoice, ...]:
        task, planted = held.study.task, held.study.planted
        problems = {name: unmeasurable(task, name, planted) for name in _METRICS}
        first = "lds" if not problems["lds"] else "agreement"
        return tuple(
            MetricChoice(name, title, question, problems[name], name in (first, "agreement"))
            for name, (title, question) in _METRICS.items()
        )

    return held.remembered("trust metrics", found)


def _cannot(held: OpenStudy) -> tuple[tuple[str, str], ...]:
    def found() -> tuple[tuple[str, str], ...]:
        task = held.study.task
        reasons = [(entry.info.title, registry.refusal(entry.make(), task)) for entry in registry.entries().values()]
        return tuple((title, why) for title, why in reasons if why)

    return held.remembered("trust cannot", found)


def _line(row: Mapping[Any, Any]) -> TrustLine:
    value, low, high, ceiling, seconds = (float(row[name]) for name in ("value", "low", "high", "ceiling", "seconds"))
    name = str(row["method"])
    return TrustLine(name, titled(name), value, low, high, ceiling, seconds, str(row["note"]))


def _table(known: Trust, metric: str) -> MetricTable | None:
    """Return what a metric found out, or None if it was not asked."""
    columns = _FIGURES[metric]
    rows_ = [row for row in known.table.to_dict("records") if row["metric"] == metric and np.isfinite(row["value"])]
    found: dict[str, dict[str, Any]] = {}
    for row in rows_:
        if row["figure"] in columns:
            found.setdefault(str(row["method"]), {})[str(row["figure"])] = row
    floors = [row for row in rows_ if row["method"] == TRUTH]
    if not found:
        return None
    first = next(iter(columns))
    worst = {"value": np.inf if metric in _LOWEST_FIRST else -np.inf}
    sign = 1 if metric in _LOWEST_FIRST else -1
    order = sorted(found, key=lambda name: sign * float(found[name].get(first, worst)["value"]))
    rows = tuple((_named(name), _figures(found[name], list(columns)), _noted(found[name])) for name in order)
    floor = [f"{row['value']:.2f} ({row['figure'].removeprefix('seeds agree ').strip('()')})"
             for row in floors]  # fmt: skip
    noise = f"One seed's retraining agrees with another's by {', '.join(floor)}: the noise of the truth." * bool(floor)
    title, question = _METRICS[metric]
    return MetricTable(metric, title, question, tuple(columns.values()), rows, noise)


def _named(method: str) -> str:
    return {"(random)": "Random rows", "loss": "Training loss (plain)"}.get(method, titled(method))


def _figures(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> tuple[Figure, ...]:
    nothing = {"value": np.nan, "low": np.nan, "high": np.nan}
    found = [rows.get(name, nothing) for name in columns]
    return tuple((float(row["value"]), float(row["low"]), float(row["high"])) for row in found)


def _noted(rows: Mapping[str, Mapping[str, Any]]) -> str:
    return "; ".join(dict.fromkeys(str(row["note"]) for row in rows.values() if row["note"]))


def _agreement(known: Trust) -> Agreement | None:
    ranks = known.agreement
    if len(ranks) < 2:
        return None
    lines = known.fidelity["method"].tolist()
    others = [name for name in ranks.columns if name not in lines]
    numbers = {name: n for n, name in enumerate([*lines, *others], 1)}
    order = [name for name in numbers if name in ranks.columns]
    ranks, shared = (square.reindex(index=order, columns=order) for square in (ranks, known.shared))
    parts = known.table[known.table["metric"] == "agreement"]["options"].tolist()
    top = int(parts[-1]["top"]) if parts else Judging.checked({}).top
    return Agreement(
        tuple(map(titled, order)), tuple(map(numbers.__getitem__, order)), ranks.to_numpy(), shared.to_numpy(), top
    )
