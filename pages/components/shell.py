"""The frame around every screen: navigation, address, sidebar, errors."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import errors, importing, links, session, sidebar, signin, theme

_FOLDER = theme.ASSETS.parent / "pages" / "screens"
TITLES = {
    "overview": ("Overview", ":material/dashboard:"),
    "explain": ("Explain", ":material/search_insights:"),
    "suspects": ("Suspects", ":material/troubleshoot:"),
    "review": ("Review", ":material/rule:"),
    "decisions": ("Decisions", ":material/fact_check:"),
    "compare": ("Compare", ":material/compare_arrows:"),
    "map": ("Map", ":material/scatter_plot:"),
    "trust": ("Trust", ":material/verified:"),
    "row": ("Row", ":material/article:"),
    "methods": ("Methods", ":material/functions:"),
    "import": ("Import", ":material/upload_file:"),
    "studies": ("Studies", ":material/folder_open:"),
}
COMMAND = "python -m influence_core demo digits --out studies/digits"


def run() -> None:
    """Draw the screen that the address asks for, with everything around it."""
    pages = {
        name: st.Page(_FOLDER / f"{name}.py", title=title, icon=icon, default=name == "overview", url_path=name)
        for name, (title, icon) in TITLES.items()
    }
    chosen = st.navigation(list(pages.values()), position="hidden")  # drawn below, with the view in its links
    host = st.container(key="links_host")
    with host:
        theme.apply_style()
    if not signin.admitted():
        return
    session.restore()
    wanted = session.take_next_screen()
    if wanted is not None and pages[wanted] != chosen:
        st.switch_page(pages[wanted], query_params=session.params())
    with host:
        links.listen(session.marked())
    with errors.shown():
        signin.banner()
        service.tidy_studies()
        studies = service.studies()
        screen = next(name for name, page in pages.items() if page == chosen)
        for hidden in signin.hidden_screens() - {screen}:
            del pages[hidden]
        if studies:
            _screen(chosen, screen, pages, studies)
        else:
            _without_studies(chosen, screen, pages)
    signin.account()
    session.publish()


def _draw(chosen: st.Page, screen: str) -> None:
    with errors.shown():
        if screen in signin.hidden_screens():
            signin.not_for_you()
        else:
            chosen.run()


def _without_studies(chosen: st.Page, screen: str, pages: dict[str, st.Page]) -> None:
    sidebar.screens({name: pages[name] for name in ("overview", "import") if name in pages})
    errors.notices(session.problems())
    session.take_redraw()
    if said := session.take_said():
        st.toast(said)
    if screen == "import":
        _draw(chosen, screen)
    elif signin.hidden_screens():
        signin.nothing_shared()
    else:
        with errors.shown():
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
    _draw(chosen, screen)
    sidebar.below(session.view().study, screen)
