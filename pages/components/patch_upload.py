"""Patches brought back: what would become of each line, said before anything happens, and one button that applies."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from influence_core import service
from pages.components import batches, errors, session
from pages.components.html import element, text
from pages.components.studies import literal

_TAKEN = "patches taken"  # kept: how often patches were applied here
_STATE = "patch_state"  # key of the choice of lines
_FORMATS = {"csv": "text/csv", "json": "application/json", "parquet": "application/vnd.apache.parquet"}
_FOLLOW = "A row that was inserted above moves others. Their content tells where they are now."


def panel(study: str) -> None:
    """Draw the upload of patches, and what they would do."""
    with st.expander("Apply a patch", key="patch_panel"):
        words = (
            "Decisions that were downloaded as a patch, here or elsewhere, on these data or older ones. Several files "
            "are merged. Nothing is written before you press the button."
        )
        st.html(element("p", words, css="if-scale"))
        batches.last(study)
        given = st.file_uploader(
            "Patches", list(_FORMATS), accept_multiple_files=True, key=f"patches_{study}_{session.kept(_TAKEN) or 0}",
            max_upload_size=50, label_visibility="collapsed",
        )  # fmt: skip
        if given:
            with errors.shown():
                _foretold(study, tuple(service.PatchFile(file.name, file.getvalue()) for file in given))


def _foretold(study: str, files: tuple[service.PatchFile, ...]) -> None:
    follow = st.toggle("Follow moved rows", key="patch_follow", help=_FOLLOW)
    page = service.patch_page(study, files, follow)
    there = [state for state, count in page.counts.items() if count]
    if not there:
        st.html(element("p", "There is no line in it.", css="if-note"))
        return
    held = session.entered([_STATE]).get(_STATE)
    chosen = st.segmented_control(
        "Lines", there, format_func=lambda state: f"{service.PATCH_STATES[state]} {page.counts[state]:,}",
        label_visibility="collapsed", required=True,
        **session.shown(_STATE, held if held in there else there[0], shows="default"),
    )  # fmt: skip
    state = chosen if chosen in there else there[0]
    st.html(_table(page.lines[state], page.counts[state]))
    _notes(page)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="patch_act"):
        _apply(study, files, follow, page)
        with st.popover("All lines", icon=":material/download:", key="get_patch_lines"):
            for format, mime in _FORMATS.items():
                made = service.on_behalf(partial(service.patch_lines, study, files, follow, format))
                st.download_button(format, made, f"{study}-patch-lines.{format}", mime, key=f"patch_lines_{format}",
                                   on_click="ignore", width="stretch")  # fmt: skip


def _table(lines: tuple[service.PatchLine, ...], total: int) -> str:
    told = any(line.why for line in lines)
    names = ("Row", "Change", "By", *(("Why",) if told else ()))
    head = element("tr", *(element("th", text(name), scope="col") for name in names))
    body = []
    for line in lines:
        cells = (f"{line.split} {line.row_id}", line.does or "–", line.by or "–", *((line.why,) if told else ()))
        body.append(element("tr", *(element("td", text(_short(cell))) for cell in cells)))
    shown = element("table", element("thead", head), element("tbody", *body), css="if-methods if-tight")
    more = f"The first {len(lines)} of {total:,}; “All lines” has the others." if total > len(lines) else ""
    scroll = element(
        "div", shown, css="if-scroll if-patch", tabindex="0", role="region", aria_label="Lines of the patch"
    )
    return scroll + (element("p", text(more), css="if-scale") if more else "")


def _short(cell: str) -> str:
    return cell if len(cell) <= 200 else f"{cell[:199]}…"


def _notes(page: service.PatchPage) -> None:
    said = []
    if page.new_classes:
        shown = ", ".join(f"“{_short(name)}”" for name in page.new_classes[:5])
        more = f" and {len(page.new_classes) - 5} more" if len(page.new_classes) > 5 else ""
        said.append(f"The study has no class {shown}{more} yet, and would get it at the next retraining.")
    if page.unchecked:
        one = page.unchecked == 1
        said.append(
            f"The content of {page.unchecked:,} row{'' if one else 's'} is not compared: the patch does not know it."
        )
    if not page.counts["fits"]:
        said.append("Nothing in it is left to apply.")
    if said:
        st.html(element("p", text(" ".join(said)), css="if-scale"))


def _apply(study: str, files: tuple[service.PatchFile, ...], follow: bool, page: service.PatchPage) -> None:
    if service.role(study) == "viewer":
        st.html(element("p", "Reviewers and owners of the study may apply it.", css="if-note"))
        return
    decided, again = page.counts["decided"], False
    if decided:
        help = "Your vote then stands beside theirs; where it ties, the row is in conflict."
        again = st.toggle(f"Also the {_rows(decided)} decided otherwise here", key="patch_again", help=help)
    count = page.counts["fits"] + (decided if again else 0)
    name = batches.reviewer(study, "patch_name")
    st.button(
        f"Decide {_rows(count)} so", key="patch_apply", type="primary", disabled=not (count and name.strip()),
        on_click=_write, args=(study, name, batches.token(), files, follow, again),
        help="One act in the review log, with one undo; labels change at the next retraining.",
    )  # fmt: skip


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _write(study: str, name: str, token: str, files: Any, follow: bool, again: bool) -> None:
    with errors.shown():
        done = service.apply_patch(study, name, token, files, follow, again)
        batches.written(study, name, done.line)
        session.keep(_TAKEN, int(session.kept(_TAKEN) or 0) + 1)  # an empty uploader: the server lets go of the files
        spared = f" {_rows(done.spared)} decided meanwhile: left as they are." if done.spared else ""
        session.say(f"{literal(done.line.words)}.{spared}")


__all__ = ["panel"]
