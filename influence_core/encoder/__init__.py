"""How a raw row becomes numbers: fitted on train, kept as JSON, part of a study's fingerprint."""

from influence_core.encoder.base import Encoder, named_column, rows_at_once
from influence_core.encoder.columns import ColumnsEncoder
from influence_core.encoder.files import load_encoder
from influence_core.encoder.image import ImageEncoder
from influence_core.encoder.sentences import SentenceEncoder
from influence_core.encoder.table import TableEncoder
from influence_core.encoder.tensors import TensorEncoder, TensorInput
from influence_core.encoder.text import TextEncoder

__all__ = [
    "ColumnsEncoder", "Encoder", "ImageEncoder", "SentenceEncoder", "TableEncoder", "TensorEncoder",
    "TensorInput", "TextEncoder", "load_encoder", "named_column",
    "rows_at_once",
]  # fmt: skip
