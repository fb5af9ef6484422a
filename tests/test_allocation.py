"""Freed memory is kept in the process: large blocks come back without new pages."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from influence_core.allocation import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def work():
    blocks = [torch.ones(12 << 18) for _ in range(20)]  # 12 MB each
    del blocks
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_blocks_are_used_again_instead_of_being_fetched_anew() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    kept, given_back = faults("kept"), faults("given back")
    # 5 x 240 MB are 300,000 pages of 4 kB; a kernel short of memory or generous with huge pages counts otherwise.
    assert kept < given_back / 2 and given_back > 20_000, (kept, given_back)
