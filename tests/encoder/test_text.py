"""Hashed TF-IDF, against scikit-learn on texts whose words do not meet."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from influence_core.encoder import TextEncoder, load_encoder
from influence_core.errors import BadInput

TEXTS = ["Free cash NOW", "call me now", "the cash is free free", "", None, "ünï cödé now <b>"]
ROWS = pa.table({"text": TEXTS})


def test_equals_tfidf_on_a_vocabulary() -> None:
    encoder = TextEncoder.fitted(lambda: iter([ROWS.slice(0, 2), ROWS.slice(2)]), "text", 1 << 14)
    reference = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+")
    expected = reference.fit_transform([text or "" for text in TEXTS]).toarray()
    places = {term: zlib.crc32(term.encode()) % (1 << 14) for term in reference.vocabulary_}
    assert len(set(places.values())) == len(places)
    order = sorted(reference.vocabulary_, key=reference.vocabulary_.get)
    found = encoder.encoded(ROWS)
    np.testing.assert_allclose(found[:, [places[term] for term in order]], expected, atol=1e-6)
    assert np.count_nonzero(found) == np.count_nonzero(expected)


def test_the_words_of_a_row_name_every_place_that_counts() -> None:
    encoder = TextEncoder.fitted(lambda: iter([ROWS]), "text")
    for i in range(len(TEXTS)):
        row = ROWS.slice(i, 1)
        named = {place for _, places in encoder.words(row) for place in places}
        assert named == set(np.flatnonzero(encoder.encoded(row)[0]).tolist())


def test_json_brings_it_back(tmp_path: Path) -> None:
    encoder = TextEncoder.fitted(lambda: iter([ROWS]), "text", 64)
    (tmp_path / "encoder.json").write_text(json.dumps(encoder.to_json()))
    assert load_encoder(tmp_path / "encoder.json") == encoder


def test_texts_without_words_are_refused() -> None:
    with pytest.raises(BadInput, match="no|None"):
        TextEncoder.fitted(lambda: iter([pa.table({"text": ["", "...", None]})]), "text")
