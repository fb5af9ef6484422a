"""A disk that is really full: one line that says so, nothing lost, and after space is made the same numbers.

The disk is a small tmpfs, mounted for the test; that takes root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from influence_core import Study, service
from influence_core.demos import build_demo
from influence_core.errors import Cancelled, StoreProblem
from influence_core.service.jobs import Jobs
from influence_core.store import Store, Writer
from tests.faults import real_fits as fits

N_TRAIN = 1500
CHECKPOINTS = 2


class Disk:
    """A mounted disk of a given size."""

    def __init__(self, path: Path, kilobytes: int) -> None:
        path.mkdir(parents=True)
        self.path = path
        done = self._mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs")
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")

    def _mount(self, *words: str) -> subprocess.CompletedProcess[str]:
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("mounting a small disk takes root on Linux")
        return subprocess.run(["mount", *words, str(self.path)], capture_output=True, text=True)

    def resize(self, kilobytes: int) -> None:
        done = self._mount("-o", f"remount,size={kilobytes}k")
        assert done.returncode == 0, done.stderr

    @property
    def free(self) -> int:
        return shutil.disk_usage(self.path).free

    def fill(self, leave: int = 0) -> None:
        """Fill the disk with one file, up to some bytes."""
        with open(self.path / "filler", "ab", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size + self.free - leave)
        assert self.free <= leave

    def empty(self) -> None:
        (self.path / "filler").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[Path, int], Disk]]:
    disks: list[Disk] = []

    def mounted(path: Path, kilobytes: int) -> Disk:
        disks.append(Disk(path, kilobytes))
        return disks[-1]

    yield mounted
    for made in disks:
        subprocess.run(["umount", "--lazy", str(made.path)], check=True)


@pytest.fixture(scope="session")
def peace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose fit needs about 16 MB, fitted on a disk with room."""
    path = tmp_path_factory.mktemp("room") / "long"
    fits.long_study(path, N_TRAIN, CHECKPOINTS)
    fits.scores(path)
    return path


def filled_in(path: Path, study: Path) -> None:
    """Copy a study without its cache into an existing folder."""
    shutil.copytree(study, path, ignore=shutil.ignore_patterns("cache", "jobs.sqlite*"), dirs_exist_ok=True)


def finished_batches(study: Path) -> dict[str, list[str]]:
    return {part.stem: (part / "done.txt").read_text().splitlines() for part in fits.parts(study)}


def assert_same_as(peace: Path, study: Path) -> None:
    assert fits.parts(study) == []
    assert fits.arrays(study) == fits.arrays(peace)
    assert torch.equal(fits.scores(study), fits.scores(peace))


def told_to_be_full(disk: Disk) -> dict[str, list[str]]:
    """Fit by the command line on a disk too small; return what is finished of the unfinished artifact."""
    line = fits.one_line(fits.ended(fits.started("fit", disk.path, "--method", "tracin_cp")))
    assert line.startswith("error: The disk is full:") and str(disk.path / "cache") in line
    assert line.endswith("Free some space and start again: finished parts are kept.\n")
    fits.assert_only_whole_artifacts(disk.path)
    done = finished_batches(disk.path)
    assert len(done) == 1 and sum(map(len, done.values())) > 0
    return done


def test_the_command_says_so_and_resumes(disk: Callable, peace: Path, tmp_path: Path) -> None:
    small = disk(tmp_path / "long", 13_000)
    filled_in(small.path, peace)
    done = told_to_be_full(small)
    assert told_to_be_full(small) == done, "asking again while it is still full changes nothing"
    assert small.free >= 64 << 10, "the reserve was given back, so that others can write down what happened"
    whole = fits.assert_only_whole_artifacts(small.path)
    (key,) = done
    kept = os.open(small.path / "cache" / key[:2] / (key + ".part") / "done.txt", os.O_RDONLY)
    small.resize(40_000)
    assert torch.equal(fits.scores(small.path), fits.scores(peace))
    lines = os.read(kept, 1 << 16).decode().splitlines()
    os.close(kept)
    assert lines[: len(done[key])] == done[key] and len(set(lines)) == len(lines) == -(-N_TRAIN // fits.BATCH)
    assert whole.items() <= fits.assert_only_whole_artifacts(small.path).items()
    assert_same_as(peace, small.path)


def test_a_job_ends_failed_with_the_same_words_and_can_be_started_again(
    disk: Callable, peace: Path, studies: Path
) -> None:
    small = disk(studies / "long", 13_000)
    filled_in(small.path, peace)
    job_id = service.start_fit("long", fits.request(small.path), "a").id
    assert fits.job_ended(small.path, job_id) == "failed"
    view = service.job("long", job_id)
    assert view is not None and view.message.startswith("The disk is full: Writing below ")
    assert view.message.endswith("Free some space and start again: finished parts are kept.")
    needed = service.explain("long", fits.request(small.path))
    assert isinstance(needed, service.FitNeeded) and needed.job is not None and needed.job.message == view.message
    assert service.overview("long").accuracy["test"].n == 40, "the other screens go on"
    small.resize(40_000)
    again = service.start_fit("long", fits.request(small.path), "a").id
    assert again != job_id and fits.job_ended(small.path, again) == "done"
    assert_same_as(peace, small.path)
    assert isinstance(service.explain("long", fits.request(small.path)), service.Explanation)


def test_a_full_disk_of_one_study_does_not_stop_the_others(disk: Callable, peace: Path, studies: Path) -> None:
    """Its job list can be neither read nor written; the worker passes it over, and finds its job when there is room."""
    small = disk(studies / "full", 13_000)
    filled_in(small.path, peace)
    fits.copied(peace, studies / "roomy")
    ask = fits.request(studies / "roomy")
    job_id = Jobs(small.path).submit("k", "Fit", ["fit", "--method", "tracin_cp"], "a").id
    small.fill()
    for use in (lambda: service.start_fit("full", ask, "a"), lambda: Jobs(small.path).submit("l", "L", ["fit"], "a")):
        with pytest.raises(StoreProblem) as caught:
            use()
        assert "\n" not in str(caught.value) and str(small.path) in str(caught.value)
    other = service.start_fit("roomy", ask, "a").id
    assert fits.job_ended(studies / "roomy", other) == "done"
    assert_same_as(peace, studies / "roomy")
    (pid,) = fits.workers_of(studies)
    small.resize(40_000)
    assert fits.job_ended(small.path, job_id) == "done"
    assert fits.workers_of(studies) == [pid], "one worker lived through it all"
    assert_same_as(peace, small.path)


def test_the_job_list_names_a_full_disk(disk: Callable, tmp_path: Path) -> None:
    """SQLite cannot even read without room for its shared memory, and calls that an I/O error."""
    small = disk(tmp_path / "full", 2000)
    jobs = Jobs(small.path)
    job = jobs.submit("k", "Fit", ["fit"], "a")
    small.fill()
    for use in (jobs.list, lambda: jobs.get(job.id), lambda: jobs.submit("l", "L", ["fit"], "a")):
        with pytest.raises(StoreProblem) as caught:
            use()
        assert caught.value.what == "The disk is full" and "Move this file away" not in caught.value.fix
    small.empty()
    assert jobs.get(job.id) == job and [item.id for item in jobs.list()] == [job.id]


@pytest.mark.parametrize("kilobytes", [40, 100, 196])
def test_a_demo_that_does_not_fit_leaves_nothing_behind(disk: Callable, tmp_path: Path, kilobytes: int) -> None:
    """Room for nothing, for some of the rows, for all but the last weights."""
    small = disk(tmp_path / "disk", kilobytes)
    with pytest.raises(StoreProblem) as caught:
        build_demo("breast-cancer", small.path / "demo")
    assert caught.value.what == "The disk is full" and str(small.path / "demo") in caught.value.why
    assert list(small.path.iterdir()) == []
    small.resize(2000)
    assert build_demo("breast-cancer", small.path / "demo").task.n_train >= 300


def test_the_demo_command_keeps_a_whole_study_whose_fit_does_not_fit(disk: Callable, tmp_path: Path) -> None:
    small = disk(tmp_path / "disk", 260)
    line = fits.one_line(fits.ended(fits.started("demo", "breast-cancer", "--out", small.path / "demo")))
    assert line.startswith("error: The disk is full:")
    assert f"The study itself is whole, in {small.path / 'demo'}" in line
    small.resize(8000)
    assert Study(small.path / "demo").store.keys() == []
    assert bool(fits.scores(small.path / "demo").isfinite().all())


def test_a_note_of_a_finished_batch_that_was_cut_short_does_not_count(tmp_path: Path) -> None:
    """The disk filled in the middle of it: what is left may read as another batch, and must not join the next note."""
    store, key = Store(tmp_path), "ab" + "0" * 30
    seen: list[dict[str, bool]] = []

    def produce(writer: Writer) -> None:
        seen.append({stage: writer.is_done(stage) for stage in ("rows 0:9", "rows 9:90", "rows 9:900", "rows 900:950")})
        for stage, done in seen[-1].items():
            if not done and stage != "rows 9:90":
                writer.mark_done(stage)
                if stage == "rows 9:900":
                    raise Cancelled

    with pytest.raises(Cancelled):
        store.obtain(key, {}, produce, lambda: None)
    (notes,) = tmp_path.glob("??/*.part/done.txt")
    assert notes.read_text() == "rows 0:9\nrows 9:900\n"
    os.truncate(notes, notes.stat().st_size - 2)
    with pytest.raises(Cancelled):
        store.obtain(key, {}, produce, lambda: None)
    assert notes.read_text() == "rows 0:9\nrows 9:900\n"
    store.obtain(key, {}, produce, lambda: None)
    assert [list(done.values()) for done in seen] == [
        [False] * 4,
        [True, False, False, False],
        [True, False, True, False],
    ]
