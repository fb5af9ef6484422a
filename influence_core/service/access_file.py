"""The file ``<studies>/access.toml``: which signed-in person has which role for which study.

    admins = ["ada@example.org"]             # owners of every study; they may import too
    creators = ["bob@example.org"]           # may import, and own what they import

    [studies.sms-spam]                       # the name of a study's folder
    viewer = ["everybody"]                   # everybody who signs in
    reviewer = ["carol@example.org"]
    owner = ["bob@example.org"]

    [studies."*"]                            # every study without a table of its own that nobody imported in the app
    viewer = ["everybody"]

A study with a table of its own follows that table alone. Upper and lower case of an address are the same.
"""

from __future__ import annotations

import logging
import threading
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from influence_core.config import Config
from influence_core.errors import BadInput

FILE_NAME = "access.toml"
EVERYBODY = "everybody"
ANY = "*"
Role = Literal["viewer", "reviewer", "owner"]
ROLES: tuple[Role, ...] = ("viewer", "reviewer", "owner")  # each may do what those before it may
log = logging.getLogger("influence.access")


def plain_address(written: str) -> str:
    """Return an e-mail address as it is compared."""
    return written.strip().casefold()


def _person(written: str) -> str:
    plain = plain_address(written)
    if plain != EVERYBODY and (plain.count("@") != 1 or plain.startswith("@") or plain.endswith("@")):
        raise ValueError(f"'{written}' is neither an e-mail address nor '{EVERYBODY}'")
    return plain


def _named(written: str) -> str:
    if _person(written) == EVERYBODY:
        raise ValueError("'everybody' cannot be an admin; name each one")
    return plain_address(written)


Person = Annotated[str, AfterValidator(_person)]


class Grants(Config):
    """Who has which role for one study."""

    viewer: tuple[Person, ...] = ()
    reviewer: tuple[Person, ...] = ()
    owner: tuple[Person, ...] = ()

    def role(self, person: str) -> Role | None:
        """Return the strongest role of a person."""
        held: list[Role] = [role for role in ROLES if {person, EVERYBODY} & set(getattr(self, role))]
        return held[-1] if held else None


class Access(Config):
    """The whole file."""

    admins: tuple[Annotated[str, AfterValidator(_named)], ...] = ()
    creators: tuple[Person, ...] = ()
    studies: dict[str, Grants] = {}

    def role(self, study: str, person: str, made_by: str | None) -> Role | None:
        """Return the role of a signed-in person for a study.

        Args:
            study: Its folder's name.
            person: A plain address.
            made_by: Who imported it in the app, if anybody did.
        """
        if person in self.admins:
            return "owner"
        grants = self.studies.get(study)
        if grants is not None and study != ANY:
            return grants.role(person)
        if made_by is not None:
            return "owner" if made_by == person else None
        return self.studies[ANY].role(person) if ANY in self.studies else None

    def may_create(self, person: str) -> bool:
        """Tell whether a signed-in person may import."""
        return person in self.admins or person in self.creators or EVERYBODY in self.creators


_lock = threading.Lock()
_read: dict[Path, tuple[Any, Access | str]] = {}


def loaded(path: Path) -> Access | str:
    """Return the file's rules, or what is wrong with it; it is read again whenever it has changed.

    A file that is not there has no rules: nobody is named. What cannot be read never counts as not there.
    """
    try:
        state = path.stat()
    except FileNotFoundError:
        return Access()
    except OSError as error:
        return f"It cannot be looked at: {error.strerror}."
    signature = (state.st_mtime_ns, state.st_size, state.st_ino, state.st_ctime_ns)
    with _lock:
        held = _read.get(path)
        if held is None or held[0] != signature:
            held = (signature, _parsed(path))
            if isinstance(held[1], str):
                log.error("%s: %s Nobody can see a study until it is mended.", path, held[1])
            _read[path] = held
        return held[1]


def _parsed(path: Path) -> Access | str:
    try:
        return Access.checked(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except tomllib.TOMLDecodeError as error:
        return f"It is no TOML: {error}."
    except UnicodeDecodeError:
        return "It is no UTF-8 text."
    except OSError as error:
        return f"It cannot be read: {error.strerror}."
    except BadInput as problem:
        return f"{problem.why} {problem.fix}"
