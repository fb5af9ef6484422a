"""Import: a file of one's own becomes a study with a trained model."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import errors, importing, pending, session
from pages.components.html import element

st.html(
    element(
        "header",
        element("h1", "Import your data"),
        element("p", "Rows with a label become a study: they are divided, a small model is trained, and every "
                     "prediction can be explained.", css="if-scale"),
        css="if-hero",
    )
)  # fmt: skip
with errors.shown():
    pending.imports(session.view())
view = session.view()
if not view.upload:
    importing.chooser()
else:
    head = st.container(horizontal=True, vertical_alignment="center", key="import_head")
    place = head.container()
    with head:
        importing.another_file(view)
    with errors.shown():
        if not importing.is_reading(view):
            with st.spinner("Reading the file …"):
                preview = service.preview(view.upload)
            place.html(importing.file_line(preview))
            check = importing.settings(view, preview)
            importing.column_table(view, preview, check)
            with st.expander("First rows", icon=":material/table_rows:"):
                st.html(importing.first_rows(preview))
