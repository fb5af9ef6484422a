"""``kill -9`` of the real worker during a real fit: nothing finished is lost or done again, nothing half is ever seen.

What a dead process had done is read from its done-map, held by a second hard link: the program appends a line per
finished batch, so a batch that is computed again leaves a second line, and a map thrown away stops growing.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from influence_core import Study, service
from influence_core.service.jobs import Jobs
from tests.faults import real_fits as fits

LAST = {"layers": "last"}  # computes through the whole network and keeps little: many batches on a small disk
LAST_LAYER = {"layers": ["last"]}


class DoneMaps:
    """The done-maps of a study's unfinished artifacts, kept reachable beyond the end of the fit."""

    def __init__(self, study: Path, folder: Path) -> None:
        folder.mkdir()
        self.study, self.folder, self.known = study, folder, dict[str, list[str]]()

    def look(self) -> None:
        """Take in what is unfinished now; no map may have lost or changed a line since the last look."""
        for part in fits.parts(self.study):
            link = self.folder / part.stem
            if (part / "done.txt").exists() and not link.exists():
                os.link(part / "done.txt", link)
        for link in self.folder.iterdir():
            lines, before = link.read_text().splitlines(), self.known.get(link.name, [])
            assert lines[: len(before)] == before, "a finished batch is finished for good"
            assert len(set(lines)) == len(lines), "a finished batch was computed again"
            self.known[link.name] = lines

    def finished(self) -> int:
        return sum(len(lines) for lines in self.known.values())

    def assert_complete(self, n_train: int) -> None:
        """Every map that was ever seen has come to name every batch, once."""
        self.look()
        starts = range(0, n_train, fits.BATCH)
        every = {f"rows {start}:{min(start + fits.BATCH, n_train)}" for start in starts}
        assert self.known and all(set(lines) == every for lines in self.known.values())


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, float]]:
    """Studies by size, fitted in peace by the command line, with the seconds that the fit alone took."""
    made: dict[tuple[int, int, int, bool], tuple[Path, float]] = {}

    def get(n_train: int, checkpoints: int, width: int, last: bool = True) -> tuple[Path, float]:
        size = (n_train, checkpoints, width, last)
        if size not in made:
            path = tmp_path_factory.mktemp("peace") / "long"
            _ = fits.long_study(path, n_train, checkpoints, (width, 2 * width)).task  # encoded, as the app does
            config = '{"layers": ["last"]}' if last else "{}"
            result = fits.ended(fits.started("fit", path, "--method", "tracin_cp", "--config", config))
            assert result[0] == 0, result
            store = Study(path).store
            made[size] = path, sum(float(found.meta["seconds"]) for found in map(store.find, store.keys()) if found)
        return made[size]

    return get


def worker_of(studies: Path) -> int:
    fits.wait_for(lambda: fits.workers_of(studies), "a worker lives")
    return fits.workers_of(studies)[0]


def assert_as_undisturbed(study: Path, peace: Path, config: dict | None = None) -> None:
    assert fits.parts(study) == [] and not list((study / "cache").rglob("done.txt"))
    assert set(fits.assert_only_whole_artifacts(study)) == set(fits.assert_only_whole_artifacts(peace))
    assert fits.arrays(study) == fits.arrays(peace), "every array, bit by bit"
    assert torch.equal(fits.scores(study, config), fits.scores(peace, config))


def killed_again_and_again(study: Path, peace: Path, kills: int, total: int, n_train: int, tmp_path: Path) -> None:
    """Kill one job each time it is 1/kills of the work further, at varying moments of a batch; then let it end."""
    studies, maps, kept = study.parent, DoneMaps(study, tmp_path / "maps"), dict[str, int]()
    job_id = service.start_fit(study.name, fits.request(study, LAST), "a").id
    for k in range(kills):
        goal = total * (k + 0.5) / (kills + 0.5)

        def reached(goal: float = goal, attempts: int = k + 1) -> bool:
            fits.revived(studies)
            maps.look()
            # A fast fit is past the next goal when it is killed: the kill must still hit a worker that has the job.
            job = Jobs(study).get(job_id)
            return maps.finished() >= goal and job is not None and job.attempts == attempts

        fits.wait_for(reached, f"{goal:.0f} batches", every=0.002)
        time.sleep(0.003 * (k % 10))
        pid = worker_of(studies)
        fits.kill(pid)
        maps.look()
        whole = fits.assert_only_whole_artifacts(study)
        assert kept.items() <= whole.items(), "a finished artifact was made again"
        kept = whole
        job = Jobs(study).get(job_id)
        assert job is not None and job.state == "running", f"kill {k} came too late to show anything"
    assert fits.job_ended(study, job_id) == "done"
    job = Jobs(study).get(job_id)
    assert job is not None and job.attempts == kills + 1
    maps.assert_complete(n_train)
    assert kept.items() <= fits.assert_only_whole_artifacts(study).items()
    assert_as_undisturbed(study, peace, LAST_LAYER)
    assert isinstance(service.explain(study.name, fits.request(study, LAST)), service.Explanation)


@pytest.mark.parametrize(
    ("kills", "n_train", "checkpoints", "width"),
    [
        (1, 4000, 2, 64),
        pytest.param(20, 12_000, 3, 96, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_one_fit_is_killed_again_and_again(
    studies: Path, undisturbed: Callable[..., tuple[Path, float]], tmp_path: Path, kills: int, n_train: int,
    checkpoints: int, width: int,
) -> None:  # fmt: skip
    peace, _ = undisturbed(n_train, checkpoints, width)
    study = fits.copied(peace, studies / "long")
    killed_again_and_again(study, peace, kills, checkpoints * -(-n_train // fits.BATCH), n_train, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_fits_killed_at_moments_spread_over_the_measured_duration(
    studies: Path, undisturbed: Callable[..., tuple[Path, float]], tmp_path: Path
) -> None:
    """A fresh fit each time, killed by the clock, from its first batch to beyond its last rename."""
    n_train = 12_000
    peace, seconds = undisturbed(n_train, 3, 96)
    study = fits.copied(peace, studies / "long")
    assert seconds > 1.5, "a fit of many batches and a few seconds"
    unfinished = 0
    for k in range(20):
        shutil.rmtree(study / "cache", ignore_errors=True)
        fits.opened_studies._opened.clear()
        maps = DoneMaps(study, tmp_path / f"maps{k}")
        job_id = service.start_fit("long", fits.request(study, LAST), "a").id

        def begun(maps: DoneMaps = maps) -> bool:
            fits.revived(studies)
            maps.look()
            return maps.finished() > 0

        fits.wait_for(begun, "the first batch", every=0.002)
        time.sleep(1.1 * seconds * k / 19)
        fits.kill(worker_of(studies))
        maps.look()
        whole = fits.assert_only_whole_artifacts(study)
        job = Jobs(study).get(job_id)
        assert job is not None
        unfinished += job.state == "running"
        assert fits.job_ended(study, job_id) == "done", f"kill {k}"
        maps.assert_complete(n_train)
        assert whole.items() <= fits.assert_only_whole_artifacts(study).items(), "a finished artifact was made again"
        assert_as_undisturbed(study, peace, LAST_LAYER)
        for pid in fits.workers_of(studies):
            fits.kill(pid)
    assert 12 <= unfinished, "most kills hit the fit"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_kills_around_the_rename(
    studies: Path, undisturbed: Callable[..., tuple[Path, float]], tmp_path: Path
) -> None:
    """The last steps of the last checkpoint: its last batch, its record, the rename, and what is tidied after it.

    Each life begins with all but the last batches done (the state that an earlier kill has left). The test watches the
    folder without a pause and kills at once, or a fraction of a millisecond, after what it waits for has come about.
    """
    n_train = 2000
    peace, _ = undisturbed(n_train, 2, 8, False)
    study = fits.copied(peace, studies / "long")
    prepared, key = nearly_done(study, tmp_path)
    final = study / "cache" / key[:2] / key
    part = final.with_name(key + ".part")
    triggers: list[Callable[[], bool]] = [  # each stays true: the test may be kept waiting for its turn
        lambda: len((part / "done.txt").read_text().splitlines()) == -(-n_train // fits.BATCH),
        lambda: not (part / "reserve").exists(),
        lambda: (part / "meta.json").exists() or final.exists(),
        final.exists,
    ]
    states = set()
    for k in range(20):
        shutil.rmtree(study / "cache")
        shutil.copytree(prepared, study / "cache", copy_function=shutil.copy2)
        fits.opened_studies._opened.clear()
        maps = DoneMaps(study, tmp_path / f"maps{k}")
        maps.look()
        assert maps.finished() == -(-n_train // fits.BATCH) - 3
        job_id = service.start_fit("long", fits.request(study), "a").id
        pid = worker_of(studies)
        kill_upon(pid, triggers[k % 4], delay=0.0002 * (k // 4), ready=lambda: (part / "reserve").exists())
        states.add("final" if final.exists() else "record" if (part / "meta.json").exists() else "rows")
        fits.assert_only_whole_artifacts(study)
        assert not (final.exists() and part.exists())
        assert fits.job_ended(study, job_id) == "done", f"kill {k}"
        maps.assert_complete(n_train)
        assert_as_undisturbed_but_for_tidying(study, peace)
        for alive in fits.workers_of(studies):
            fits.kill(alive)
    assert len(states) > 1 and "final" in states, "the kills fell on both sides of the rename"


def nearly_done(study: Path, tmp_path: Path) -> tuple[Path, str]:
    """Kill a fit within its last checkpoint; keep a copy of the cache with three batches undone, and the key."""
    job_id = service.start_fit(study.name, fits.request(study), "a").id
    assert fits.job_ended(study, job_id) == "done"
    for pid in fits.workers_of(study.parent):
        fits.kill(pid)
    store = Study(study).store
    found = [artifact for artifact in map(store.find, store.keys()) if artifact is not None]
    fit = next(item for item in found if item.meta["inputs"].get("kind") == "fit")
    last = max((item for item in found if "checkpoint" in item.meta["inputs"]), key=lambda item: item.meta["created"])
    shutil.rmtree(fit.path)
    part = last.path.with_name(last.key + ".part")
    last.path.rename(part)
    (part / "meta.json").unlink()
    n_train = Study(study).n_rows("train")
    starts = list(range(0, n_train, fits.BATCH))
    done = [f"rows {start}:{min(start + fits.BATCH, n_train)}\n" for start in starts[:-3]]
    (part / "done.txt").write_text("".join(done))
    (part / "boot").write_text(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    for path in part.glob("*.npy"):  # as if the rows of the undone batches had never been written
        bytes_per_row = (path.stat().st_size - 128) // n_train
        os.truncate(path, 128 + bytes_per_row * starts[-3])
    prepared = tmp_path / "prepared"
    shutil.copytree(study / "cache", prepared, copy_function=shutil.copy2)
    return prepared, last.key


def kill_upon(pid: int, trigger: Callable[[], bool], delay: float, ready: Callable[[], bool]) -> None:
    """Watch without sleeping; kill ``delay`` seconds after the trigger."""
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline, "the worker resumes the last checkpoint"
    while True:
        try:
            if trigger():
                break
        except FileNotFoundError:  # renamed while it was looked at
            break
        assert time.monotonic() < deadline
    begin = time.perf_counter()
    while time.perf_counter() - begin < delay:
        pass
    fits.kill(pid)


def assert_as_undisturbed_but_for_tidying(study: Path, peace: Path) -> None:
    """Like an undisturbed fit, but the two small files of a whole artifact may be left by a death after its rename."""
    for name in ("boot", "done.txt"):
        for path in (study / "cache").glob(f"??/*/{name}"):
            assert (path.parent / "meta.json").exists() and path.parent.suffix == ""
            path.unlink()
    assert_as_undisturbed(study, peace)


def test_two_commands_compute_a_fit_once(undisturbed: Callable[..., tuple[Path, float]], tmp_path: Path) -> None:
    n_train = 4000
    peace, _ = undisturbed(n_train, 2, 64)
    study = fits.copied(peace, tmp_path / "long")
    words = ["fit", study, "--method", "tracin_cp", "--config", '{"layers": ["last"]}']
    maps, processes = DoneMaps(study, tmp_path / "maps"), [fits.started(*words) for _ in range(2)]
    both = False
    while any(process.poll() is None for process in processes):
        maps.look()
        both = both or (maps.finished() > 0 and all(process.poll() is None for process in processes))
        time.sleep(0.002)
    assert [fits.ended(process) for process in processes] == [(0, "TracIn is fitted on Long.\n", "")] * 2
    assert both, "they ran at the same time"
    maps.assert_complete(n_train)
    assert len(maps.known) == 2, "both checkpoints were watched"
    assert_as_undisturbed(study, peace, LAST_LAYER)
    assert not list((study / "cache").rglob("*.lock"))
