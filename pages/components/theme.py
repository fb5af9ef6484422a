"""Files of the interface: the style sheet, the logo, the help texts."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import streamlit as st

ASSETS = Path(__file__).resolve().parents[2] / "assets"
LOGO = str(ASSETS / "logo.svg")


@cache
def _style() -> str:
    return f"<style>{(ASSETS / 'style.css').read_text(encoding='utf-8')}</style>"


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
    st.html(_style())
