"""Held-out probabilities of one's own through a browser: a file that does not fit, one that does, its removal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from playwright.sync_api import Page, expect

from influence_core import Study
from tests.e2e.conftest import AppServer

PATIENT = 60_000


def test_a_file_that_fits_becomes_a_source_with_its_origin(page: Page, server: AppServer, tmp_path: Path) -> None:
    study = Study(server.studies / "breast-cancer")
    shares = np.random.default_rng(0).dirichlet([0.5, 0.5], study.n_rows("train"))
    good = pd.DataFrame(shares, columns=list(study.header.classes)).assign(id=study.task.ids("train"))
    good.sample(frac=1, random_state=0).to_csv(tmp_path / "mine.csv", index=False)
    good[:-2].rename(columns={"benign": "<b>good</b>"}).to_csv(tmp_path / "wrong.csv", index=False)

    page.goto(f"{server.url}/?study=breast-cancer")
    expect(page.locator(".st-key-screens")).to_be_visible(timeout=PATIENT)
    page.goto(f"{server.url}/suspects?study=breast-cancer")
    title = page.get_by_text("Your own out-of-fold probabilities")
    expect(title).to_be_visible(timeout=4 * PATIENT)  # the list is computed first
    expect(page.locator(".if-suspects")).to_be_visible(timeout=4 * PATIENT)
    title.click()
    use = page.locator(".st-key-pred_probs_use button")
    page.locator("input[type=file]").set_input_files(tmp_path / "wrong.csv")
    expect(use).to_be_enabled(timeout=PATIENT)
    use.click()
    problem = page.get_by_role("alert").filter(has_text="do not fit the study")
    expect(problem).to_contain_text("no column for benign. <b>good</b> is no class of it", timeout=PATIENT)
    assert not (study.path / "pred_probs.parquet").exists()

    expect(page.locator("input[type=file]")).to_have_count(1, timeout=PATIENT)  # the one with the refused file is gone
    page.locator("input[type=file]").set_input_files(tmp_path / "mine.csv")
    expect(use).to_be_enabled(timeout=PATIENT)
    use.click()
    expect(problem).to_have_count(0, timeout=PATIENT)
    expect(page.get_by_text("Out-of-fold numbers are from probabilities that you gave")).to_be_visible(
        timeout=4 * PATIENT
    )
    expect(page.locator(".if-suspects")).to_be_visible()
    title.click()
    expect(page.get_by_text("Out-of-fold numbers come from mine.csv, given")).to_be_visible(timeout=PATIENT)
    # The list has just been computed: a run that still draws could take the button away under the click.
    expect(page.locator('.stApp[data-test-script-state="notRunning"]')).to_be_visible(timeout=PATIENT)
    remove = page.locator(".st-key-pred_probs_remove button")
    remove.click()
    expect(remove).to_have_count(0, timeout=PATIENT)
    expect(page.get_by_text("Trains five models")).to_be_visible(timeout=PATIENT)
    assert not (study.path / "pred_probs.parquet").exists()
