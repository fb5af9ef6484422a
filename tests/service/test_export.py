"""Exports: every score under its row id, in each format, safe in a spreadsheet."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pytest

from influence_core import Measurement, Study, attribute, registry, service
from influence_core.service import ExplainRequest, InfluenceError
from tests.service.test_catalog import frame_of
from tests.service.test_requests import first_ids, fitted, no_worker, own_kind

__all__ = ["no_worker"]  # its fixture holds here too


def read_back(data: bytes, format: str) -> pd.DataFrame:
    if format == "csv":
        return pd.read_csv(io.BytesIO(data))
    return pd.DataFrame(json.loads(data)) if format == "json" else pd.read_parquet(io.BytesIO(data))


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
@pytest.mark.parametrize("method", ["gas", "knn_shapley", "rps_l2"])
def test_an_export_holds_every_score(format: str, method: str, studies: Path) -> None:
    fitted(studies / "table", method)
    test = first_ids("table", studies)[2]
    table = read_back(service.export_scores("table", ExplainRequest((test,), method), format), format)
    measurement = Measurement(own_kind(method), "predicted")
    scores = attribute(Study(studies / "table"), method, [test], measurement=measurement).scores[0].double().numpy()
    expected = frame_of(studies / "table", "train").assign(score=scores)
    expected = expected.sort_values("score", ascending=False, kind="stable")
    assert table["train_id"].tolist() == expected["id"].tolist()
    assert table["score"].tolist() == expected["score"].tolist()
    assert table["label"].tolist() == expected["given"].tolist()
    assert table["predicted"].tolist() == expected["predicted"].tolist()
    info = registry.entries()[method].info
    constant = {
        "query": str(test),
        "method": method,
        "measurement": own_kind(method),
        "target": "predicted",
        "units": info.units,
    }
    for column, value in constant.items():
        assert set(table[column].astype(str)) == {value}


def test_an_export_is_safe_in_a_spreadsheet(studies: Path) -> None:
    fitted(studies / "linear", "grad_dot")
    request = ExplainRequest(("=1+1",), "grad_dot", split="train")
    text = service.export_scores("linear", request, "csv").decode()
    assert not any(cell.startswith("=") for line in text.splitlines() for cell in line.split(","))
    table = read_back(text.encode(), "csv")
    assert "'=1+1" in table["train_id"].tolist() and set(table["query"]) == {"'=1+1"}
    for format in ("json", "parquet"):
        table = read_back(service.export_scores("linear", request, format), format)
        assert "=1+1" in table["train_id"].tolist() and set(table["query"]) == {"=1+1"}


def test_what_is_not_computed_cannot_be_exported(own_studies: Path) -> None:
    request = ExplainRequest((first_ids("table", own_studies)[0],), "gas")
    with pytest.raises(InfluenceError, match="nothing to export yet"):
        service.export_scores("table", request, "csv")
    fitted(own_studies / "table", "gas")
    with pytest.raises(InfluenceError, match="Unknown format"):
        service.export_scores("table", request, "xlsx")


def test_disk_use_is_what_lies_in_the_cache(own_studies: Path) -> None:
    assert service.disk_use("table")[0] == 0
    fitted(own_studies / "table", "gas")
    used, cap = service.disk_use("table")
    assert used == sum(f.stat().st_size for f in (own_studies / "table" / "cache").rglob("*") if f.is_file()) > 0
    assert cap > used
