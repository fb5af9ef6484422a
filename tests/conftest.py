"""Settings of the whole suite: one thread per process (the cases are tiny), float32 as torch's default."""

from __future__ import annotations

import os

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
