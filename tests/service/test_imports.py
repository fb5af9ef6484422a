"""Uploads, previews and imports without a browser: what is kept, what is refused, what is found again."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from influence_core import service
from influence_core.errors import BadInput, InfluenceError, StoreProblem
from influence_core.service import imports, previews, uploads
from influence_core.service.jobs import Jobs

ROWS = [f"k{i},{'cash prize now' if i % 2 else 'see you at lunch'} {i} {'x' * 40},{i % 2},{i}" for i in range(60)]
CSV = ("key,text,spam,age\n" + "\n".join(ROWS) + "\n").encode()


@pytest.fixture(autouse=True)
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own, and no worker: jobs stay as the test leaves them."""
    monkeypatch.setenv("INFLUENCE_STUDIES", str(tmp_path / "studies"))
    monkeypatch.setattr(imports, "ensure_worker", lambda folder: False)
    monkeypatch.setattr(previews, "_opened", previews.OrderedDict())
    yield tmp_path / "studies"
    for held in previews._opened.values():
        held.close()


def uploaded(content: bytes = CSV, name: str = "mine.csv") -> str:
    return service.save_upload(name, io.BytesIO(content))


def guessed(token: str) -> dict[str, str]:
    return {column.name: column.role for column in service.preview(token).columns}


def started(token: str, title: str = "Mine") -> service.PendingImport:
    check = service.check_import(token, guessed(token))
    assert check.roles is not None, check.problem
    return service.start_import(token, check.roles, title)


def ended(folder: Path, state: str, error: InfluenceError | None = None) -> None:
    jobs = Jobs(folder)
    job = jobs.list()[0]
    assert jobs.claim(job.id, 77) and jobs.finish(job.id, 77, state, error)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("mine.csv", "mine.csv"), ("../../etc/passwd", "passwd"), ("C:\\data\\mine.tsv", "mine.tsv"),
        (".hidden.csv", "hidden.csv"), ("a b;c.csv", "a_b_c.csv"), ("", "table"), ("..", "table"),
        ("größe 木.csv", "größe_木.csv"), ("a\x00b\n.csv", "a_b_.csv"),
    ],
)  # fmt: skip
def test_names_are_made_safe(name: str, kept: str, studies: Path) -> None:
    file = imports.uploaded_file(studies, uploaded(name=name))
    assert file.name == kept and file.read_bytes() == CSV and file.parent.parent == studies / ".uploads"


@pytest.mark.parametrize("name", ["x" * 400 + ".parquet", "木" * 400 + ".csv", "木" * 400])
def test_long_names_fit_the_file_system(name: str, studies: Path) -> None:
    file = imports.uploaded_file(studies, uploaded(name=name))
    assert len(file.name.encode()) <= 240 and file.suffix == Path(name).suffix


def test_too_large_and_empty_files_leave_nothing(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_BYTES", len(CSV) - 1)
    for content, said in ((CSV, "too large"), (b"", "empty")):
        with pytest.raises(BadInput, match=said):
            uploaded(content)
    assert not list((studies / ".uploads").iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(studies: Path) -> None:
    studies.mkdir()
    studies.chmod(0o500)
    with pytest.raises(StoreProblem):
        uploaded()
    studies.chmod(0o700)


@pytest.mark.parametrize("token", ["", "..", "../../x", "0" * 32, "A" * 32, "*" * 32])
def test_a_token_is_never_a_path(token: str, studies: Path) -> None:
    for ask in (service.preview, lambda t: service.check_import(t, {}), lambda t: service.start_import(t, {}, "x")):
        with pytest.raises(BadInput, match="gone"):
            ask(token)
    service.drop_upload(token)
    assert not list(studies.glob("*/jobs.sqlite"))


def test_a_preview_describes_the_file_and_reads_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, real = [], previews.open_source
    monkeypatch.setattr(previews, "open_source", lambda path, run: opened.append(path) or real(path, run))
    token = uploaded()
    preview = service.preview(token)
    assert (preview.file, preview.title, preview.n_rows) == ("mine.csv", "mine", 60)
    assert {c.name: (c.kind, c.role) for c in preview.columns} == {
        "key": ("words", "id"), "text": ("texts", "text"),
        "spam": ("whole numbers", "label"), "age": ("whole numbers", "shown"),
    }  # fmt: skip
    assert len(preview.rows) == 8 and preview.rows[1][2:] == ("1", "1")
    service.check_import(token, guessed(token))
    assert len(opened) == 1


def test_a_file_that_cannot_be_read_is_refused_by_name_and_only_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [], previews.open_source
    monkeypatch.setattr(previews, "open_source", lambda path, run: calls.append(path) or real(path, run))
    token = uploaded(b"a,b\n1,2\n3\n")
    for _ in range(2):
        with pytest.raises(BadInput) as caught:
            service.preview(token)
        assert "mine.csv" in str(caught.value) and ".uploads" not in str(caught.value)
    assert len(calls) == 1


def test_only_a_few_files_are_held_open_and_the_others_come_back() -> None:
    tokens = [uploaded(CSV + f"k{n + 900},a,1,3\n".encode()) for n in range(previews._KEPT + 2)]
    previewed = [service.preview(token) for token in tokens]
    assert len(previews._opened) == previews._KEPT
    assert service.preview(tokens[0]) == previewed[0]


@pytest.mark.parametrize(
    ("changes", "said", "column"),
    [
        ({"spam": "shown"}, "No column is the label", None),
        ({"text": "shown"}, "nothing to read", None),
        ({"key": "label"}, "given twice", "key"),
        ({"age": "text", "text": "shown"}, "no text", "age"),
        ({"spam": "id", "age": "label", "key": "shown"}, "does not tell rows apart", "spam"),
    ],
)
def test_a_choice_that_cannot_work_names_its_column(changes: dict[str, str], said: str, column: str | None) -> None:
    token = uploaded()
    check = service.check_import(token, guessed(token) | changes)
    assert check.roles is None and check.problem is not None
    assert said in check.problem[0] and check.column == column


def test_features_are_read_unless_there_is_a_text() -> None:
    token = uploaded()
    roles = {"key": "ignored", "text": "shown", "spam": "label", "age": "feature"}
    found = service.check_import(token, roles).roles
    assert found is not None and (found["features"], found["text"], found["ignored"]) == (["age"], None, ["key"])
    found = service.check_import(token, roles | {"text": "text"}).roles
    assert found is not None and (found["features"], found["text"]) == ([], "text")


def test_the_kind_of_answer_follows_the_label_unless_chosen() -> None:
    token = uploaded()
    roles = {"text": "text", "age": "label"}
    assert service.check_import(token, roles).task == "regression"
    assert service.check_import(token, roles, "classification").task == "classification"
    assert service.check_import(token, {"text": "text", "spam": "label"}).task == "classification"


def test_an_import_is_a_folder_with_a_job_that_any_browser_finds(studies: Path) -> None:
    token = uploaded()
    item = started(token, "-Größe & Maß")
    assert item.name == "groe-ma"
    assert [path.name for path in (studies / item.name).glob("*.toml")] == []
    job = Jobs(studies / item.name).list()[0]
    assert job.argv[:3] == ("finish-import", "--", token) and job.argv[4] == "-Größe & Maß"
    assert json.loads(job.argv[3])["label"] == "spam"
    assert service.pending_imports() == [item] and item.file == "mine.csv" and item.job.state == "queued"
    assert service.studies() == []


def test_one_upload_is_imported_once_and_equal_titles_get_folders_of_their_own(studies: Path) -> None:
    token = uploaded()
    first = started(token)
    assert started(token).job.id == first.job.id and started(token, "Other").name == "mine"
    assert started(uploaded()).name == "mine-2"
    assert len(service.pending_imports()) == 2


@pytest.mark.parametrize("title", ["x" * 101, "a\x07b"])
def test_a_bad_title_is_refused_and_leaves_nothing(title: str, studies: Path) -> None:
    token = uploaded()
    with pytest.raises(BadInput, match="name"):
        service.start_import(token, {"label": "spam"}, title)
    assert [path.name for path in studies.iterdir()] == [".uploads"]


def test_a_queue_that_cannot_be_written_leaves_no_folder(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StoreProblem("The disk is full", "No room.", "Free some.")

    token = uploaded()
    monkeypatch.setattr(Jobs, "submit", full)
    with pytest.raises(StoreProblem):
        service.start_import(token, {"label": "spam"}, "Mine")
    assert [path.name for path in studies.iterdir()] == [".uploads"]


def test_a_cancelled_import_can_be_tried_again_with_the_same_or_other_roles(studies: Path) -> None:
    item = started(uploaded())
    service.cancel_import(item.name)
    assert service.pending_imports()[0].job.state == "cancelled"
    again = service.retry_import(item.name)
    assert again.job.is_active and again.job.id != item.job.id and again.roles == item.roles
    service.cancel_import(item.name)
    other = service.start_import(item.token, item.roles | {"task": "regression"}, "Mine")
    assert other.name == item.name and other.roles["task"] == "regression"


def test_cancelling_a_running_import_is_shown_until_it_ends(studies: Path) -> None:
    item = started(uploaded())
    assert Jobs(studies / item.name).claim(item.job.id, 77)
    service.cancel_import(item.name)
    now = service.pending_import(item.name)
    assert now is not None and now.stopping and now.job.is_active


def test_a_failed_import_keeps_its_reason_and_is_discarded_with_its_file(studies: Path) -> None:
    item = started(uploaded())
    with pytest.raises(BadInput, match="still running"):
        service.discard_import(item.name)
    ended(studies / item.name, "failed", InfluenceError("Training diverged", "The loss is NaN.", "Scale it."))
    (studies / f".{item.name}-import-abc").mkdir()  # what a killed worker leaves
    failed = service.pending_import(item.name)
    assert failed is not None and failed.job.message == "Training diverged: The loss is NaN. Scale it."
    service.discard_import(item.name)
    assert service.pending_imports() == []
    assert sorted(path.name for path in studies.iterdir()) == [".uploads"]
    assert not list((studies / ".uploads").iterdir())


def test_what_is_not_pending_is_refused(studies: Path) -> None:
    (studies / "digits").mkdir(parents=True)
    (studies / "digits" / "study.toml").write_text("")
    Jobs(studies / "digits").submit("import", "Import", ["finish-import", "--", "0" * 32, "{}", "Digits"], "import")
    ended(studies / "digits", "done")
    for name in ("digits", "nothing", "..", ".uploads", ""):
        for act in (service.discard_import, service.retry_import, service.cancel_import):
            with pytest.raises(BadInput, match="no such import"):
                act(name)
    assert (studies / "digits" / "study.toml").exists()


def test_an_unreadable_list_hides_no_other_import(studies: Path) -> None:
    item = started(uploaded())
    (studies / "broken").mkdir()
    (studies / "broken" / "jobs.sqlite").write_bytes(b"not a database" * 100)
    assert service.pending_imports() == [item]


def test_old_uploads_go_except_those_that_an_import_needs(studies: Path) -> None:
    old, needed, fresh = uploaded(), uploaded(), uploaded()
    started(needed)
    past = time.time() - uploads.KEEP_SECONDS - 60
    for token in (old, needed):
        os.utime(studies / ".uploads" / token, (past, past))
    last = uploaded()
    assert {path.name for path in (studies / ".uploads").iterdir()} == {needed, fresh, last}
