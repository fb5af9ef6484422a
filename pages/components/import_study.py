"""The screen *Import* for a packed study: what it is, what is taken along, and what stays off."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import errors, session
from pages.components.html import element, text
from pages.components.importing import start
from pages.components.sidebar import size

REVIEWS, CACHE = "import_reviews", "import_cache"


def facts(preview: service.StudyPreview) -> str:
    """Return what a packed study is in words."""
    rows = ", ".join(f"{n:,} {split}" for split, n in preview.rows.items())
    return f"a packed study: {preview.kind} · {rows} rows"


def packed_study(preview: service.StudyPreview) -> None:
    """Draw the study, the choices and the button that puts it into place."""
    lines = [element("h3", text(preview.title))]
    if preview.description:
        lines.append(element("p", text(preview.description)))
    lines.append(element("p", "Model: ", text(preview.model or f"code of its own, {preview.reference}")))
    st.html(element("div", *lines, css="if-fit"))
    if preview.reference:
        st.html(_off(preview.reference))
    if preview.reviews:
        st.checkbox(f"Take its decisions about labels ({size(preview.reviews)})", value=True, key=REVIEWS)
    if preview.cache:
        st.checkbox(
            f"Take its computed results ({size(preview.cache)})", key=CACHE,
            help="They are believed as they stand: take them only from someone you trust. Without them they are "
            "computed again when asked for.",
        )  # fmt: skip
    st.button(
        "Import the study", type="primary", icon=":material/download_done:", key="import_start", on_click=_start,
        args=(preview,),
    )  # fmt: skip
    if not (preview.reviews or preview.cache):
        st.html(element("p", "It holds rows, model and checkpoints; no decisions about labels and no computed results.",
                        css="if-scale"))  # fmt: skip
    errors.notices(preview.notes)


def _off(reference: str) -> str:
    """Return the words about a model that is code of its own."""
    return element(
        "div",
        element("b", "Its model is code of its own and stays off"),
        element("p", "The archive names ", element("code", text(reference)), " but does not hold it. The rows can be "
                     "looked at only when the model runs."),
        element("p", "If you have that code and trust it, start with ", element("code", text(f"--model {reference}")),
                " or ", element("code", text(f"make run MODELS={reference}")), "."),
        css="if-notice", role="status",
    )  # fmt: skip


def _start(preview: service.StudyPreview) -> None:
    chosen = session.entered([REVIEWS, CACHE])
    taken = {"reviews": bool(chosen.get(REVIEWS, False)), "cache": bool(chosen.get(CACHE, False))}
    start(preview.token, taken, preview.title)
