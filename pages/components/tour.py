"""The guided tour: a dialog of a few short steps, on request only."""

from __future__ import annotations

import streamlit as st

from pages.components import session, theme

_STEP = "tour"  # 0: closed; n: step n is shown


def begin() -> None:
    """Open the tour at its first step."""
    session.set_step(_STEP, 1)


def _close() -> None:
    session.set_step(_STEP, 0)


def show() -> None:
    """Draw the tour if it is open."""
    if session.step_of(_STEP):
        _dialog()


@st.dialog("A short tour", on_dismiss=_close)
def _dialog() -> None:
    steps = theme.tour_steps()
    now = min(max(session.step_of(_STEP), 1), len(steps))
    title, body = steps[now - 1]
    st.markdown(f"**{now} of {len(steps)} · {title}**\n\n{body}")
    with st.container(horizontal=True, horizontal_alignment="right"):
        st.button("Back", key="tour_back", disabled=now == 1, on_click=session.set_step, args=(_STEP, now - 1))
        if now < len(steps):
            st.button("Next", key="tour_next", type="primary", on_click=session.set_step, args=(_STEP, now + 1))
        elif st.button("Done", key="tour_done", type="primary", on_click=_close):
            st.rerun()
