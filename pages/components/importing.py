"""The parts of the screen *Import*: choose a file, say what its columns are for, start."""

from __future__ import annotations

from typing import Any

import streamlit as st

from influence_core import service
from pages.components import errors, jobs, session
from pages.components.html import element, empty, text
from pages.components.roles import IN_WORDS, chosen_roles, ordered, unknown_places, with_role, without
from pages.components.view import READINGS, ROLES, TASKS, View

TYPES = ["csv", "tsv", "txt", "json", "jsonl", "ndjson", "parquet", "pq", "arrow", "feather", "ipc", "gz", "zip"]
COLUMNS_SHOWN = 40
LEAKS_SHOWN = 4  # with their reasons
FIRST_COLUMNS = 30  # of the first rows
ANSWERS = {"classification": "A class", "regression": "A number"}
_FILE = "import_file"
READ = {"words": "By its words", "meaning": "By its meaning"}
_CLEAN: dict[str, Any] = {"roles": (), "task": "", "reading": "", "title": ""}


def first_study(command: str) -> None:
    """Draw what there is to do where there is no study yet."""
    under_way = bool(service.pending_imports())
    advice = "Import a table or texts of your own, or build a demo with the command below."
    st.html(empty("No studies yet", "An import is under way or waits for you." if under_way else advice))
    st.button(
        "Show the import" if under_way else "Import your data", type="primary", icon=":material/upload_file:",
        key="first_import", on_click=session.go, args=("import",),
    )  # fmt: skip
    st.code(command, language="bash")


def chooser() -> None:
    """Draw the field that takes a file."""
    st.file_uploader(
        "A table (CSV, TSV, JSON, JSON lines, Parquet, Arrow, also zipped), a zip of images, or a zipped study",
        type=TYPES, key=_FILE, on_change=_uploaded,
    )  # fmt: skip


def _uploaded() -> None:
    file = session.entered([_FILE]).get(_FILE)
    # A message that the browser sent before the field was gone brings the same file once more.
    if file is not None and session.first_time(f"upload.{file.file_id}"):
        with errors.shown():
            session.update(upload=service.save_upload(file.name, file), made="", **_CLEAN)


def another_file(view: View) -> None:
    """Draw the button that goes back to choosing a file."""
    st.button("Choose another file", icon=":material/undo:", key="import_other", on_click=_drop, args=(view.upload,))


def _drop(token: str) -> None:
    with errors.shown():
        if all(item.token != token for item in service.pending_imports()):  # an import may still need it
            service.drop_upload(token)
        session.update(upload="", **_CLEAN)


def file_line(file: str, said: str) -> str:
    """Return what the file is, as HTML."""
    return element("div", element("h2", text(file)), element("p", text(said), css="if-scale"), css="if-facts")


def facts(preview: service.ImportPreview) -> str:
    """Return the size of a table in words."""
    return f"{preview.n_rows:,} rows · {len(preview.columns):,} columns"


def table(view: View, preview: service.ImportPreview) -> None:
    """Draw the choices for a table, its columns and its first rows."""
    check = settings(view, preview)
    column_table(view, preview, check)
    with st.expander("First rows", icon=":material/table_rows:"):
        st.html(first_rows(preview))


def settings(view: View, preview: service.ImportPreview) -> service.ImportCheck:
    """Draw label, kind of answer, name and the button that starts, and return whether the choices make a study."""
    roles = chosen_roles(view, preview)
    check = service.check_import(preview.token, roles, view.task, view.reading)
    names = [column.name for _, column in ordered(preview)]
    label = next((name for name, role in roles.items() if role == "label"), None)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="import_line"):
        st.selectbox(
            "Label", names, help="The column that the model learns to say.", placeholder="Choose a column",
            **session.widget("label", label, lambda new: with_role(view, preview, new, "label"), among=names),
        )  # fmt: skip
        st.selectbox(
            "Answer", TASKS, format_func=ANSWERS.__getitem__, disabled=label is None,
            help="A class: the label names one of several kinds. A number: the label is an amount.",
            **session.widget("task", check.task or TASKS[0], among=TASKS),
        )  # fmt: skip
        if "text" in roles.values():
            st.selectbox(
                "Read the text", READINGS, format_func=READ.__getitem__,
                help="By its words: quick, and every word's part in a prediction can be shown. By its meaning: a small "
                "language model (MiniLM) turns it into 384 numbers; slower, and words cannot be told apart afterwards.",
                **session.widget("reading", view.reading or READINGS[0], among=READINGS),
            )  # fmt: skip
        name_and_start(view, preview, check.roles)
    cost(check.cost)
    if check.problem is not None and check.column is None:
        st.html(errors.problem_panel(*check.problem))
    if check.leaks:
        _leaks(view, preview, check.leaks)
    errors.notices((*unknown_places(view, preview), *preview.notes))
    return check


def name_and_start(
    view: View, preview: service.ImportPreview | service.ImagesPreview, roles: dict[str, Any] | None
) -> None:
    """Draw the study's name and the button that starts; without roles there is nothing to start."""
    st.text_input("Name of the study", max_chars=100, placeholder=preview.title,
                  **session.widget("title", view.title, shows="value"))  # fmt: skip
    st.button(
        "Import and train", type="primary", icon=":material/play_arrow:", key="import_start", disabled=roles is None,
        on_click=start, args=(preview.token, roles, view.title),
    )  # fmt: skip


def cost(words: str) -> None:
    """Draw what the import will take, where that is known."""
    if words:
        st.html(element("p", text(words + "."), css="if-scale"))


def _leaks(view: View, preview: service.ImportPreview, leaks: tuple[tuple[str, str], ...]) -> None:
    """Draw the columns that may give the label away, why, and the one click that leaves them out."""
    one = len(leaks) == 1
    title = f"{'A column' if one else f'{len(leaks)} columns'} may give the label away"
    said = (
        "What was recorded after the outcome makes a model look perfect and teaches it nothing. "
        f"Keep {'it' if one else 'them'} only if known before the outcome."
    )
    lines = [element("li", element("b", text(name)), ": ", text(f"{why}.")) for name, why in leaks[:LEAKS_SHOWN]]
    if leaks[LEAKS_SHOWN:]:
        lines.append(element("li", "In the same way: ", text(", ".join(name for name, _ in leaks[LEAKS_SHOWN:])), "."))
    with st.container(key="import_leaks", border=True):
        st.html(
            element("div", element("b", text(title)), element("p", text(said)), element("ul", *lines, css="if-notes"),
                    css="if-fit", role="status")
        )  # fmt: skip
        st.button(
            "Leave it out" if one else "Leave them out", icon=":material/visibility_off:", key="import_without",
            on_click=_leave_out, args=(view, preview, tuple(name for name, _ in leaks)),
        )  # fmt: skip


def _leave_out(view: View, preview: service.ImportPreview, names: tuple[str, ...]) -> None:
    session.update(**without(view, preview, names))


def is_reading(view: View) -> bool:
    """Draw how far a large file is read, and return whether it still is; who opens the page again finds it here."""
    if service.reading(view.upload) is None:
        return False
    with st.container(key="import_reading", border=True):
        st.fragment(_watch_reading, run_every=jobs.POLL_SECONDS)(view.upload)
    return True


def _watch_reading(token: str) -> None:
    with errors.shown():
        now = service.reading(token)
        if now is None:
            st.rerun()
        else:
            st.progress(now.fraction, text=f"Reading the file: {now.stage}, {now.fraction:.0%}")
            st.html(element("p", "You can close this page or choose another file, which stops it.", css="if-scale"))


def start(token: str, roles: dict[str, Any], title: str) -> None:
    """Begin an import. For callbacks."""
    with errors.shown():
        item = service.start_import(token, roles, title)
        session.update(upload="", made=item.name, **_CLEAN)


def column_table(view: View, preview: service.ImportPreview, check: service.ImportCheck) -> None:
    """Draw a line per column with the choice of its role, and under it the problem that is about it."""
    lines, roles = ordered(preview), chosen_roles(view, preview)
    if len(lines) > COLUMNS_SHOWN:
        lines = _page(lines, check)
    with st.container(key="import_columns", gap=None):
        for place, column in lines:
            said, choice = st.columns([5, 1], gap="small", vertical_alignment="center")
            said.html(column_line(column, roles[column.name]))
            choice.selectbox(
                f"Role of {column.name}", ROLES, format_func=IN_WORDS.__getitem__, label_visibility="collapsed",
                **session.widget(f"role.{place}", roles[column.name], _role_change(view, preview, column.name),
                                 among=ROLES),
            )  # fmt: skip
            if check.problem is not None and check.column == column.name:
                st.html(errors.problem_panel(*check.problem))


def _role_change(view: View, preview: service.ImportPreview, name: str) -> Any:
    return lambda role: with_role(view, preview, name, role)


def _page(
    lines: list[tuple[int, service.ImportColumn]], check: service.ImportCheck
) -> list[tuple[int, service.ImportColumn]]:
    """Draw the choice of a part of the columns and return it; the part with the problem's column comes up first."""
    parts = [lines[start : start + COLUMNS_SHOWN] for start in range(0, len(lines), COLUMNS_SHOWN)]
    wanted = next((n for n, part in enumerate(parts) if any(c.name == check.column for _, c in part)), 0)
    chosen = st.selectbox(
        "Columns", range(len(parts)), index=wanted, key=f"import_part_{wanted}", width=260,
        format_func=lambda n: f"Columns {n * COLUMNS_SHOWN + 1} to {n * COLUMNS_SHOWN + len(parts[n])} of {len(lines)}",
    )  # fmt: skip
    return parts[chosen]


def column_line(column: service.ImportColumn, role: str) -> str:
    """Return what a column holds, as HTML."""
    missing = f" · {column.n_missing:,} missing" if column.n_missing else ""
    facts = f"{column.kind} · {column.n_distinct:,} different{missing}"
    examples = " · ".join(column.examples) or "no value"
    return element(
        "div",
        element("b", text(column.name), css="if-name", title=column.name),
        element("span", text(facts), css="if-scale"),
        element("span", text(examples), css="if-extract", title=examples[:400]),
        css="if-import-column" + (" if-off" if role == "ignored" else ""),
    )


def first_rows(preview: service.ImportPreview) -> str:
    """Return the first rows of the file as an HTML table."""
    names = [column.name for column in preview.columns[:FIRST_COLUMNS]]
    head = element("tr", *(element("th", text(name), scope="col") for name in names))
    rows = (element("tr", *(element("td", text(value)) for value in row[:FIRST_COLUMNS])) for row in preview.rows)
    table = element("table", element("thead", head), element("tbody", *rows), css="if-first-rows")
    more = (
        f"The first {FIRST_COLUMNS} of {len(preview.columns):,} columns."
        if len(preview.columns) > FIRST_COLUMNS
        else ""
    )
    return element("div", table, css="if-scroll", tabindex="0", role="region", aria_label="First rows") + element(
        "p", more, css="if-scale"
    )
