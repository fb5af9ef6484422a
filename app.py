"""The dashboard: ``streamlit run app.py``. Page configuration and the frame; everything else is in ``pages``."""

from __future__ import annotations

import streamlit as st

from pages.components import shell, theme

st.set_page_config(page_title="Influence", page_icon=theme.LOGO, layout="wide", initial_sidebar_state="expanded")
st.logo(theme.LOGO, size="medium")
shell.run()
