"""Check it: the rows on screen dropped, relabelled or made lighter, the model trained again, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import streamlit as st

from influence_core import service
from pages.components import errors, jobs, session
from pages.components.html import element, signed, text

ACTIONS = {"drop": "Drop", "flip": "Relabel", "downweight": "Down-weight"}
Place = Callable[[float], float]  # from a value to percent of the axis
_OPEN = "check_open"
_WHAT = "Change the rows above, train again, and see what becomes of this prediction."


def panel(study: str, result: service.Explanation | service.FitNeeded, request: service.ExplainRequest) -> None:
    """Draw the checks of this prediction, the one under way, and the form for another."""
    if isinstance(result, service.FitNeeded):
        return
    page = service.checks(study, request)
    is_open = bool(session.kept(_OPEN)) and not page.problem
    with st.container(horizontal=True, key="check_head"):
        words = f"This cannot be checked by training again. {page.problem}" if page.problem else _WHAT
        st.html(element("h2", "Check it", element("small", text(words), title=words)))
        if not page.problem:
            st.button(
                "Close" if is_open else "Check it", icon=":material/close:" if is_open else ":material/science:",
                key="check_toggle", on_click=session.keep, args=(_OPEN, not is_open),
            )  # fmt: skip
    if page.job is not None:
        _job(study, page.job)
    if is_open:
        _form(study, page, result, request)
    if page.made:
        st.html(card(page.made[0]))
    if page.made[1:]:
        with st.expander(f"Earlier checks of this prediction ({len(page.made) - 1})", icon=":material/history:"):
            st.html("".join(card(one) for one in page.made[1:]))


def _job(study: str, job: service.JobView) -> None:
    if not job.is_active:
        css, words = "if-failed", job.message
        if job.state == "cancelled":
            css, words = "if-scale", "Cancelled. Models that were trained are kept; starting again goes on from there."
        st.html(element("p", text(words), css=css, role="alert" if css == "if-failed" else "status"))
        return
    with st.container(key="check_job", border=True):
        if session.has_left(job.id):
            st.html(element("p", "You left this check; it goes on because another window waits for it."))
            st.button("Wait for it", key="check_wait", on_click=session.come_back, args=(job.id,))
            return
        st.fragment(jobs.watch, run_every=jobs.POLL_SECONDS)(study, job.id, "the check", [0])


def _form(
    study: str, page: service.ChecksView, result: service.Explanation, request: service.ExplainRequest
) -> None:  # fmt: skip
    counts = {"proponents": len(result.proponents), "opponents": len(result.opponents)}
    label, weight, seeds = service.SUGGESTED, 0.5, 1
    with st.container(horizontal=True, vertical_alignment="bottom", key="check_line"):
        actions = [name for name in ACTIONS if page.classifies or name != "flip"]
        action = st.selectbox("Do", actions, format_func=ACTIONS.__getitem__, key="check_action")
        side = st.selectbox("What", list(counts), format_func=lambda name: _counted(counts[name], name),
                            key="check_side")  # fmt: skip
        if action == "flip":
            labels = service.check_labels(study, request)
            label = st.selectbox("To", labels, format_func=lambda name: name or "as Suspects suggests",
                                 key="check_label")  # fmt: skip
        if action == "downweight":
            weight = st.number_input("Weight", 0.0, 0.95, 0.5, 0.05, key="check_weight", help="An unchanged row has 1.")
        if not page.converged:
            seeds = st.number_input(
                "Trainings", 1, 50, 5, key="check_seeds",
                help="So many pairs: each has the same first weights and order of rows, with the change and without.",
            )  # fmt: skip
        draws = st.number_input(
            "Random draws", 0, 50, 5, key="check_draws", help="The same is done to as many random rows, so often."
        )
        wanted = service.CheckRequest(action, side, label, float(weight), int(seeds), int(draws))
        with errors.shown():
            offer = service.check_offer(study, request, wanted)
            st.button(
                "Train", type="primary", key="check_start", on_click=_start, args=(study, request, wanted),
                disabled=bool(offer.problem) or offer.known or not page.may_check,
            )  # fmt: skip
    said = [offer.problem or offer.in_words, "" if page.may_check else "Only an owner of the study trains models."]
    if any(said):
        st.html(element("p", text(" ".join(filter(None, said))), css="if-scale", role="status"))


def _counted(count: int, side: str) -> str:
    return f"{count} {side if count != 1 else side[:-1]}"


def _start(study: str, request: service.ExplainRequest, wanted: service.CheckRequest) -> None:
    with errors.shown():
        service.start_check(study, request, wanted, session.client())
        session.keep(_OPEN, None)


# -- a check as HTML ------------------------------------------------------------------------------------------------


def card(check: service.CheckView) -> str:
    """Return a check: what became of the prediction, the changes on one axis, and what they mean for each other."""
    pairs = check.actual.change.n
    how = "training ends in the same place whatever the seed" if check.converged else (
        f"{pairs} pair{'s' * (pairs != 1)} of trainings with the same seeds")  # fmt: skip
    scale = f"{check.title} · change of {check.measured} · {how}"
    said = [*check.findings, *check.notes]
    notes = element("ul", *(element("li", text(sentence)) for sentence in said), css="if-notes") if said else ""
    headline = element("p", element("b", text(check.headline)), css="if-headline")
    return element("article", headline, element("p", text(scale), css="if-scale"), strip(check), notes, css="if-check",
                   aria_label=check.title)  # fmt: skip


def strip(check: service.CheckView) -> str:
    """Return what was foreseen, what happened and what random rows do, all on one axis with zero in it."""
    amounts = [one.change for one in check.foreseen if one.change is not None]
    moved = [part for part in (check.actual, check.random) if part.change.n]
    ends = [end for part in moved for end in (part.change.low, part.change.high, *part.each)]
    place = _axis([0.0, *amounts, *ends])
    none = f'<i class="if-none" style="left:{place(0.0):.2f}%"></i>'
    has_interval = any(math.isfinite(part.change.low) for part in moved)
    lines = [_heads(place(0.0), has_interval), *(_foreseen(one, place, none) for one in check.foreseen)]
    rows = "This row" if check.n_rows == 1 else f"These {check.n_rows} rows"
    lines.append(_moved(rows, check.actual, place, none, "if-actual"))
    if check.random.change.n:
        random = "1 random row" if check.n_rows == 1 else f"{check.n_rows} random rows"
        lines.append(_moved(random, check.random, place, none, "if-random"))
    return element("ul", *lines, css="if-strip")


def _axis(values: Sequence[float]) -> Place:
    """Return the function from a value to percent of the track's width."""
    known = [value for value in values if math.isfinite(value)]
    low, high = min(known), max(known)
    width = (high - low) or 1.0
    return lambda value: 2 + 96 * (value - low) / width


def _heads(zero: float, has_interval: bool) -> str:
    """Return what the columns are; the words over the dashed line stay inside the track wherever the line is."""
    none = f'<small style="left:{zero:.2f}%;transform:translateX(-{zero:.2f}%)">no change</small>'
    heads = [element("small", text(name)) for name in ("change", "95% interval" if has_interval else "", "")]
    return element("li", "<span></span>", f'<span class="if-track">{none}</span>', *heads, css="if-heads")


def _foreseen(one: service.ForeseenView, place: Place, none: str) -> str:
    name = element("span", text(f"{one.title} foresaw"), title=one.note)
    direction = {1: "▲ it rises", -1: "▼ it falls"}.get(one.sign, "nothing")
    point = "" if one.change is None else f'<i class="if-point" style="left:{place(one.change):.2f}%"></i>'
    said = direction if one.change is None else signed(one.change)
    return _line(name, none + point, (said, "", ""), "if-foresaw")


def _moved(name: str, part: service.Moved, place: Place, none: str, css: str) -> str:
    change, marks, interval, flips = part.change, [none], "", ""
    if math.isfinite(change.low):
        start, end = place(change.low), place(change.high)
        marks.append(f'<i class="if-reach" style="left:{start:.2f}%;width:{end - start:.2f}%"></i>')
        interval = f"{signed(change.low)} to {signed(change.high)}"
    marks += [f'<i class="if-each" style="left:{place(value):.2f}%"></i>' for value in part.each]
    marks.append(f'<i class="if-mean" style="left:{place(change.value):.2f}%"></i>')
    if part.flips is not None:
        flips = f"other prediction in {part.flips} of {change.n}"
    said = signed(change.value) if change.value else "0"
    return _line(element("span", text(name)), "".join(marks), (said, interval, flips), css)


def _line(name: str, marks: str, said: tuple[str, str, str], css: str) -> str:
    track = f'<span class="if-track" aria-hidden="true">{marks}</span>'
    value, interval, flips = map(text, said)
    beside = element("small", interval, title="95% interval of the mean over the trainings", css="if-interval")
    beside += element("small", flips, css="if-flips")
    return element("li", name, track, element("span", value, css="if-num"), beside, css=css)
