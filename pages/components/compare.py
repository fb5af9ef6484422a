"""Two versions side by side: retraining offered and watched, the figures before and after, one prediction twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from influence_core import service
from pages.components import cards, errors, jobs, session
from pages.components.html import element, empty, number, signed, text
from pages.components.view import View

_CELLS = 24
_ORIGINAL = "original"


def offer(study: str, wanted: service.RetrainOffer, made: Sequence[service.Version]) -> None:
    """Draw what retraining would do with its button, or how far it is."""
    st.html(element("header", element("h1", "Compare"), css="if-hero"))
    job = wanted.job
    if job is not None and job.is_active:
        watch(study, job)
        return
    if wanted.problem:
        st.html(empty("This study cannot be retrained", wanted.problem))
        return
    if not any(wanted.counts.values()):
        if not made:
            advice = "Decide about rows in Review. Then pairs of models are trained, with and without your decisions, "
            advice += "and this page shows what they changed: accuracy on rows nobody looked at, classes, predictions."
            st.html(empty("No decision changes a row yet", advice))
        return
    if wanted.known:
        st.html(element("p", "The decisions as they stand are in a version already.", css="if-scale"))
        return
    _start(study, wanted)


def _start(study: str, wanted: service.RetrainOffer) -> None:
    said = ", ".join(f"{n:,} {word}" for word, n in wanted.counts.items() if n and word != "test")
    test = wanted.counts.get("test", 0)
    lines = [f"{said or 'No'} training rows" + (f"; {test:,} test rows corrected" if test else "") + "."]
    lines.append(f"{wanted.in_words[:1].upper()}{wanted.in_words[1:]}. The original stays as it is.")
    if wanted.undecided:
        lines.append(f"{wanted.undecided:,} rows on which reviewers disagree stay as they are.")
    failed = wanted.job is not None and wanted.job.state == "failed"
    problem = element("p", text(wanted.job.message), css="if-failed", role="alert") if failed and wanted.job else ""
    st.html(element("div", problem, *(element("p", text(line)) for line in lines), css="if-fit"))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="retrain_line"):
        name = st.text_input("Name of the version", "corrected", key="retrain_name", max_chars=60)
        st.button(
            "Retrain on the corrected data", type="primary", key="retrain", icon=":material/model_training:",
            on_click=_retrain, args=(study, name), disabled=not wanted.owned,
            help=None if wanted.owned else "Only an owner of the study retrains it.",
        )  # fmt: skip


def _retrain(study: str, name: str) -> None:
    with errors.shown():
        service.start_retrain(study, name, session.client())


def watch(study: str, job: service.JobView) -> None:
    """Draw a job that is under way; the page is drawn anew when it ends, as the list of jobs notices."""
    st.html(jobs.progress(job, job.title))


def chosen(view: View, made: Sequence[service.Version]) -> tuple[str, str]:
    """Draw the choice of the two versions, and return their ids."""
    names = {"": _ORIGINAL, **{version.id: f"{version.name} ({version.id})" for version in made}}
    after = view.after if view.after in names and view.after else made[-1].id
    before = view.before if view.before in names and view.before != after else ""
    with st.container(horizontal=True, gap="small", key="compare_pick"):
        earlier, later = [one for one in names if one != after], [one for one in names if one]
        st.selectbox("Before", earlier, format_func=names.__getitem__,
                     **session.widget("before", before, among=earlier))  # fmt: skip
        st.selectbox("After", later, format_func=names.__getitem__,
                     **session.widget("after", after, among=later))  # fmt: skip
    return before, after


def summary(found: service.Comparison) -> str:
    """Return headline, alarm and the table before/after, as HTML."""
    alarm = element("div", element("b", "⚠ Alarm"), element("p", text(found.alarm)), css="if-problem", role="alert")
    lines = []
    for split in found.splits:
        name = f"{split.split} ({split.n:,} rows)"
        if split.accuracy is not None:
            lines.append(_line(f"Accuracy, {name}", split.accuracy, percents=True))
        lines.append(_line(f"Mean loss, {name}", split.loss, percents=False))
    if found.agreement is not None:
        lines.append(_line("Agrees with its training labels", found.agreement, percents=True))
    return element(
        "section",
        element("h2", text(f"{found.names[0]} → {found.names[1]}"), element("small", text(found.study))),
        element("p", element("b", text(found.headline)), css="if-headline"),
        alarm if found.alarm else "",
        element("p", text(found.doubt), css="if-doubt") if found.doubt else "",
        _table(("Figure", "Before", "After", "Change", "95% interval"), lines),
        element("p", text(" ".join(found.notes)), css="if-scale"),
        element("p", text(gain_in_words(found))),
        css="if-compare",
    )


def gain_in_words(found: service.Comparison) -> str:
    """Return predicted beside realised benefit as a sentence."""
    realised = f"The mean loss of the test rows fell by {number(found.realised)}" if found.realised >= 0 else (
        f"The mean loss of the test rows rose by {number(-found.realised)}")  # fmt: skip
    if found.predicted is None:
        return f"{realised}. No prediction to compare with: {found.predicted_by}"
    way = "fall" if found.predicted >= 0 else "rise"
    return f"{realised}; influence ({found.predicted_by}) had predicted a {way} by {number(abs(found.predicted))}."


def details(found: service.Comparison) -> str:
    """Return figures by class and slice, and the change of the confusion matrix, as HTML."""
    parts = []
    if found.classes:
        lines = [_line(item.name, item.change, percents=True) for item in found.classes]
        title = f"Accuracy by class, {found.reported} rows"
        parts.append(element("h3", text(title)) + _table(("Class", "Before", "After", "Change", "95% interval"), lines))
    if found.slices:
        is_share = found.confusion is not None
        lines = [_line(f"{item.column}: {item.name}", item.change, percents=is_share) for item in found.slices]
        title = f"By group, {found.reported} rows"
        parts.append(element("h3", title) + _table(("Group", "Before", "After", "Change", "95% interval"), lines))
    if found.confusion is not None:
        title = f"Change of the confusion matrix, {found.reported} rows"
        words = "Given in rows, predicted in columns, mean over the models; outlined is worse."
        parts.append(element("h3", text(title), element("small", words)) + confusion_change(found))
    return element("section", *parts, css="if-compare")


def confusion_change(found: service.Comparison) -> str:
    """Return the change of the confusion matrix; the sign, not a colour, says the direction."""
    assert found.confusion is not None
    change = found.confusion[1] - found.confusion[0]
    loud = np.sort(np.argsort(-(np.abs(change).sum(0) + np.abs(change).sum(1)), kind="stable")[:_CELLS])
    top = max(float(np.abs(change).max(initial=0)), 1e-9)
    head = element("tr", "<td></td>", *(element("th", text(found.labels[c]), scope="col") for c in loud))
    lines = []
    for g in loud:
        cells = []
        for p in loud:
            value = float(change[g, p])
            better = (value > 0) == (g == p)
            words = f"labelled {found.labels[g]}, predicted {found.labels[p]}: {value:+.1f} rows"
            mark = "·" if abs(value) < 0.05 else f"{value:+.1f}".replace("-", "−")
            tint = f' style="--tint:{10 + 40 * abs(value) / top:.0f}%"' if mark != "·" else ""
            css = "if-zero" if mark == "·" else "if-better" if better else "if-worse"
            cells.append(f'<td class="{css}"{tint} title="{text(words)}">{mark}</td>')
        lines.append(element("tr", element("th", text(found.labels[g]), scope="row"), *cells))
    caption = element(
        "caption", f"Change of the confusion matrix of the {text(found.reported)} rows, mean over the models: given in "
        "rows, predicted in columns; outlined is worse",
    )  # fmt: skip
    table = element("table", caption, head, *lines, css="if-confusion")
    return element("div", table, css="if-scroll")


def _line(name: str, change: service.Paired, percents: bool) -> str:
    if percents:
        figures = f"{change.before:.1%}", f"{change.after:.1%}", f"{100 * change.change:+.1f} points"
        spread = f"{100 * change.low:+.1f} to {100 * change.high:+.1f}"
    else:
        figures = number(change.before), number(change.after), signed(change.change)
        spread = f"{signed(change.low)} to {signed(change.high)}"
    cells = (element("td", text(value.replace("-", "−")), css="if-num") for value in (*figures, spread))
    return element("tr", element("th", text(name), scope="row"), *cells)


def _table(head: Sequence[str], lines: Sequence[str]) -> str:
    names = element("tr", *(element("th", name, scope="col") for name in head))
    inside = element("table", element("thead", names), element("tbody", *lines), css="if-methods")
    return element("div", inside, css="if-scroll")


def same(view: View, found: service.SamePrediction) -> None:
    """Draw one test row as both versions predict it, with the training rows behind each."""
    st.html(element("h2", "The same prediction again", element("small", text(f"test row {found.row_id}")))
            + element("p", text(found.chosen), css="if-scale"))  # fmt: skip
    options = {"": "The worst before", **{str(row): f"row {row}: {words}" for row, words in found.others}}
    if view.again:
        options.setdefault(str(found.row_id), f"row {found.row_id}")
    st.selectbox("Another test row (wrong before first, then those that changed most)", list(options),
                 format_func=options.__getitem__,
                 **session.widget("again", view.again, among=list(options)))  # fmt: skip
    places = st.columns(2, gap="medium")
    for place, title, seen in zip(places, ("Before", "After"), (found.before, found.after), strict=True):
        with place, st.container(key=f"again_{title.lower()}"):
            _seen(title, seen)


def _seen(title: str, seen: service.Seen) -> None:
    datum = seen.datum
    head = element("h3", f"{title}: {text(seen.name)}", element("small", text(seen.in_words)))
    st.html(head + cards.query_card(service.QueryView(title, (datum,), 1, seen.chances)))
    if isinstance(seen.evidence, service.FitNeeded):
        st.html(element("p", text(f"Its training rows: {seen.evidence.in_words}"), css="if-scale"))
        st.button(f"Compute with {seen.evidence.method_title}", key=f"again_fit_{title.lower()}", on_click=_fit,
                  args=(seen.version, str(datum.row_id), seen.evidence.method))  # fmt: skip
        return
    shown = seen.evidence
    top = max((abs(row.score) for row in (*shown.proponents, *shown.opponents)), default=0.0)
    for side, rows in (("pro", shown.proponents), ("opp", shown.opponents)):
        symbol, name, words = cards.SIDES[side]
        head = element("h4", element("span", f"{symbol} {name}", css=f"if-{side}-ink"), text(f" {words}"))
        body = "".join(cards.ranked_card(row, side, top, lambda d: _row(seen.version, d)) for row in rows)
        st.html(element("div", head, body or element("p", "None.", css="if-scale"), css=f"if-stack if-{side}-column"))


def _row(study: str, datum: service.Datum) -> str:
    return session.href("row", study=study, split=datum.split, row=str(datum.row_id))


def _fit(study: str, row: str, method: str) -> None:
    with errors.shown():
        request = service.ExplainRequest(ids=(row,), method=method, target="true", k=3)
        service.start_fit(study, request, session.client())


def keep(study: str, made: Sequence[service.Version]) -> None:
    """Draw the list of versions with what can be done with each."""
    with st.expander(f"Versions ({len(made)})", icon=":material/history:"):
        for version in made:
            with st.container(horizontal=True, gap="small", vertical_alignment="center", key=f"version_{version.id}"):
                notes = element("small", text(" ".join(version.notes)))
                st.html(element("div", element("b", text(f"{version.name} ({version.id})")), notes, css="if-main"))
                st.button("Open", key=f"version_open_{version.id}", type="tertiary", on_click=session.go,
                          args=("overview",), kwargs={"study": f"{study}@{version.id}"})  # fmt: skip
                if service.role(study) == "owner":
                    with st.popover("Change", key=f"version_change_{version.id}"):
                        name = st.text_input("Name", version.name, key=f"version_name_{version.id}", max_chars=60)
                        st.button("Rename", key=f"version_rename_{version.id}", on_click=_renamed,
                                  args=(study, version.id, name))  # fmt: skip
                        st.button("Delete for ever", key=f"version_delete_{version.id}", on_click=_deleted,
                                  args=(study, version.id))  # fmt: skip


def _renamed(study: str, version: str, name: str) -> None:
    with errors.shown():
        service.rename_version(study, version, name)


def _deleted(study: str, version: str) -> None:
    with errors.shown():
        service.delete_version(study, version)
        session.update(before="", after="", study=study)


def version_options(study: str) -> dict[str, str]:
    """Return id -> name of the versions of a study, the original first; only the original where there are none."""
    return {"": _ORIGINAL, **{version.id: version.name for version in service.versions(study)}}
