"""Who may see and do what. The only place that decides it.

The interface says once who asks (:func:`set_identity`); from then on every study is asked for here before it is
opened. The command line, workers and notebooks say nothing, and act as the owner of their own machine.

==========================  =================================  =====================================================
the server                  ``access.toml``                    who may what
==========================  =================================  =====================================================
a demo (INFLUENCE_DEMO)     not read                           everybody: a reviewer of a scratch copy
sign-in configured          names people                       what it says
sign-in configured          missing                            the admins of INFLUENCE_ADMINS, nobody else
sign-in configured          damaged                            nobody
no sign-in, loopback        missing                            one user, the owner of everything
no sign-in                  there                              nobody: the file cannot be kept to
no sign-in, not loopback    missing                            nobody, unless INFLUENCE_TRUSTED_NETWORK=1
secrets cannot be read      whatever                           nobody
==========================  =================================  =====================================================

A *viewer* looks, and runs and cancels computations of explanations. A *reviewer* also decides about labels and
retrains. An *owner* also renames, deletes and takes whole data sets out. Importing is a right of its own.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from influence_core.errors import BadInput, InfluenceError
from influence_core.service import makers
from influence_core.service.access_file import FILE_NAME, ROLES, Access, Role, loaded, plain_address
from influence_core.service.demo import demo_runs, is_demo
from influence_core.service.folder import parts_of, studies_folder

__all__ = [
    "ROLES", "Role", "Visitor", "check", "check_create", "claim_study", "claim_upload", "forget_study", "is_own_upload",
    "is_shared", "may_see", "needs_person", "on_behalf", "owns_study", "role", "SignIn", "set_identity",
    "unknown_study", "visitor",
]  # fmt: skip

T = TypeVar("T")
SignIn = Literal["on", "off", "unreadable"]
_HOW = "docs/sharing.md says how."


@dataclass(frozen=True)
class _Server:
    """What the interface knows about how it is reached."""

    identity: Callable[[], str | None]
    sign_in: SignIn
    address: str | None


@dataclass(frozen=True)
class Visitor:
    """Who is asking, as the screens need it.

    Attributes:
        person: Their e-mail address; empty where nobody signs in.
        may_import: Whether they may bring data.
        is_demo: Whether they work on the scratch copy of a demo.
    """

    person: str
    may_import: bool
    is_demo: bool


@dataclass(frozen=True)
class _Standing:
    """What holds for whoever asks now: one role for every study, or a person and the rules about people."""

    fixed: Role | None
    person: str = ""
    rules: Access = Access()  # noqa: RUF009  (frozen)


_registered: list[_Server] = []
_acting: ContextVar[str] = ContextVar("acting", default="")


def set_identity(identity: Callable[[], str | None], sign_in: SignIn, address: str | None) -> None:
    """Say who asks from now on in this process; called by the interface before anything else.

    Args:
        identity: Returns the verified e-mail address of whoever asks at that moment, None if nobody signed in.
        sign_in: Whether signing in is configured; "unreadable" if the configuration cannot be read.
        address: The network address that the server listens on; None or empty: all of them.
    """
    if sign_in == "off" and _registered and _registered[0].sign_in != "off":
        sign_in = "unreadable"  # secrets that vanish under a running server open nothing
    _registered[:] = [_Server(identity, sign_in, address)]


def _standing() -> _Standing:
    """Return what holds for whoever asks.

    Raises:
        BadInput: Nobody may see anything here, or not before signing in.
    """
    if not _registered:
        return _Standing("owner")
    server = _registered[0]
    if is_demo():
        if not demo_runs():
            raise BadInput("The demo has not started", "Its scratch copy is missing.", "Start the server again.")
        return _Standing("reviewer")
    if server.sign_in == "on":
        return _signed_in(server)
    _check_alone(server)
    return _Standing("owner")


def _check_alone(server: _Server) -> None:
    """Raise unless whoever reaches a server without sign-in must be the one who started it."""
    closed = "This server shows no studies yet"
    if server.sign_in == "unreadable":
        why = "Its settings for signing in cannot be read, so it cannot know who you are."
        raise BadInput(closed, why, f"Mend .streamlit/secrets.toml; the log names the line. {_HOW}")
    if os.path.lexists(studies_folder() / FILE_NAME):
        why = f"{FILE_NAME} says who may see what, but signing in is not configured, so nobody can be told apart."
        raise BadInput(closed, why, f"Configure [auth] in .streamlit/secrets.toml, or move {FILE_NAME} away. {_HOW}")
    if not (_is_loopback(server.address) or _is_set("INFLUENCE_TRUSTED_NETWORK")):
        why = "Other computers can reach it, and it has no sign-in: whoever found it could see and delete everything."
        fix = "Configure sign-in, or listen on 127.0.0.1 only, or set INFLUENCE_TRUSTED_NETWORK=1 if everybody who "
        raise BadInput(closed, why, f"{fix}can reach it may do everything. {_HOW}")


def _is_loopback(address: str | None) -> bool:
    """Tell whether only this computer reaches an address; what is not known to be so, is not."""
    if address is None or address.strip().lower() == "localhost":
        return address is not None
    try:
        return ipaddress.ip_address(address.strip().strip("[]")).is_loopback
    except ValueError:
        return False


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() in ("1", "true", "yes")


def _signed_in(server: _Server) -> _Standing:
    person = plain_address(_acting.get() or server.identity() or "")
    if not person:
        raise BadInput("You are not signed in", "This server shows its studies to known people.", "Sign in.")
    named = {plain_address(name) for name in os.environ.get("INFLUENCE_ADMINS", "").split(",")} - {""}
    found = loaded(studies_folder() / FILE_NAME)
    if isinstance(found, str):
        why = f"{FILE_NAME} is damaged. {found}" if person in named else "Its list of who may see what is damaged."
        fix = "Whoever runs this server finds the reason in its log."
        raise BadInput("Nobody can see a study at present", why, fix)
    return _Standing(None, person, found.changed(admins=(*found.admins, *named)) if named else found)


def _exists(study: str) -> bool:
    """Tell whether a name, as it may stand in a URL, is that of a folder right here."""
    try:
        plain = study != "" and not study.startswith(".") and study == Path(study).name
        return plain and (studies_folder() / study).is_dir()
    except (OSError, ValueError):  # longer than a file name can be, or with a zero byte
        return False


def _role(standing: _Standing, study: str) -> Role | None:
    study, _ = parts_of(study)  # a version is its study's
    if not _exists(study):
        return None
    if standing.fixed is not None:
        return standing.fixed
    made_by = makers.maker_of_study(studies_folder(), study)
    return standing.rules.role(study, standing.person, made_by)


def role(study: str) -> Role | None:
    """Return what whoever asks is to a study; None if they may not see it, or there is none."""
    try:
        return _role(_standing(), study)
    except InfluenceError:
        return None


def check(study: str, need: Role = "viewer") -> None:
    """Raise unless whoever asks has at least this role for a study.

    Raises:
        BadInput: There is no such study or they may not see it, in the same words; or their role is too small.
    """
    standing = _standing()
    held = _role(standing, study)
    if held is None:
        raise unknown_study(study)
    if ROLES.index(held) < ROLES.index(need):
        if standing.fixed is not None:
            raise BadInput("This cannot be done in the demo", "Its studies cannot be changed.", "Do it in your own.")
        why = f"It takes the role {need}, and yours is {held}."
        raise BadInput("You may not do this with the study", why, "Ask whoever runs this server for that role.")


def may_see(names: Iterable[str]) -> list[str]:
    """Return those of the studies' names that whoever asks may see.

    Raises:
        BadInput: Nobody may see anything here, or not before signing in.
    """
    standing = _standing()
    return [name for name in names if _role(standing, name) is not None]


def unknown_study(study: str) -> BadInput:
    """Return the problem of a study that does not exist or may not be seen."""
    folder = studies_folder()
    known = may_see(sorted(path.parent.name for path in folder.glob("*/study.toml")))
    where = "among the studies that you may see" if is_shared() else f"in {folder}"
    build = "Build one: python -m influence_core demo digits --out studies/digits"
    ask = "Ask whoever runs this server to share one with you."
    return BadInput(
        "Unknown study",
        f"'{study[:80]}' is not {where}.",
        f"Open one of: {', '.join(known[:10])}." if known else ask if is_shared() else build,
    )


def is_shared() -> bool:
    """Tell whether several people use this server."""
    return bool(_registered) and (is_demo() or _registered[0].sign_in != "off")


def needs_person() -> bool:
    """Tell whether people have to sign in before they see anything."""
    return bool(_registered) and not is_demo() and _registered[0].sign_in == "on"


def visitor() -> Visitor:
    """Return who is asking.

    Raises:
        BadInput: Nobody may see anything here, or not before signing in.
    """
    standing = _standing()
    return Visitor(standing.person, _may_create(standing), is_demo() and bool(_registered))


def on_behalf(act: Callable[[], T]) -> Callable[[], T]:
    """Return ``act``, to be called later by a thread that does not know who asks, in the name of whoever asks now.

    What they may do is decided when it is called. A download is made by such a thread.
    """
    person = _standing().person

    def acted() -> T:
        token = _acting.set(person)
        try:
            return act()
        finally:
            _acting.reset(token)

    return acted


def _may_create(standing: _Standing) -> bool:
    return standing.fixed == "owner" or (standing.fixed is None and standing.rules.may_create(standing.person))


def check_create() -> None:
    """Raise unless whoever asks may import data.

    Raises:
        BadInput: They may not.
    """
    standing = _standing()
    if not _may_create(standing):
        if standing.fixed is not None:
            raise BadInput("Nothing can be imported in the demo", "It changes nothing.", "Do it in a server of yours.")
        why = "You are not among those who may."
        raise BadInput("You may not import data here", why, "Ask whoever runs this server for that right.")


def claim_study(study: str) -> None:
    """Make whoever asks the owner of a study that they begin to import."""
    person = _standing().person
    makers.forget_study(studies_folder(), study)
    if person:
        makers.claim_study(studies_folder(), study, person)


def owns_study(study: str) -> bool:
    """Tell whether an import belongs to whoever asks: it is theirs, or they own everything."""
    return role(study) == "owner"


def forget_study(study: str) -> None:
    """Forget whose a study was that is deleted."""
    makers.forget_study(studies_folder(), study)


def claim_upload(folder: Path) -> None:
    """Make an upload's folder belong to whoever asks."""
    person = _standing().person
    if person:
        makers.claim_upload(folder, person)


def is_own_upload(folder: Path) -> bool:
    """Tell whether an upload belongs to whoever asks; one of somebody else is as good as none."""
    standing = _standing()
    if standing.fixed is not None:
        return standing.fixed == "owner"
    return standing.person in standing.rules.admins or makers.maker_of_upload(folder) == standing.person
