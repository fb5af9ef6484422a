"""A demo for visitors: everybody works on one scratch copy of the studies, and the folder given is never written to.

``INFLUENCE_DEMO=1`` switches it on. The copy is a temporary folder that ends with the server; "Reset" makes a new one.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
from pathlib import Path

from influence_core.errors import BadInput
from influence_core.service.folder import studies_folder
from influence_core.store import disk_errors

# What belongs to the people who work on the studies given, and what a running server keeps beside them.
_LEFT_OUT = shutil.ignore_patterns(".*", "access.toml", "jobs.sqlite*", "reviews.sqlite*")
_lock = threading.Lock()
_scratch: list[Path] = []  # the copy in use, once there is one
_source: list[Path] = []


def is_demo() -> bool:
    """Tell whether this server is a demo."""
    return os.environ.get("INFLUENCE_DEMO", "").strip().lower() not in ("", "0", "false", "no")


def demo_runs() -> bool:
    """Tell whether the scratch copy is in use."""
    return bool(_scratch)


def start_demo() -> None:
    """Copy the studies and use the copy from now on, where this server is a demo; the second call does nothing.

    Raises:
        StoreProblem: The disk is full or refuses.
    """
    if not is_demo():
        return
    with _lock:
        if not _scratch:
            _source[:] = [studies_folder().resolve()]
            _use_new_copy()
            atexit.register(_remove)


def reset_demo() -> None:
    """Put everything back to how it was at the start of the demo.

    Raises:
        BadInput: This server is no demo.
        StoreProblem: The disk is full or refuses.
    """
    if not (is_demo() and demo_runs()):
        raise BadInput("There is nothing to reset", "This is no demo.", "Go on working.")
    with _lock:
        old = list(_scratch)
        _use_new_copy()
        for folder in old:  # a job that still works there ends: its study is gone
            shutil.rmtree(folder, ignore_errors=True)


def _use_new_copy() -> None:
    folder = Path(tempfile.mkdtemp(prefix="influence-demo-"))
    try:
        with disk_errors(folder):
            for study in sorted(path.parent for path in _source[0].glob("*/study.toml")):
                if not study.name.startswith("."):
                    shutil.copytree(study, folder / study.name, ignore=_LEFT_OUT)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # Set for this process and inherited by its workers; the switch is one assignment, so no visitor sees half a copy.
    os.environ["INFLUENCE_STUDIES"] = str(folder)
    _scratch[:] = [folder]


def _remove() -> None:
    for folder in _scratch:
        shutil.rmtree(folder, ignore_errors=True)
