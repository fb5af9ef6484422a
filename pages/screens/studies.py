"""Studies: what there is and what it uses of the disk; open, rename, take along, delete."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import errors, session, studies
from pages.components.html import element, text

lines = service.study_lines()
st.html(
    element(
        "header",
        element("h1", "Studies"),
        element("p", text(studies.total(lines)), css="if-scale"),
        css="if-hero",
    )
)
with st.container(key="studies", gap=None):
    for line in lines:
        with errors.shown():
            studies.study(line, is_open=line.name == session.view().study)
