"""A study of 100,000 rows: pages and filters of the list, and the first cards of a review, within two seconds, warm."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from influence_core import service
from influence_core.encoder import TableEncoder
from influence_core.recipe import Recipe
from influence_core.service import SuspectFilter, SuspectPage
from influence_core.service.opened import opened
from influence_core.service.suspected import search_of
from influence_core.workflows.suspects import suspects
from influence_core.workflows.suspects.pricing import suspects_cost
from influence_core.workflows.suspects.ranking import chosen_detectors
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
    search = search_of(held)
    said = suspects_cost(search, chosen_detectors(search)).seconds
    started, used = time.perf_counter(), time.process_time()
    suspects(held.study.task, held.run)
    took, used = time.perf_counter() - started, time.process_time() - used
    print(f"search {took:.0f} s, {used:.0f} s of a processor, {said:.0f} s said")
    assert used / 4 < said < 4 * used  # the price that people are shown
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
    for n in (6, 50):  # what the desk asks for first, and then
        started = time.perf_counter()
        batch = service.review_batch("large", "suspects", "ann", None, n)
        seconds = time.perf_counter() - started
        print(f"{n} cards: {seconds:.3f} s")
        assert len(batch.cards) == n and batch.total == 100_000 and seconds < 2
    for number in (1, 2):
        card = batch.cards[number]
        act = {"tab": "t", "number": number, "kind": "decide", "evidence": card.evidence,
               "decisions": [{"split": "train", "row": card.row_id, "action": "keep"}]}  # fmt: skip
        started = time.perf_counter()
        assert service.record_acts("large", "ann", [act]).kept
        seconds = time.perf_counter() - started
        print(f"a decision: {seconds:.3f} s")
        assert seconds < 2
