"""The screen *Import* for images: what is learned, how many there are of each class, and a few of them."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import errors, session
from pages.components.html import PICTURES, element, plain_label, text
from pages.components.importing import ANSWERS, cost, name_and_start
from pages.components.roles import chosen_label, label_choice
from pages.components.view import View

CLASSES_SHOWN = 12
FOLDER = "folder"


def facts(preview: service.ImagesPreview) -> str:
    """Return number and size of the images in words."""
    return f"{preview.n_rows:,} image{'s' * (preview.n_rows != 1)} · {preview.sizes}"


def images(view: View, preview: service.ImagesPreview) -> None:
    """Draw the choices, the classes and some images, and the button that starts."""
    label = chosen_label(view, preview)
    check = service.check_images(preview.token, label)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="import_line"):
        st.selectbox(
            "Label", preview.labels, format_func=_label_words, placeholder="There is none", disabled=not preview.labels,
            help="What the model learns to say of an image.",
            **session.widget("label", label or None, lambda new: {"roles": label_choice(preview, new)},
                             among=preview.labels),
        )  # fmt: skip
        name_and_start(view, preview, check.roles)
    cost(check.cost)
    if check.problem is not None:
        st.html(errors.problem_panel(*check.problem))
    errors.notices((*_unknown_places(view, preview), *preview.notes))
    counted, shown = st.columns([2, 5], gap="medium")
    with counted:
        st.html(class_counts(check))
    with shown:
        st.html(grid(check.thumbnails))


def _label_words(label: str) -> str:
    return "The folder" if label == FOLDER else plain_label(label)


def _unknown_places(view: View, preview: service.ImagesPreview) -> tuple[str, ...]:
    unknown = [place for place, _ in view.roles if place >= len(preview.labels)]
    return tuple(
        f"The address names label {place + 1}, which these images do not have; it is ignored." for place in unknown
    )


def class_counts(check: service.ImagesCheck) -> str:
    """Return how many images each class has, as HTML; of many classes, the most and least frequent ones."""
    if not check.classes:
        return element("p", text(f"{ANSWERS['regression']} is learned."), css="if-scale") if check.task else ""
    ranked = sorted(check.classes, key=lambda pair: -pair[1])
    top, half = ranked[0][1], CLASSES_SHOWN // 2
    parts = [check.classes] if len(ranked) <= CLASSES_SHOWN else [ranked[:half], ranked[-half:]]
    title = f"{len(ranked):,} classes" if len(parts) == 1 else f"{len(ranked):,} classes: the most and least frequent"
    lists = (element("ul", *(_class_line(name, n, top) for name, n in part), css="if-bars") for part in parts)
    return element("div", element("h3", text(title)), *lists, css="if-class-counts")


def _class_line(name: str, n: int, top: int) -> str:
    bar = f'<span class="if-bar"><i style="width:{100 * n / top:.1f}%"></i></span>'
    return element(
        "li", element("span", text(name), css="if-name", title=name), bar, element("span", f"{n:,}", css="if-num")
    )


def grid(thumbnails: tuple[tuple[str, str], ...]) -> str:
    """Return some images with their labels as HTML."""
    cards = []
    for uri, label in thumbnails:
        if uri.startswith(PICTURES):
            words = f"Image labelled {label}" if label else "Image without a label"
            picture = f'<img class="if-thumb" src="{text(uri)}" alt="{text(words)}">'
            cards.append(element("figure", picture, element("figcaption", text(label or "–"), title=label)))
    return element("div", *cards, css="if-thumbs", role="group", aria_label="Some of the images")
