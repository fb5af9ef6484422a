"""Compare: retrain on the corrected data, and see before and after, on one page that prints."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import compare, errors, session

view = session.view()
made = service.versions(view.study)
with st.container(key="compare_offer"), errors.shown():
    compare.offer(view.base, service.retrain_offer(view.study), made)
if made:
    before, after = compare.chosen(view, made)
    with errors.shown():
        found = service.comparison(view.study, before, after)
        with st.container(key="compare"):
            st.html(compare.summary(found))
            with errors.shown():
                compare.same(view, service.same_prediction(view.study, before, after, view.again))
            st.html(compare.details(found))
    with errors.shown():
        compare.keep(view.base, made)
