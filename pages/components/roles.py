"""Which column is for what, between the guess, the address and the widgets. Nothing here touches Streamlit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from influence_core import service
from pages.components.view import View

SINGLE = ("label", "id", "text", "split", "weight")  # one column at most
IN_WORDS = {
    "label": "Label",
    "id": "Row id",
    "text": "Text",
    "split": "Split",
    "weight": "Weight",
    "feature": "Feature",
    "sensitive-feature": "Feature, sensitive",
    "sensitive": "Sensitive",
    "shown": "Shown only",
    "ignored": "Left out",
}


def chosen_roles(view: View, preview: service.ImportPreview) -> dict[str, str]:
    """Return the role of every column: the guess, with what the view changes."""
    changed = dict(view.roles)
    return {column.name: changed.get(place, column.role) for place, column in enumerate(preview.columns)}


def with_role(view: View, preview: service.ImportPreview, name: str, role: str) -> dict[str, Any]:
    """Return the changes of the view that give a column a role; whoever had a role that only one can have loses it."""
    roles = chosen_roles(view, preview)
    plain = {column.name: column.plain for column in preview.columns}
    if role in SINGLE:
        roles |= {other: plain[other] for other, held in roles.items() if held == role}
    roles[name] = role
    new_label = "label" in (role, chosen_roles(view, preview)[name])
    return {"roles": _pairs(roles, preview)} | ({"task": ""} if new_label else {})


def without(view: View, preview: service.ImportPreview, names: Sequence[str]) -> dict[str, Any]:
    """Return the changes of the view that leave columns out of the study."""
    return {"roles": _pairs(chosen_roles(view, preview) | dict.fromkeys(names, "ignored"), preview)}


def from_import(
    roles: Mapping[str, Any], preview: service.ImportPreview | service.ImagesPreview | service.StudyPreview
) -> dict[str, Any]:
    """Return the changes of the view that show an import's choices again."""
    if isinstance(preview, service.ImportPreview):
        return {
            "roles": with_import(roles, preview), "task": str(roles.get("task", "")),
            "reading": str(roles.get("reading", "")),
        }  # fmt: skip
    if isinstance(preview, service.ImagesPreview) and roles.get("label") in preview.labels:
        return {"roles": label_choice(preview, roles["label"])}
    return {}


def chosen_label(view: View, preview: service.ImagesPreview) -> str:
    """Return the label of images: the guess, or what the view names instead."""
    places = [place for place, role in view.roles if role == "label" and place < len(preview.labels)]
    return preview.labels[places[0]] if places else preview.label


def label_choice(preview: service.ImagesPreview, label: str) -> tuple[tuple[int, str], ...]:
    """Return what the view keeps of the choice of a label."""
    return () if label == preview.label else ((preview.labels.index(label), "label"),)


def with_import(roles: Mapping[str, Any], preview: service.ImportPreview) -> tuple[tuple[int, str], ...]:
    """Return what the view needs in order to show the roles of an import."""
    found = {column.name: "shown" for column in preview.columns}
    features, sensitive = roles.get("features", ()), roles.get("sensitive", ())
    found |= dict.fromkeys(features, "feature") | dict.fromkeys(roles.get("ignored", ()), "ignored")
    found |= {name: "sensitive-feature" if name in features else "sensitive" for name in sensitive}
    found |= {roles[role]: role for role in SINGLE if roles.get(role)}
    return _pairs(found, preview)


def _pairs(roles: Mapping[str, str], preview: service.ImportPreview) -> tuple[tuple[int, str], ...]:
    columns = enumerate(preview.columns)
    return tuple((place, roles[column.name]) for place, column in columns if roles[column.name] != column.role)


def ordered(preview: service.ImportPreview) -> list[tuple[int, service.ImportColumn]]:
    """Return the columns with their places, those with a special role in the guess first; choices do not move them."""
    rank = {role: number for number, role in enumerate(SINGLE)}
    return sorted(enumerate(preview.columns), key=lambda pair: (rank.get(pair[1].role, len(rank)), pair[0]))


def unknown_places(view: View, preview: service.ImportPreview) -> tuple[str, ...]:
    """Return a sentence for every column of the address that the file does not have."""
    n = len(preview.columns)
    return tuple(
        f"The address gives a role to column {place + 1}, but the file has {n}; it is ignored."
        for place, _ in view.roles
        if place >= n
    )
