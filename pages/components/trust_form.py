"""The form of the screen Trust: which questions, which methods, at which price; then the job on its way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import streamlit as st

from influence_core import service
from pages.components import errors, jobs, session
from pages.components.html import element, plain_label, text
from pages.components.trust import reasons

_CHOSEN, _SUBSETS, _SEEDS, _ANYWAY = "trust_methods", "trust_subsets", "trust_seeds", "trust_anyway"
_OWNERS = "Only an owner of the study measures it."


def measure(study: str, page: service.TrustPage) -> None:
    """Draw the form that measures, with its prices, or the job on its way."""
    st.html(element("h2", "Measure"))
    again = partial(service.resume_measuring, study)
    if jobs.followed(study, page.job, "how far the methods can be believed", "trust", again, page.may_measure):
        return
    methods = _methods(page)
    left, right = st.columns([3, 2], gap="medium")
    with right:
        subsets, seeds = _numbers()
        start = st.container()
    plan = None
    with errors.shown():
        plan = service.measuring_plan(study, methods, _asked(page), subsets, seeds)
    with left:
        metrics = _metrics(page, plan)
    with start:
        _start(study, page, methods, metrics, (subsets, seeds), plan)
    if page.cannot:
        with st.expander(f"Methods that cannot run here ({len(page.cannot)})", key="trust_cannot"):
            st.html(reasons(page.cannot))


def _methods(page: service.TrustPage) -> list[str]:
    titles = {one.method: priced(one) for one in page.candidates}
    held = session.remembered(_CHOSEN, None)
    suggested = [one.method for one in page.candidates if one.suggested]
    now = suggested if held is None else [name for name in held if name in titles]
    chosen = st.multiselect(
        "Methods, with the estimate for fitting each and answering for 100 predictions", list(titles),
        format_func=titles.__getitem__, **session.shown(_CHOSEN, now, shows="default"),
    )  # fmt: skip
    return session.remember(_CHOSEN, chosen)


def priced(one: service.Candidate) -> str:
    """Return a method with its price, for the list to choose from."""
    return f"{one.title} · {jobs.duration(one.seconds)}{' ⚠ very dear' if one.dear else ''}"


def _numbers() -> tuple[int, int]:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="trust_line"):
        halves, each = session.remembered(_SUBSETS, 50), session.remembered(_SEEDS, 2)
        subsets = st.number_input("Random halves", 10, 500, step=10, width=140,
                                  **session.shown(_SUBSETS, halves, shows="value"))  # fmt: skip
        seeds = st.number_input("Trainings of each", 1, 10, width=140,
                                help="Two or more show how noisy retraining itself is.",
                                **session.shown(_SEEDS, each, shows="value"))  # fmt: skip
    return session.remember(_SUBSETS, int(subsets)), session.remember(_SEEDS, int(seeds))


def _key(metric: str) -> str:
    return f"trust_ask_{metric}"


def _asked(page: service.TrustPage) -> list[str]:
    """Return the questions that are ticked, before their boxes are drawn with their prices."""
    return [one.name for one in page.metrics if not one.problem and session.remembered(_key(one.name), one.suggested)]


def _metrics(page: service.TrustPage, plan: service.MeasuringPlan | None) -> list[str]:
    st.html(element("p", "Questions, each with its price", css="if-label"))
    chosen = []
    for one in page.metrics:
        price = one.problem or (plan.prices.get(one.name, "") if plan is not None else "")
        now = bool(session.remembered(_key(one.name), one.suggested) and not one.problem)
        label = f"**{plain_label(one.title)}** · {_plain(price)}"
        ticked = st.checkbox(label, help=one.question, disabled=bool(one.problem),
                             **session.shown(_key(one.name), now, shows="value"))  # fmt: skip
        if not one.problem and session.remember(_key(one.name), ticked):
            chosen.append(one.name)
    return chosen


def _plain(words: str) -> str:
    return " ".join(plain_label(words[at : at + 80]) for at in range(0, len(words), 80)) if words else ""


def _start(
    study: str, page: service.TrustPage, methods: Sequence[str], metrics: Sequence[str], numbers: tuple[int, int],
    plan: service.MeasuringPlan | None,
) -> None:  # fmt: skip
    dear = plan.dear if plan is not None and methods else ()
    if plan is not None and methods and metrics:
        st.html(element("p", text(plan.words), css="if-scale"))
    for line in _silent(page, methods, metrics):
        st.html(element("p", text(line), css="if-scale"))
    anyway = True
    if dear:
        st.html(element("div", *(element("p", text(line)) for line in dear), css="if-problem", role="alert"))
        anyway = st.checkbox("Start all the same", key=_ANYWAY)
    ready = bool(methods and metrics and page.may_measure and anyway and plan is not None)
    st.button(
        "Measure", type="primary", key="trust_start", icon=":material/science:", on_click=_begin,
        args=(study, list(methods), list(metrics), *numbers), disabled=not ready,
        help=None if page.may_measure else _OWNERS,
    )  # fmt: skip


def _silent(page: service.TrustPage, methods: Sequence[str], metrics: Sequence[str]) -> list[str]:
    """Return what the chosen questions will not say of the chosen methods."""
    titles = {one.name: one.title for one in page.metrics}
    lines = [
        f"“{titles[metric]}” says nothing of {one.title}: {one.unjudged[metric]}."
        for metric in metrics for one in page.candidates if one.method in methods and metric in one.unjudged
    ]  # fmt: skip
    return lines if len(lines) <= 4 else [*lines[:3], f"And {len(lines) - 3} more such pairs; they are left out."]


def _begin(study: str, methods: list[str], metrics: list[str], subsets: int, seeds: int) -> None:
    with errors.shown():
        service.start_measuring(study, methods, session.client(), metrics, subsets, seeds)
