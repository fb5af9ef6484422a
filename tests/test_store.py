"""Artifacts: whole or absent, resumed after any death, made once, and never unpickled."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from influence_core.errors import Cancelled, StoreProblem
from influence_core.store import Store, Writer, disk_errors

KEY = "ab" + "0" * 30
OTHER = "cd" + "0" * 30
ROWS, WIDTH = 40, 1500
FORK = multiprocessing.get_context("fork")


def no_waiting() -> None:
    raise AssertionError("nobody else is computing")


def nap() -> None:
    time.sleep(0.002)


def content(row: int) -> np.ndarray:
    return np.random.default_rng(row).normal(size=(1, WIDTH))


def producer(log: Path | None = None, pause: float = 0.0) -> Callable[[Writer], None]:
    """Write a row per stage, noting each row that is computed in a file that survives any death."""

    def produce(writer: Writer) -> None:
        writer.create("rows", (ROWS, WIDTH), np.float64)
        writer.create("sums", (ROWS,), np.float64)
        for row in range(ROWS):
            if not writer.is_done(f"row {row}"):
                if log is not None:
                    with open(log, "a") as file:
                        file.write(f"{row}\n")
                writer.write("rows", row, content(row))
                time.sleep(pause)
                writer.write("sums", row, content(row).sum(1))
                writer.mark_done(f"row {row}")
        writer.meta["rows"] = ROWS

    return produce


def assert_whole(store: Store, key: str = KEY) -> None:
    found = store.find(key)
    assert found is not None and found.meta["rows"] == ROWS
    expected = np.concatenate([content(row) for row in range(ROWS)])
    assert np.array_equal(found.array("rows"), expected) and np.array_equal(found.array("sums"), expected.sum(1))
    assert found.names() == ["rows", "sums"]
    assert not list(store.path(key).parent.glob("*.part"))


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def started(target: Callable[..., Any], *args: Any) -> Any:
    process = FORK.Process(target=target, args=args, daemon=True)
    process.start()
    return process


# -- writing and reading ----------------------------------------------------------------------------------------------


def test_written_in_any_order_and_read_as_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")

    def produce(writer: Writer) -> None:
        writer.create("x", (6, 2, 3), np.float32)
        values = torch.arange(36.0).reshape(6, 2, 3)
        writer.write("x", 4, values[4:])
        writer.write("x", 0, values[:1])
        writer.write("x", 1, values[1:4].numpy().astype(np.float64))  # cast to what was declared
        writer.save("flags", torch.tensor([True, False]))
        writer.save("half", torch.tensor([0.5, 2.0], dtype=torch.float16))
        writer.save("ids", np.asarray([2**40, -1]))
        writer.save("single", torch.tensor(3.0))
        writer.save("nothing", torch.empty(0, 5))
        writer.save("turned", torch.arange(6).reshape(2, 3).T)

    found = store.obtain(KEY, {"kind": "test"}, produce, no_waiting)
    assert torch.equal(found.tensor("x"), torch.arange(36.0).reshape(6, 2, 3))
    assert found.tensor("flags").tolist() == [True, False]
    assert found.tensor("half").dtype == torch.float16 and found.tensor("half").tolist() == [0.5, 2.0]
    assert found.tensor("ids").tolist() == [2**40, -1]
    assert found.tensor("single").tolist() == [3.0]
    assert found.tensor("nothing").shape == (0, 5)
    assert found.tensor("turned").tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found.names() == ["flags", "half", "ids", "nothing", "single", "turned", "x"]
    for path in store.path(KEY).glob("*.npy"):  # plain files for anyone's NumPy
        np.load(path, allow_pickle=False)


def test_meta_says_what_the_numbers_depend_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.obtain(KEY, {"kind": "test", "layers": ["a"]}, producer(), no_waiting)
    meta = json.loads((store.path(KEY) / "meta.json").read_text())
    assert meta["key"] == KEY and meta["inputs"] == {"kind": "test", "layers": ["a"]}
    assert meta["torch"] == torch.__version__ and meta["seconds"] >= 0 and meta["rows"] == ROWS
    assert sorted(path.name for path in store.path(KEY).iterdir()) == ["meta.json", "rows.npy", "sums.npy"]


def test_nothing_is_touched_before_the_first_write(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert store.find(KEY) is None and store.keys() == [] and store.bytes_used() == 0
    assert not (tmp_path / "store").exists()


def test_a_reader_cannot_change_the_disk(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.obtain(KEY, {}, producer(), no_waiting).tensor("rows").zero_()
    assert_whole(Store(tmp_path))


def test_the_second_call_computes_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(3):
        Store(tmp_path / "store").obtain(KEY, {}, producer(log), no_waiting)
    assert len(lines(log)) == ROWS
    assert Store(tmp_path / "store").keys() == [KEY]


# -- interruptions ----------------------------------------------------------------------------------------------------


def test_absent_until_whole_and_resumed_from_finished_stages(tmp_path: Path) -> None:
    store, log = Store(tmp_path / "store"), tmp_path / "log"

    def failing(writer: Writer) -> None:
        writer.create("rows", (ROWS, WIDTH), np.float64)
        writer.create("sums", (ROWS,), np.float64)
        for row in range(7):
            writer.write("rows", row, content(row))
            writer.write("sums", row, content(row).sum(1))
            writer.mark_done(f"row {row}")
            assert store.find(KEY) is None
        writer.write("rows", 7, 0 * content(7) - 1)  # written, not marked done: must not be trusted
        raise Cancelled

    with pytest.raises(Cancelled):
        store.obtain(KEY, {}, failing, no_waiting)
    assert store.find(KEY) is None and store.keys() == []
    store.obtain(KEY, {}, producer(log), no_waiting)
    assert lines(log) == [str(row) for row in range(7, ROWS)]
    assert_whole(store)


def test_what_was_left_by_another_boot_is_not_trusted(tmp_path: Path) -> None:
    """After a power cut a finished stage may have been noted without its rows having reached the disk."""
    store, log = Store(tmp_path / "store"), tmp_path / "log"

    def failing(writer: Writer) -> None:
        writer.mark_done("row 0")
        raise Cancelled

    with pytest.raises(Cancelled):
        store.obtain(KEY, {}, failing, no_waiting)
    (part,) = store.path(KEY).parent.glob("*.part")
    (part / "boot").write_text("another boot")
    store.obtain(KEY, {}, producer(log), no_waiting)
    assert len(lines(log)) == ROWS
    assert_whole(store)


def fill(root: Path, log: Path, pause: float) -> None:
    Store(root).obtain(KEY, {}, producer(log, pause), nap)


def kill_series(folder: Path, kills: int) -> None:
    """Kill a real process at moments spread over the whole write and its rename; a last one finishes."""
    begin = time.monotonic()
    process = started(fill, folder / "timed", folder / "timed.log", 0.002)
    process.join()
    duration = time.monotonic() - begin
    seen_unfinished = 0
    for kill in range(kills):
        root, log = folder / f"store{kill}", folder / f"log{kill}"
        process = started(fill, root, log, 0.002)
        time.sleep(duration * (kill + 0.5) / kills)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        store = Store(root)
        done = {line for path in root.glob("??/*.part/done.txt") for line in path.read_text().splitlines()}
        attempted = len(lines(log))
        if store.find(KEY) is None:
            seen_unfinished += 1
            store.obtain(KEY, {}, producer(log), no_waiting)
            again = lines(log)[attempted:]
            assert not {f"row {row}" for row in again} & done, "a finished stage was computed again"
            if done:
                assert len(again) == ROWS - len(done)
        assert_whole(store)
    assert seen_unfinished >= kills // 3, "the kills came too late to show anything"


def test_killed_in_the_middle_of_a_write(tmp_path: Path) -> None:
    kill_series(tmp_path, 3)


@pytest.mark.slow
def test_killed_twenty_times_over_a_write_and_its_rename(tmp_path: Path) -> None:
    kill_series(tmp_path, 20)


def test_killed_again_and_again_and_still_finished(tmp_path: Path) -> None:
    """Each process adds a little: progress is never lost."""
    root, log = tmp_path / "store", tmp_path / "log"
    for _ in range(4):
        process = started(fill, root, log, 0.003)
        time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    fill(root, log, 0.0)
    assert_whole(Store(root))
    assert len(lines(log)) <= ROWS + 2 * 4  # of each process, the last stage and the one before it


# -- several processes ------------------------------------------------------------------------------------------------


def test_two_processes_compute_a_key_once(tmp_path: Path) -> None:
    root, log = tmp_path / "store", tmp_path / "log"
    processes = [started(fill, root, log, 0.003) for _ in range(3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(map(int, lines(log))) == list(range(ROWS))
    assert_whole(Store(root))
    assert not list(root.glob("??/*.lock"))


def test_the_waiting_process_takes_over_from_a_killed_one(tmp_path: Path) -> None:
    root, log = tmp_path / "store", tmp_path / "log"
    first = started(fill, root, log, 0.01)
    while len(lines(log)) < 5:
        time.sleep(0.005)
    second = started(fill, root, log, 0.0)
    time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    second.join()
    assert second.exitcode == 0
    assert len(lines(log)) <= ROWS + 2
    assert_whole(Store(root))


def test_waiting_can_be_cancelled(tmp_path: Path) -> None:
    root, log = tmp_path / "store", tmp_path / "log"
    holder = started(fill, root, log, 0.05)
    while len(lines(log)) < 2:
        time.sleep(0.005)

    def cancel() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        Store(root).obtain(KEY, {}, producer(log), cancel)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()


def hammer(root: Path, log: Path, keys: int, cap: int | None) -> None:
    """Ask for many small keys; with a cap also evict them under one another's feet."""
    store = Store(root, cap)

    for number in range(keys):
        key = f"{number % 4:02x}{number:030x}"

        def produce(writer: Writer, number: int = number) -> None:
            with open(log, "a") as file:
                file.write(f"{number}\n")
            writer.save("x", torch.full((64,), number))

        found = store.obtain(key, {}, produce, lambda: time.sleep(0.0005))
        if cap is None:
            assert found.tensor("x").tolist() == [number] * 64


@pytest.mark.parametrize("cap", [None, 5_000])
def test_many_keys_asked_for_by_several_processes(tmp_path: Path, cap: int | None) -> None:
    """The lock file is removed and made again under the others' hands: nobody computes twice, nobody falls over."""
    root, log = tmp_path / "store", tmp_path / "log"
    processes = [started(hammer, root, log, 60, cap) for _ in range(4)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    if cap is None:
        assert sorted(map(int, lines(log))) == list(range(60))
        assert len(Store(root).keys()) == 60
    assert not list(root.glob("??/*.part")) and not list(root.glob("??/*.gone"))


# -- a disk that refuses ----------------------------------------------------------------------------------------------


def told(conn: Any, root: Path, log: Path) -> None:
    """Fill under a limit of file size, as on a full disk, and say what the user would read."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROWS * WIDTH * 8 // 2, resource.RLIM_INFINITY))
    try:
        Store(root).obtain(KEY, {}, producer(log), no_waiting)
        conn.send("finished")
    except StoreProblem as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        conn.send(str(error))
    except BaseException as error:  # noqa: BLE001  (told to the test, which fails on it)
        conn.send(repr(error))


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    root, log = tmp_path / "store", tmp_path / "log"
    ours, theirs = FORK.Pipe()
    process = started(told, theirs, root, log)
    assert ours.poll(60)
    message = ours.recv()
    process.join()
    assert message.startswith("The disk is full") and str(root) in message and "finished parts are kept" in message
    store = Store(root)
    assert store.find(KEY) is None
    attempted = lines(log)
    assert 10 < len(attempted) < ROWS
    store.obtain(KEY, {}, producer(log), no_waiting)
    assert ROWS < len(lines(log)) <= ROWS + 2, "more than the row that did not fit was computed again"
    assert_whole(store)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that an unprivileged user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_nobody(conn: Any, root: Path) -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    store = Store(root)
    try:
        assert_whole(store)
        store.obtain(OTHER, {}, producer(), no_waiting)
        conn.send("written")
    except StoreProblem as error:
        conn.send(str(error))
    except BaseException as error:  # noqa: BLE001  (told to the test, which fails on it)
        conn.send(repr(error))


def test_a_read_only_folder_is_read_and_its_refusal_said(open_folder: Path) -> None:
    root = open_folder / "store"
    Store(root).obtain(KEY, {}, producer(), no_waiting)
    for folder in (root / "ab", root):
        folder.chmod(0o555)
    ours, theirs = FORK.Pipe()
    process = started(as_nobody, theirs, root)
    assert ours.poll(60)
    message = ours.recv()
    process.join()
    for folder in (root, root / "ab"):
        folder.chmod(0o755)
    assert message.startswith("The folder cannot be written") and "permission" in message.lower()


def test_a_users_own_unreadable_file_is_not_blamed_on_the_store(tmp_path: Path) -> None:
    def produce(writer: Writer) -> None:
        raise PermissionError(13, "Permission denied", "/data/images/cat.png")

    with pytest.raises(PermissionError, match="cat.png"):
        Store(tmp_path).obtain(KEY, {}, produce, no_waiting)
    with pytest.raises(StoreProblem, match="cannot be written"), disk_errors(tmp_path):
        raise PermissionError(13, "Permission denied", str(tmp_path / "ab" / "x"))


def test_other_faults_of_the_system_pass_through(tmp_path: Path) -> None:
    with pytest.raises(InterruptedError), disk_errors(tmp_path):
        raise InterruptedError


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("meta", ["", "{", "[1, 2", "\udcff".encode("utf-8", "surrogateescape")])
def test_a_damaged_record_is_named_with_its_folder(tmp_path: Path, meta: str | bytes) -> None:
    store = Store(tmp_path)
    store.obtain(KEY, {}, producer(), no_waiting)
    path = store.path(KEY) / "meta.json"
    path.write_bytes(meta if isinstance(meta, bytes) else meta.encode())
    with pytest.raises(StoreProblem) as error:
        store.obtain(KEY, {}, producer(), no_waiting)
    assert "meta.json" in error.value.why and str(store.path(KEY)) in error.value.fix


@pytest.mark.parametrize("damage", ["gone", "cut", "emptied", "garbage"])
def test_a_damaged_array_is_named_with_its_folder(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    found = store.obtain(KEY, {}, producer(), no_waiting)
    path = store.path(KEY) / "rows.npy"
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        os.truncate(path, 1000)
    else:
        path.write_bytes(b"" if damage == "emptied" else b"garbage" * 100)
    with pytest.raises(StoreProblem) as error:
        found.array("rows")
    assert "rows.npy" in error.value.why and str(store.path(KEY)) in error.value.fix


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["BOMB"],)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    store = Store(tmp_path / "store")
    found = store.obtain(KEY, {}, producer(), no_waiting)
    np.save(store.path(KEY) / "rows.npy", np.asarray([Bomb()], dtype=object), allow_pickle=True)
    (store.path(KEY) / "sums.npy").write_bytes(pickle.dumps(Bomb()))
    for name in ("rows", "sums"):
        with pytest.raises(StoreProblem):
            found.array(name)
    assert not (tmp_path / "exploded").exists()


# -- the size cap -----------------------------------------------------------------------------------------------------


def small(store: Store, number: int) -> Any:
    """An artifact of about 8 kB."""
    key = f"{number:02x}" + "0" * 30
    time.sleep(0.01)  # so that the times of use differ
    return store.obtain(
        key, {}, lambda writer: writer.save("x", torch.full((1000,), float(number), dtype=torch.float64)), no_waiting
    )


def numbers(store: Store) -> list[int]:
    return [int(key[:2], 16) for key in store.keys()]


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    store = Store(tmp_path, cap_bytes=20_000)
    small(store, 1), small(store, 2)
    small(store, 1)  # used again
    small(store, 3)
    assert numbers(store) == [1, 3]
    assert store.bytes_used() <= 20_000
    small(store, 4)
    assert numbers(store) == [3, 4]


def test_what_is_mapped_stays_readable_when_evicted(tmp_path: Path) -> None:
    store = Store(tmp_path, cap_bytes=10_000)
    mapped = small(store, 1).tensor("x")
    for number in (2, 3, 4):
        small(store, number)
    assert numbers(store) == [4]
    assert mapped.tolist() == [1.0] * 1000
    assert small(store, 1).tensor("x").tolist() == [1.0] * 1000  # computed again


def test_the_newest_stays_even_above_the_cap(tmp_path: Path) -> None:
    store = Store(tmp_path, cap_bytes=10)
    assert small(store, 1).tensor("x").tolist() == [1.0] * 1000
    assert numbers(store) == [1]


def test_without_a_cap_nothing_goes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(5):
        small(store, number)
    assert numbers(store) == list(range(5))
    assert 5 * 8000 < store.bytes_used() < 5 * 9000


def test_leftovers_of_a_death_while_deleting_do_no_harm(tmp_path: Path) -> None:
    store = Store(tmp_path, cap_bytes=10_000)
    small(store, 1)
    folder = store.path("01" + "0" * 30)
    leftover = folder.with_name(folder.name + ".gone")
    shutil.copytree(folder, leftover)
    small(store, 2)
    assert numbers(store) == [2] and not leftover.exists()


def test_an_unfinished_artifact_is_not_evicted(tmp_path: Path) -> None:
    store = Store(tmp_path, cap_bytes=10_000)

    def failing(writer: Writer) -> None:
        writer.save("x", torch.zeros(1000))
        (writer.path / "meta.json").write_text("{}")  # as between its last write and its rename
        raise Cancelled

    with pytest.raises(Cancelled):
        store.obtain(KEY, {}, failing, no_waiting)
    small(store, 1), small(store, 2)
    assert list(tmp_path.glob("ab/*.part"))


def test_a_writer_reads_back_what_it_wrote(tmp_path: Path) -> None:
    """Rows are written behind the computation: reading waits for them."""

    def produce(writer: Writer) -> None:
        writer.create("x", (400, 5000), np.float64)
        for start in range(0, 400, 10):
            writer.write("x", start, np.full((10, 5000), start))
        values = writer.read("x")
        assert values.shape == (400, 5000) and values[:, 0].tolist() == [10 * (i // 10) for i in range(400)]
        assert values[:, -1].tolist() == [10 * (i // 10) for i in range(400)]

    Store(tmp_path).obtain("ab" * 8, {}, produce, lambda: None)
