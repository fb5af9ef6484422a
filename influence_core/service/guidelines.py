"""How the labels of a study are to be given, in its owners' words: guidelines, and a short definition of each class."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path

from influence_core.errors import BadInput
from influence_core.reviews import Reviews
from influence_core.service import access
from influence_core.service.folder import base_name, study_folder
from influence_core.service.opened import opened
from influence_core.store import disk_errors

MAX_GUIDELINES = 20_000  # characters
MAX_DEFINITION = 500
_GUIDELINES = "guidelines.md"
_DEFINITIONS = "class_definitions.json"
_writing = threading.Lock()


def guidelines(study: str) -> str:
    """Return how the labels of a study are to be given; empty if nobody wrote it down."""
    access.check(base_name(study))
    try:
        return (study_folder(study) / _GUIDELINES).read_text(encoding="utf-8", errors="replace")[:MAX_GUIDELINES]
    except FileNotFoundError:
        return ""


def save_guidelines(study: str, text: str) -> None:
    """Write the guidelines of a study.

    Raises:
        BadInput: They are not its owner, or the text is too long.
    """
    access.check(base_name(study), "owner")
    opened(base_name(study))
    if len(text) > MAX_GUIDELINES:
        why = f"They have {len(text):,} characters."
        raise BadInput("The guidelines are too long", why, f"Keep them to {MAX_GUIDELINES:,}.")
    _write(study_folder(study) / _GUIDELINES, text)


def definable_classes(study: str) -> tuple[str, ...]:
    """Return the classes that can have a definition: the study's, then those that reviewers added; no numbers."""
    classes = opened(base_name(study)).study.header.classes
    return (*classes, *Reviews(study_folder(study)).new_labels(classes)) if classes else ()


def class_definitions(study: str) -> Mapping[str, str]:
    """Return what the classes of a study mean, those that somebody wrote down; none where the file is damaged."""
    opened(base_name(study))
    return _definitions(study_folder(study) / _DEFINITIONS) or {}


def save_class_definition(study: str, label: str, text: str) -> None:
    """Write what a class means, in place of what was written before; an empty text takes it away.

    Raises:
        BadInput: They are not the study's owner, it has no such class, the text is too long, or the file is damaged.
        StoreProblem: The disk refuses.
    """
    access.check(base_name(study), "owner")
    what, said = "This definition cannot be kept", " ".join(text.split())
    if label not in (known := definable_classes(study)):
        fix = f"Use one of: {', '.join(known[:20])}." if known else "Only classes have definitions."
        raise BadInput(what, f"'{label[:40]}' is no class of this study.", fix)
    if len(said) > MAX_DEFINITION:
        raise BadInput(what, f"It has {len(said):,} characters.", f"Keep it to {MAX_DEFINITION}.")
    file = study_folder(study) / _DEFINITIONS
    with _writing:
        held = _definitions(file)
        if held is None:
            raise BadInput(
                what, f"{file.name} in the study's folder is damaged.", "Restore it from a copy, or delete it."
            )
        held = {name: meaning for name, meaning in held.items() if name != label} | ({label: said} if said else {})
        _write(file, json.dumps(held, ensure_ascii=False, indent=1, sort_keys=True))


def _definitions(file: Path) -> dict[str, str] | None:
    """Return what is in a file of definitions; nothing if there is none, None if it is damaged."""
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(held, dict) or not all(isinstance(text, str) for text in held.values()):
        return None
    return {name: text[:MAX_DEFINITION] for name, text in held.items()}


def _write(file: Path, text: str) -> None:
    """Put a file in place at once: a crash leaves the old one or the new one."""
    with disk_errors(file):
        part = file.with_suffix(f".{secrets.token_hex(4)}.part")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)


__all__ = ["class_definitions", "definable_classes", "guidelines", "save_class_definition", "save_guidelines"]
