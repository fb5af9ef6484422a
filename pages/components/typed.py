"""A visitor's own input on Explain: the quiet way in, and the form above the evidence, to be changed again."""

from __future__ import annotations

from typing import Any

import streamlit as st

from influence_core import service
from pages.components import errors, session
from pages.components.html import element, plain_label, text
from pages.components.view import View

_FORM = "typing"
PICTURES = ["png", "jpg", "jpeg", "gif", "bmp", "webp", "tif", "tiff"]
_ABOUT = {
    "text": "Any text: the model says what it thinks of it, and which training rows made it think so.",
    "image": "Any picture: it is resized to what the model takes.",
}


def way_in() -> None:
    """Draw the button that opens the form with usual values."""
    st.button(
        "Try your own input", icon=":material/edit_note:", type="tertiary", key="try_own", on_click=_open,
        args=("", ""), help="Explain something that is in no split",
    )  # fmt: skip


def change(datum: service.Datum) -> None:
    """Draw the button that opens the form filled in from a row."""
    st.button(
        "Change it", icon=":material/edit:", key="change_it", on_click=_open, args=(datum.split, str(datum.row_id)),
        help="Start from this row, change something, and see what the model says then",
    )  # fmt: skip


def _open(split: str, row: str) -> None:
    before = session.kept(_FORM)
    session.keep(_FORM, (session.view().study, split, row, 1 + (before[3] if before else 0)))


def _close() -> None:
    *_, number = session.kept(_FORM)
    session.keep(_FORM, ("", "", "", number))


def form(view: View) -> None:
    """Draw the form if it is open; what is entered becomes the query."""
    study, split, row, number = session.kept(_FORM) or ("", "", "", 0)
    if study != view.study:
        return
    with st.container(border=True, key="typed", gap="small"), errors.shown():
        with st.container(horizontal=True, vertical_alignment="center", key="typed_head"):
            head = st.container()
            st.button("", icon=":material/close:", type="tertiary", key="typed_close", on_click=_close, help="Close")
        asked = service.typed_form(view.study, split, row)
        about = _about(asked, split, row)
        head.html(element("div", element("h3", "Your input"), element("p", text(about), css="if-scale")))
        with st.form(f"typed_form.{number}", border=False):
            with st.container(key="typed_fields"):
                values = {field.name: _field(field, f"t.{number}.{i}", asked) for i, field in enumerate(asked.fields)}
            entered = st.form_submit_button("Explain this", type="primary", key="typed_enter")
        if entered:
            given = {name: value for name, value in values.items() if value is not None}
            session.update(typed=service.keep_typed(view.study, given, split, row))
            st.rerun()


def _about(asked: service.TypedForm, split: str, row: str) -> str:
    """Return what the form starts with, and what an empty field means."""
    known = _ABOUT.get(asked.fields[0].kind)
    if known:
        return known
    start = "the usual values of the training rows" if not split else f"{split} row {row}"
    start = "your last input" if split == "typed" else start
    gaps = any(field.optional for field in asked.fields)
    empty = "an empty field is a missing value" if gaps else "no field may be empty"
    hidden = f" The other {asked.n_hidden:,} columns keep their values." if asked.n_hidden else ""
    return f"Starts from {start}; {empty}.{hidden}"


def _field(field: service.TypedField, key: str, asked: service.TypedForm) -> str | bytes | None:
    """Draw one field and return what stands in it; None for a picture that was not chosen."""
    label = plain_label(field.name)
    if field.kind == "image":
        file = st.file_uploader("Picture", type=PICTURES, key=key, label_visibility="collapsed")
        return None if file is None else file.getvalue()
    if field.kind == "text":
        return st.text_area(
            label, value=field.value, max_chars=asked.max_letters, height=100, key=key, label_visibility="collapsed",
            placeholder="Type or paste a text",
        )  # fmt: skip
    if field.choices:
        return _choice(field, label, key)
    if field.is_label:
        return st.text_input(
            f"{label} you expect", value=field.value, key=key, max_chars=100, placeholder="a number",
            help="A predicted number is explained by its error, so it needs the number that you would expect.",
        )  # fmt: skip
    empty = f"missing (usual: {field.typical})" if field.typical else "missing"
    return st.text_input(label, value=field.value, key=key, max_chars=500, placeholder=empty)


def _choice(field: service.TypedField, label: str, key: str) -> str:
    options: list[Any] = list(dict.fromkeys([*([field.value] if field.value else []), *field.choices]))
    chosen = st.selectbox(
        label, options, index=options.index(field.value) if field.value else None, key=key, placeholder="missing",
        accept_new_options=field.kind == "category",
    )  # fmt: skip
    return "" if chosen is None else str(chosen)
