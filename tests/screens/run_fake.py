"""Serve the app on the fake service: ``streamlit run tests/screens/run_fake.py`` (for looking at the screens)."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.screens import fake_service  # noqa: E402

# One fake for the whole server, so that its jobs survive a reload.
fake_service.install_once()
runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
