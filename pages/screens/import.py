"""Import: a file of one's own becomes a study with a trained model."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import errors, import_images, import_study, importing, pending, session
from pages.components.html import element

st.html(
    element(
        "header",
        element("h1", "Import your data"),
        element("p", "Rows or images with a label become a study: they are divided, a small model is trained, and "
                     "every prediction can be explained. A study that was downloaded is put back into place.",
                css="if-scale"),
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
            if isinstance(preview, service.ImagesPreview):
                place.html(importing.file_line(preview.file, import_images.facts(preview)))
                import_images.images(view, preview)
            elif isinstance(preview, service.StudyPreview):
                place.html(importing.file_line(preview.file, import_study.facts(preview)))
                import_study.packed_study(preview)
            else:
                place.html(importing.file_line(preview.file, importing.facts(preview)))
                importing.table(view, preview)
