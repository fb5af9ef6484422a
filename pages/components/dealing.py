"""Who reviews what: the names of the reviewers and the share of rows that all of them see."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import errors, session
from pages.components.html import element, text

_NAMES, _SHARE = "dealing_names", "dealing_share"


def panel(study: str, *, may_change: bool) -> None:
    """Draw the deal, which owners may change."""
    deal = service.dealing(study)
    with st.expander("Who reviews what"):
        entered = session.entered([_NAMES, _SHARE])
        names = session.shown(_NAMES, entered.get(_NAMES, "\n".join(deal.reviewers)), shows="value")
        share = session.shown(_SHARE, entered.get(_SHARE, round(100 * deal.overlap)), shows="value")
        st.text_area(
            "Reviewers, one name a line", height=110, disabled=not may_change, **names,
            help="The names that they sign in with, or type on the desk. With fewer than two, everybody sees all rows.",
        )  # fmt: skip
        st.slider(
            "Rows that everybody sees, %", 0, 100, disabled=not may_change, **share,
            help="Only rows that several people decided can tell how far they agree. The others are one person's each.",
        )  # fmt: skip
        st.html(element("p", text(_words(service.shares(study))), css="if-note"))
        st.button("Deal the rows", key="save_dealing", disabled=not may_change, on_click=_save, args=(study,))


def _words(found: service.Shares) -> str:
    if not found.own:
        return f"Everybody sees all {found.total:,} rows of “{found.title}”."
    own = ", ".join(f"{name} {count:,}" for name, count in found.own)
    return f"Of {found.total:,} rows in “{found.title}”, everybody sees {found.shared:,}; of the others: {own}."


def _save(study: str) -> None:
    with errors.shown():
        entered = session.entered([_NAMES, _SHARE])
        names = str(entered.get(_NAMES, "")).splitlines()
        service.save_dealing(study, names, float(entered.get(_SHARE, 10)) / 100)
        session.say("The rows are dealt.")
