"""What the folders around images say: the class of each, and perhaps its split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from influence_core.readers.image_files import counted, named
from influence_core.readers.splits import SPLIT_WORDS


@dataclass(frozen=True)
class Place:
    """An image among its folders.

    Attributes:
        file: Its path, as it is read.
        id: Its path below the folders that hold everything.
        folder: The class folder that it lies in, if any.
        split: The split folder above that, if any.
    """

    file: str
    id: str
    folder: str | None
    split: str | None


def wrapper(names: Sequence[str]) -> str:
    """Return the folders that hold everything, with a ``/`` at the end; empty if there are none."""
    prefix = ""
    while True:
        tops = {name[len(prefix) :].split("/", 1)[0] for name in names if "/" in name[len(prefix) :]}
        if len(tops) != 1 or not all("/" in name[len(prefix) :] for name in names):
            return prefix
        prefix += f"{tops.pop()}/"


def places(names: Sequence[str], tables: Sequence[str] = ()) -> tuple[list[Place], list[str]]:
    """Return where each image stands, and what was decided, in sentences.

    Folders named train, test, val ... above the class folders are splits; otherwise the first folder below those that
    hold everything is the class, like that of the folders below it.

    Args:
        names: Paths of the images, by ``/``.
        tables: Paths of tables beside them.
    """
    prefix = wrapper([*names, *tables])
    rests = [name[len(prefix) :].split("/") for name in names]
    tops = {parts[0] for parts in rests if len(parts) > 1}
    meanings = {SPLIT_WORDS.get(top.strip().lower()) for top in tops}
    split = len(meanings) > 1 and None not in meanings and "train" in meanings
    found, stray, deeper = [], [], 0
    for name, parts in zip(names, rests, strict=True):
        word = parts[0] if split and len(parts) > 1 else None
        below = parts[1:] if word is not None else parts
        if split and word is None:
            stray.append(name)
            continue
        deeper += len(below) > 2
        found.append(Place(name, "/".join(parts), below[0] if len(below) > 1 else None, word))
    notes = [f"Splits are those of the folders {', '.join(sorted(tops))}."] if split else []
    if stray:
        notes.append(f"{counted(len(stray), 'image', 'images')} outside the split folders left out: {named(stray)}.")
    if deeper:
        notes.append(f"{counted(deeper, 'image lies', 'images lie')} in folders within a class folder, of its class.")
    return found, notes
