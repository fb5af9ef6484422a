"""The app on the fake service, without a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.screens.fake_service import FakeService, install

ROOT = Path(__file__).resolve().parents[2]
Opener = Callable[..., AppTest]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeService:
    service = FakeService()
    install(service, monkeypatch.setattr)
    return service


@pytest.fixture
def opened(fake: FakeService) -> Opener:
    """Open a screen at an address: ``opened("explain", id="3", k="5")``."""

    def start(screen: str = "overview", **params: str | list[str]) -> AppTest:
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
        for name, value in params.items():
            app.query_params[name.replace("__", ".")] = value
        if screen != "overview":
            app.switch_page(f"pages/screens/{screen}.py")
        return app.run()

    return start


def markup(app: AppTest) -> str:
    """All HTML on the page, the style sheet left out."""
    bodies = [element.value for element in app.get("html")]
    return "\n".join(body for body in bodies if not body.startswith("<style"))
