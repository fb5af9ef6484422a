"""The list of a study of 100,000 rows: its first page, filters and evidence are there within two seconds, warm."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from influence_core import service
from influence_core.encoder import TableEncoder
from influence_core.recipe import Recipe
from influence_core.service import SuspectFilter, SuspectPage
from influence_core.service.opened import opened
from influence_core.workflows.suspects import suspects
from tests.small_studies import CLASSES, COLUMNS, table_rows, trained


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_hundred_thousand_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUENCE_STUDIES", str(tmp_path))
    tables = table_rows(1, {"train": 100_000, "test": 2_000}, lambda i: i)
    recipe = Recipe(learning_rate=0.1, batch_size=500, epochs=2, checkpoints=(1, 2))
    options = {"n_inputs": len(COLUMNS), "n_classes": len(CLASSES), "hidden": [5]}
    trained(tmp_path / "large", "Large", "table", tables, TableEncoder.fitted(tables["train"], COLUMNS), "mlp", options,
            recipe)  # fmt: skip
    held = opened("large")
    started = time.perf_counter()
    suspects(held.study.task, held.run)
    print(f"search {time.perf_counter() - started:.0f} s")
    service.suspects("large", SuspectFilter())
    service.suspect_rows("large", SuspectFilter(text="1"))
    for filter in (SuspectFilter(given="ant"), SuspectFilter(agree=2, page=3), SuspectFilter(text="77"),
                   SuspectFilter(column="loss")):  # fmt: skip
        started = time.perf_counter()
        page = service.suspects("large", filter)
        assert isinstance(page, SuspectPage) and page.rows
        service.suspect_evidence("large", "train", page.rows[0].datum.row_id)
        seconds = time.perf_counter() - started
        print(f"{filter}: {seconds:.3f} s")
        assert seconds < 2
