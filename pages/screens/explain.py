"""Explain: a prediction on the left, and on the right the training rows that made it."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import check, errors, evidence, forms, session, typed, walk
from pages.components.html import empty

overview = service.overview(session.view().study)
view = forms.suited(session.view(), overview.regression is not None)
methods = service.methods(view.study)
default, reason = service.default_method(view.study)
picks, answer = st.columns([1, 3], gap="medium")

with picks, st.container(key="picks_column", gap="xsmall"):
    wanted = forms.prediction_filter(view, overview.classes)
    listing = service.predictions(view.study, wanted)
    walk.prediction_list(listing, view)

ids, view = walk.query_ids(view, listing)
with answer, st.container(key="answer", gap="xsmall"):
    typed.form(view)
    if not ids:
        st.html(empty("Nothing to explain", "No prediction matches the filters on the left; loosen one of them."))
    else:
        heading, card = st.container(key="heading"), st.container(key="query")
        method = forms.chosen_method(view, methods, default)
        single = next((row for row in listing.rows if (str(row.row_id),) == ids and not view.typed), None)
        line = st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="controls")
        with line:
            request = forms.controls(view, methods, method, single, overview.classes, ids)
        evidence.default_line(view.study, method, methods, default, reason)
        place, tried, below = (st.container(key=name) for name in ("evidence", "check", "below"))
        with place, errors.shown():
            query = service.query(view.study, request)
            with heading:
                walk.heading(query, listing, view)
            result = service.explain(view.study, request)
            evidence.answer(view.study, result, request)
            with card:
                evidence.query(view.study, query, request)
            with line:
                evidence.export(view.study, result, request)
                evidence.review(view.study, result, request)
            with below:
                evidence.figures(result)
            with tried, errors.shown():
                check.panel(view.study, result, request)
