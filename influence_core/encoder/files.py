"""Encoders as files."""

from __future__ import annotations

import json
from pathlib import Path

from influence_core.encoder.base import Encoder
from influence_core.encoder.columns import ColumnsEncoder
from influence_core.encoder.image import ImageEncoder
from influence_core.encoder.sentences import SentenceEncoder
from influence_core.encoder.table import TableEncoder
from influence_core.encoder.tensors import TensorEncoder
from influence_core.encoder.text import TextEncoder
from influence_core.errors import BadInput

_KINDS: dict[str, type[Encoder]] = {
    kind.kind: kind
    for kind in (ImageEncoder, TableEncoder, ColumnsEncoder, TensorEncoder, TextEncoder, SentenceEncoder)
}


def load_encoder(path: Path) -> Encoder:
    """Read an encoder.

    Raises:
        BadInput: The file is gone, damaged, or of a kind this version does not know.
    """
    try:
        options = json.loads(path.read_text(encoding="utf-8"))
        kind = str(options.pop("kind"))
        if kind not in _KINDS:
            raise BadInput("Unknown encoder", f"{path} is of kind '{kind}'.", "Open the study with a newer version.")
        return _KINDS[kind].from_json(options)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            "The encoder cannot be read", f"{path}: {error}.", "Restore encoder.json from a copy of the study."
        ) from None
