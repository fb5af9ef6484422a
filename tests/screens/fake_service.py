"""A service for the tests of the screens: real rows and real scores of a linear model, no engine, no disk.

Scores are the exact gradient products of a logistic regression, so cards, signs and histograms look as in life.
Switches on :class:`FakeService` put every screen into its empty, running, failed and broken states.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from influence_core import service
from influence_core.errors import BadInput
from influence_core.service import views
from tests.screens import (
    fake_checks,
    fake_imports,
    fake_keeping,
    fake_map,
    fake_reviews,
    fake_suspects,
    fake_trust,
    fake_versions,
)
from tests.screens.fake_data import FAMILIES, Material, material, png


@dataclass
class FakeService:
    """The functions of ``influence_core.service``, with switches for the states of the screens.

    Attributes:
        fitted: Methods that answer at once; the others need a job.
        fit_seconds: Estimated and real length of a fit.
        fail_fit: Fits end in the state "failed".
        broken: Name of a function that raises a plain ValueError (a programming error).
        lonely: Explanations have no proponents.
        calls: Names of the functions called, in order.
        imports: The functions about imports, with switches of their own.
        keeping: The functions about studies as a whole, likewise.
        compare: The functions about versions, likewise.
        reviews: The functions about reviewing, likewise.
        map: The functions about the map, likewise.
        suspicion: The functions about suspects, likewise.
        checking: The functions about checks, likewise.
    """

    names: tuple[str, ...] = ("digits", "cells", "words")
    fitted: set[str] = field(default_factory=lambda: {"grad_cos", "tracin_cp", "knn_shapley"})
    fit_seconds: float = 40.0
    fail_fit: bool = False
    broken: str = ""
    lonely: bool = False
    groups: tuple[views.GroupFigures, ...] = ()
    training: views.TrainingFigures | None = None
    typed: dict[str, Any] = field(default_factory=dict)
    queue: list[tuple[views.JobView, float, str]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    imports: fake_imports.FakeImports = field(default_factory=fake_imports.FakeImports)
    keeping: fake_keeping.FakeKeeping = field(default_factory=fake_keeping.FakeKeeping)
    compare: fake_versions.FakeVersions = field(init=False)
    reviews: fake_reviews.FakeReviews = field(default_factory=fake_reviews.FakeReviews)
    map: fake_map.FakeMap = field(default_factory=fake_map.FakeMap)
    suspicion: fake_suspects.FakeSuspects = field(init=False)
    trusting: fake_trust.FakeTrust = field(default_factory=fake_trust.FakeTrust)
    checking: fake_checks.FakeChecks = field(default_factory=fake_checks.FakeChecks)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        """Give the comparison and the suspects cards and explanations of this service."""
        self.suspicion = fake_suspects.FakeSuspects(self.datum)

        def explained(study: str, row: str) -> views.Explanation | views.FitNeeded:
            return self.explain(study, views.ExplainRequest(ids=(row,), method="grad_cos", k=3))

        self.compare = fake_versions.FakeVersions(
            lambda study, row: self.datum(self._material(study), "test", row), explained
        )

    def studies(self) -> list[views.StudyCard]:
        """List the fake studies."""
        return [material(name).card for name in self.names]

    def _material(self, study: str) -> Material:
        if study not in self.names:
            raise BadInput(f"There is no study {study!r}", f"Found: {', '.join(self.names)}.", "Choose one of these.")
        return material(study)

    def datum(self, m: Material, split: str, row_id: Any) -> views.Datum:
        """Return the card's record of one row; test row ids start at 0 in every split."""
        if not str(row_id).isdigit() or int(row_id) >= len(m.given[split]):
            raise BadInput(
                f"There is no {split} row {row_id!r}",
                f"The study has {len(m.given[split])}.",
                "Pick one from the list.",
            )
        i = int(row_id)
        chance = m.probabilities[split][i]
        top = int(chance.argmax())
        image = (
            png(255 - (m.inputs[split][i].reshape(8, 8) * 255).astype(np.uint8)) if m.card.modality == "image" else None
        )
        cells = tuple((c, f"{v:.4g}") for c, v in zip(m.columns, m.raw[split][i], strict=True)) if m.columns else ()
        if m.card.modality == "image":
            cells = ()
        flipped = bool(m.planted[i]) if split == "train" else None
        given = m.classes[m.given[split][i]]
        return views.Datum(
            split=split,
            row_id=i,
            modality=m.card.modality,
            image=image,
            cells=cells,
            text=m.texts[split][i] if m.texts else None,
            given=given,
            predicted=m.classes[top],
            confidence=float(chance[top]),
            truth=m.classes[m.truth[i]] if flipped else None,
            planted=flipped,
            alt=f"{m.card.title} row {i}, labelled {given}",
        )

    def overview(self, study: str) -> views.Overview:
        """Summarise a study."""
        m = self._material(study)
        predicted = m.probabilities["test"].argmax(1)
        confusion = np.zeros((len(m.classes),) * 2, int)
        np.add.at(confusion, (m.given["test"], predicted), 1)
        wrong = self.predictions(study, views.PredictionFilter(status="wrong"))
        counts = {s: tuple(np.bincount(y, minlength=len(m.classes)).tolist()) for s, y in m.given.items()}
        accuracy = {}
        for split, chance in m.probabilities.items():
            share, n = float((chance.argmax(1) == m.given[split]).mean()), len(chance)
            accuracy[split] = views.Interval(share, max(0.0, share - 0.02), min(1.0, share + 0.02), n)
        return views.Overview(
            study=m.card,
            description=f"{m.card.title}, for the tests of the screens.",
            model="Logistic regression",
            n_params=650,
            n_checkpoints=5,
            classes=m.classes,
            class_counts=counts,
            accuracy=accuracy,
            confusion=confusion,
            confidently_wrong=wrong.rows[:8],
            n_wrong=wrong.total,
            planted_share=float(m.planted.mean()) if m.planted.any() else None,
            default_method="grad_cos",
            default_reason=self.default_method(study)[1],
            groups=self.groups,
            training=self.training,
        )

    def predictions(self, study: str, query: views.PredictionFilter) -> views.PredictionList:
        """Filter and order the test rows."""
        m = self._material(study)
        rows = [self.datum(m, "test", i) for i in range(len(m.given["test"]))]
        rows = [d for d in rows if self._kept(d, query)]
        if query.order == "confidence":
            rows.sort(key=lambda d: -d.confidence)
        elif query.order == "random":
            rows = [rows[i] for i in np.random.default_rng(query.seed).permutation(len(rows))]
        return views.PredictionList(tuple(rows[: query.limit]), len(rows))

    @staticmethod
    def _kept(d: views.Datum, query: views.PredictionFilter) -> bool:
        wrong = d.given != d.predicted
        by_status = {"wrong": wrong, "confident-wrong": wrong and d.confidence > 0.8, "right": not wrong}
        return (
            by_status.get(query.status, True)
            and query.given in (None, d.given)
            and query.predicted in (None, d.predicted)
            and query.text.lower() in f"{d.row_id} {d.given} {d.predicted} {d.text or ''}".lower()
        )

    def methods(self, study: str) -> list[views.MethodView]:
        """List the methods, one of them unavailable and one without pairwise scores."""
        self._material(study)
        damping = views.ConfigField("damping", "Damping", "float", 0.01, "Added to the curvature.", 1e-8, 10.0)
        layers = views.ConfigField("layers", "Layers", "text", None, "Layers to look at; all if empty.", optional=True)
        weights = views.ConfigField("weights", "Weights", "choice", "rate", "Per checkpoint.", choices=("rate", "one"))
        many = [
            views.MethodView(
                id=name,
                title=title,
                family=family,
                summary=f"{title}: training rows whose gradient points the same way.",
                units=units,
                units_in_words=words,
                reference="Pruthi et al. 2020",
                measurements=() if family == "neighbor" else ("loss", "margin", "probability"),
                utility="k-NN accuracy" if family == "neighbor" else "",
                available=True,
                reason="",
                fitted=name in self.fitted,
                pairwise=True,
                fields=() if family == "neighbor" else (damping, weights, layers),
                layers=() if family == "neighbor" else ("conv1", "conv2", "head"),
            )
            for name, (title, family, units, words) in FAMILIES.items()
        ]
        loo = replace(
            many[2], id="loo", title="Leave-one-out", family="retraining", available=False, fitted=False,
            reason="Needs a recipe to retrain; this study has none.",
        )  # fmt: skip
        loss = replace(many[0], id="loss", title="Loss", family="baseline", pairwise=False, units="rank")
        return [*many, loo, loss]

    def default_method(self, study: str) -> tuple[str, str]:
        """Return the default method and why it is the default."""
        return "grad_cos", "a cosine is not drowned out by the few training rows with the largest gradients"

    def _fitted(self, request: views.ExplainRequest) -> bool:
        return request.method in self.fitted and not request.config

    def _rows(self, m: Material, request: views.ExplainRequest) -> list[int]:
        if request.split == "typed":
            return [self._typed_row(m, i) for i in request.ids]
        return [int(self.datum(m, request.split, i).row_id) for i in request.ids]

    def query(self, study: str, request: views.ExplainRequest) -> views.QueryView:
        """Return the explained row or set."""
        m = self._material(study)
        rows = self._rows(m, request)
        chance = m.probabilities["test"][rows].mean(0)
        order = np.argsort(-chance)
        title = f"Test row {rows[0]}" if len(rows) == 1 else f"{len(rows)} rows of one cell"
        bars = tuple((m.classes[c], float(chance[c])) for c in order)
        if request.split == "typed":
            own = replace(self.datum(m, "test", rows[0]), split="typed", row_id=request.ids[0], given="")
            if m.texts:
                own = replace(own, text=str(self.typed[request.ids[0]].get("text")))
            return views.QueryView("Your input", (own,), 1, bars, ("kind: <new> is not known.",))
        return views.QueryView(title, tuple(self.datum(m, "test", i) for i in rows[:6]), len(rows), bars)

    def input_attribution(self, study: str, split: str, row_id: Any, target: str) -> views.InputAttribution:
        """Return a heat map or signed parts."""
        m = self._material(study)
        x = m.inputs["test"][self._typed_row(m, row_id)] if split == "typed" else m.inputs[split][int(row_id)]
        if m.card.modality == "image":
            heat = np.stack([255 - x * 90, 255 - x * 200, 255 - x * 200], -1).reshape(8, 8, 3).astype(np.uint8)
            return views.InputAttribution(
                "Integrated gradients", "Red pixels spoke for the label.", png(heat), (), "Heat map"
            )
        names = m.columns or ("text", "row", "alert", "&")
        parts = tuple((n, float(v)) for n, v in sorted(zip(names, x, strict=False), key=lambda p: -abs(p[1]))[:6])
        return views.InputAttribution("Integrated gradients", "Signed contributions.", None, parts, "Contributions")

    def _scores(self, m: Material, request: views.ExplainRequest) -> np.ndarray:
        rows = self._rows(m, request)
        one_hot = np.eye(len(m.classes))
        p_train, p_test = m.probabilities["train"], m.probabilities["test"][rows]
        label = {"true": m.given["test"][rows], "predicted": p_test.argmax(1)}.get(request.target)
        if label is None:
            label = np.full(len(rows), m.classes.index(request.target))
        error_train, error_test = one_hot[m.given["train"]] - p_train, one_hot[label] - p_test
        scores = (error_test @ error_train.T) * (m.inputs["test"][rows] @ m.inputs["train"].T)
        if request.method == "grad_cos":
            norm = np.linalg.norm(error_train, axis=1) * np.linalg.norm(m.inputs["train"], axis=1)
            scores = (
                scores
                / (norm + 1e-12)
                / (
                    np.linalg.norm(error_test, axis=1, keepdims=True).clip(1e-12)
                    * np.linalg.norm(m.inputs["test"][rows], axis=1, keepdims=True)
                )
            )
        return scores.mean(0)

    def explain(self, study: str, request: views.ExplainRequest) -> views.Explanation | views.FitNeeded:
        """Rank the training rows, or say what a fit would cost."""
        if self.broken == "explain":
            raise ValueError("secret detail of a programming error")
        m = self._material(study)
        title, _family, units, words = FAMILIES.get(request.method, ("", "", "", ""))
        if not title:
            raise BadInput(f"There is no method {request.method!r}", "It is not in the catalogue.", "Open Methods.")
        if not self._fitted(request):
            return self._fit_needed(request, title)
        scores = self._scores(m, request)
        order = np.argsort(-scores)
        counts, edges = np.histogram(scores, bins=40)

        def ranked(rows: np.ndarray) -> tuple[views.RankedRow, ...]:
            return tuple(
                views.RankedRow(n + 1, float(scores[i]), self.datum(m, "train", i)) for n, i in enumerate(rows)
            )

        return views.Explanation(
            query=self.query(study, request),
            method=request.method,
            method_title=title,
            units=units,
            units_in_words=words,
            measured=f"the {request.measurement} the model gives to the {request.target} label",
            proponents=() if self.lonely else ranked(order[: request.k][scores[order[: request.k]] > 0]),
            opponents=ranked(order[::-1][: request.k][scores[order[::-1][: request.k]] < 0]),
            n_train=len(scores),
            counts=counts,
            edges=edges,
            share=1.0,
            share_in_words="looks at 100% of the model's parameters",
            notes=("Effective damping 0.010.",),
            seconds=0.012,
        )

    def _fit_needed(self, request: views.ExplainRequest, title: str) -> views.FitNeeded:
        key = f"{request.method}-{sorted(request.config.items())}"
        jobs = [self._now(*entry[:2]) for entry in self.queue if entry[0].key == key]
        return views.FitNeeded(
            method=request.method,
            method_title=title,
            key=key,
            seconds=self.fit_seconds,
            megabytes=38.0,
            in_words="About 40 s, 38 MB of disk. Once; every later prediction is instant.",
            job=jobs[0] if jobs else None,
        )

    def _now(self, job: views.JobView, started: float) -> views.JobView:
        if not job.is_active:
            return job
        share = min(1.0, (time.monotonic() - started) / self.fit_seconds)
        if share < 1.0:
            return replace(
                job,
                state="running",
                stage="train gradients",
                fraction=share,
                seconds_left=(1 - share) * self.fit_seconds,
            )
        if self.fail_fit:
            return replace(
                job, state="failed", is_active=False, message="The disk is full: 0 MB free. Free some space."
            )
        self.fitted.add(job.key.partition("-")[0])
        return replace(job, state="done", stage="done", fraction=1.0, seconds_left=0.0, is_active=False)

    def start_fit(self, study: str, request: views.ExplainRequest, client: str) -> views.JobView:
        """Start a job that advances with the clock."""
        key = f"{request.method}-{sorted(request.config.items())}"
        job = views.JobView(
            next(self._numbers), key, f"Fit {FAMILIES[request.method][0]}", "queued", "waiting", 0.0, None,
            self.fit_seconds, "", True,
        )  # fmt: skip
        self.queue.insert(0, (job, time.monotonic(), client))
        return job

    def job(self, study: str, job_id: int) -> views.JobView | None:
        """Return one job as it is now."""
        return next((job for job in self.listed_jobs(study) if job.id == job_id), None)

    def listed_jobs(self, study: str) -> list[views.JobView]:
        """Return all jobs, newest first."""
        self.queue = [(self._now(job, started), started, client) for job, started, client in self.queue]
        return [job for job, _, _ in self.queue]

    def touch_job(self, study: str, job_id: int, client: str) -> None:
        """Note that a client still waits."""

    def cancel_job(self, study: str, job_id: int, client: str) -> str:
        """Cancel a job; one started by another client is only left."""
        for n, (job, started, owner) in enumerate(self.queue):
            if job.id == job_id and owner == client:
                self.queue[n] = (replace(job, state="cancelled", is_active=False), started, owner)
                return "cancelled"
        return "detached"

    def dismiss_job(self, study: str, job_id: int) -> None:
        """Forget a finished job."""
        self.queue = [entry for entry in self.queue if entry[0].id != job_id]

    def row_card(self, study: str, split: str, row_id: Any, method: str) -> views.RowCard:
        """Return a row's own page."""
        m = self._material(study)
        d = self.datum(m, split, row_id)
        i = int(d.row_id)
        chance = m.probabilities[split][i]
        losses = -np.log(m.probabilities[split][np.arange(len(m.given[split])), m.given[split]])
        near = m.inputs["train"] @ m.inputs[split][i]
        near = near / np.linalg.norm(m.inputs["train"], axis=1) / np.linalg.norm(m.inputs[split][i])
        if split == "train":
            near[i] = -2.0
        neighbours = [
            views.RankedRow(n + 1, float(near[j]), self.datum(m, "train", j))
            for n, j in enumerate(np.argsort(-near)[:6])
        ]
        helps = [views.RankedRow(n + 1, 0.3 - 0.05 * n, self.datum(m, "test", n)) for n in range(5)]
        hurts = [views.RankedRow(n + 1, -0.2 + 0.03 * n, self.datum(m, "test", 9 + n)) for n in range(5)]
        ready = split == "train" and method in self.fitted
        return views.RowCard(
            datum=d,
            probabilities=tuple((m.classes[c], float(chance[c])) for c in np.argsort(-chance)),
            loss=float(losses[i]),
            loss_rank=int((losses > losses[i]).sum()) + 1,
            n_rows=len(losses),
            neighbours=tuple(neighbours),
            method=method,
            method_title=FAMILIES.get(method, ("",))[0],
            helps=tuple(helps) if ready else (),
            hurts=tuple(hurts) if ready else (),
            affected_note="" if ready else "Open one of its explanations once to fit this method.",
        )

    def export_scores(self, study: str, request: views.ExplainRequest, format: str) -> bytes:
        """Return the scores as a file."""
        scores = self._scores(self._material(study), request)
        return "\n".join(["row_id,score", *(f"{i},{s}" for i, s in enumerate(scores))]).encode()

    def typed_form(self, study: str, split: str = "", row_id: Any = "") -> service.TypedForm:
        """Return the form: one area for a text, a file for an image, a number for every column of a table."""
        m = self._material(study)
        if m.card.modality == "image":
            return service.TypedForm((service.TypedField("pixels", "image", "", "", (), False, False),), 0, 50)
        start = self._typed_row(m, row_id) if split == "typed" else int(row_id) if split else None
        if m.texts:
            value = m.texts["test"][start] if start is not None else ""
            return service.TypedForm((service.TypedField("text", "text", value, "", (), False, False),), 0, 50)
        cells = m.raw["test"][start] if start is not None else [0.5] * len(m.columns)
        made = [
            service.TypedField(c, "number", f"{v:.4g}", "0.5", (), True, False)
            for c, v in zip(m.columns, cells, strict=True)
        ]
        word = service.TypedField("<b>kind_", "category", "a", "a", ("a", "<i>"), True, False)
        return service.TypedForm((*made, word), 3, 50)

    def _typed_row(self, m: Material, row_id: Any) -> int:
        if row_id not in self.typed:
            raise BadInput("This input is not kept any more", "The study has no such row.", "Type it again.")
        return len(str(self.typed[row_id])) % len(m.given["test"])

    def keep_typed(self, study: str, values: dict[str, Any], split: str = "", row_id: Any = "") -> str:
        """Keep what was typed; it is answered as some test row is."""
        self._material(study)
        if "" in values.values():
            raise BadInput("The text cannot be used", "It is <empty>.", "Type something.")
        token = f"{abs(hash(str(values))):032x}"
        self.typed[token] = values
        return token

    def disk_use(self, study: str) -> tuple[int, int]:
        """Return bytes used and allowed."""
        return 38_000_000, 20_000_000_000


FUNCTIONS = (
    "typed_form keep_typed "
    "studies overview predictions methods default_method query input_attribution explain start_fit job "
    "listed_jobs touch_job cancel_job dismiss_job row_card export_scores disk_use"
).split()


def install(fake: FakeService, put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Put the functions of ``fake`` in place of the real ones; ``put`` may be ``monkeypatch.setattr``."""

    def recorded(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            fake.calls.append(name)
            return getattr(fake, name)(*args, **kwargs)

        return call

    for name in FUNCTIONS:
        put(service, name, recorded(name))
    for name in fake_imports.FUNCTIONS:
        put(service, name, getattr(fake.imports, name))
    for name in fake_keeping.FUNCTIONS:
        put(service, name, getattr(fake.keeping, name))
    for name in fake_versions.FUNCTIONS:
        put(service, name, getattr(fake.compare, name))
    for name in fake_reviews.FUNCTIONS:
        put(service, name, getattr(fake.reviews, name))
    for name in fake_checks.FUNCTIONS:
        put(service, name, getattr(fake.checking, name))
    for name in fake_trust.FUNCTIONS:
        put(service, name, getattr(fake.trusting, name))
    for name in fake_suspects.FUNCTIONS:
        put(service, name, getattr(fake.suspicion, name))
    fake.map.datum = fake.datum
    for name in fake_map.FUNCTIONS:
        put(service, name, getattr(fake.map, name))


@cache
def install_once() -> None:
    """Install one fake for the life of the process."""
    install(FakeService())
