"""Where the other libraries are, and how they are run: beside our process, on one thread."""

from __future__ import annotations

import os
from pathlib import Path


def rival_python() -> Path | None:
    """Return the Python that has kronfluence: that of ``KRONFLUENCE_PYTHON``, or of ``make test-rivals``; or None."""
    made = Path(__file__).parents[1] / ".venv-rivals" / "bin" / "python"
    python = Path(os.environ.get("KRONFLUENCE_PYTHON", made))
    return python if python.exists() else None


def alone() -> dict[str, str]:
    """Return the environment of a process that computes on one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
