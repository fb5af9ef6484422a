"""Trust: how well each method tracks retraining on this study, and what it takes to find out."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import errors, session, trust, trust_form, trust_removal

view = session.view()
with st.container(key="trust"), errors.shown():
    page = service.trust(view.study)
    trust.result(page)
    trust_form.measure(view.study, page)
    with errors.shown():
        row = view.ids[0] if len(view.ids) == 1 and not view.typed else ""
        trust_removal.removal(view.study, service.removal(view.study, row), page)
