"""Where the studies of this process are."""

from __future__ import annotations

import os
from pathlib import Path


def studies_folder() -> Path:
    """Return the folder of studies: ``INFLUENCE_STUDIES``, or ``studies`` beside the program."""
    return Path(os.environ.get("INFLUENCE_STUDIES", "studies"))
