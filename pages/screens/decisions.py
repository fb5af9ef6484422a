"""Decisions: what the reviewers did, what it comes to, the patch and the cleaned data."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import dealing, decisions, patch_upload, session
from pages.components.html import element

study = session.view().study
page = service.decisions_page(study)
st.html(element("h1", "Decisions"))
# What comes and goes has a container: a part below that somebody opened would else close, for it stands elsewhere then.
with st.container():
    decisions.progress(page)
reviews = service.role(study) != "viewer"
if reviews:
    decisions.undo(study, page)
with st.container():
    if reviews:
        decisions.together(study)
decisions.downloads(study)
patch_upload.panel(study)
with st.container():
    decisions.conflicts(study, page)
decisions.guidelines(study, page)
dealing.panel(study, may_change=page.may_resolve)
decisions.log(study)
