"""A check beside a training: what it finds, and how each of the two stops the other."""

from __future__ import annotations

import threading

import pytest

from influence_core.errors import BadInput, Cancelled
from influence_core.readers.beside import beside
from influence_core.run import Run

PATIENT = 30


def test_both_run_and_the_check_says_what_it_found() -> None:
    begun = threading.Event()

    def check(run: Run) -> str:
        assert begun.wait(PATIENT)  # the body is under way
        return "fine"

    with beside(check, Run(device="cpu")) as (run, found):
        begun.set()
        assert [1, 2] == list(run.track([1, 2], "training", 2))
        assert found() == "fine"


def test_a_refusal_stops_the_body_at_its_next_batch() -> None:
    def check(run: Run) -> None:
        raise BadInput("A row cannot be read", "It is too far out.", "Leave it out.")

    with pytest.raises(BadInput, match="too far out"), beside(check, Run(device="cpu")) as (run, found):
        with pytest.raises(BadInput):
            found()
        next(run.track([1], "training", 1))
        pytest.fail("the body went on")


def test_the_check_stops_where_the_body_ends_and_the_users_wish_to_stop_is_heard() -> None:
    seen: list[type[BaseException]] = []

    def check(run: Run) -> None:
        try:
            for _ in run.track(iter(lambda: 0, 1), "checking", 1):  # without end
                pass
        except Cancelled as stopped:
            seen.append(type(stopped))
            raise

    with pytest.raises(Cancelled), beside(check, Run(device="cpu", cancel=lambda: True)) as (run, _):
        next(run.track([1], "training", 1))
    assert seen == [Cancelled]
