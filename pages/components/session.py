"""The session and the address: the only file that touches ``st.session_state`` and ``st.query_params``.

The session holds one :class:`~pages.components.view.View`. An address that the browser brings (a link, the back button,
a reload) replaces it; every run ends by writing it back to the address. Widgets are driven from the view and
report to it, because a widget of Streamlit forgets its value as soon as its screen is left.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from pages.components import view as views
from pages.components.view import View

LINKS = "links"  # key of the component that reports clicked links
REVIEWER = "reviewer"  # kept: the name that was typed for decisions
_STATE = "influence.view"
_WRITTEN = "influence.written"
_PROBLEMS = "influence.problems"
_NEXT_SCREEN = "influence.next"
_CLIENT = "influence.client"
_SEEN = "influence.seen"
_STUDY = "influence.study"
_LEFT = "influence.left"
_SAID = "influence.said"
_REDRAW = "influence.redraw"
_ACTED = "influence.acted"


def restore() -> None:
    """Take over the address if the browser brought a new one; keep the session's view otherwise.

    A click is newer than any address that comes with it: a browser that is clicked quickly still shows the address
    before the last one, which is no wish to go back there.
    """
    if st.session_state.pop(_ACTED, False):
        return
    arrived = {name: st.query_params.get_all(name) for name in st.query_params}
    if _STATE in st.session_state and arrived in ({}, st.session_state.get(_WRITTEN)):
        return  # Streamlit empties the address when a screen is picked in the menu; the view goes along
    st.session_state[_STATE], st.session_state[_PROBLEMS] = views.view_from_params(arrived)


def publish() -> None:
    """Write the view to the address, so that copying, reloading and the back button restore it."""
    params = views.params_of_view(view())
    if {name: st.query_params.get_all(name) for name in st.query_params} != params:
        st.query_params.from_dict(params)
    st.session_state[_WRITTEN] = params


def view() -> View:
    """Return the view of this session."""
    return st.session_state.setdefault(_STATE, View())


def problems() -> tuple[str, ...]:
    """Return what was wrong with the address, once: the sentences are gone from the next address on."""
    return st.session_state.get(_PROBLEMS, ())


def check_study(studies: list[str]) -> View:
    """Replace a study that does not exist by the first one, note why, and return the view."""
    current = view()
    return _checked(replace(current, study=current.study or studies[0]), studies, (), ())


def check_names(classes: Sequence[str], methods: Sequence[str]) -> View:
    """Replace classes and methods that the study does not have, note why, and return the view to draw."""
    return _checked(view(), (), classes, methods)


def names_classes() -> bool:
    """Return whether the view names a class of the study."""
    now = view()
    return bool(now.given or now.predicted or now.target not in {"true", "predicted"})


def _checked(asked: View, studies: Sequence[str], classes: Sequence[str], methods: Sequence[str]) -> View:
    st.session_state[_STATE], found = views.checked_view(asked, studies, classes, methods)
    st.session_state[_PROBLEMS] = problems() + found
    return view()


def params() -> dict[str, list[str]]:
    """Return the address parameters of the current view."""
    return views.params_of_view(view())


def update(**changes: Any) -> None:
    """Change fields of the view; a new change clears the notes about the old address. For callbacks."""
    st.session_state[_STATE] = views.changed(view(), **changes)
    st.session_state[_PROBLEMS] = ()
    st.session_state[_ACTED] = True


def settle(**changes: Any) -> View:
    """Fill in what the view left open (the first row of a list, say) without counting as a change by the user."""
    st.session_state[_STATE] = replace(view(), **changes)
    return st.session_state[_STATE]


def hold_study(names: Sequence[str]) -> dict[str, Any]:
    """Make the study picker show the study of the view, and return its key and where it starts."""
    return shown(_STUDY, view().base, among=names)


def version_picked() -> None:
    """Open the picked version of the study, with the same rows and filters."""
    update(study="@".join(part for part in (view().base, st.session_state["w.version"]) if part))


def hold_version(names: Sequence[str]) -> dict[str, Any]:
    """Make the version picker show the version of the view, and return its key and where it starts."""
    return shown("w.version", view().version, among=names)


def study_picked() -> None:
    """Open the picked study: rows, filters and options belong to the old one, and only the number of rows stays."""
    update(**vars(View(study=st.session_state[_STUDY], k=view().k)))


def marked() -> str | None:
    """Return the id of the prediction to mark in the list: empty for a set of rows, None if none is chosen yet."""
    now = view()
    if now.cell or now.typed or len(now.ids) > 1:
        return ""
    return now.ids[0] if now.ids else None


def go(screen: str, **changes: Any) -> None:
    """Change the view and open ``screen`` (for callbacks of buttons)."""
    update(**changes)
    st.session_state[_NEXT_SCREEN] = screen


def follow_link() -> None:
    """Open the link that was clicked, as the links component reports it."""
    screen, target, found = views.view_from_href(str(st.session_state[LINKS].get("go") or ""))
    st.session_state[_STATE], st.session_state[_PROBLEMS] = target, found
    st.session_state[_NEXT_SCREEN] = screen
    st.session_state[_ACTED] = True


def take_next_screen() -> str | None:
    """Return the screen asked for by :func:`go` or a link, once."""
    return st.session_state.pop(_NEXT_SCREEN, None)


def href(screen: str, **changes: Any) -> str:
    """Return a link to ``screen`` with fields of the current view changed."""
    return views.href(screen, views.changed(view(), **changes))


def widget(
    field: str, value: Any, changes: Callable[[Any], dict[str, Any]] | None = None, labels: str = "", *,
    among: Sequence[Any] | None = None, shows: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Return the arguments that tie a Streamlit widget to the view.

    Args:
        field: Field of the view; also the widget's key.
        value: What the widget must show now.
        changes: From the widget's new value to changed fields of the view; default: ``{field: value}``.
        labels: What the words of its options depend on. A select box goes on showing the old words for an unchanged
            value, so that other words need another widget.
        among: The options of a select box.
        shows: What another widget calls its first value, as in :func:`shown`.

    Returns:
        ``key``, ``on_change``, ``args`` and the first value for the widget; it must be given no value of its own.
    """
    key = f"w.{field}.{labels}" if labels else f"w.{field}"
    tied = {"on_change": _report, "args": (key, changes or (lambda new: {field: new}))}
    return shown(key, value, among=among, shows=shows) | tied


def shown(key: str, value: Any, *, among: Sequence[Any] | None = None, shows: str = "") -> dict[str, Any]:
    """Make the widget with this key show ``value``, and return its key and first value.

    The value goes two ways. Streamlit sends a value that was set here with one run only: a browser that is still
    loading the widget when the next run comes never sees it, shows the first value instead, and reports that one with
    the next click, as if the user had chosen it.

    Args:
        key: The widget's key.
        value: What it must show now.
        among: The options of a select box, which starts from an index.
        shows: What another widget calls its first value: "value" (text, numbers, toggles) or "default" (the lists of
            which some can be chosen).
    """
    hold(key, value)
    if among is None:
        return {"key": key, shows: value}
    options = list(among)
    return {"key": key, "index": options.index(value) if value in options else None}


def _report(key: str, changes: Callable[[Any], dict[str, Any]]) -> None:
    update(**changes(st.session_state[key]))


def hold(key: str, value: Any) -> None:
    """Make the widget with this key show ``value`` (for forms, whose widgets report only together)."""
    if key not in st.session_state or st.session_state[key] != value:
        st.session_state[key] = value


def reported(key: str, field: str) -> Any:
    """Return what the component with this key reports under a name, or None (for its callbacks)."""
    return (st.session_state.get(key) or {}).get(field)


def entered(names: list[str]) -> dict[str, Any]:
    """Return the values of the widgets with these keys (for forms, whose widgets report together)."""
    return {name: st.session_state[name] for name in names if name in st.session_state}


def forget(names: list[str]) -> None:
    """Drop the values of these widgets, so that they start from their defaults."""
    for name in names:
        st.session_state.pop(name, None)


def keep(name: str, value: Any) -> None:
    """Keep a value of this session by name; None forgets it."""
    st.session_state[f"kept.{name}"] = value


def kept(name: str) -> Any:
    """Return the value kept under a name, or None."""
    return st.session_state.get(f"kept.{name}")


def remembered(key: str, default: Any) -> Any:
    """Return what the widget with this key shows, or showed before it was last out of sight.

    A widget that is not drawn for one run (its form gives way to a job, say) is forgotten by Streamlit. To be called
    before the widget is drawn, and ``remember`` after it.
    """
    if key in st.session_state:
        return st.session_state[key]
    return default if (last := kept(key)) is None else last


def remember(key: str, value: Any) -> Any:
    """Keep what a widget shows for ``remembered``, and return it."""
    keep(key, value)
    return value


def first_time(event: str) -> bool:
    """Return True the first time that this session asks about ``event``."""
    seen = st.session_state.setdefault(_SEEN, set())
    if event in seen:
        return False
    seen.add(event)
    return True


def leave(job_id: int) -> None:
    """Stop waiting for a job that goes on for somebody else."""
    st.session_state.setdefault(_LEFT, set()).add(job_id)


def come_back(job_id: int) -> None:
    """Wait again for a job that was left."""
    st.session_state.get(_LEFT, set()).discard(job_id)


def has_left(job_id: int) -> bool:
    """Return whether this session stopped waiting for the job."""
    return job_id in st.session_state.get(_LEFT, set())


def ask_redraw() -> None:
    """Ask for a run of the whole page (callbacks inside a fragment only bring a run of the fragment)."""
    st.session_state[_REDRAW] = True


def take_redraw() -> bool:
    """Return whether a run of the whole page was asked for, once."""
    return st.session_state.pop(_REDRAW, False)


def say(sentence: str) -> None:
    """Keep a sentence for the next run of the whole page."""
    st.session_state[_SAID] = sentence


def take_said() -> str:
    """Return the kept sentence, once; empty if there is none."""
    return st.session_state.pop(_SAID, "")


def step_of(name: str) -> int:
    """Return the step of a guided sequence; 0 is closed."""
    return st.session_state.get(f"step.{name}", 0)


def set_step(name: str, step: int) -> None:
    """Go to a step of a guided sequence."""
    st.session_state[f"step.{name}"] = step


def client() -> str:
    """Return the name under which this browser tab waits for jobs."""
    return st.session_state.setdefault(_CLIENT, secrets.token_hex(8))


def theme() -> str:
    """Return "light" or "dark", as the browser reported it."""
    return st.context.theme.type or "light"
