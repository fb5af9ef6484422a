"""Studies as things that people keep: renamed, emptied, deleted, packed; and what a killed process leaves of that."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from influence_core import Run, Study, fitting, registry, scratch, service
from influence_core.service import BadInput, ExplainRequest, Explanation, FitNeeded, manage, requests, study_folders
from influence_core.service.jobs import Jobs
from influence_core.study_archive import import_archive

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("influence_core.service.tasks.ensure_worker", lambda folder: False)


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def used(folder: Path) -> int:
    return sum(len(data) for data in content(folder).values())


def request(study: Path, method: str = "tracin_cp") -> ExplainRequest:
    return ExplainRequest((int(Study(study).column("test", "id")[0]),), method)


def fitted(study: Path, method: str = "tracin_cp") -> None:
    held = Study(study)
    fitting.fit(held.task, registry.made(method, {}, held.task), Run(store=held.store))


# -- the list ----------------------------------------------------------------------------------------------------------


def test_the_list_says_what_there_is_and_what_it_uses(own_studies: Path) -> None:
    fitted(own_studies / "table")
    (own_studies / "table" / "reviews.sqlite").write_bytes(bytes(1234))
    (own_studies / "image" / "encoder.json").unlink()
    (own_studies / "linear" / "study.toml").write_text("format = 99")
    Jobs(own_studies / "table").submit("k", "A <fit>", ["fit"], "ann")
    image, linear, table = service.study_lines()
    assert (table.name, table.title, table.rows) == ("table", "Small <table>", {"train": 60, "test": 24, "locked": 12})
    assert table.kind == "table · 3 classes · multi-layer perceptron" and table.facts == ("format 1",)
    assert table.total == used(own_studies / "table") and table.reviews == 1234
    assert 0 < table.cache == used(own_studies / "table" / "cache") < table.total
    assert (table.busy, table.problem, table.owned) == ("A <fit>", "", True)
    assert image.cache == 0 and image.problem == ""
    assert "newer version" in linear.problem and linear.title == "linear" and linear.rows == {} and linear.total > 0


def test_facts_name_the_parity_and_a_model_of_its_own(own_studies: Path) -> None:
    file = own_studies / "table" / "study.toml"
    text = file.read_text()
    start = text.index("[model]")
    end = text.index("[recipe]")
    parity = "[parity]\nrows = 64\nlargest_difference = 1e-7\nagree = true\n\n"
    file.write_text(text[:start] + '[model]\nreference = "my.models:net"\n\n' + parity + text[end:])
    line = manage.study_line(own_studies / "table")
    assert line.problem == "" and line.kind.endswith("a model of its own")
    assert line.facts[1:] == ("predictions equal to its own model's on 64 rows", "model my.models:net")


# -- renaming ----------------------------------------------------------------------------------------------------------


def test_renaming_changes_the_title_and_nothing_else(own_studies: Path) -> None:
    before, held = content(own_studies / "table"), Study(own_studies / "table")
    fingerprint = held.fingerprint
    service.rename_study("table", "  Größe <b>&</b>\n 'Ω' ")
    after = content(own_studies / "table")
    assert {name for name in after if after[name] != before.get(name)} == {"study.toml"} and set(after) == set(before)
    study = Study(own_studies / "table")
    assert study.header.title == "Größe <b>&</b> 'Ω'" and study.fingerprint == fingerprint
    old, new = (tomllib.loads(data["study.toml"].decode()) for data in (before, after))
    assert {**old, "title": ""} == {**new, "title": ""}
    assert service.overview("table").study.title == "Größe <b>&</b> 'Ω'"


@pytest.mark.parametrize("title", ["", " \n ", "x" * 101, "a\x00b", "a\u202eb", "\ue000"])
def test_a_title_that_nobody_can_read_is_refused(own_studies: Path, title: str) -> None:
    before = content(own_studies / "table")
    with pytest.raises(BadInput, match="name cannot be used"):
        service.rename_study("table", title)
    assert content(own_studies / "table") == before


@pytest.mark.parametrize(
    "name", ["", ".", "..", "no", "../studies/table", "table/", "/etc", ".trash", "x" * 300, "a\0"]
)
@pytest.mark.parametrize("act", ["rename_study", "delete_study", "clear_cache", "backup", "backup_size"])
def test_what_is_no_study_here_is_never_touched(own_studies: Path, name: str, act: str) -> None:
    before = content(own_studies.parent)
    with pytest.raises(BadInput, match="Unknown study"):
        getattr(service, act)(name, *(["x"] if act == "rename_study" else []))
    assert content(own_studies.parent) == before


# -- deleting ----------------------------------------------------------------------------------------------------------


def test_deleting_frees_what_was_measured(own_studies: Path) -> None:
    fitted(own_studies / "table")
    others = content(own_studies / "linear"), content(own_studies / "image")
    size = used(own_studies / "table")
    assert service.delete_study("table") == size
    assert sorted(path.name for path in own_studies.iterdir()) == ["image", "linear"]
    assert (content(own_studies / "linear"), content(own_studies / "image")) == others


def test_a_study_at_work_is_neither_deleted_nor_emptied(own_studies: Path) -> None:
    fitted(own_studies / "table")
    jobs = Jobs(own_studies / "table")
    job = jobs.submit("k", "A fit", ["fit"], "ann")
    before = content(own_studies / "table")
    for act in (service.delete_study, service.clear_cache):
        with pytest.raises(BadInput, match="cannot be .* now") as caught:
            act("table")
        assert "'A fit' of table is queued" in caught.value.why and "Cancel it under Jobs" in caught.value.fix
    assert content(own_studies / "table") == before
    jobs.cancel(job.id, "ann")
    assert service.clear_cache("table") > 0 and service.delete_study("table") > 0


def test_a_study_that_cannot_be_opened_can_be_deleted(own_studies: Path) -> None:
    (own_studies / "table" / "study.toml").write_text("not = = toml")
    (own_studies / "table" / "jobs.sqlite").write_bytes(b"no database" * 100)
    assert service.delete_study("table") > 0 and not (own_studies / "table").exists()


def test_links_are_not_followed(own_studies: Path, tmp_path: Path) -> None:
    shutil.move(own_studies / "table", tmp_path / "far")
    (own_studies / "table").symlink_to(tmp_path / "far")
    before = content(tmp_path / "far")
    with pytest.raises(BadInput, match="is a link"):
        service.delete_study("table")
    (own_studies / "image" / "media").symlink_to(tmp_path / "far")
    service.delete_study("image")
    assert content(tmp_path / "far") == before


def test_a_query_of_a_study_that_another_browser_deleted_is_one_message(
    own_studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted(own_studies / "table")
    asked = request(own_studies / "table")
    assert isinstance(service.explain("table", asked), Explanation)  # warm from here on
    held = requests.Question("table", asked)
    service.delete_study("table")
    for call in (
        lambda: service.explain("table", asked), lambda: service.query("table", asked),
        lambda: service.start_fit("table", asked, "ann"), lambda: service.export_scores("table", asked, "csv"),
        lambda: service.overview("table"), lambda: service.listed_jobs("table"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match="Unknown study") as caught:
            call()
        assert "'table'" in caught.value.why and "image, linear" in caught.value.fix
    assert not (own_studies / "table").exists()
    monkeypatch.setattr(requests, "Question", lambda *_: held)  # it was deleted while the question was being answered
    with pytest.raises(BadInput, match="Unknown study"):
        service.explain("table", asked)
    assert not (own_studies / "table").exists()


# -- the cache ---------------------------------------------------------------------------------------------------------


def test_clearing_the_cache_leaves_a_study_that_computes_again(own_studies: Path) -> None:
    fitted(own_studies / "table")
    asked = request(own_studies / "table")
    first = service.explain("table", asked)
    assert isinstance(first, Explanation)
    before = {name: data for name, data in content(own_studies / "table").items() if not name.startswith("cache/")}
    cache = used(own_studies / "table" / "cache")
    assert service.clear_cache("table") == cache and content(own_studies / "table") == before
    assert service.clear_cache("table") == 0
    assert isinstance(service.explain("table", asked), FitNeeded)
    fitted(own_studies / "table")
    again = service.explain("table", asked)
    assert isinstance(again, Explanation)
    assert [(row.score, row.datum.row_id) for row in again.proponents] == [
        (row.score, row.datum.row_id) for row in first.proponents
    ]
    assert not (own_studies / study_folders.TRASH).exists()


@pytest.mark.parametrize("method", ["tracin_cp", "grad_cos", "if_ggn", "knn_shapley", "rps_l2", "embedding_cosine"])
def test_a_method_counts_as_fitted_only_while_all_that_a_query_reads_is_there(own_studies: Path, method: str) -> None:
    if method not in registry.entries():
        method = "embedding_similarity"
    study = Study(own_studies / "linear" if method == "rps_l2" else own_studies / "table")
    estimator, run = registry.made(method, {}, study.task), Run(store=study.store)
    encoded = set(study.store.keys())
    fitting.fit(study.task, estimator, run)
    record = estimator.key(study.task, run)
    reads = study.store.find(record).meta["reads"]  # pyright: ignore[reportOptionalMemberAccess]
    assert reads and set(reads) <= set(study.store.keys()) - encoded - {record}
    for key in reads:
        assert fitting.is_fitted(study.task, estimator, run)
        away = study.path / "away"
        shutil.move(study.store.path(key), away)
        for task in (study.task, Study(study.path).task):  # one that holds the arrays, one that does not
            assert not fitting.is_fitted(task, estimator, run)
        shutil.move(away, study.store.path(key))
    assert fitting.is_fitted(study.task, estimator, run)


def test_what_a_method_shares_is_noted_though_it_was_in_memory(own_studies: Path) -> None:
    study = Study(own_studies / "table")
    run = Run(store=study.store)
    for name in ("grad_dot", "grad_cos"):  # the second finds the gradients of the first in memory
        fitting.fit(study.task, registry.made(name, {}, study.task), run)
    keys = [registry.made(name, {}, study.task).key(study.task, run) for name in ("grad_dot", "grad_cos")]
    notes = [study.store.find(key).meta["reads"] for key in keys]  # pyright: ignore[reportOptionalMemberAccess]
    assert notes[0] == notes[1] != []


def test_arrays_that_are_evicted_ask_for_a_fit_and_not_for_patience(own_studies: Path) -> None:
    fitted(own_studies / "table")
    asked = request(own_studies / "table")
    assert isinstance(service.explain("table", asked), Explanation)
    study = Study(own_studies / "table")
    record = registry.made("tracin_cp", {}, study.task).key(study.task, Run(store=study.store))
    for key in study.store.find(record).meta["reads"]:  # pyright: ignore[reportOptionalMemberAccess]
        shutil.rmtree(study.store.path(key))
    assert isinstance(service.explain("table", asked), FitNeeded)
    fitted(own_studies / "table")
    assert isinstance(service.explain("table", asked), Explanation)


def test_a_failed_job_says_nothing_once_it_is_dismissed(own_studies: Path) -> None:
    asked, jobs = request(own_studies / "table"), Jobs(own_studies / "table")
    needed = service.explain("table", asked)
    assert isinstance(needed, FitNeeded)
    job = service.start_fit("table", asked, "ann")
    assert jobs.claim(job.id, 1) and jobs.finish(job.id, 1, "failed", BadInput("It broke", "x", "y"))
    again = service.explain("table", asked)
    assert isinstance(again, FitNeeded) and again.job is not None and again.job.state == "failed"
    service.dismiss_job("table", job.id)
    last = service.explain("table", asked)
    assert isinstance(last, FitNeeded) and last.job is None


# -- taking along ------------------------------------------------------------------------------------------------------


def test_a_download_holds_the_study(own_studies: Path, tmp_path: Path) -> None:
    fitted(own_studies / "table")
    before = content(own_studies)
    data = service.backup("table", cache=True)()
    assert content(own_studies) == before
    (tmp_path / "t.zip").write_bytes(data)
    copy = import_archive(tmp_path / "t.zip", tmp_path / "copy", Run(), cache=True)
    assert content(copy.path) == content(own_studies / "table")
    assert abs(service.backup_size("table", cache=True) - len(data)) < 0.2 * len(data)
    small = zipfile.ZipFile(io.BytesIO(service.backup("table")())).namelist()
    assert small and not any("cache" in name for name in small)


def test_what_is_too_large_to_be_downloaded_names_the_command(
    own_studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manage, "DOWNLOAD_BYTES", 10)
    problem = service.backup_problem("table", reviews=True, cache=True)
    assert problem.endswith(
        f"python -m influence_core backup {own_studies / 'table'} --out table.zip --reviews --cache"
    )
    with pytest.raises(BadInput, match="too large to be downloaded"):
        service.backup("table")


# -- kill -9 and the next start ----------------------------------------------------------------------------------------

PROGRAM = """
import os, signal, sys
from pathlib import Path
from influence_core.service import study_folders
step, calls = int(sys.argv[3]), iter(range(10**6))
def killing(real):
    def call(*args, **more):
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **more)
    return call
for name in ("rename", "unlink", "rmdir", "mkdir"):
    setattr(os, name, killing(getattr(os, name)))
getattr(study_folders, sys.argv[1])(Path(sys.argv[2]))
"""


@pytest.mark.parametrize("act", ["delete", "clear_cache"])
@pytest.mark.parametrize("step", [1, *(pytest.param(step, marks=pytest.mark.slow) for step in (0, 2, 4, 7))])
def test_kill_nine_leaves_a_whole_study_or_trash(own_studies: Path, act: str, step: int) -> None:
    fitted(own_studies / "table")
    before = content(own_studies / "table")
    words = [sys.executable, "-c", PROGRAM, act, str(own_studies / "table"), str(step)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    moved = step > 1  # 0: before .trash is made, 1: before the rename
    names = [line.name for line in service.study_lines()]
    assert names == (["image", "linear"] if moved and act == "delete" else ["image", "linear", "table"])
    if not moved:
        assert content(own_studies / "table") == before
    elif act == "clear_cache":
        assert content(own_studies / "table") == {n: d for n, d in before.items() if not n.startswith("cache/")}
    left = (own_studies / study_folders.TRASH).exists() and any((own_studies / study_folders.TRASH).iterdir())
    assert left == moved
    study_folders.tidy(own_studies)
    assert not (own_studies / study_folders.TRASH).exists()
    assert [line.name for line in service.study_lines()] == names
    if not moved:
        assert content(own_studies / "table") == before


def test_the_next_start_sweeps_once_and_leaves_what_is_alive(
    own_studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "_YOUNG_SECONDS", -1.0)
    before = content(own_studies)
    dead = own_studies / ".mine-import-abcd1234"
    (dead / "study").mkdir(parents=True)
    (dead / ".held").touch()
    old = [own_studies / "table" / name for name in (".format-2.part/new/x", ".study.toml.ab", ".mine/x")]
    for file in old:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for path in [*(own_studies / "table").rglob(".*"), *(own_studies / "table").rglob(".*/**/*")]:
        os.utime(path, (1e9, 1e9))
    (own_studies / study_folders.TRASH / "gone-1").mkdir(parents=True)
    manage._tidied.cache_clear()
    with scratch.scratch_folder(own_studies / "other", "backup") as alive:
        service.tidy_studies()
        assert alive.is_dir() and not dead.exists() and not (own_studies / study_folders.TRASH).exists()
        assert content(own_studies) == {**before, "table/.mine/x": b"", f"{alive.name}/.held": b""}
        dead.mkdir()
        (dead / ".held").touch()
        service.tidy_studies()  # a second time in the same process it does nothing
        assert dead.exists()
