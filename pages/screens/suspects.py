"""Suspects: the train rows whose labels look wrong, why, and which mistakes they feed."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import batches, errors, own_probabilities, session, suspects

view = session.view()
suspects.lists(view)
with errors.shown():
    if view.listing != "labels":
        suspects.oddities(view)
    else:
        page = service.suspects(view.study, suspects.chosen_rows(view))
        if isinstance(page, service.FitNeeded):
            suspects.needed(view, page)
            own_probabilities.panel(view)
        else:
            classes = service.overview(view.study).classes
            picks, answer = st.columns([1, 3], gap="medium")
            with picks, st.container(key="suspect_filters", gap="xsmall"):
                suspects.filters(view, page, classes)
            with answer, st.container(key="suspects", gap="xsmall"):
                st.html(suspects.heading(page))
                suspects.actions(view, page, classes)
                batches.last(view.study)
                suspects.cards(page)
                suspects.footnotes(view, page)
                own_probabilities.panel(view)
