"""Who may see what: the rules, the file, and every public function of the service asked by somebody who may not."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from influence_core import service
from influence_core.errors import BadInput
from influence_core.service import access, access_file, makers, uploads
from influence_core.service.access_file import Access, Grants

ANN, BOB, ADA = "ann@example.org", "bob@example.org", "ada@example.org"
Ask = Callable[..., None]

FILE = f"""
admins = ["{ADA}"]
creators = ["{ANN}", "{BOB}"]
[studies.table]
viewer = ["{ANN}"]
reviewer = ["Carol@Example.org"]
[studies.linear]
owner = ["{BOB}"]
[studies."*"]
viewer = ["everybody"]
"""


@pytest.fixture(autouse=True)
def _nobody_registered() -> Iterator[None]:
    access._registered.clear()
    yield
    access._registered.clear()


@pytest.fixture
def shared(own_studies: Path) -> Path:
    """The small studies with a file that says who may see what."""
    (own_studies / "access.toml").write_text(FILE, encoding="utf-8")
    return own_studies


def asks(person: str | None, sign_in: access.SignIn = "on", address: str | None = "127.0.0.1") -> None:
    access._registered.clear()
    access.set_identity(lambda: person, sign_in, address)


def roles() -> dict[str, str | None]:
    return {study: access.role(study) for study in ("image", "linear", "table", "no-such")}


def test_without_an_interface_everything_is_ones_own(shared: Path) -> None:
    assert roles() == {"image": "owner", "linear": "owner", "table": "owner", "no-such": None}
    assert access.visitor() == access.Visitor("", True, False)


@pytest.mark.parametrize(
    ("person", "image", "linear", "table", "may_import"),
    [
        (ANN, "viewer", None, "viewer", True),
        ("  ANN@example.ORG ", "viewer", None, "viewer", True),
        ("carol@example.org", "viewer", None, "reviewer", False),
        (BOB, "viewer", "owner", None, True),
        ("stranger@example.org", "viewer", None, None, False),
        (ADA, "owner", "owner", "owner", True),
    ],
)
def test_the_file_says_who_is_what(
    shared: Path, person: str, image: str | None, linear: str | None, table: str | None, may_import: bool
) -> None:
    asks(person)
    assert roles() == {"image": image, "linear": linear, "table": table, "no-such": None}
    assert access.visitor().may_import is may_import
    assert [card.name for card in service.studies()] == [name for name, held in roles().items() if held]


def test_nobody_without_a_name_sees_anything(shared: Path) -> None:
    for nobody in (None, "", "  "):
        asks(nobody)
        assert set(roles().values()) == {None}
        with pytest.raises(BadInput, match="You are not signed in"):
            service.studies()


def test_a_change_of_the_file_counts_at_once(shared: Path) -> None:
    asks(BOB)
    assert access.role("table") is None
    (shared / "access.toml").write_text(FILE.replace('owner = ["', f'owner = ["{ANN}", "').replace(ANN, BOB, 2))
    assert access.role("table") == "viewer"
    (shared / "access.toml").write_text("")
    assert set(roles().values()) == {None}


@pytest.mark.parametrize(
    "damage",
    [
        b"admins = [", b"\xff\xfe\x00", b"admin = ['ada@example.org']",
        b"[studies.table]\nviewers = ['ann@example.org']",
        b"[studies.table]\nviewer = 'ann@example.org'", b"[studies.table]\nviewer = ['ann']", b"studies = 3",
        b"admins = ['everybody']", b"[studies.table]\nviewer = [3]",
    ],
)  # fmt: skip
def test_a_damaged_file_opens_nothing(shared: Path, damage: bytes) -> None:
    (shared / "access.toml").write_bytes(damage)
    for person in (ANN, ADA):
        asks(person)
        assert set(roles().values()) == {None}
        with pytest.raises(BadInput, match="Nobody can see a study at present") as caught:
            service.overview("table")
        assert "table" not in str(caught.value)
    (shared / "access.toml").write_text(FILE, encoding="utf-8")
    asks(ANN)
    assert access.role("table") == "viewer"


def test_the_named_admin_learns_what_is_damaged(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUENCE_ADMINS", f" {ADA}, ")
    (shared / "access.toml").write_text("admins = [")
    asks(ADA)
    with pytest.raises(BadInput, match="access.toml is damaged. It is no TOML"):
        service.studies()


def test_a_folder_in_place_of_the_file_opens_nothing(shared: Path) -> None:
    (shared / "access.toml").unlink()
    (shared / "access.toml").mkdir()
    asks(ADA)
    assert set(roles().values()) == {None}


def test_without_a_file_only_the_named_admins_get_in(own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asks(ADA)
    assert set(roles().values()) == {None}
    assert service.studies() == []
    monkeypatch.setenv("INFLUENCE_ADMINS", f"{ADA},{BOB}")
    assert roles() == {"image": "owner", "linear": "owner", "table": "owner", "no-such": None}
    asks(ANN)
    assert set(roles().values()) == {None}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LOCALHOST "])
def test_on_loopback_without_sign_in_everything_is_ones_own(own_studies: Path, address: str) -> None:
    asks(None, "off", address)
    assert access.role("table") == "owner"
    assert access.visitor().may_import


@pytest.mark.parametrize(
    "address", [None, "", "0.0.0.0", "::", "192.168.1.5", "unix:///tmp/x", "example.org", "127.0.0.1.evil.org"]
)
def test_in_a_network_without_sign_in_nothing_is_shown(
    own_studies: Path, address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks(None, "off", address)
    assert set(roles().values()) == {None}
    with pytest.raises(BadInput, match="This server shows no studies yet.*INFLUENCE_TRUSTED_NETWORK=1"):
        service.studies()
    monkeypatch.setenv("INFLUENCE_TRUSTED_NETWORK", "1")
    assert access.role("table") == "owner"


def test_a_file_that_cannot_be_kept_to_opens_nothing(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUENCE_TRUSTED_NETWORK", "1")
    asks(None, "off")
    assert set(roles().values()) == {None}
    with pytest.raises(BadInput, match="signing in is not configured"):
        service.studies()


def test_secrets_that_vanish_or_cannot_be_read_open_nothing(own_studies: Path) -> None:
    asks(None, "unreadable")
    assert set(roles().values()) == {None}
    asks(ANN)
    access.set_identity(lambda: None, "off", "127.0.0.1")  # of the same process: the file of secrets is gone
    assert set(roles().values()) == {None}
    with pytest.raises(BadInput, match="cannot be read"):
        service.studies()


def test_a_small_role_is_not_enough(shared: Path) -> None:
    asks(ANN)
    access.check("table")
    with pytest.raises(BadInput, match="It takes the role reviewer, and yours is viewer"):
        access.check("table", "reviewer")
    asks("carol@example.org")
    access.check("table", "reviewer")
    with pytest.raises(BadInput, match="owner"):
        access.check("table", "owner")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", ".uploads", ".owners", "x" * 300, "a\0b", "access.toml"]
)
def test_names_that_are_no_study_are_nobodys(shared: Path, name: str) -> None:
    makers.claim_study(shared, "table", ANN)
    for person in (ANN, ADA):
        asks(person)
        assert access.role(name) is None
        with pytest.raises(BadInput, match="Unknown study"):
            access.check(name)


@pytest.mark.parametrize("act", [service.rename_study, service.delete_study, service.clear_cache, service.backup])
def test_who_only_looks_changes_nothing_and_takes_nothing_out(shared: Path, act: Callable[..., object]) -> None:
    before = tree(shared)
    for person in (ANN, "carol@example.org"):
        asks(person)
        with pytest.raises(BadInput, match="It takes the role owner"):
            act(*("table", "Another title")[: 2 if act is service.rename_study else 1])
    assert tree(shared) == before


def test_what_is_done_later_is_done_in_the_name_of_who_asked(shared: Path) -> None:
    people = [ANN]
    access.set_identity(lambda: people[0] if people else None, "on", None)
    later = access.on_behalf(lambda: [card.name for card in service.studies()])
    people.clear()  # as in the thread that makes a download
    assert later() == ["image", "table"]
    with pytest.raises(BadInput, match="You are not signed in"):
        service.studies()
    (shared / "access.toml").write_text(f'admins = ["{ADA}"]', encoding="utf-8")
    assert later() == []  # a role taken away counts


def test_the_strongest_of_several_roles_counts() -> None:
    grants = Grants(viewer=(ANN, "everybody"), owner=(ANN,))
    assert grants.role(ANN) == "owner"
    assert grants.role(BOB) == "viewer"
    rules = Access(studies={"*": Grants(reviewer=("everybody",)), "a": Grants(viewer=(ANN,))})
    assert [rules.role("a", BOB, None), rules.role("b", BOB, None)] == [None, "reviewer"]
    assert rules.role("*", BOB, None) == "reviewer"  # a folder may have that name


def test_what_somebody_imported_is_theirs_until_the_file_says_otherwise(shared: Path) -> None:
    makers.claim_study(shared, "image", ANN)
    for person, expected in ((ANN, "owner"), (BOB, None), (ADA, "owner")):
        asks(person)
        assert access.role("image") == expected
    with (shared / "access.toml").open("a") as file:
        file.write(f'[studies.image]\nviewer = ["{BOB}"]\n')
    for person, expected in ((ANN, None), (BOB, "viewer"), (ADA, "owner")):
        asks(person)
        assert access.role("image") == expected


def test_a_record_that_cannot_be_read_gives_nothing_away(shared: Path) -> None:
    (shared / ".owners").mkdir()
    (shared / ".owners" / "image").write_bytes(b"\xff\xff")
    asks(ANN)
    assert access.role("image") is None


def test_a_copied_study_cannot_say_whose_it_is(shared: Path) -> None:
    shutil.copytree(shared / "linear", shared / "copied")
    (shared / "copied" / ".owner").write_text(ANN)
    (shared / "copied" / "access.toml").write_text(f'admins = ["{ANN}"]')
    asks(ANN)
    assert access.role("copied") == "viewer"  # what "*" says, no more


def upload(text: bytes = b"a,label\n" + b"1,x\n2,y\n" * 20) -> str:
    return service.save_upload("mine.csv", io.BytesIO(text))


def test_uploads_belong_to_who_brought_them(shared: Path) -> None:
    asks(ANN)
    token = upload()
    assert service.preview(token).file == "mine.csv"
    asks(BOB)
    for act in (lambda: service.preview(token), lambda: service.check_import(token, {}),
                lambda: service.start_import(token, {}, "")):  # fmt: skip
        with pytest.raises(BadInput, match="The uploaded file is gone"):
            act()
    service.drop_upload(token)
    asks(ANN)
    assert service.preview(token).n_rows == 40
    service.drop_upload(token)
    assert not (shared / uploads.FOLDER / token).exists()


def test_who_may_not_import_brings_nothing(shared: Path) -> None:
    asks("carol@example.org")
    before = tree(shared)
    with pytest.raises(BadInput, match="You may not import data here"):
        upload()
    assert tree(shared) == before


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports stay in the queue."""
    monkeypatch.setattr("influence_core.service.imports.ensure_worker", lambda studies: False)


def started(title: str) -> str:
    token = upload()
    guess = {column.name: column.role for column in service.preview(token).columns} | {"label": "label"}
    roles = service.check_import(token, guess).roles
    assert roles is not None
    return service.start_import(token, roles, title).name


def test_pending_imports_belong_to_who_began_them(shared: Path, no_worker: None) -> None:
    asks(ANN)
    name = started("Mine")
    assert name.startswith("mine-")
    assert [item.name for item in service.pending_imports()] == [name]
    asks(BOB)
    assert service.pending_imports() == []
    assert service.pending_import(name) is None
    for act in (service.cancel_import, service.retry_import, service.discard_import):
        with pytest.raises(BadInput, match="There is no such import"):
            act(name)
    upload()  # looks for uploads to forget; Ann's pending one must stay
    asks(ADA)
    assert [item.name for item in service.pending_imports()] == [name]
    asks(ANN)
    service.cancel_import(name)
    service.discard_import(name)
    assert not (shared / name).exists()
    assert makers.maker_of_study(shared, name) is None


def test_another_ones_pending_upload_is_kept(shared: Path, no_worker: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asks(ANN)
    name = started("Mine")
    token = service.pending_imports()[0].token
    os.utime(shared / uploads.FOLDER / token, (0, 0))
    asks(BOB)
    upload()
    asks(ANN)
    assert service.pending_imports()[0].file == "mine.csv", name


def test_the_name_of_a_new_study_does_not_say_what_others_have(shared: Path, no_worker: None) -> None:
    asks(ANN)
    taken, free = started("linear"), started("something new")
    assert len(taken) - len("linear") == len(free) - len("something-new") == 7


def test_the_limit_of_uploads_is_the_same_in_both_places() -> None:
    import tomllib

    root = Path(__file__).resolve().parents[2]
    config = tomllib.loads((root / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    assert config["server"]["maxUploadSize"] << 20 == uploads.MAX_BYTES
    assert config["server"]["address"] == "127.0.0.1"
    assert config["server"]["enableXsrfProtection"] is True
    assert config["client"]["showErrorDetails"] == "none"
    assert config["browser"]["gatherUsageStats"] is False


def test_the_example_in_the_documentation_is_valid() -> None:
    import tomllib

    page = (Path(__file__).resolve().parents[2] / "docs" / "sharing.md").read_text(encoding="utf-8")
    examples = [part.partition("```")[0] for part in page.split("```toml\n")[1:]]
    rules = [Access.checked(tomllib.loads(text)) for text in examples if "admins" in text]
    assert rules and all(rule.admins for rule in rules)
    assert access_file.__doc__ is not None
    written = "\n".join(line.strip() for line in access_file.__doc__.splitlines() if line.startswith("    "))
    assert Access.checked(tomllib.loads(written)).role("sms-spam", BOB, None) == "owner"


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with its size and time; SQLite's side files come and go by looking."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }
