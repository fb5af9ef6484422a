"""Files of the interface: the style sheet, the logo, the help texts."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import streamlit as st

from pages.components import session

ASSETS = Path(__file__).resolve().parents[2] / "assets"
LOGO = str(ASSETS / "logo.svg")


# Streamlit sets the color-scheme on the page alone, and draws what floats outside of it.
_FLOATING = ':is([data-testid="stPopoverBody"], [data-baseweb="popover"], [role="dialog"])'


@cache
def _style(theme: str) -> str:
    floating = f"{_FLOATING} {{ color-scheme: {'dark' if theme == 'dark' else 'light'}; }}"
    return f"<style>{(ASSETS / 'style.css').read_text(encoding='utf-8')}\n{floating}</style>"


@cache
def help_text(screen: str) -> str:
    """Return the help of a screen, in Markdown."""
    return (ASSETS / "help" / f"{screen}.md").read_text(encoding="utf-8")


def tour_steps() -> list[tuple[str, str]]:
    """Return the tour as ``(title, Markdown)``, one per second-level heading of its file."""
    parts = help_text("tour").split("## ")[1:]
    return [(title.strip(), body.strip()) for title, _, body in (part.partition("\n") for part in parts)]


def apply_style() -> None:
    """Put the style sheet into the page."""
    st.html(_style(session.theme()))
