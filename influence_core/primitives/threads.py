"""Threads of our own that use one core each, for work that torch's shared threads are slow at.

Torch splits each operation among all cores and waits for the slowest. That costs more than it brings for passes over a
row or two, and for products of a matrix with one vector, which its library does on one thread anyway.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")
_lock = threading.Lock()
_pools: dict[tuple[str, int], ThreadPoolExecutor] = {}
os.register_at_fork(after_in_child=_pools.clear)  # a forked process does not inherit threads


def one_core_threads(purpose: str, count: int) -> ThreadPoolExecutor:
    """Return a pool of ``count`` threads, made at first use, in each of which torch keeps to one core."""
    with _lock:
        if (purpose, count) not in _pools:
            threads, barrier = torch.get_num_threads(), threading.Barrier(count)

            def start(_: int) -> None:
                torch.get_num_threads()  # the first look takes the program's setting over, and must not come later
                torch.set_num_threads(1)
                barrier.wait()  # so that every thread is started, and takes one of these calls

            pool = ThreadPoolExecutor(count, thread_name_prefix=purpose)
            list(pool.map(start, range(count)))
            # The setting is the thread's own, and also what later threads start from: that part is put back here.
            torch.set_num_threads(threads)
            _pools[purpose, count] = pool
        return _pools[purpose, count]


@contextmanager
def one_core() -> Iterator[None]:
    """Keep torch to one core in a block.

    With small batches a second core brings little, and waiting for it while another process uses it costs ten times
    the work itself.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def on_one_core(function: Callable[[], R]) -> R:
    """Return ``function()``, computed in a thread that keeps to one core; what it raises is raised here."""
    return one_core_threads("alone", 1).submit(function).result()


def ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield ``function(item)`` in order, computed in a thread of its own while the caller uses what came before.

    What ``function`` raises is raised here, in place of its result.
    """
    pool = one_core_threads("ahead", 1)
    futures: list[Future[R]] = [pool.submit(function, item) for item in items]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()
