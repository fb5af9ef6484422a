"""The sidebar: which study, jobs, disk use, help for this screen, what the colours mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import streamlit as st

from influence_core import service
from pages.components import errors, jobs, session, theme
from pages.components.html import element, text
from pages.components.links import copy_button

LEGEND = (
    ("▲ proponent", "if-pro-ink", "pushed the model towards the explained label (score above zero)"),
    ("▼ opponent", "if-opp-ink", "pulled it away (score below zero)"),
    ("✗", "if-wrong-ink", "the prediction differs from the given label"),
    ("⚑", "if-noise-ink", "the label was flipped on purpose; the truth is kept aside"),
)


def top(studies: Sequence[service.StudyCard], pages: Mapping[str, st.Page]) -> None:
    """Draw the choice of the study, and the links to the screens."""
    titles = told_apart({card.name: card.title for card in studies})
    with st.sidebar:
        st.selectbox(
            "Study",
            list(titles),
            format_func=titles.__getitem__,
            on_change=session.study_picked,
            label_visibility="collapsed",
            **session.hold_study(list(titles)),
        )
        with errors.shown():
            _version()
    screens(pages)


def told_apart(titles: Mapping[str, str]) -> dict[str, str]:
    """Return titles by name, with the name behind those that several have.

    A person could not tell them apart, and nor can Streamlit: when the keyboard leaves the box, it opens the last study
    that is called so.
    """
    count = Counter(titles.values())
    return {name: title if count[title] == 1 else f"{title} ({name})" for name, title in titles.items()}


def _version() -> None:
    """Draw the choice of the version, where there are any."""
    made = {version.id: version.name for version in service.versions(session.view().base)}
    if made:
        names = {"": "original", **made}
        st.selectbox("Version", list(names), format_func=names.__getitem__, on_change=session.version_picked,
                     **session.hold_version(list(names)))  # fmt: skip


def screens(pages: Mapping[str, st.Page]) -> None:
    """Draw the links to the screens."""
    with st.sidebar, st.container(key="screens", gap=None):
        for page in pages.values():
            st.page_link(page, width="stretch")  # the session keeps the view


def below(study: str, screen: str) -> None:
    """Draw jobs, disk use, help and the legend."""
    with st.sidebar:
        st.html(element("h4", "Jobs"))
        jobs.job_list(study)
        helps(screen)
        with errors.shown():
            used, cap = service.disk_use(study)
            st.html(element("p", text(f"Cache {size(used)} of {size(cap)}"), css="if-scale"))


def helps(screen: str) -> None:
    """Draw the help of a screen, the legend, and the button that copies the address."""
    with st.sidebar:
        with st.container(horizontal=True, gap="xsmall", key="side_help"):
            with st.popover("Help", icon=":material/help:", type="tertiary"):
                st.markdown(theme.help_text(screen))
            with st.popover("Colours", icon=":material/palette:", type="tertiary"):
                st.html(legend())
        st.html(copy_button())


def size(n_bytes: int) -> str:
    """Return a number of bytes as people say it."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.{1 if n_bytes < 10 * scale else 0}f} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"


def legend() -> str:
    """Return what the colours and signs mean; every colour has a sign of its own beside it."""
    lines = (
        element("div", element("dt", element("span", text(sign), css=css)), element("dd", text(words)))
        for sign, css, words in LEGEND
    )
    return element("dl", *lines, css="if-legend")
