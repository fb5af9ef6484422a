"""Which split a row goes to: the user's, or by its content, so that identical rows never stand on both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pandas import util

from influence_core.errors import BadInput
from influence_core.study_files import SPLITS

# pandas makes this name when it is asked for, which type checkers do not see.
hash_array: Any = util.hash_array
Batches = Callable[[], Iterator[pa.Table]]
SPLIT_WORDS = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "valid": "valid", "val": "valid",
    "validation": "valid", "dev": "valid", "eval": "valid", "locked": "locked", "holdout": "locked",
}  # fmt: skip
_SHARES = (0.70, 0.85)  # of the rows: up to here train, up to here test, the rest locked
_DROPPED = -1
_MISSING = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Assignment:
    """The split of every row.

    Attributes:
        codes: Position in ``("train", "test", "locked")`` ``[n]``, int8; -1: the row is left out.
        notes: What was done, in sentences.
    """

    codes: np.ndarray
    notes: tuple[str, ...]

    @property
    def names(self) -> np.ndarray:
        """Return the name of every row's split ``[n]``; "" where the row is left out."""
        return np.asarray([*SPLITS, ""])[self.codes]


def split_names(
    batches: Batches, columns: Sequence[str], label: str, *, split: str | None = None, stratified: bool = True,
    seed: int = 0,
) -> Assignment:  # fmt: skip
    """Assign every row to train, test or locked (70 / 15 / 15), or follow the user's split column.

    Rows that are identical in what the model reads share a split. Depends on the rows' content and the seed, not on
    their order. Keeps 64 bits of content, and a code of the label, for each row. Rows without a label are left out.

    Args:
        batches: Yields the rows, from the start at each call.
        columns: What the model reads.
        label: Column of labels; each class is divided by itself where ``stratified``.
        split: The user's split column. Without rows that can be locked, half of the test rows are.
        stratified: Whether the labels are classes.
        seed: Another seed, another division.

    Raises:
        BadInput: An unknown word in the split column, or a split without rows.
    """
    hashes, labels, words = _gathered(batches(), columns, label, split, stratified)
    hashes = hash_array(hashes ^ np.uint64(hash_array(np.asarray([seed], np.uint64))[0]))
    known = labels >= 0
    codes = np.full(len(hashes), _DROPPED, np.int8)
    notes = []
    if not known.all():
        notes.append(f"{int((~known).sum()):,} rows without a label were left out.")
    if words is None:
        codes[known] = _by_content(hashes[known], labels[known])
        notes.append("Rows were divided 70 / 15 / 15 by content: identical rows share a split.")
    else:
        found, more = _by_user(hashes[known], np.asarray(words, object)[known], str(split))
        codes[known] = found
        notes += more
    for code, name in enumerate(SPLITS[:2]):
        if not (codes == code).any():
            why = f"{int(known.sum()):,} rows with a label leave none for {name}."
            raise BadInput(f"The {name} split has no rows", why, "Give more rows that differ from one another.")
    return Assignment(codes, tuple(notes))


def _gathered(
    batches: Iterable[pa.Table], columns: Sequence[str], label: str, split: str | None, stratified: bool
) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
    """Return content hashes ``[n]``, label codes ``[n]`` (-1: missing) and the user's words."""
    hashes: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    words: list[str] = []
    codes: dict[object, int] = {}
    row = 0
    for batch in batches:
        hashes.append(content_hashes(batch, columns))
        labels.append(_label_codes(batch[label], codes if stratified else None))
        for word in batch[split].to_pylist() if split is not None else ():
            row += 1
            meaning = SPLIT_WORDS.get(str(word).strip().lower())
            if meaning is None:
                why = f"'{split}' is '{str(word)[:80] if word is not None else ''}' in row {row:,}."
                raise BadInput("A row has an unknown split", why, f"Use one of: {', '.join(SPLIT_WORDS)}.")
            words.append(meaning)
    if not hashes:
        raise BadInput("The table has no rows", "There is nothing to divide.", "Give it rows.")
    return np.concatenate(hashes), np.concatenate(labels), words if split is not None else None


def _label_codes(values: pa.ChunkedArray, codes: dict[object, int] | None) -> np.ndarray:
    """Return a code of every label ``[n]``, in the order in which they appear, -1 where missing; None: 0 for all."""
    if codes is None:
        return np.where(values.is_null(nan_is_null=True).to_numpy(), -1, 0)
    places, different = _dictionary(values)
    names = different.to_pylist()
    known = [-1 if v is None or v != v else codes.setdefault(v, len(codes)) for v in names]
    return np.asarray([*known, -1], np.int64)[places]


def content_hashes(rows: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """Return 64 bits of each row's content ``[n]``: equal content gives equal bits, in every process."""
    total = np.full(len(rows), 0xCBF29CE484222325, np.uint64)
    for name in columns:
        values = rows[name]
        bits = _text_bits(values) if pa.types.is_string(values.type) else _number_bits(values)
        total ^= bits
        total *= np.uint64(0x100000001B3)
        total ^= total >> np.uint64(29)
    return total


def _text_bits(values: pa.ChunkedArray) -> np.ndarray:
    """Return 64 bits of every text ``[n]``; each different one is hashed once."""
    places, different = _dictionary(values)
    bits = hash_array(different.to_numpy(zero_copy_only=False).astype(object), categorize=False)
    return np.append(bits, _MISSING)[places]


def _number_bits(values: pa.ChunkedArray) -> np.ndarray:
    kind = pa.float64() if pa.types.is_floating(values.type) else pa.int64()
    missing = values.is_null().to_numpy() if values.null_count else None
    plain = values.cast(kind).fill_null(0).to_numpy()
    if plain.dtype == np.float64:
        absent = np.isnan(plain)
        missing = absent if missing is None else missing | absent
        plain = plain + 0.0  # -0.0 is 0.0
    bits = hash_array(plain)
    if missing is not None:
        bits[missing] = _MISSING
    return bits


def _dictionary(values: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Return the place ``[n]`` of every value among the different ones, -1 where there is none, and those."""
    whole = pa.chunked_array([values.combine_chunks()]) if values.num_chunks > 1 else values
    if not whole.num_chunks:
        return np.zeros(0, np.int64), pa.array([], values.type)
    found = whole.chunk(0).dictionary_encode()
    return found.indices.fill_null(-1).to_numpy(zero_copy_only=False), found.dictionary


def _by_content(hashes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Divide the different contents of each class by their hashes, so that every class has its shares."""
    with ThreadPoolExecutor(1) as beside:  # sorting takes as long as dividing: both at once, as rows are seldom alike
        sorting = beside.submit(np.sort, hashes)
        alone = _each_alone(hashes, labels)
        ranked = sorting.result()
    if not (ranked[1:] == ranked[:-1]).any():
        return alone
    order = np.argsort(hashes, kind="stable")
    ranked = hashes[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]])[: len(ranked)])
    counts = np.diff(np.append(starts, len(ranked)))
    kinds = labels[order[starts]]  # the label of the first row of each content
    codes = np.zeros(len(starts), np.int8)
    for kind in np.unique(kinds):
        members = np.flatnonzero(kinds == kind)  # in the order of their hashes, which is a random one
        sizes = counts[members]
        middle = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
        codes[members] = np.searchsorted(_SHARES, middle, side="right")
    result = np.empty(len(hashes), np.int8)
    result[order] = np.repeat(codes, counts)
    return result


def _each_alone(hashes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Divide as ``_by_content`` does where no two rows are alike, in a third of the time."""
    codes = np.zeros(len(hashes), np.int8)
    for kind in np.unique(labels):
        members = labels == kind
        own = hashes[members]
        middle = (np.arange(len(own)) + 0.5) / len(own)
        ends = np.searchsorted(middle, _SHARES, side="left")  # the first row of each further split
        ends = ends[ends < len(own)]
        ranked, found = np.partition(own, ends), np.zeros(len(own), np.int8)
        for end in ends:
            found += own >= ranked[end]
        codes[members] = found
    return codes


def _by_user(hashes: np.ndarray, words: np.ndarray, column: str) -> tuple[np.ndarray, list[str]]:
    """Follow the user's words; then drop what stands in an earlier split already."""
    notes, meaning = [f"Splits are those of '{column}'."], _meanings(set(words.tolist()), column)
    codes = np.asarray([SPLITS.index(meaning[word]) for word in words], np.int8)
    if "locked" not in meaning.values():
        test = np.flatnonzero(codes == 1)
        groups, counts = np.unique(hashes[test], return_counts=True)
        late = groups[(np.cumsum(counts) - counts / 2) > counts.sum() / 2]
        codes[test[np.isin(hashes[test], late)]] = 2
        notes.append("Half of the test rows were set aside as locked: the file names no locked rows.")
    for later, earlier in ((1, (0,)), (2, (0, 1))):
        rows = np.flatnonzero(codes == later)
        seen = np.isin(hashes[rows], hashes[np.isin(codes, earlier)])
        codes[rows[seen]] = _DROPPED
        if seen.any():
            notes.append(f"{int(seen.sum()):,} {SPLITS[later]} rows equal to rows of an earlier split were left out.")
    return codes, notes


def _meanings(words: set[str], column: str) -> dict[str, str]:
    """Return the split that each word stands for, given which words there are."""
    rest = [word for word in ("valid", "test", "locked") if word in words]
    if "train" not in words or not rest:
        why = f"'{column}' has only {', '.join(sorted(words)) or 'missing values'}."
        raise BadInput(
            "Train and test rows are both needed", why, "Mark some rows train and some test, or use no split."
        )
    if "valid" in rest and "test" in rest and "locked" in rest:
        return {"train": "train", "valid": "test", "test": "test", "locked": "locked"}
    # What is looked at while working is our test; what is kept for the end is locked.
    return {"train": "train", rest[0]: "test", **({rest[1]: "locked"} if len(rest) > 1 else {})}
