"""Methods: what each one answers, in which units, and whether it can run on this study."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import session, tables
from pages.components.html import element, text

view = session.view()
methods = service.methods(view.study)
default, reason = service.default_method(view.study)
title = next((method.title for method in methods if method.id == default), default)
ready = sum(method.available for method in methods)

st.html(
    element(
        "header",
        element("h1", "Methods"),
        element("p", f"{ready} of {len(methods)} can run on this study. A name opens Explain with that method."),
        element("p", element("b", "Default: "), text(f"{title}: {reason.rstrip('.')}."), css="if-scale"),
        css="if-hero",
    )
)
st.html(tables.method_table(methods, default, lambda name: session.href("explain", method=name, config=())))
