"""What kind of file was given: its format by its first bytes, unpacked within limits, and the encoding of its text."""

from __future__ import annotations

import codecs
import gzip
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, cast

from influence_core.errors import BadInput
from influence_core.readers import limits
from influence_core.store import disk_errors

Format = Literal["csv", "json", "parquet", "arrow"]
_CHUNK = 1 << 20
_FIX = "Save the table as CSV, JSON lines or Parquet, then import that file."
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".npy", ".npz")
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
         (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip


@contextmanager
def reading_file(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a user's file into a message for them."""
    try:
        yield
    except OSError as error:
        if isinstance(error, (gzip.BadGzipFile, EOFError)):
            raise
        why = f"{path}: {error.strerror or error}."
        raise BadInput("The file cannot be read", why, "Check the name and that you may read it.") from None


def unpacked(path: Path, folder: Path) -> tuple[Path, Format]:
    """Return the file that holds the table, unpacked into ``folder`` if need be, and its format.

    Raises:
        BadInput: No file, an empty one, of a kind that cannot be read, or one that unpacks beyond the limits.
    """
    with reading_file(path):
        if not path.is_file():
            fix = "Give the path of a CSV, TSV, JSON, Parquet or Arrow file."
            raise BadInput("There is no file here", f"{path} does not exist or is no file.", fix)
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
    if size == 0:
        raise BadInput("The file is empty", f"{path} has no bytes.", "Give a file with a header and rows.")
    if size > limits.MAX_BYTES:
        raise BadInput("The file is too large", f"{path} has {size:,} bytes; {limits.MAX_BYTES:,} can be read.",
                       "Import a part of the rows.")  # fmt: skip
    if start[:2] == b"\x1f\x8b":
        return _unpacked(path, folder, size, "gz")
    if start[:4] == b"PK\x03\x04" or start[:4] == b"PK\x05\x06":
        return _unpacked(path, folder, size, "zip")
    return path, _format(path, path.suffix.lower(), start)


def _format(path: Path, suffix: str, start: bytes) -> Format:
    if start[:4] == b"PAR1":
        return "parquet"
    if start[:6] == b"ARROW1" or suffix in (".arrow", ".ipc", ".feather"):
        return "arrow"
    if suffix in (".parquet", ".pq"):
        raise BadInput("This is no Parquet file", f"{path} does not begin with PAR1.", "Save it again, or rename it.")
    if suffix in _PICKLES:
        why = f"{path} ends with {suffix}: such files can hold programs, and are never opened."
        raise BadInput("This kind of file is not read", why, _FIX)
    if start[:2] == b"PK" or start[:4] in (b"\x89PNG", b"%PDF", b"\x7fELF", b"\xd0\xcf\x11\xe0", b"SQLi"):
        raise BadInput("This kind of file is not read", f"{path} is no table of text.", _FIX)
    text = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if suffix in (".json", ".jsonl", ".ndjson") or text.startswith((b'{"', b"[{")):
        return "json"
    return "csv"


def _unpacked(path: Path, folder: Path, size: int, kind: str) -> tuple[Path, Format]:
    target = folder / "unpacked"
    try:
        if kind == "gz":
            suffix = Path(path.stem).suffix.lower()
            with gzip.open(path) as packed:
                _copy(cast(IO[bytes], packed), target, size, path)
        else:
            with zipfile.ZipFile(path) as archive:
                member = _member(path, archive)
                suffix = Path(member.filename).suffix.lower()
                with archive.open(member) as packed:
                    _copy(packed, target, size, path)
    except (zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error, RuntimeError, NotImplementedError, ValueError,
            OSError) as error:  # fmt: skip
        why = f"{path}: {error}."
        raise BadInput(
            "The packed file is damaged or locked", why, "Unpack it yourself and import the table."
        ) from None
    if target.stat().st_size == 0:
        raise BadInput("The file is empty", f"{path} unpacks to no bytes.", "Give a file with a header and rows.")
    with target.open("rb") as file:
        start = file.read(8)
    if start[:2] == b"\x1f\x8b" or start[:4] == b"PK\x03\x04":
        raise BadInput("The file is packed twice", f"{path} holds another packed file.", "Unpack it and import that.")
    return target, _format(path, suffix, start)


def _member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX")]
    names = [member.filename for member in members]
    if "[Content_Types].xml" in names or "mimetype" in names:
        raise BadInput("This kind of file is not read", f"{path} is a workbook or document.", _FIX)
    if len(members) != 1:
        shown = ", ".join(names[:5]) or "nothing"
        raise BadInput("The archive must hold one table", f"{path} holds {len(members)} files: {shown}.",
                       "Import the files one at a time.")  # fmt: skip
    return members[0]


def _copy(source: IO[bytes], target: Path, packed: int, path: Path) -> None:
    """Copy unpacked bytes, counting them: what a header says about its size is not believed."""
    written = 0
    with target.open("wb") as out:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            bomb = written > limits.RATIO_FROM and written > packed * limits.MAX_RATIO
            if written > limits.MAX_BYTES or bomb:
                why = f"{path}: {packed:,} packed bytes unpack to more than {written:,}."
                fix = f"At most {limits.MAX_BYTES:,} bytes and {limits.MAX_RATIO} for each packed one are read."
                raise BadInput("The packed file is too large", why, f"Unpack it and import a part of it. {fix}")
            with disk_errors(target):
                out.write(chunk)


def text_encoding(path: Path) -> tuple[str, str | None]:
    """Return the encoding that decodes the whole file, and a sentence if it had to be guessed.

    Args:
        path: A file of text; it is read once, in pieces.

    Raises:
        BadInput: It is no text.
    """
    with reading_file(path), path.open("rb") as file:
        start = file.read(1 << 16)
    for mark, encoding in _BOMS:
        if start.startswith(mark):
            _check_decodes(path, encoding)
            return encoding, None
    if wide := _wide(start):
        _check_decodes(path, wide)
        return wide, f"The text has no mark of its encoding and was read as {wide.upper()}."
    if _decodes(path, "utf-8") is None:
        _check_text(path, start)
        return "utf-8", None
    if _decodes(path, "utf-8-sig") is None:
        return "utf-8-sig", None
    _check_text(path, start)
    encoding = "cp1252" if _decodes(path, "cp1252") is None else "latin-1"
    name = "Windows-1252" if encoding == "cp1252" else "Latin-1"
    return encoding, f"The text is not UTF-8 and was read as {name}: check that accented letters look right."


def _wide(start: bytes) -> str | None:
    """Recognise UTF-16 without a mark: every other byte of western text is 0."""
    if len(start) < 4 or len(start) % 2:
        return None
    even, odd = start[::2].count(0) * 2 / len(start), start[1::2].count(0) * 2 / len(start)
    if odd > 0.6 and even < 0.1:
        return "utf-16-le"
    return "utf-16-be" if even > 0.6 and odd < 0.1 else None


def _decodes(path: Path, encoding: str) -> str | None:
    """Return why the file is not in this encoding, or None if it is."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with reading_file(path), path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
    except UnicodeError as error:
        return str(error)
    return None


def _check_decodes(path: Path, encoding: str) -> None:
    if reason := _decodes(path, encoding):
        why = f"{path} begins as {encoding} and then is not: {reason}."
        raise BadInput("The text cannot be decoded", why, "Save the file as UTF-8 and import it again.")


def _check_text(path: Path, start: bytes) -> None:
    controls = len(re.findall(rb"[\x01-\x08\x0e-\x1f\x7f]", start)) + start.count(0)
    if controls > max(8, 0.02 * len(start)):
        why = f"{path}: {controls:,} of its first {len(start):,} bytes are no characters."
        raise BadInput("This is no table of text", why, _FIX)
