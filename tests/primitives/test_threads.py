"""Threads that use one core each: their setting, the order of their results, their errors."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from influence_core.primitives.threads import ahead, one_core_threads


def test_each_keeps_to_one_core_and_the_rest_of_the_program_does_not() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        pool = one_core_threads("test", 3)
        assert pool is one_core_threads("test", 3)
        barrier = threading.Barrier(3)

        def seen(_: int) -> tuple[int, int]:
            barrier.wait()  # one call in each thread
            return threading.get_ident(), torch.get_num_threads()

        found = list(pool.map(seen, range(3)))
        assert len({thread for thread, _ in found}) == 3 and {count for _, count in found} == {1}
        assert torch.get_num_threads() == 2
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [2]
    finally:
        torch.set_num_threads(before)


def test_results_come_in_order() -> None:
    found = list(ahead(lambda item: (item * item, threading.current_thread().name), range(50)))
    assert [value for value, _ in found] == [i * i for i in range(50)]
    assert all(name.startswith("ahead") for _, name in found)


def test_an_error_is_raised_in_its_place() -> None:
    def failing(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    results = ahead(failing, range(1000))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
    assert list(ahead(failing, [7])) == [7]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_makes_threads_of_its_own() -> None:
    assert list(ahead(abs, [-1])) == [1]
    pid = os.fork()
    if pid == 0:
        os._exit(0 if list(ahead(abs, [-7])) == [7] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
