"""The review desk: a component that holds prefetched cards and takes one key per decision.

Streamlit's own shortcuts lose presses that follow each other quickly, and repeat while a key is held. The component
paints the next card itself, keeps every decision in the browser until the server says that it is on the disk, and asks
for cards before they are needed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import streamlit as st
from streamlit.components import v2

from influence_core import service
from pages.components import errors, session, theme
from pages.components.html import element

DESK = "review_desk"
_FOLDER = theme.ASSETS / "review"
_SAID = "review.said"


@cache
def _part(*names: str) -> str:
    return "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in names)


@st.fragment
def desk(study: str, token: str) -> None:
    """Draw the desk for a queue; the fragment runs alone when the browser sends decisions or asks for cards."""
    with errors.shown():
        token = _held_still(study, token)
        session.keep("review.place", (study, token))
        place = service.review_place(study, token)
        said = session.kept(_SAID) or {}
        session.keep(_SAID, {**said, "batch": None, "states": None})  # sent once: the browser holds them
        data = {
            "study": study, "token": place[0], "title": place[1], "total": place[2], "classes": list(place[3]),
            "task": place[4], "person": service.known_reviewer(study), "guidelines": service.guidelines(study),
            "definitions": dict(service.class_definitions(study)),
            "kept": [], "refused": [], "said": [], "steps": None, "batch": None, "nonce": 0, "states": None, "heard": 0,
            "error": "", **said,
        }  # fmt: skip
        component = v2.component(
            "influence_review", html='<div class="desk"></div>', css=_part("review.css"),
            js=_part("store.js", "keys.js", "card.js", "review.js"),
        )  # fmt: skip
        component(key=DESK, data=data, on_out_change=_heard)


def _held_still(study: str, token: str) -> str:
    """Return a queue that does not move under the reviewer: the suspects as they were when the desk was opened."""
    if token not in ("", "suspects"):
        return token
    name = f"review.frozen.{study}"
    frozen = session.kept(name)
    if frozen is None:
        frozen = service.frozen_queue(study)
        session.keep(name, frozen)
    elif service.has_moved(study, frozen):
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key="review_moved"):
            st.html(
                element("p", "The list of suspects has changed since you began; yours stays as it was.", css="if-note")
            )
            st.button("Take the new list", key="review_refresh", on_click=session.keep, args=(name, None))
    return frozen


def _heard() -> None:
    """Record what the browser sent, and fetch the cards that it asks for."""
    out, (study, token) = session.reported(DESK, "out") or {}, session.kept("review.place")
    said: dict[str, Any] = {"error": ""}
    reviewer, acts, want, held = out.get("reviewer", ""), out.get("acts") or [], out.get("want"), out.get("held")
    try:
        if acts:
            receipt = service.record_acts(study, reviewer, acts)
            said |= service.plain(receipt)
        if isinstance(want, dict):
            after, row, n = want.get("after"), want.get("row"), want.get("n")
            batch = service.review_batch(
                study, token, reviewer, after if isinstance(after, int) else None, n if isinstance(n, int) else 20, row
            )
            said |= {"batch": {**service.plain(batch), "jump": row is not None}, "nonce": want.get("nonce")}
        if reviewer:
            said["steps"] = service.plain(service.next_steps(study, reviewer))
        if isinstance(held, dict) and isinstance(first := held.get("first"), int):
            states = service.review_states(study, token, reviewer, first)
            said |= {"states": service.plain(states), "heard": out.get("again")}
        session.keep(session.REVIEWER, reviewer)
    except service.InfluenceError as problem:
        said["error"] = str(problem)
    session.keep(_SAID, said)
