"""Jobs on screen: what a fit will cost, how far it is, how it ended; in the place of the cards and in the sidebar.

Only the two fragments here poll, and only while a job is active.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from influence_core import service
from pages.components import errors, session
from pages.components.html import element, text

CHEAP_SECONDS = 10.0  # a fit this short starts without being asked, so that evidence needs no click
POLL_SECONDS = 1.0


def duration(seconds: float | None) -> str:
    """Return a duration as people say it: "3 s", "2 min", "1.5 h"."""
    if seconds is None:
        return "not known yet"
    if seconds < 1:
        return "under 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def fit_panel(study: str, needed: service.FitNeeded, request: service.ExplainRequest) -> None:
    """Draw what stands between the person and the answer: a price and a button, or a job on its way."""
    panel(study, needed, partial(service.start_fit, study, request, session.client()))


def panel(study: str, needed: service.FitNeeded, start: Callable[[], service.JobView], key: str = "fit") -> None:
    """Draw the price of some work with a button that starts it, or its job on its way; cheap work starts by itself.

    Args:
        study: Where.
        needed: The work.
        start: Starts it.
        key: Of the panel, where a screen has several; only the main one starts by itself.
    """
    job, cheap = needed.job, key == "fit" and needed.seconds <= CHEAP_SECONDS
    if job is None and cheap and session.first_time(f"auto {study} {needed.key}"):
        job = start()
    with st.container(key=key, border=True):
        if job is not None and job.is_active and not session.has_left(job.id):
            poll = POLL_SECONDS / 2 if needed.seconds <= CHEAP_SECONDS else POLL_SECONDS
            st.fragment(watch, run_every=poll)(study, job.id, needed.method_title, [0])
        else:
            st.html(offer(needed, job))
            label = "Retry" if job is not None and job.state == "failed" else "Start"
            if job is not None and job.is_active:
                st.button("Wait for it", key=f"{key}_wait", type="primary", on_click=session.come_back, args=(job.id,))
            else:
                st.button(label, key=f"{key}_start", type="primary", on_click=_start, args=(start,))


def followed(
    study: str, job: service.JobView | None, what: str, key: str, again: Callable[[int, str], object], may: bool
) -> bool:
    """Draw a job in the place of the form that started it; return whether it is under way.

    One that failed or was cancelled says so above the form, with a button that goes on from what it had finished.

    Args:
        study: Where.
        job: The latest one of this form, if it still says something.
        what: What it computes, to follow "Computing".
        key: Of the form.
        again: Queues a job that ended once more, for a client.
        may: Whether whoever looks may start it.
    """
    if job is None:
        return False
    with st.container(key=f"{key}_job", border=True):
        if job.is_active and not session.has_left(job.id):
            st.fragment(watch, run_every=POLL_SECONDS)(study, job.id, what, [0])
        elif job.is_active:
            st.html(element("p", "You left this job; it goes on because another window waits for it.", css="if-scale"))
            st.button("Wait for it", key=f"{key}_wait", on_click=session.come_back, args=(job.id,))
        else:
            failed = job.state == "failed"
            kept = "What was finished is kept."
            said = job.message if failed else f"Cancelled. {kept}"
            st.html(element("p", text(said), css="if-failed" if failed else "if-scale", role="alert" * failed))
            with st.container(horizontal=True, gap="small"):
                st.button(
                    "Go on from there", key=f"{key}_again", on_click=_again, args=(again, job.id), disabled=not may
                )
                st.button("Dismiss", key=f"{key}_dismiss", type="tertiary", on_click=service.dismiss_job,
                          args=(study, job.id))  # fmt: skip
    return job.is_active


def _again(again: Callable[[int, str], object], job_id: int) -> None:
    with errors.shown():
        again(job_id, session.client())


def _start(start: Callable[[], service.JobView]) -> None:
    with errors.shown():
        start()


def offer(needed: service.FitNeeded, job: service.JobView | None) -> str:
    """Return the panel of a fit that is not under way, as HTML."""
    title = f"{needed.method_title} has not been computed yet"
    lines = [element("p", text(needed.in_words))]
    if job is not None and job.is_active:
        title = f"{needed.method_title} is being computed"
        lines = [element("p", "You left this job; it goes on because another window waits for it.")]
    elif job is not None and job.state == "failed":
        title = f"Computing {needed.method_title} failed"
        lines.insert(0, element("p", text(job.message), css="if-failed", role="alert"))
    elif job is not None and job.state == "cancelled":
        lines.insert(0, element("p", "Cancelled. What was finished is kept; starting again goes on from there."))
    return element("div", element("b", text(title)), *lines, css="if-fit", role="status")


def progress(job: service.JobView, title: str) -> str:
    """Return a job's progress as HTML."""
    share = min(max(job.fraction, 0.0), 1.0)
    left = "waiting for its turn" if job.state == "queued" else f"{duration(job.seconds_left)} left"
    bar = element(
        "div",
        f'<i style="width:{100 * share:.1f}%"></i>',
        css="if-progress",
        role="progressbar",
        aria_valuemin="0",
        aria_valuemax="100",
        aria_valuenow=f"{100 * share:.0f}",
        aria_label=title,
    )
    line = element("span", text(job.stage or job.state)) + element("span", f"{share:.0%} · {left}", css="if-num")
    return element("div", element("b", text(title)), bar, element("p", line, css="if-between"), css="if-fit")


def watch(study: str, job_id: int, title: str, ticks: list[int]) -> None:
    """Poll one job in the place of the cards; when it ends, the whole page is drawn once more.

    ``ticks`` counts the calls. The first one belongs to a run of the whole page and must not ask for another: if the
    job ended between two questions of that run, the next tick notices.
    """
    ticks[0] += 1
    with errors.shown():
        job = service.job(study, job_id)
        over = job is None or not job.is_active
        if ticks[0] > 1 and (over or session.take_redraw()):
            st.rerun()
        if job is None or over:
            st.html(element("div", element("b", "Finishing …"), css="if-fit"))
            return
        service.touch_job(study, job_id, session.client())
        st.html(progress(job, f"Computing {title}"))
        st.button("Cancel", key=f"cancel_here_{job_id}", on_click=_cancel, args=(study, job_id))


def _cancel(study: str, job_id: int) -> None:
    with errors.shown():
        if service.cancel_job(study, job_id, session.client()) == "detached":
            session.leave(job_id)
            session.say("You no longer wait for this job; it goes on because another window does.")
        else:
            session.say("The job is cancelled; what was finished is kept.")
    session.ask_redraw()


def job_list(study: str) -> None:
    """Draw the study's jobs in the sidebar; polls only while one is active."""
    active = tuple(job.id for job in service.listed_jobs(study) if job.is_active)
    st.fragment(_listed, run_every=POLL_SECONDS if active else None)(study, active, [0])


def _listed(study: str, active: tuple[int, ...], ticks: list[int]) -> None:
    ticks[0] += 1
    with errors.shown():
        jobs = service.listed_jobs(study)
        ended = any(job.id in active and not job.is_active for job in jobs)
        if ticks[0] > 1 and (ended or session.take_redraw()):
            st.rerun()
        if not jobs:
            st.html(element("p", "No jobs.", css="if-scale"))
        for job in jobs[:6]:
            _line(study, job)


def _line(study: str, job: service.JobView) -> None:
    with st.container(key=f"job_{job.id}", gap=None):
        if job.is_active:
            st.html(progress(job, job.title))
            st.button("Cancel", key=f"cancel_{job.id}", type="tertiary", on_click=_cancel, args=(study, job.id))
            return
        mark = {"done": "✓", "failed": "✗", "cancelled": "○"}.get(job.state, "")
        said = element("small", text(job.message), css="if-failed") if job.state == "failed" else ""
        st.html(element("div", element("span", text(f"{mark} {job.title}: {job.state}")), said, css="if-job"))
        st.button(
            "Dismiss", key=f"dismiss_{job.id}", type="tertiary", on_click=service.dismiss_job, args=(study, job.id)
        )
