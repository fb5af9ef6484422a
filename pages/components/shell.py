"""The frame around every screen: navigation, address, sidebar, errors."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import errors, importing, links, session, sidebar, theme

_FOLDER = theme.ASSETS.parent / "pages" / "screens"
TITLES = {
    "overview": ("Overview", ":material/dashboard:"),
    "explain": ("Explain", ":material/search_insights:"),
    "row": ("Row", ":material/article:"),
    "methods": ("Methods", ":material/functions:"),
    "import": ("Import", ":material/upload_file:"),
}
COMMAND = "python -m influence_core demo digits --out studies/digits"


def run() -> None:
    """Draw the screen that the address asks for, with everything around it."""
    pages = {
        name: st.Page(_FOLDER / f"{name}.py", title=title, icon=icon, default=name == "overview", url_path=name)
        for name, (title, icon) in TITLES.items()
    }
    chosen = st.navigation(list(pages.values()), position="hidden")  # drawn below, with the view in its links
    session.restore()
    wanted = session.take_next_screen()
    if wanted is not None and pages[wanted] != chosen:
        st.switch_page(pages[wanted], query_params=session.params())
    with st.container(key="links_host"):
        theme.apply_style()
        links.listen(session.marked())
    with errors.shown():
        studies = service.studies()
        screen = next(name for name, page in pages.items() if page == chosen)
        if studies:
            _screen(chosen, screen, pages, studies)
        else:
            _without_studies(chosen, screen, pages)
    session.publish()


def _without_studies(chosen: st.Page, screen: str, pages: dict[str, st.Page]) -> None:
    sidebar.screens({name: pages[name] for name in ("overview", "import")})
    errors.notices(session.problems())
    session.take_redraw()
    if said := session.take_said():
        st.toast(said)
    with errors.shown():
        if screen == "import":
            chosen.run()
        else:
            importing.first_study(COMMAND)
    sidebar.helps(screen)


def _screen(chosen: st.Page, screen: str, pages: dict[str, st.Page], studies: list[service.StudyCard]) -> None:
    names = [card.name for card in studies]
    view = session.check_study(names)
    sidebar.top(studies, pages)
    # Both lists take longer than the rest of a click, so they are asked for only where there is a name to check.
    classes = service.overview(view.study).classes if session.names_classes() else ()
    methods = [method.id for method in service.methods(view.study)] if view.method else []
    session.check_names(classes, methods)
    errors.notices(session.problems())
    session.take_redraw()
    if said := session.take_said():
        st.toast(said)
    with errors.shown():
        chosen.run()
    sidebar.below(session.view().study, screen)
