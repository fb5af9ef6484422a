"""The files of a folder or a zip of images: listed and read one by one, and nothing outside is ever touched.

Names in an archive are only names: nothing is unpacked to them. Links are never followed.
"""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from influence_core.archive_members import opened_archive
from influence_core.encoder.pictures import MAX_BYTES
from influence_core.errors import BadInput
from influence_core.readers import limits

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".webp", ".tif", ".tiff")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow")
_ARCHIVES = (".zip", ".gz", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz")
_SYSTEM = ("thumbs.db", "desktop.ini")
_NAMED = 3  # files that a sentence names


class ImageFiles(Protocol):
    """Where images lie.

    Attributes:
        names: Paths of the images, by ``/``, in the order of their names.
        tables: Paths of the tables beside them.
        notes: What was left out, in sentences.
    """

    names: list[str]
    tables: list[str]
    notes: list[str]

    def read(self, name: str, most: int = MAX_BYTES) -> bytes:
        """Return the content of a file, at most one byte more than ``most``."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


def named(names: list[str]) -> str:
    """Return the first few names for a sentence, made printable."""
    shown = ", ".join("".join(c if c.isprintable() else "?" for c in name)[:80] for name in names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED:,} more" if len(names) > _NAMED else shown


def counted(n: int, singular: str, plural: str) -> str:
    """Return a number with the noun and verb that fit it."""
    return f"{n:,} {singular if n == 1 else plural}"


class _Listing:
    """Sorts names into images, tables, and what is left out."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.names: list[str] = []
        self.tables: list[str] = []
        self.notes: list[str] = []
        self._left: dict[str, list[str]] = {}

    def add(self, name: str) -> None:
        """Take a file of a good name."""
        base, suffix = name.rsplit("/", 1)[-1].lower(), Path(name).suffix.lower()
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
        if hidden or base in _SYSTEM:
            return
        if not _is_unicode(name):
            self.leave("with names that are no text were left out", ascii(name))
        elif suffix in SUFFIXES:
            self.names.append(name)
        elif suffix in TABLES:
            self.tables.append(name)
        elif suffix in _ARCHIVES:
            self.leave("inside were not opened (unpack them first)", name)
        else:
            self.leave("that are no images were left out", name)
        if len(self.names) + len(self.tables) > limits.MAX_MEMBERS:
            raise _too_many(self.where)

    def leave(self, why: str, name: str) -> None:
        """Remember that a file is left out."""
        self._left.setdefault(why, []).append(name)

    def finish(self) -> None:
        """Sort the names, write the notes, and refuse where there is no image.

        Raises:
            BadInput: There is none.
        """
        self.names.sort()
        self.tables.sort()
        for why, names in self._left.items():
            noun = "archives" if "not opened" in why else "links" if "not followed" in why else "files"
            self.notes.append(f"{len(names):,} {noun} {why}: {named(sorted(names))}.")
        if not self.names:
            rest = f" {self.notes[0]}" if self.notes else ""
            raise BadInput(
                "There are no images here", f"{self.where} holds none.{rest}",
                f"Give a folder or zip of {', '.join(s[1:].upper() for s in SUFFIXES[:2])}, GIF, BMP, WEBP or TIFF "
                "files, in a folder for each class or with a table that names them.",
            )  # fmt: skip


def _is_unicode(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _too_many(path: Path) -> BadInput:
    why = f"{path} holds more than {limits.MAX_MEMBERS:,} files."
    return BadInput("There are too many files", why, "Import a part of the images.")


class FolderFiles:
    """Images in a folder."""

    def __init__(self, path: Path) -> None:
        """List the folder.

        Raises:
            BadInput: It cannot be read, or holds no image.
        """
        self._path = path
        listing = _Listing(path)
        for name, is_link in _walked(path):
            if is_link:
                listing.leave("were not followed", name)
            else:
                listing.add(name)
        listing.finish()
        self.names, self.tables, self.notes = listing.names, listing.tables, listing.notes

    def read(self, name: str, most: int = MAX_BYTES) -> bytes:
        """Return the content of a file, at most one byte more than ``most``.

        Raises:
            BadInput: It cannot be read, or is no file any more.
        """
        try:
            # Without following a link, and without waiting for whoever writes into a pipe.
            handle = os.open(self._path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(handle, "rb") as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise OSError(0, "it is no file")
                return file.read(most + 1)
        except OSError as error:
            why = f"{name}: {error.strerror or error}."
            raise BadInput("An image cannot be read", why, "Check that you may read it.") from None

    def close(self) -> None:
        """Nothing is open."""


def _walked(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield the path of every file and link below a folder, and whether it is a link."""

    def refused(error: OSError) -> None:
        why = f"{error.filename}: {error.strerror}."
        raise BadInput("A folder cannot be read", why, "Check that you may read it.")

    for root, folders, files in os.walk(path, onerror=refused):
        folders.sort()
        below = Path(root).relative_to(path)
        for name in [*folders, *files]:
            place = below / name
            if (Path(root) / name).is_symlink():
                yield place.as_posix(), True
            elif name in files:
                yield place.as_posix(), False
        folders[:] = [name for name in folders if not (Path(root) / name).is_symlink()]


class ZipFiles:
    """Images in a zip file, read member by member."""

    def __init__(self, path: Path) -> None:
        """Open the archive and list it.

        Raises:
            BadInput: Damaged, locked, packed beyond the limits, or without an image.
        """
        self._path = path
        self._context = opened_archive(path)
        self._archive = self._context.__enter__()
        try:
            self._entries: dict[str, zipfile.ZipInfo] = {}
            listing = _Listing(path)
            entries = self._archive.infolist()
            if len(entries) > limits.MAX_MEMBERS:
                raise _too_many(path)
            _check_sizes(path, entries)
            for entry in entries:
                if not entry.is_dir():
                    self._list(entry, listing)
            listing.finish()
        except BaseException:
            self.close()
            raise
        self.names, self.tables, self.notes = listing.names, listing.tables, listing.notes

    def _list(self, entry: zipfile.ZipInfo, listing: _Listing) -> None:
        name, mode = entry.filename, entry.external_attr >> 16
        parts = name.split("/")
        if entry.flag_bits & 0x1:
            why = f"{self._path} is locked with a password."
            raise BadInput("The archive is locked", why, "Unpack it yourself and import the folder.")
        if stat.S_ISLNK(mode):
            listing.leave("were not followed", name)
        elif "\\" in name or ":" in parts[0] or any(part in ("", ".", "..") for part in parts):
            listing.leave("whose names lead out of the archive were left out", name)
        elif name in self._entries:
            listing.leave("of a name that was there already were left out", name)
        else:
            self._entries[name] = entry
            listing.add(name)

    def read(self, name: str, most: int = MAX_BYTES) -> bytes:
        """Return the content of a member, at most one byte more than ``most``.

        Raises:
            BadInput: It is damaged.
        """
        try:
            with self._archive.open(self._entries[name]) as file:
                return file.read(most + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError,
                ValueError) as error:  # fmt: skip
            why = f"{name}: {str(error).rstrip('.') or type(error).__name__}."
            raise BadInput("An image cannot be unpacked", why, "Make the archive again.") from None

    def close(self) -> None:
        """Close the archive."""
        self._context.__exit__(None, None, None)


def _check_sizes(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive that unpacks to far more than it is: members may share their packed bytes."""
    total, packed = sum(entry.file_size for entry in entries), path.stat().st_size
    bomb = total > limits.RATIO_FROM and total > packed * limits.MAX_RATIO
    if total > limits.MAX_IMAGE_BYTES or bomb:
        why = f"{path}: {packed:,} packed bytes unpack to {total:,}."
        fix = f"At most {limits.MAX_IMAGE_BYTES:,} bytes and {limits.MAX_RATIO} for each packed one are read."
        raise BadInput("The archive is too large", why, f"Import a part of the images. {fix}")


class Problems:
    """Images that cannot be used: left out and named, unless they are most."""

    def __init__(self, where: Path) -> None:
        """Start with none."""
        self._where = where
        self._found: dict[str, list[str]] = {}

    def add(self, name: str, error: BadInput) -> None:
        """Remember an image and what is wrong with it."""
        self._found.setdefault(error.what, []).append(f"{name} ({_short(error, name)})")

    @property
    def count(self) -> int:
        """Return how many there are."""
        return sum(map(len, self._found.values()))

    def check(self, n_good: int) -> None:
        """Refuse the whole where most images cannot be used.

        Raises:
            BadInput: Names the first few.
        """
        if self.count > n_good:
            what = Counter({what: len(names) for what, names in self._found.items()}).most_common(1)[0][0]
            why = f"{self._where}: {self.count:,} of {self.count + n_good:,}: {named(self._found[what])}."
            raise BadInput("Most of the images cannot be used", why, "Check the files, or save them again.")

    def notes(self) -> list[str]:
        """Return a sentence for each kind of problem."""
        notes = []
        for what, names in self._found.items():
            clause = f"{what[0].lower()}{what[1:]}"
            fix = (
                "Make them smaller"
                if "too large" in what
                else "Let them be"
                if "changed" in what
                else "Save them again"
            )
            n = counted(len(names), "image was", "images were")
            notes.append(f"{n} left out ({clause}): {named(names)}. {fix}, then import again.")
        return notes


def _short(error: BadInput, name: str) -> str:
    return error.why.removeprefix(f"{name}: ").rstrip(".")
