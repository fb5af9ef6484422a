"""Settings of the whole suite: one thread per process (the cases are tiny), float32 as torch's default."""

from __future__ import annotations

import os
from collections.abc import Callable

# Set before torch is imported, and inherited by every process the tests start: with tiny tensors a second thread only
# waits, and two processes of two waiting threads each slow one another down many times over.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)

pytest_plugins = ["tests.small_studies"]


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Start every test from the same global random state."""
    torch.manual_seed(0)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command in this process; return its output, or what it says of an error where another code is expected."""
    from influence_core.__main__ import main

    def call(*argv: object, code: int = 0) -> str:
        ended = main([str(word) for word in argv])
        out, err = capfd.readouterr()
        assert ended == code, err
        return out if code == 0 else err

    return call
