"""Patches that a browser brought: what is foretold of each line, and that exactly this is written, in one act."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from influence_core import service
from influence_core.changes import Change, resolved_changes
from influence_core.errors import BadInput
from influence_core.reviews import Reviews
from influence_core.service import PATCH_STATES, PatchFile, access
from influence_core.service.opened import opened
from influence_core.workflows.patches import patch_bytes, with_rows_seen

HEAD = b"row_id,split,action,old_label,new_label\n"


def patch(changes: Sequence[Change], name: str = "p.csv", *, seen: bool = True) -> PatchFile:
    """A patch of the study, with the content of its rows as an export would know it."""
    known = with_rows_seen(changes, opened("table").study) if seen else changes
    return PatchFile(name, patch_bytes(known, name.rpartition(".")[2]))


def rows(n: int = 8, split: str = "train") -> list[tuple[Any, str]]:
    study = opened("table").study
    return list(zip(study.task.ids(split)[:n].tolist(), study.column(split, "label")[:n].tolist(), strict=True))


def other(label: str) -> str:
    return next(name for name in opened("table").study.header.classes if name != label)


def counts(page: service.PatchPage) -> dict[str, int]:
    assert list(page.counts) == list(PATCH_STATES)
    return {state: count for state, count in page.counts.items() if count}


def resolved(own_studies: Path) -> list[Change]:
    return resolved_changes(own_studies / "table", opened("table").study.header.classes)[0]


def outcome(changes: Sequence[Change]) -> list[tuple[Any, ...]]:
    return [(c.split, c.row, c.action, c.old, c.new, c.weight, c.reviewer, c.comment) for c in changes]


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
def test_an_export_undone_comes_back_whole(own_studies: Path, format: str) -> None:
    (a, la), (b, _), (c, _), (d, ld) = rows(4)
    made = [
        {"split": "train", "row": a, "action": "relabel", "label": other(la), "comment": "=six legs"},
        {"split": "train", "row": b, "action": "drop"},
        {"split": "train", "row": c, "action": "downweight", "weight": 0.25},
        {"split": "train", "row": d, "action": "keep", "comment": "it is"},
        {"split": "test", "row": rows(1, "test")[0][0], "action": "keep"},
    ]
    service.record_acts("table", "ann", [{"tab": "t", "number": 1, "decisions": made}])
    before, file = resolved(own_studies), PatchFile(f"p.{format}", service.patch_file("table", format))
    assert counts(service.patch_page("table", [file])) == {"already": 5}
    with pytest.raises(BadInput, match="No line of it fits"):
        service.apply_patch("table", "ann", "x", [file])
    service.undo_last("table", "ann")
    assert resolved(own_studies) == []
    page = service.patch_page("table", [file])
    assert counts(page) == {"fits": 5} and page.unchecked == 0 and not page.new_classes
    assert {(line.row_id, line.does) for line in page.lines["fits"]} >= {
        (a, f"{la} → {other(la)}"), (c, "downweight to 0.25"), (d, f"keep, labelled {ld}"),
    }  # fmt: skip
    assert len(Reviews(own_studies / "table").log()) == 2  # looking writes nothing
    done = service.apply_patch("table", "ann", "t1", [file])
    assert done.line.words == f"5 rows decided as in p.{format}" and done.spared == 0
    assert outcome(resolved(own_studies)) == outcome(before)
    (line, _), *_ = Reviews(own_studies / "table").log()
    assert (line.n_rows, line.kind, line.evidence["by"]) == (5, "decide", ["ann"])
    assert service.apply_patch("table", "ann", "t1", [file]) == done  # sent twice
    assert service.batches("table") == (done.line,)
    service.undo_batch("table", "ann", done.line.tab, done.line.number)
    assert resolved(own_studies) == []


def test_each_state_is_foretold_with_its_row_and_reason_and_only_what_fits_is_written(own_studies: Path) -> None:
    task = opened("table").study.task
    sample, elsewhere = rows(8), rows(3, "test")
    (a, la), (b, lb), (c, lc), (d, _), (e, _), (f, _), (g, lg), _ = sample
    seen = {
        x.row: x for x in with_rows_seen([Change("train", row, "keep") for row, _ in sample], opened("table").study)
    }
    service.record_acts("table", "eve", [
        {"tab": "t", "number": 1, "decisions": [{"split": "train", "row": c, "action": "drop"}]},
        {"tab": "t", "number": 2, "decisions": [{"split": "train", "row": g, "action": "relabel", "label": other(lg)}]},
    ])  # fmt: skip
    changes = [
        Change("train", a, "relabel", la, other(la), reviewer="bob", at=1e9, comment="why", content=seen[a].content),
        Change("train", b, "relabel", other(lb), "wasp", reviewer="bob"),
        Change("train", c, "relabel", lc, other(lc), reviewer="bob"),
        Change("train", d, "drop", content="0" * 16),
        Change("train", 10**15, "relabel", "ant", "bee", content="1" * 16),
        Change("test", elsewhere[0][0], "drop", content=seen[f].content),
        Change("train", g, "relabel", lg, other(lg), reviewer="bob"),
        Change("train", e, "relabel", None, seen[e].old),
        Change("test", elsewhere[1][0], "keep", other(elsewhere[1][1])),
    ]
    page = service.patch_page("table", [patch(changes, seen=False)])
    assert counts(page) == {
        "fits": 1, "already": 2, "decided": 1, "conflict": 2, "changed": 1, "moved": 1, "missing": 1
    }  # fmt: skip
    assert page.unchecked == 5 and page.new_classes == ()  # the row that would get it is in conflict
    why = {line.row_id: line.why for found in page.lines.values() for line in found}
    assert why[a] == "" and why[b] == f"labelled {lb}, but {other(lb)} was reviewed"
    assert why[c] == "eve: drop" and why[g] == "decided so by eve" and why[e] == f"labelled {seen[e].old}"
    assert why[elsewhere[0][0]] == f"what was reviewed is train row {f} now" and why[10**15] == "no row of this study"
    assert "something else than what was reviewed" in why[d]
    # The same as a table, which can be looked through and mended.
    for format in ("csv", "json", "parquet"):
        content = service.patch_lines("table", [patch(changes, seen=False)], False, format)
        made = {"csv": pd.read_csv, "json": pd.read_json, "parquet": pd.read_parquet}[format](io.BytesIO(content))
        assert len(made) == len(changes) and list(made["row_id"])[:3] == [a, b, c]
        assert list(made["result"])[:3] == ["Would be applied", "Another label", "Decided otherwise here"]
    # Followed, and with what somebody decided otherwise.
    followed = service.patch_page("table", [patch(changes, seen=False)], follow=True)
    assert counts(followed)["fits"] == 2 and "moved" not in counts(followed)
    done = service.apply_patch("table", "ann", "1", [patch(changes, seen=False)])
    assert done.line.n_rows == 1 and done.spared == 0
    by_ann = [s.decision for s in Reviews(own_studies / "table").standing() if s.reviewer == "ann"]
    assert [(x.row, x.action, x.label, x.comment) for x in by_ann] == [
        (a, "relabel", other(la), "bob decided so: why")
    ]  # fmt: skip
    service.undo_last("table", "ann")
    done = service.apply_patch("table", "ann", "2", [patch(changes, seen=False)], follow=True, again=True)
    by_ann = [s.decision for s in Reviews(own_studies / "table").standing() if s.reviewer == "ann"]
    assert {(x.split, x.row, x.action) for x in by_ann} == {
        ("train", a, "relabel"), ("train", c, "relabel"), ("train", f, "drop"),
    }  # fmt: skip
    assert done.line.n_rows == 3 and len(task.ids("train")) > 8


def test_patches_that_contradict_each_other_are_told_and_what_they_agree_about_is_joined(own_studies: Path) -> None:
    (a, la), (b, lb) = rows(2)
    first = [
        Change("train", a, "relabel", la, other(la), reviewer="ann"),
        Change("train", b, "drop", lb, reviewer="ann"),
    ]
    then = [Change("train", a, "drop", la, reviewer="bob"), Change("train", b, "drop", lb, reviewer="bob")]
    files = [patch(first, "ann.csv"), patch(then, "bob.json")]
    page = service.patch_page("table", files)
    assert counts(page) == {"fits": 1, "disputed": 1}
    (disputed,) = page.lines["disputed"]
    assert disputed.row_id == a and disputed.why == f"ann: relabel to {other(la)}; bob: drop"
    table = pd.read_csv(io.BytesIO(service.patch_lines("table", files, False, "csv")))
    assert list(table["row_id"]) == [b, a, a] and list(table["reviewer"]) == ["ann, bob", "ann", "bob"]
    done = service.apply_patch("table", "eve", "1", files)
    assert done.line.words == "1 row decided as in ann.csv, bob.json"
    (change,) = resolved(own_studies)
    assert (change.row, change.action, change.comment) == (b, "drop", "ann, bob decided so")


def test_new_classes_are_told_and_their_other_spellings_refused(own_studies: Path) -> None:
    (a, la), (b, lb) = rows(2)
    page = service.patch_page("table", [patch([Change("train", a, "relabel", la, "wasp")])])
    assert page.new_classes == ("wasp",) and counts(page) == {"fits": 1}
    for label, words in ((la.upper(), "in another spelling"), ("w\u200basp", "invisible"), ("x" * 201, "the label is")):
        with pytest.raises(BadInput) as refused:
            service.patch_page("table", [patch([Change("train", b, "relabel", lb, label)], "odd.csv")])
        assert words in str(refused.value) and f"odd.csv: train row {b}" in str(refused.value)


@pytest.mark.parametrize(("name", "content", "words"), [
    ("p.csv", b"", "has no bytes"),
    ("p.pkl", b"\x80\x04.", "p.pkl is no csv, json, parquet"),
    ("p.csv", b"\x80\x04\x95.", "The patch cannot be read: p.csv"),
    ("p.csv", b"id,label\n1,ant\n", "p.csv: It has no column row_id"),
    ("../../p.csv", HEAD + b"1,locked,drop,ant,\n", "Locked rows are not cleaned: p.csv"),
    ("<b>.csv", HEAD + b"1,train,explode,ant,\n", "_b_.csv: Line 1: action is"),
])  # fmt: skip
def test_what_is_no_patch_of_this_study_gets_one_message_and_changes_nothing(
    own_studies: Path, name: str, content: bytes, words: str
) -> None:
    good = patch([Change("train", rows(1)[0][0], "drop")], "good.csv")
    for act in (
        lambda: service.patch_page("table", [good, PatchFile(name, content)]),
        lambda: service.patch_lines("table", [good, PatchFile(name, content)], False, "csv"),
        lambda: service.apply_patch("table", "ann", "1", [good, PatchFile(name, content)]),
    ):
        with pytest.raises(BadInput) as refused:
            act()
        assert words in str(refused.value) and "/tmp" not in str(refused.value)
    assert not (own_studies / "table" / "reviews.sqlite").exists()


def test_too_many_files_and_bytes_are_refused(own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = patch([Change("train", rows(1)[0][0], "drop")])
    with pytest.raises(BadInput, match="There are 21 files"):
        service.patch_page("table", [one] * 21)
    with pytest.raises(BadInput, match="There are 0 files"):
        service.patch_page("table", [])
    monkeypatch.setattr("influence_core.service.patch_files.MAX_BYTES", len(one.content))
    assert counts(service.patch_page("table", [one])) == {"fits": 1}
    with pytest.raises(BadInput, match="too large"):
        service.patch_page("table", [one, one])


def test_viewers_look_and_only_reviewers_apply(own_studies: Path) -> None:
    file = patch([Change("train", rows(1)[0][0], "drop", reviewer="bob")])
    (own_studies / "access.toml").write_text(
        '[studies.table]\nviewer = ["vic@example.com"]\nreviewer = ["ann@example.com"]\n', encoding="utf-8"
    )
    try:
        access.set_identity(lambda: "vic@example.com", "on", None)
        assert counts(service.patch_page("table", [file])) == {"fits": 1}
        assert b"Would be applied" in service.patch_lines("table", [file], False, "csv")
        with pytest.raises(BadInput, match="takes the role reviewer"):
            service.apply_patch("table", "ann", "1", [file])
        access.set_identity(lambda: "ann@example.com", "on", None)
        assert service.apply_patch("table", "somebody else", "1", [file]).line.reviewer == "ann@example.com"
    finally:
        access._registered.clear()


def test_long_comments_are_cut_and_hostile_text_stays_text(own_studies: Path) -> None:
    (a, la), (b, lb) = rows(2)
    bad = "<script>alert(1)</script>"
    said = [Change("train", a, "drop", la, reviewer="=cmd|' /C calc'!A0", comment="x" * 2000),
            Change("train", b, "relabel", lb, bad, reviewer=bad, comment="'=1+1")]  # fmt: skip
    for name in ("p.csv", "p.json", "p.parquet"):
        page = service.patch_page("table", [patch(said, name)])
        assert [line.by for line in page.lines["fits"]] == ["=cmd|' /C calc'!A0", bad] and page.new_classes == (bad,)
    table = service.patch_lines("table", [patch(said)], False, "csv").decode()
    assert ",'=cmd" in table or "\"'=cmd" in table
    service.apply_patch("table", "ann", "1", [patch(said)])
    first, second = (one.decision for one in Reviews(own_studies / "table").standing())
    assert len(first.comment) == 2000 and first.comment.endswith("…")
    assert second.comment == f"{bad} decided so: '=1+1" and second.label == bad
    assert json.loads(service.patch_file("table", "json"))[1]["new_label"] == bad


def test_numbers_that_were_shown_short_fit_the_data_that_they_are_of(
    more_studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(more_studies / "heights", tmp_path / "heights")
    monkeypatch.setenv("INFLUENCE_STUDIES", str(tmp_path))
    study = opened("heights").study
    ids, labels = study.task.ids("train")[:3].tolist(), study.column("train", "label")[:3].tolist()
    made = [{"split": "train", "row": row, "action": "relabel", "label": "1.25"} for row in ids]
    service.record_acts("heights", "ann", [{"tab": "t", "number": 1, "decisions": made}])
    file = PatchFile("p.csv", service.patch_file("heights", "csv"))
    cleaned = pd.read_csv(io.BytesIO(service.cleaned_data("heights", "csv"))).set_index("id")["label"]
    assert [cleaned[row] for row in ids] == [1.25] * 3 != labels
    service.undo_last("heights", "ann")
    assert service.patch_page("heights", [file]).counts["fits"] == 3
    service.apply_patch("heights", "ann", "1", [file])
    assert service.patch_file("heights", "csv").split(b",2")[0] == file.content.split(b",2")[0]
    odd = [Change("train", ids[0], "relabel", None, "3,5")]
    with pytest.raises(BadInput, match="is no number"):
        service.patch_page("heights", [PatchFile("p.csv", patch_bytes(odd, "csv"))])
