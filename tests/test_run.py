"""How a computation runs: settings are checked, progress and cancellation go through one place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from influence_core.errors import BadInput, Cancelled
from influence_core.run import Run
from influence_core.store import Store


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"dtype": torch.float16}, "Unknown precision"), ({"dtype": "float32"}, "Unknown precision"),
        ({"batch_size": 0}, "No batch can be made"), ({"device": "cuda:99"}, "This device cannot be used"),
        ({"device": "quantum"}, "This device cannot be used"),
    ],
)  # fmt: skip
def test_unusable_settings_are_named(settings: dict, what: str) -> None:
    with pytest.raises(BadInput) as error:
        Run(**settings)
    assert error.value.what == what and error.value.fix


def test_auto_takes_what_there_is() -> None:
    assert Run().device == torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert Run(device="cpu").device == torch.device("cpu")
    assert (Run().precision, Run(dtype=torch.float64).precision) == ("float32", "float64")


def test_track_passes_everything_through_and_ends_full() -> None:
    reports: list[tuple[str, float, float]] = []
    run = Run(device="cpu", progress=lambda *report: reports.append(report))
    assert list(run.track("abc", "letters", 3)) == ["a", "b", "c"]
    assert reports == [("letters", 0, 3), ("letters", 1, 3), ("letters", 2, 3), ("letters", 3, 3)]


def test_track_reports_a_step_only_when_it_is_done() -> None:
    reports: list[float] = []
    loop = Run(device="cpu", progress=lambda stage, done, total: reports.append(done)).track(range(2), "x", 2)
    next(loop)
    assert reports == [0]
    next(loop)
    assert reports == [0, 1]


def test_cancel_stops_before_the_next_step() -> None:
    stop, seen = [False], []
    run = Run(device="cpu", cancel=lambda: stop[0])
    with pytest.raises(Cancelled):
        for i in run.track(range(10), "x", 10):
            seen.append(i)
            stop[0] = i == 3
    assert seen == [0, 1, 2, 3]


def test_waiting_can_be_cancelled() -> None:
    Run(device="cpu").waiting(0)
    with pytest.raises(Cancelled):
        Run(device="cpu", cancel=lambda: True).waiting(0)


def test_a_chosen_store_stays_and_none_means_the_given_one(tmp_path: Path) -> None:
    mine, other = Store(tmp_path / "a"), Store(tmp_path / "b")
    assert Run(device="cpu").with_store(mine).artifacts is mine
    assert Run(device="cpu", store=mine).with_store(other).artifacts is mine
    kept = Run(device="cpu", seed=3, batch_size=7).with_store(mine)
    assert (kept.seed, kept.batch_size) == (3, 7)


def test_without_a_store_a_temporary_one_is_shared() -> None:
    assert Run(device="cpu").artifacts is Run(device="cpu").artifacts
    assert "influence-" in str(Run(device="cpu").artifacts.root)
