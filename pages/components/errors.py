"""How a problem looks: one calm panel with what, why and what to do; never a stack trace."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import streamlit as st

from influence_core import service
from pages.components.html import element, text

log = logging.getLogger("influence.pages")


@contextmanager
def shown() -> Iterator[None]:
    """Turn an exception in the body into a panel on the screen; the rest of the screen goes on.

    Streamlit's own signals (rerun, stop) are no ``Exception`` and pass through.
    """
    try:
        yield
    except service.InfluenceError as problem:
        st.html(problem_panel(problem.what, problem.why, problem.fix))
    except Exception:
        log.exception("A screen could not be drawn")
        st.html(
            problem_panel(
                "Something went wrong here",
                "It is a fault in the program, not in your data. Nothing is lost; the details are in the server's log.",
                "Reload the page; if it comes back, report it with the log.",
            )
        )


def problem_panel(what: str, why: str, fix: str) -> str:
    """Return a problem as HTML; the arguments are plain text."""
    return element(
        "div",
        element("b", text(what)),
        element("p", text(why)),
        element("p", element("span", "What to do: ", css="if-do"), text(fix)),
        css="if-problem",
        role="alert",
    )


def notices(sentences: Sequence[str]) -> None:
    """Show what was wrong with the address, if anything was."""
    if sentences:
        lines = "".join(element("p", text(sentence)) for sentence in sentences)
        st.html(element("div", lines, css="if-notice", role="status"))
