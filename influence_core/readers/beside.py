"""Something checked in a thread while a model is trained, which leaves the other cores alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from influence_core.run import Run

T = TypeVar("T")


@contextmanager
def beside(check: Callable[[Run], T], run: Run) -> Iterator[tuple[Run, Callable[[], T]]]:
    """Check something while the body goes on.

    Args:
        check: Called in a thread, with a run of its own: it reports nothing, and stops when the body ends.
        run: The body's.

    Yields:
        The run for the body, which raises at its next batch what the check raised; and a function that waits for the
        check and returns what it found.
    """
    ended = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="beside") as pool:
        found = pool.submit(check, Run(device="cpu", cancel=ended.is_set))

        def cancelled() -> bool:
            if found.done():
                found.result()
            return run.cancel()

        try:
            yield replace(run, cancel=cancelled), found.result
        finally:
            ended.set()
