"""Whatever the bytes: a study, or one message with three parts, and nothing touched outside the target folder."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from influence_core.errors import InfluenceError
from influence_core.readers import guessed_roles, import_table, open_source
from influence_core.run import Run

NAMES = st.sampled_from(["a.csv", "a.tsv", "a.json", "a.jsonl", "a.parquet", "a.arrow", "a.zip", "a.gz", "a.txt", "a"])
CELL = st.one_of(
    st.integers().map(str), st.floats().map(str), st.text(max_size=12), st.booleans().map(str), st.dates().map(str),
    st.sampled_from(["", "NA", "a", "b", "0", "1", '"', "\n", "2024-02-30", "x,y", "1e999", "inf", "\x00", "\u202e"]),
)  # fmt: skip
FEW = st.sampled_from(["yes", "no", "0", "1", ""])


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """Return a table as CSV, as JSON lines or as unquoted text: regular ones, and damaged ones."""
    width, height = draw(st.integers(1, 5)), draw(st.integers(0, 40))
    kinds = st.sampled_from([CELL, FEW, st.integers(0, 9).map(str), st.floats(width=16).map(str)])
    columns = [draw(st.lists(draw(kinds), min_size=height, max_size=height)) for _ in range(width)]
    header = draw(st.lists(st.sampled_from(["y", "id", "label", "x", "text", "split", "", "ü", "z", "w"]),
                           min_size=width, max_size=width, unique=draw(st.booleans())))  # fmt: skip
    rows = [list(row) for row in zip(*columns, strict=True)]
    style = draw(st.sampled_from(["csv", "json", "plain"]))
    if style == "json":
        text = "\n".join(json.dumps(dict(zip(header, row, strict=True))) for row in rows)
    elif style == "plain":
        text = "\n".join(",".join(row) for row in [header, *rows])
    else:
        out = io.StringIO()
        csv.writer(out, quoting=csv.QUOTE_ALL).writerows([header, *rows])
        text = out.getvalue()
    return text.encode(draw(st.sampled_from(["utf-8", "utf-16", "utf-8-sig"])), "replace")


CONTENT = st.one_of(st.binary(max_size=300), tables(), tables(), tables())


@pytest.fixture(scope="module", autouse=True)
def _torch_has_its_own_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Train once before anything is watched: torch makes a cache folder of its own when it first does."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "a.csv").write_text("x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(40)))
    assert _tried(folder / "a.csv", folder / "study") == "study"


def outcome(name: str, content: bytes) -> str:
    """Import the bytes; return "study" or "refused", having checked the message and the folders."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for part in ("given", "out", "temporary", "elsewhere"):
            (home / part).mkdir()
        (home / "given" / name).write_bytes(content)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(home / "temporary"))
            patch.chdir(home / "elsewhere")
            result = _tried(home / "given" / name, home / "out" / "study")
        assert (home / "given" / name).read_bytes() == content
        assert [p.name for p in (home / "given").iterdir()] == [name]
        assert not list((home / "temporary").iterdir()) and not list((home / "elsewhere").iterdir())
        assert [p.name for p in (home / "out").iterdir()] == (["study"] if result == "study" else [])
        assert {p.name for p in home.iterdir()} == {"given", "out", "temporary", "elsewhere"}
        return result


def _tried(path: Path, out: Path) -> str:
    try:
        with open_source(path) as source:
            study = import_table(source, guessed_roles(source), out, Run(device="cpu"))
            assert study.n_rows("train") and study.n_rows("test")
            assert len(study.task.ids("train")) == study.n_rows("train")
            return "study"
    except InfluenceError as error:
        assert error.what.strip() and error.why.strip() and error.fix.strip()
        return "refused"


SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None, "derandomize": True}


@settings(max_examples=50, **SETTINGS)
@given(NAMES, CONTENT)
def test_random_files_import_or_are_refused(name: str, content: bytes) -> None:
    outcome(name, content)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@settings(max_examples=1000, **SETTINGS)
@given(NAMES, CONTENT)
def test_a_thousand_random_files(name: str, content: bytes) -> None:
    outcome(name, content)


def test_the_fuzz_reaches_both_ends() -> None:
    rows = "".join(f"{i},{i % 2}\n" for i in range(40))
    assert outcome("a.csv", f"x,y\n{rows}".encode()) == "study"
    assert outcome("a.csv", b"\x00\x01") == "refused"
