"""Map: train and test rows in two dimensions; draw around some to see what they are and what they do."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import errors, map, session
from pages.components.html import element, empty

view = session.view()
method = service.default_method(view.study)[0] if (view.ids or view.typed) and not view.method else ""
asked = map.request(view, method)
st.html(element("div", element("h1", "Map"), css="if-question"))
line = st.container(horizontal=True, gap="small", key="map_controls")
left, right = st.columns([3, 1], gap="medium")

with left, errors.shown():
    shown = service.map_points(view.study, asked)
    if isinstance(shown, service.MapNeeded):
        with line:
            map.controls(view, ())
        map.projecting(view.study, asked, shown)
    else:
        with line:
            map.controls(view, shown.classes)
        if shown.umap is not None:
            map.projecting(view.study, asked, shown.umap)
        map.chart(view, shown)
        map.facts(shown)
        with right, st.container(key="map_side"), errors.shown():
            corners = map.region(shown)
            if corners:
                map.selection(view.study, asked, corners, shown)
            if view.row and view.split != "locked":
                map.row_card(view.study, view)
            elif not corners:
                st.html(empty("Nothing chosen", "Draw around some rows, or click one. Double-click to let go."))
