"""The way in, the account and the banner of a demo, with a fake user and the fake service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from influence_core import service
from influence_core.service import access
from pages.components import signin
from tests.screens.conftest import Opener, markup
from tests.screens.fake_service import FakeService

ANN = {"is_logged_in": True, "email": "ann@example.org", "email_verified": True, "name": "Ann <b>Example</b>"}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("INFLUENCE_STUDIES", str(tmp_path))
    access._registered.clear()
    yield
    access._registered.clear()


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the provider says: empty is no sign-in at all. Ann may import."""
    said: dict[str, Any] = {}
    monkeypatch.setattr(signin, "_user", lambda: dict(said))
    monkeypatch.setattr(signin, "_providers", lambda: [""])
    (tmp_path / "access.toml").write_text('creators = ["ann@example.org"]', encoding="utf-8")
    return said


def labels(app: AppTest) -> list[str]:
    return [button.label for button in app.button]


def test_nobody_signed_in_sees_a_name_and_one_button(opened: Opener, user: dict[str, Any], fake: FakeService) -> None:
    user["is_logged_in"] = False
    app = opened("explain", study="digits", id="3")
    assert not app.exception
    assert labels(app) == ["Sign in"]
    assert "digits" not in markup(app).lower()
    assert fake.calls == []


def test_somebody_signed_in_sees_the_app_and_the_way_out(opened: Opener, user: dict[str, Any]) -> None:
    user.update(ANN)
    app = opened()
    assert not app.exception
    assert "Why did the model say that?" in markup(app)
    account = app.sidebar.button[-1]
    assert account.label == "Sign out"
    assert "Ann &lt;b&gt;Example&lt;/b&gt;" in markup(app)
    assert "<b>Example</b>" not in markup(app)


@pytest.mark.parametrize(
    "change", [{"email_verified": False}, {"email_verified": "false"}, {"email": None}, {"email": 7}]
)
def test_an_address_that_is_not_verified_is_nobodys(
    opened: Opener, user: dict[str, Any], fake: FakeService, change: dict[str, Any]
) -> None:
    user.update(ANN | change)
    app = opened()
    assert labels(app) == ["Sign out"]
    assert "no verified e-mail address" in markup(app)
    assert fake.calls == []


def test_a_header_that_says_so_signs_nobody_in(user: dict[str, Any]) -> None:
    user.update(ANN, is_logged_in="true")
    assert signin._person() is None
    del user["is_logged_in"]
    assert signin._person() is None


def test_the_person_is_looked_up_when_asked(opened: Opener, user: dict[str, Any]) -> None:
    user.update(ANN)
    opened()
    assert service.visitor().person == "ann@example.org"
    user["email"] = "bob@example.org"  # a fragment of another session
    assert service.visitor().person == "bob@example.org"


def test_who_may_not_import_is_not_offered_it(opened: Opener, user: dict[str, Any], fake: FakeService) -> None:
    user.update(ANN, email="bob@example.org")
    app = opened("import")
    assert not app.exception
    assert "You cannot import data here" in markup(app)
    assert not app.get("file_uploader")
    fake.names = ()
    app = opened()
    assert "No study is shared with you yet" in markup(app)
    assert "Import your data" not in labels(app)


def test_a_damaged_list_of_people_opens_nothing(
    opened: Opener, user: dict[str, Any], fake: FakeService, tmp_path: Path
) -> None:
    (tmp_path / "access.toml").write_text("admins = [", encoding="utf-8")
    user.update(ANN)
    app = opened()
    assert "Nobody can see a study at present" in markup(app)
    assert labels(app) == ["Sign out"]
    assert fake.calls == []


def test_a_server_that_others_reach_without_sign_in_shows_nothing(
    opened: Opener, fake: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = signin.st.get_option
    monkeypatch.setattr(signin.st, "get_option", lambda name: "0.0.0.0" if name == "server.address" else known(name))
    app = opened()
    assert not app.exception
    assert "This server shows no studies yet" in markup(app)
    assert "INFLUENCE_TRUSTED_NETWORK" in markup(app)
    assert fake.calls == []


def test_secrets_that_cannot_be_read_are_not_the_same_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "secrets.toml"
    monkeypatch.setattr(signin, "_user", dict)
    monkeypatch.setattr(signin.st, "get_option", lambda name: [str(file)])
    monkeypatch.setattr(type(signin.st.secrets), "load_if_toml_exists", lambda self: False)
    assert signin._sign_in() == "off"
    file.write_text("[auth", encoding="utf-8")
    assert signin._sign_in() == "unreadable"


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ({"client_id": "a", "cookie_secret": "s"}, [""]),
        ({"google": {"client_id": "a"}, "entra": {"client_id": "b"}, "client_kwargs": {"x": 1}}, ["google", "entra"]),
        ({"cookie_secret": "s"}, [""]),
    ],
)
def test_each_provider_has_a_button(monkeypatch: pytest.MonkeyPatch, auth: dict[str, Any], expected: list[str]) -> None:
    monkeypatch.setattr(signin.st, "secrets", {"auth": auth})
    assert signin._providers() == expected


def test_a_demo_says_so_and_can_be_reset(opened: Opener, monkeypatch: pytest.MonkeyPatch, fake: FakeService) -> None:
    done = []
    monkeypatch.setattr(service, "visitor", lambda: service.Visitor("", False, True))
    monkeypatch.setattr(service, "reset_demo", lambda: done.append(1))
    app = opened()
    assert "nothing is kept" in markup(app)
    next(button for button in app.button if button.label == "Reset").click().run()
    assert done == [1]
    assert "back to how it was" in app.toast[0].value


def test_without_sign_in_there_is_no_account(opened: Opener) -> None:
    app = opened()
    assert "Sign out" not in labels(app) and "Sign in" not in labels(app)
    assert "Demo." not in markup(app)
