"""The lines of the screen *Studies*: what a study is, and what can be done with it as a whole."""

from __future__ import annotations

import re
from collections.abc import Sequence

import streamlit as st

from influence_core import service
from pages.components import errors, session
from pages.components.html import element, text
from pages.components.sidebar import size
from pages.components.view import View


def total(lines: Sequence[service.StudyLine]) -> str:
    """Return number and size of all studies in one sentence."""
    used, cache = sum(line.total for line in lines), sum(line.cache for line in lines)
    count = "1 study uses" if len(lines) == 1 else f"{len(lines)} studies use"
    return f"{count} {size(used)} of the disk, {size(cache)} of it for results that can be computed again."


def study(line: service.StudyLine, *, is_open: bool) -> None:
    """Draw one study: its facts, and the buttons that act on it as a whole.

    Widgets are named after the study and not after its place: a click that comes late, when the line above is deleted
    already, must not hit the next one.

    Args:
        line: The study.
        is_open: Whether the other screens show this one.
    """
    with st.container(key=f"study_{line.name}", gap="xsmall"):
        st.html(facts(line, is_open=is_open))
        with st.container(horizontal=True, gap="xsmall", key=f"study_do_{line.name}"):
            st.button(
                "Open", key=f"study_open_{line.name}", icon=":material/arrow_forward:", type="tertiary",
                disabled=bool(line.problem), on_click=session.go, args=("overview",),
                kwargs=vars(View(study=line.name)),
            )  # fmt: skip
            if line.owned:
                _rename(line)
                _download(line)
                _clear(line)
                _delete(line)


def facts(line: service.StudyLine, *, is_open: bool) -> str:
    """Return what a study is, as HTML."""
    title = [element("h2", text(line.title))]
    if is_open:
        title.append(element("span", "open", css="if-badge if-right", title="The other screens show this study."))
    if line.busy:
        title.append(element("span", "at work", css="if-badge", title=f"{line.busy} waits or runs."))
    rows = ", ".join(f"{count:,} {split}" for split, count in line.rows.items())
    about = [element("p", text(f"{line.kind} · {rows} rows"))] if line.kind else []
    about.append(element("p", text(" · ".join((line.name, *line.facts))), css="if-scale"))
    if line.problem:
        about.append(element("p", text(line.problem), css="if-failed", role="alert"))
    return element(
        "div",
        element("div", element("div", *title, css="if-question"), *about, css="if-main"),
        element("div", element("b", size(line.total)), element("small", text(_parts(line))), disk(line), css="if-disk"),
        css="if-study",
    )


def _parts(line: service.StudyLine) -> str:
    reviews = f", {size(line.reviews)} reviews" if line.reviews else ""
    return f"{size(line.cache)} cache{reviews}" if line.cache else f"no cache{reviews}"


def disk(line: service.StudyLine) -> str:
    """Return a bar with the share of the cache."""
    share = line.cache / line.total if line.total else 0.0
    return f'<span class="if-bar" title="{share:.0%} of it is cache"><i style="width:{100 * share:.1f}%"></i></span>'


def literal(words: str) -> str:
    """Return a text as it stands for places that read Markdown: a title could bring a picture from elsewhere."""
    return re.sub(r"([^\w\s])", r"\\\1", words)


def _rename(line: service.StudyLine) -> None:
    key = f"study_title_{line.name}"
    with st.popover(
        "Rename", key=f"study_rename_{line.name}", icon=":material/edit:", type="tertiary", disabled=bool(line.problem)
    ):
        st.text_input("Title", value=line.title, max_chars=100, key=key)
        st.button("Save", key=f"study_save_{line.name}", type="primary", on_click=_renamed, args=(line, key))
        st.html(element("p", "Its folder, its address and all results stay.", css="if-scale"))


def _renamed(line: service.StudyLine, key: str) -> None:
    with errors.shown():
        title = str(session.entered([key]).get(key, ""))
        service.rename_study(line.name, title)
        session.say(f"{literal(line.title)} is called {literal(' '.join(title.split()))} now.")


def _download(line: service.StudyLine) -> None:
    with st.popover(
        "Download",
        key=f"study_download_{line.name}",
        icon=":material/download:",
        type="tertiary",
        disabled=bool(line.problem),
    ):
        reviews = bool(line.reviews) and st.checkbox(
            f"With the decisions about labels ({size(line.reviews)})", key=f"study_reviews_{line.name}"
        )
        cache = bool(line.cache) and st.checkbox(
            f"With computed results ({size(line.cache)})", key=f"study_cache_{line.name}"
        )
        if line.problem:
            return
        problem = service.backup_problem(line.name, reviews=reviews, cache=cache)
        if problem:
            words, _, command = problem.partition(": ")
            st.html(element("p", text(f"{words}:"), css="if-scale"))
            st.code(command, language="bash", wrap_lines=True)
            return
        expected = size(service.backup_size(line.name, reviews=reviews, cache=cache))
        made = service.backup(line.name, reviews=reviews, cache=cache)
        st.download_button(
            f"Download about {expected}", made, f"{line.name}.zip", "application/zip", key=f"study_zip_{line.name}",
            type="primary", icon=":material/folder_zip:", on_click="ignore",
        )  # fmt: skip
        st.html(element("p", "Import takes this file, here or on another computer.", css="if-scale"))


def _clear(line: service.StudyLine) -> None:
    idle = bool(line.cache) and not line.busy
    with st.popover(
        "Clear cache", key=f"study_clearing_{line.name}", icon=":material/mop:", type="tertiary", disabled=not idle
    ):
        words = f"Frees {size(line.cache)}. The results of {line.title} are computed again when asked for."
        words = words if line.cache else "There is no cache now."
        st.html(element("p", text(words)))
        st.button(
            "Clear the cache", key=f"study_clear_{line.name}", type="primary", disabled=not idle, on_click=_cleared,
            args=(line,),
        )  # fmt: skip


def _cleared(line: service.StudyLine) -> None:
    with errors.shown():
        session.say(f"{size(service.clear_cache(line.name))} are free again; {literal(line.title)} is unchanged.")


def _delete(line: service.StudyLine) -> None:
    with st.popover("Delete", key=f"study_deleting_{line.name}", icon=":material/delete:", type="tertiary"):
        if line.busy:
            words = f"{line.busy} waits or runs: cancel it under Jobs first, or wait until it has ended."
            st.html(element("p", text(words)))
        else:
            words = f"{line.title} ({line.name}) is deleted with its rows, model, reviews and results. Frees "
            st.html(element("p", text(words), element("b", size(line.total)), ". This cannot be undone."))
        st.button(
            "Delete this study", key=f"study_delete_{line.name}", type="primary", disabled=bool(line.busy),
            on_click=_deleted, args=(line,),
        )  # fmt: skip


def _deleted(line: service.StudyLine) -> None:
    with errors.shown():
        freed = service.delete_study(line.name)
        if session.view().study == line.name:
            session.update(**vars(View(k=session.view().k)))
        session.say(f"{literal(line.title)} is deleted; {size(freed)} are free again.")
