"""Gradients of a word embedding by word: positions that share a token are one word, and few words may be kept."""

from __future__ import annotations

import torch

from influence_core.primitives.sides import Tokens


def by_word(side: Tokens, skipped: tuple[int, ...] = (), top: int | None = None) -> Tokens:
    """Return a side in which every token occurs once per row, with the sum of its positions' errors.

    Args:
        side: Tokens ``[n, T]`` and errors ``[n, T, d]``.
        skipped: Tokens that do not count, such as padding or the mark at the start of each text.
        top: How many words of the longest gradients are kept per row; None: all.
    """
    tokens = side.tokens.clone()
    for token in skipped:
        tokens[tokens == token] = -1
    same = (tokens.unsqueeze(1) == tokens.unsqueeze(2)) & (tokens >= 0).unsqueeze(1)
    errors = torch.bmm(same.to(side.errors.dtype), side.errors)
    place = torch.arange(tokens.shape[1], device=tokens.device)
    first = torch.where(same, place, tokens.shape[1]).amin(2) == place  # a skipped position has no first
    if top is not None and top < tokens.shape[1]:
        lengths = errors.square().sum(2).masked_fill(~first, -1.0)
        order = lengths.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        first &= order < top
    return Tokens(tokens.masked_fill(~first, -1), errors * first.unsqueeze(2), side.n_tokens)


def word_parts(query: Tokens, train: Tokens) -> list[dict[int, float]]:
    """Return, per training row, what each shared word adds to the inner product with one query row.

    Args:
        query: One row, from ``by_word``.
        train: Any rows, from ``by_word``.
    """
    table = {int(t): query.errors[0, j] for j, t in enumerate(query.tokens[0].tolist()) if t >= 0}
    parts: list[dict[int, float]] = []
    for tokens, errors in zip(train.tokens.tolist(), train.errors, strict=True):
        parts.append({int(t): float(errors[j] @ table[int(t)]) for j, t in enumerate(tokens) if t >= 0 and t in table})
    return parts
