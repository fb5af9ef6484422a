"""Who is signed in: the only file that touches ``st.user``, ``st.login`` and the secrets.

The service asks for the person whenever it needs to know, so fragments and callbacks are answered for whoever they
belong to. Nothing is decided here but what to draw; what a person may see is decided in the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from influence_core import service
from pages.components import errors, session, theme
from pages.components.html import element, empty, text


def _user() -> Mapping[str, Any]:
    """Return what the provider said about whoever this run belongs to; ``is_logged_in`` is there if one is set up."""
    return st.user.to_dict()


def _person() -> str | None:
    """Return the e-mail address of whoever is signed in. One that the provider calls unverified is nobody's."""
    user = _user()
    address, verified = user.get("email"), user.get("email_verified", True)
    if user.get("is_logged_in") is not True or str(verified).lower() != "true" or not isinstance(address, str):
        return None
    return address


def _sign_in() -> service.SignIn:
    """Return whether signing in is set up. Secrets that cannot be read are not the same as none."""
    if "is_logged_in" in _user():
        return "on"
    files = st.get_option("secrets.files") or ()
    unreadable = not st.secrets.load_if_toml_exists() and any(Path(file).exists() for file in files)
    return "unreadable" if unreadable else "off"


def admitted() -> bool:
    """Return whether to draw the screens for whoever is here; else draw the way in, or why there is none."""
    service.set_identity(_person, _sign_in(), st.get_option("server.address"))
    with st.container(key="entrance"), errors.shown():
        service.start_demo()
        if service.needs_person() and _person() is None:
            _door()
            return False
        service.visitor()
        return True
    _way_out()  # of the account for which nothing can be shown
    return False


def _door() -> None:
    """Draw the screen for people who are not known yet."""
    with st.container(key="signin", horizontal_alignment="center"):
        st.image(theme.LOGO, width=220)
        if _user().get("is_logged_in"):
            st.html(errors.problem_panel(
                "Your account has no verified e-mail address", "This server knows people by it.",
                "Verify it where you signed in, or use another account.",
            ))  # fmt: skip
            _way_out()
            return
        st.html(element("p", "Which training rows made the model say that?", css="if-scale"))
        with errors.shown():
            for name in _providers():
                st.button(
                    f"Sign in with {name}" if name else "Sign in", type="primary", icon=":material/login:",
                    key=f"signin_{name or 'default'}", on_click=_login, args=(name,),
                )  # fmt: skip


def _providers() -> list[str]:
    """Return the names of the providers that are set up; an empty name is the one without."""
    auth = st.secrets["auth"]
    named = [name for name, value in auth.items() if isinstance(value, Mapping) and "client_id" in value]
    return ([""] if "client_id" in auth else []) + named or [""]


def _login(name: str) -> None:
    with errors.shown():
        st.login(name or None)


def _way_out() -> None:
    if _user().get("is_logged_in"):
        st.button("Sign out", key="signout", icon=":material/logout:", type="tertiary", on_click=st.logout)


def account() -> None:
    """Draw who is signed in, and the way out, in the sidebar."""
    user = _user()
    if user.get("is_logged_in") is True and not service.visitor().is_demo:
        address = service.visitor().person
        with st.sidebar, st.container(key="account", gap=None):
            st.html(element("p", text(user.get("name") or address), css="if-name", title=address))
            _way_out()


def banner() -> None:
    """Say that this is a demo, where it is one, with the way back to its beginning."""
    if not service.visitor().is_demo:
        return
    with st.container(key="demo", horizontal=True, vertical_alignment="center", gap="small"):
        said = " Try everything: you share a scratch copy with the other visitors, and nothing is kept."
        st.html(element("p", element("b", "Demo."), said, role="status"))
        st.button("Reset", key="demo_reset", icon=":material/restart_alt:", type="tertiary", on_click=_reset)


def _reset() -> None:
    with errors.shown():
        service.reset_demo()
        session.say("The demo is back to how it was at the start.")


def hidden_screens() -> frozenset[str]:
    """Return the screens that are of no use to whoever is here."""
    return frozenset() if service.visitor().may_import else frozenset({"import"})


def not_for_you() -> None:
    """Draw a hidden screen that somebody opened by its address."""
    demo = service.visitor().is_demo
    why = "This is a demo: it changes nothing." if demo else "Ask whoever runs this server for the right to import."
    st.html(empty("You cannot import data here", why))


def nothing_shared() -> None:
    """Draw what there is to say to somebody who may see no study and import none."""
    st.html(empty("No study is shared with you yet", "Ask whoever runs this server to give you a role for one."))
