"""What a study's archive may hold: names, kinds and sizes checked before and while anything is unpacked.

An archive comes from a stranger. Every member is named by a rule or the archive is refused; nothing is extracted by
the zip library itself, which would make folders and links of its own.
"""

from __future__ import annotations

import re
import sqlite3
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from influence_core.errors import BadInput
from influence_core.reviews import FILE_NAME

HEADER = "study.toml"
MAX_MEMBERS = 300_000
MAX_BYTES = 64 << 30  # unpacked
MAX_TEXT = 64 << 20  # of one file that is read as a whole
MAX_RATIO = 200  # unpacked bytes for each byte of the archive
RATIO_FROM = 64 << 20  # unpacked bytes from which the ratio counts: small texts pack well
MAX_DIRECTORY = 64 << 20  # bytes of the list of members, which the zip library reads as a whole
MAX_NAME = 200  # bytes of one part of a path
_CHUNK = 1 << 20
_PART = r"[\w][\w .()+=@,-]*"  # of a path: no leading dot or hyphen, no separators, nothing a shell could act upon
_CORE = (
    r"study\.toml|(encoder|recording|class_definitions)\.json|guidelines\.md|start\.safetensors"
    r"|(train|test|locked|truth|trajectory|pred_probs)\.parquet"
    rf"|checkpoints/({_PART}/)?{_PART}\.safetensors"
    rf"|media/({_PART}/){{0,8}}{_PART}\.(?i:png|jpe?g|gif|webp|bmp|tiff?)"
    rf"|outcomes/({_PART}/){{0,4}}{_PART}\.(parquet|json)"
)
_VERSION = rf"version\.toml|changes\.parquet|outcomes\.safetensors|checkpoints/{_PART}\.safetensors"
_TAKEN = re.compile(rf"{_CORE}|versions/v[1-9]\d{{0,5}}/({_VERSION})")
_CACHE = re.compile(rf"cache/[0-9a-f]{{2}}/[0-9a-f]{{8,128}}/({_PART}\.npy|meta\.json)")
# Part of a study folder, or left by an operating system, but never taken from an archive.
_LEFT_OUT = re.compile(
    r"(cache/.*|jobs\.sqlite.*|reviews\.sqlite.*|before-format-\d+/.*|(.*/)?(\.DS_Store|Thumbs\.db|desktop\.ini))"
)
_CODE = re.compile(r".*\.(py[cdowx]?|ipynb|so|dll|sh|bat|exe|js|jar)", re.IGNORECASE)
_PICKLE = re.compile(r".*\.(pkl|pickle|pt|pth|ckpt|bin|joblib|dill|npy|npz|h5)", re.IGNORECASE)


@dataclass(frozen=True)
class Member:
    """A file of a study in an archive: its entry, and its place in the study folder."""

    entry: zipfile.ZipInfo
    name: str


def is_taken(name: str, *, reviews: bool, cache: bool) -> bool:
    """Tell whether a file of a study folder, named relative to it, belongs into an archive."""
    if cache and _CACHE.fullmatch(name):
        return True
    return (reviews and name == FILE_NAME) or _TAKEN.fullmatch(name) is not None


@contextmanager
def opened_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive; what the zip library complains about becomes one clear message.

    Raises:
        BadInput: It is no zip file, damaged, or its list of members is too long.
    """
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError:
        raise BadInput("There is no such file", f"{path} does not exist.", "Check the path.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RecursionError, UnicodeError) as error:
        why = f"{path.name}: {str(error).rstrip('.') or type(error).__name__}."
        raise BadInput("The archive is damaged", why, "Make it again, or copy it again from where it came.") from None


def _check_directory(path: Path) -> None:
    """Refuse a list of members that would not fit into memory, from the record at the end of the file."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - (1 << 16) - 64))
        tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    wide = tail.rfind(b"PK\x06\x06", 0, max(end, 0))
    said = []  # count and bytes of the list; all ones: the wide record says it
    if end >= 0:
        said.append((tail[end + 10 : end + 12], tail[end + 12 : end + 16]))
    if wide >= 0:
        said.append((tail[wide + 32 : wide + 40], tail[wide + 40 : wide + 48]))
    for fields in said:
        count, length = (0 if field.strip(b"\xff") == b"" else int.from_bytes(field, "little") for field in fields)
        if count > MAX_MEMBERS or length > MAX_DIRECTORY:
            raise _too_many(path, count)


def _too_many(path: Path, count: int) -> BadInput:
    why = f"{path.name} has {count:,} files; up to {MAX_MEMBERS:,} can be taken."
    return BadInput("The archive has too many files", why, "Import the study's data instead of its archive.")


def study_members(archive: zipfile.ZipFile, path: Path, *, reviews: bool, cache: bool) -> list[Member]:
    """Return the files of the study in an archive, every one of its members checked.

    Args:
        archive: The opened archive.
        path: Its file, for messages.
        reviews: Whether ``reviews.sqlite`` is taken.
        cache: Whether the cache is taken.

    Raises:
        BadInput: A member that no archive of a study has.
    """
    entries = archive.infolist()
    if len(entries) > MAX_MEMBERS:
        raise _too_many(path, len(entries))
    for entry in entries:
        _check_name(entry)
        _check_kind(entry)
    files = [entry for entry in entries if not entry.is_dir() and not entry.filename.startswith("__MACOSX/")]
    _check_distinct(entries)
    root = _root([entry.filename for entry in files], path)
    members = []
    for entry in files:
        name = entry.filename[len(root) :]
        if not entry.filename.startswith(root):
            raise _unexpected(entry.filename)
        if is_taken(name, reviews=reviews, cache=cache):
            members.append(Member(entry, name))
        elif not _LEFT_OUT.fullmatch(name):
            raise _unexpected(name)
    _check_sizes(members, path)
    return members


def header_root(names: list[str]) -> str | None:
    """Return the folder in an archive that holds ``study.toml``, "" for its top, None if there is none."""
    for name in names:
        if name == HEADER or (name.count("/") == 1 and name.endswith(f"/{HEADER}") and name != f"/{HEADER}"):
            return name[: -len(HEADER)]
    return None


def _root(names: list[str], path: Path) -> str:
    root = header_root(names)
    if root is None:
        why = f"{path.name} has no {HEADER} at its top or in its one folder."
        raise BadInput("This is no archive of a study", why, "Give a zip made by Download or by the command backup.")
    return root


def _check_name(entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename
    parts = name.removesuffix("/").split("/")
    shown = ascii(name[:80])
    fix = "Do not use this archive unless you know why it is so."
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or "\\" in name:
        raise BadInput("The archive names a place of its own", f"{shown} is no relative path.", fix)
    if any(part in ("..", ".", "") for part in parts):
        raise BadInput("The archive reaches outside of itself", f"{shown} leads to another folder.", fix)
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co") for c in name):
        raise BadInput("A name in the archive cannot be used", f"{shown} has invisible characters.", fix)
    if any(len(part.encode("utf-8", "replace")) > MAX_NAME for part in parts) or len(name) > 1000:
        raise BadInput("A name in the archive is too long", f"{shown}…", "Shorten it and make the archive again.")


def _check_kind(entry: zipfile.ZipInfo) -> None:
    shown = ascii(entry.filename[:80])
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG):
        what = "a link" if kind == stat.S_IFLNK else "no plain file"
        raise BadInput(f"The archive holds {what}", f"{shown} is {what}.", "Make it again with the files themselves.")
    if entry.flag_bits & 1:
        raise BadInput("The archive is encrypted", f"{shown} has a password.", "Make it again without one.")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        why = f"{shown} is packed by method {entry.compress_type}."
        raise BadInput("The archive is packed in a way that is not read", why, "Use the method 'deflate'.")


def _check_distinct(entries: list[zipfile.ZipInfo]) -> None:
    seen: dict[str, str] = {}
    for entry in entries:
        name = entry.filename.removesuffix("/")
        folded = unicodedata.normalize("NFKC", name).casefold()
        other = seen.setdefault(folded, name)
        if other is not name:
            same = "twice" if other == name else f"beside '{other[:80]}', the same on some computers"
            why = f"It has '{name[:80]}' {same}."
            raise BadInput("Two files of the archive have the same name", why, "Make it again with each file once.")


def _unexpected(name: str) -> BadInput:
    shown = ascii(name[:80])
    if _CODE.fullmatch(name):
        fix = "Take it out of the archive; a model of one's own is named on the command line with --model."
        return BadInput("The archive holds a program", f"{shown} is code, and no study has any.", fix)
    if _PICKLE.fullmatch(name):
        fix = "Save the weights as .safetensors in checkpoints/ and make the archive again."
        return BadInput("The archive holds a file that can hide a program", f"{shown} is never opened.", fix)
    why = f"{shown} is no file of a study."
    return BadInput("The archive holds something else than a study", why, "Take it out and make the archive again.")


def _check_sizes(members: list[Member], path: Path) -> None:
    _check_amount(sum(member.entry.file_size for member in members), path)
    for member in members:
        if member.name.endswith((".toml", ".json")) and member.entry.file_size > MAX_TEXT:
            why = f"{member.name} has {member.entry.file_size:,} bytes; up to {MAX_TEXT:,} are read."
            raise BadInput("A file in the archive is too large", why, "Make the archive again.")


def _check_amount(unpacked: int, path: Path) -> None:
    packed = max(path.stat().st_size, 1)
    if unpacked > MAX_BYTES:
        why = f"{path.name} unpacks to more than {MAX_BYTES >> 30} GB."
        raise BadInput("The archive is too large", why, "Copy the study as a folder instead.")
    if unpacked > RATIO_FROM and unpacked > MAX_RATIO * packed:
        why = f"{path.name} unpacks to more than {MAX_RATIO} times its size."
        raise BadInput("The archive unpacks to far more than a study would", why, "Copy the study as a folder instead.")


def unpacked(archive: zipfile.ZipFile, members: list[Member], path: Path, folder: Path) -> Generator[None, None, None]:
    """Unpack into an empty folder, counting real bytes; yield after every piece, so that a caller can stop.

    Raises:
        BadInput: More bytes than announced or allowed, or a damaged member.
    """
    total = 0
    for member in members:
        target = folder / member.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member.entry) as source, target.open("xb") as out:
            while chunk := source.read(_CHUNK):
                total += len(chunk)
                _check_amount(total, path)
                out.write(chunk)
                yield
        yield


def check_database(path: Path, shown: str, schema: str) -> None:
    """Refuse an SQLite file that is damaged, or holds anything but the tables and indexes that this program makes.

    Args:
        path: The file; it is not changed.
        shown: How messages name it.
        schema: The statements that make an empty one.

    Raises:
        BadInput: It is no database, fails its own check, or has another schema: a trigger or a view could act.
    """
    fix = "Import the archive without its reviews."
    with closing(sqlite3.connect(":memory:")) as empty:
        empty.executescript(schema)
        expected = _schema(empty)
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            db.execute("PRAGMA trusted_schema = OFF")
            db.execute("PRAGMA cell_size_check = ON")
            other = sorted(_schema(db) ^ expected)
            if other:
                why = f"{shown} has another {other[0][0]} {ascii(other[0][1][:80])} than this version makes."
                raise BadInput("A database in the archive cannot be used", why, fix)
            verdict = db.execute("PRAGMA integrity_check").fetchone()[0]
        if verdict != "ok":
            why = f"{shown}: {str(verdict).splitlines()[-1][:160]}."
            raise BadInput("A database in the archive is damaged", why, fix)
    except sqlite3.Error as error:
        raise BadInput("A database in the archive is damaged", f"{shown}: {error}.", fix) from None


def _schema(db: sqlite3.Connection) -> set[tuple[str, str, str]]:
    """Return type, name and words of everything a database has, spaces evened out."""
    rows = db.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_master")
    return {(str(kind), str(name), " ".join(str(sql).split())) for kind, name, sql in rows}
