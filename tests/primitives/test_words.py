"""Gradients of a word embedding by word: the same embedding's gradient, written out."""

from __future__ import annotations

import pytest
import torch

from influence_core.primitives.sides import Tokens
from influence_core.primitives.words import by_word, word_parts
from tests.cases import integers, normal


def table(side: Tokens, rows: int) -> torch.Tensor:
    """The gradient of the whole embedding, ``[n, words, d]``."""
    found = torch.zeros(rows, side.n_tokens, side.errors.shape[2], dtype=side.errors.dtype)
    for i, (tokens, errors) in enumerate(zip(side.tokens.tolist(), side.errors, strict=True)):
        for token, error in zip(tokens, errors, strict=True):
            if token >= 0:
                found[i, token] += error
    return found


def test_words_hold_the_gradient_of_their_positions() -> None:
    side = Tokens(integers(4, 5, 6, seed=1), normal(5, 6, 3, seed=2), 4)
    words = by_word(side)
    torch.testing.assert_close(table(words, 5), table(side, 5))
    for tokens in words.tokens.tolist():
        known = [token for token in tokens if token >= 0]
        assert len(known) == len(set(known)), "a word stands twice"


def test_skipped_words_and_the_longest_alone() -> None:
    side = Tokens(integers(5, 4, 8, seed=1), normal(4, 8, 3, seed=2), 5)
    whole = table(side, 4)
    skipped = table(by_word(side, (0, 3)), 4)
    assert not bool(skipped[:, [0, 3]].any())
    torch.testing.assert_close(skipped[:, [1, 2, 4]], whole[:, [1, 2, 4]])
    kept = table(by_word(side, top=2), 4)
    for i in range(4):
        longest = set(whole[i].norm(dim=1).argsort(descending=True)[:2].tolist())
        assert set(kept[i].norm(dim=1).nonzero().flatten().tolist()) == longest
        torch.testing.assert_close(kept[i][list(longest)], whole[i][list(longest)])


def test_parts_of_shared_words_add_up_to_the_product() -> None:
    train = by_word(Tokens(integers(6, 4, 5, seed=1), normal(4, 5, 3, seed=2), 6))
    query = by_word(Tokens(integers(6, 1, 5, seed=3), normal(1, 5, 3, seed=4), 6))
    whole, own = table(train, 4), table(query, 1)[0]
    for i, parts in enumerate(word_parts(query, train)):
        shared = set(train.tokens[i].tolist()) & set(query.tokens[0].tolist()) - {-1}
        assert set(parts) == shared
        for word, part in parts.items():
            assert part == pytest.approx(float(whole[i, word] @ own[word]))
        assert sum(parts.values()) == pytest.approx(float((whole[i] * own).sum()))
