"""Held-out probabilities of the user's own on the screen *Suspects*: their origin, a new file, their removal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import streamlit as st

from influence_core import service
from pages.components import errors, session
from pages.components.html import element, text
from pages.components.view import View

_TAKEN = "probabilities taken"  # kept: how many files were
_REFUSED = "probabilities refused"  # kept: of which study, what is wrong, why, and what to do


def panel(view: View) -> None:
    """Draw where held-out probabilities of the user's own come from, and take them."""
    given = service.pred_probs(view.study)
    owner = service.role(view.study) == "owner"
    if given is None and not owner:
        return
    refused = session.kept(_REFUSED)
    wrong = refused is not None and refused[0] == view.study
    with st.expander("Your own out-of-fold probabilities", expanded=wrong or bool(given and given.problem)):
        if wrong:
            st.html(errors.problem_panel(*refused[1:]))
        if given is not None:
            st.html(element("p", text(given.problem or _origin(given)), css="if-scale"))
        if owner:
            _given(view.study, given is not None)


def _origin(given: service.OwnProbabilities) -> str:
    when = datetime.fromtimestamp(given.at, UTC).strftime("%Y-%m-%d %H:%M")
    return f"Out-of-fold numbers come from {given.file}, given {f'by {given.by} ' if given.by else ''}{when} (UTC)."


def _given(study: str, there: bool) -> None:
    words = (
        "Probabilities by models that did not see the row: a CSV or Parquet file with the ids of all train rows and "
        "one column per class, named after it. Nothing is trained for them then."
    )
    st.html(element("p", words, css="if-scale"))
    key = f"pred_probs_{session.kept(_TAKEN) or 0}"
    file = st.file_uploader("CSV or Parquet", ["csv", "parquet"], key=key, max_upload_size=200)
    with st.container(horizontal=True, gap="small"):
        st.button("Use these", key="pred_probs_use", disabled=file is None, on_click=_take, args=(study, file))
        if there:
            st.button("Remove those in use", key="pred_probs_remove", on_click=_remove, args=(study,))


def _take(study: str, file: Any) -> None:
    """Keep the file's probabilities; what is wrong with them is said here, not at the far top of the page."""
    session.keep(_REFUSED, None)
    session.keep(_TAKEN, int(session.kept(_TAKEN) or 0) + 1)  # an empty uploader: the server lets go of the file
    with errors.shown():
        try:
            service.save_pred_probs(study, file.name, file)
            session.say(f"{file.name} is kept in the study.")
        except service.InfluenceError as problem:
            session.keep(_REFUSED, (study, problem.what, problem.why, problem.fix))


def _remove(study: str) -> None:
    session.keep(_REFUSED, None)
    with errors.shown():
        service.remove_pred_probs(study)
        session.say("The probabilities are removed.")
