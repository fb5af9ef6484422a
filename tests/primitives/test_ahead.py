"""Work done ahead in another thread: the order, the errors, and what it leaves alone."""

from __future__ import annotations

import threading

import pytest
import torch

from influence_core.primitives.ahead import ahead


def test_results_come_in_order_from_another_thread_on_one_core() -> None:
    def seen(item: int) -> tuple[int, str, int]:
        return item * item, threading.current_thread().name, torch.get_num_threads()

    found = list(ahead(seen, range(50)))
    assert [value for value, _, _ in found] == [i * i for i in range(50)]
    assert {name for _, name, _ in found} != {threading.current_thread().name}
    assert {threads for _, _, threads in found} == {1}


def test_an_error_is_raised_in_its_place_and_the_rest_is_dropped() -> None:
    done = []

    def failing(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        done.append(item)
        return item

    results = ahead(failing, range(1000))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
    assert list(ahead(failing, [7])) == [7]


def test_the_callers_number_of_threads_is_untouched() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert list(ahead(lambda _: torch.get_num_threads(), [0])) == [1]
        assert torch.get_num_threads() == 2
        found: list[int] = []
        late = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        late.start()
        late.join()
        assert found == [2]
    finally:
        torch.set_num_threads(before)
