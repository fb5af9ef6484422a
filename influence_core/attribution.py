"""The answer to a query: scores with row and column ids."""

from __future__ import annotations

import html
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from influence_core.errors import BadInput


class Ranked(NamedTuple):
    """The strongest training rows of each query: ids ``[n_test][k]`` and scores ``[n_test, k]``."""

    ids: list[list[Any]]
    scores: Tensor


@dataclass(frozen=True)
class Attribution:
    """Scores ``[n_test, n_train]``, positive = proponent, with what they mean.

    Attributes:
        test_ids: Query rows; a reduced query is one row with the ids joined.
        train_ids: Row ids of the columns.
        measurement: ``{"kind", "target"}``.
        units: ``measurement``, ``gradient``, ``value`` or ``rank``.
        share: Share of the parameters the scores look at, or None.
        notes: Facts that change how to read the scores.
    """

    scores: Tensor
    test_ids: tuple[Any, ...]
    train_ids: np.ndarray
    method: str
    config: dict[str, Any]
    measurement: dict[str, Any]
    units: str
    share: float | None = None
    notes: tuple[str, ...] = ()

    def proponents(self, k: int = 5) -> Ranked:
        """Return the k training rows with the highest positive scores, strongest first; fewer if fewer are positive."""
        return self._ranked(k, 1)

    def opponents(self, k: int = 5) -> Ranked:
        """Return the k training rows with the lowest negative scores, strongest first; fewer if fewer are negative."""
        return self._ranked(k, -1)

    def _ranked(self, k: int, sign: int) -> Ranked:
        if k < 1:
            raise BadInput("Nothing to rank", f"k is {k}.", "Use 1 or more.")
        signed = torch.nan_to_num(self.scores * sign, nan=-torch.inf)
        # A stable order among equal scores: by column, on every device.
        order = (
            signed.argsort(dim=1, descending=True, stable=True)[:, : min(k, signed.shape[1])]
            if k > 64 or signed.shape[1] < 4096
            else _top(signed, k)
        )  # noqa: E501
        top = signed.gather(1, order)
        keep = (top > 0).sum(1).tolist()
        ids = [self.train_ids[row[:count].cpu().numpy()].tolist() for row, count in zip(order, keep, strict=True)]
        return Ranked(ids, (sign * top).where(top > 0, torch.nan))

    def to_frame(self, k: int = 10) -> pd.DataFrame:
        """Return the k proponents and k opponents of every query as a table."""
        rows = []
        for side, ranked in (("proponent", self.proponents(k)), ("opponent", self.opponents(k))):
            for test, ids, scores in zip(self.test_ids, ranked.ids, ranked.scores.tolist(), strict=True):
                rows += [
                    {"test_id": test, "side": side, "rank": r + 1, "train_id": i, "score": s, "method": self.method,
                     "measurement": self.measurement["kind"], "target": self.measurement["target"], "units": self.units}
                    for r, (i, s) in enumerate(zip(ids, scores, strict=False))
                ]  # fmt: skip
        columns = ["test_id", "side", "rank", "train_id", "score", "method", "measurement", "target", "units"]
        return pd.DataFrame(rows, columns=columns)

    def _repr_html_(self) -> str:
        """Show the strongest rows of up to three queries in a notebook."""
        table = self.to_frame(5)
        shown = table.loc[table["test_id"].isin(self.test_ids[:3]), ["test_id", "side", "rank", "train_id", "score"]]
        kind, target = self.measurement["kind"], self.measurement["target"]
        what = html.escape(f"{self.method}, {kind} of the {target} label, units: {self.units}")
        more = f", first 3 of {len(self.test_ids)} queries" if len(self.test_ids) > 3 else ""
        return f"<p><b>{what}</b>{more}</p>{shown.to_html(index=False)}"

    def save(self, path: str | Path) -> None:
        """Write scores and ids to one ``.safetensors`` file."""
        from safetensors.torch import save_file

        meta = {**asdict(self), "scores": None, "train_ids": self.train_ids.tolist()}
        save_file({"scores": self.scores.detach().cpu().contiguous()}, path, {"attribution": json.dumps(meta)})

    @staticmethod
    def load(path: str | Path) -> Attribution:
        """Read what ``save`` wrote."""
        from safetensors import safe_open

        try:
            with safe_open(path, "pt") as file:
                meta = json.loads(file.metadata()["attribution"])
                scores = file.get_tensor("scores")
        except Exception as error:  # noqa: BLE001  (every failure means: not one of our files)
            raise BadInput(
                "This file is not an attribution", f"{path}: {error}.", "Use a file written by save."
            ) from None
        ids, notes = np.asarray(meta.pop("train_ids")), tuple(meta.pop("notes"))
        tests = tuple(meta.pop("test_ids"))
        return Attribution(**{**meta, "scores": scores, "train_ids": ids, "notes": notes, "test_ids": tests})


def _top(values: Tensor, k: int) -> Tensor:
    """Return the columns of the k largest per row, ties by column.

    ``topk`` picks any of the columns that tie for the last place, so only its k-th value is used.
    """
    last = values.topk(min(k, values.shape[1]), dim=1).values[:, -1]
    rows = []
    for row, limit in zip(values, last, strict=True):
        candidates = (row >= limit).nonzero()[:, 0]
        rows.append(candidates[row[candidates].argsort(descending=True, stable=True)][:k])
    return torch.stack(rows)
