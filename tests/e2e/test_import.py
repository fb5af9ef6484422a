"""From an empty studies folder to the rows behind a mistake: a file, two clicks, and nothing lost on the way."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.e2e.conftest import ROOT, AppServer
from tests.e2e.first_proponents import PATIENT, Visit

DATA = ROOT.parent / "shared" / "data"
FILE, COMPAS = DATA / "sms-spam.csv", DATA / "compas-scores-two-years.csv"
N_IMAGES = 2000

with_shared = pytest.mark.skipif(not FILE.is_file() or not COMPAS.is_file(), reason="shared/data is not beside this")


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """An empty folder of studies."""
    (tmp_path / "studies").mkdir()
    return tmp_path / "studies"


@pytest.fixture
def visit(page: Page, start_server: Callable[[Path], AppServer], studies: Path) -> Visit:
    return Visit(page, start_server(studies).url)


@with_shared
@pytest.mark.timeout(400)
def test_a_file_becomes_proponents_in_a_few_clicks(visit: Visit, studies: Path) -> None:
    visit.choose(FILE, "4,837 rows")
    visit.imported()
    visit.reached("sms-spam")
    assert not list((studies / ".uploads").iterdir())  # imported: the upload is not kept twice


@with_shared
@pytest.mark.timeout(400)
def test_one_more_click_leaves_out_what_gives_the_label_away(visit: Visit, studies: Path) -> None:
    visit.choose(COMPAS, "7,214 rows")
    visit.page.get_by_text("may give the label away").wait_for(timeout=PATIENT)
    visit.click("Leave them out")
    expect(visit.page.get_by_text("may give the label away")).to_be_hidden(timeout=PATIENT)
    visit.imported()
    visit.reached("compas-scores-two-years")
    header = (studies / "compas-scores-two-years" / "study.toml").read_text(encoding="utf-8")
    names = header[header.index("feature_names") :].split("]", 1)[0]
    assert "priors_count" in names and "is_recid" not in names


def image_zip(path: Path) -> Path:
    """Digits of scikit-learn, each shifted and made larger, in a folder for each class."""
    from sklearn.datasets import load_digits

    digits, draw = load_digits(), np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(N_IMAGES):
            row = i % len(digits.target)
            small = Image.fromarray((digits.images[row] * 15.9).astype(np.uint8)).resize((24, 24))
            image = Image.new("L", (28, 28))
            image.paste(small, tuple(draw.integers(0, 5, 2).tolist()))
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            archive.writestr(f"written/{digits.target[row]}/{i:04d}.png", buffer.getvalue())
    return path


@pytest.mark.timeout(400)
def test_a_zip_of_images_becomes_proponents(visit: Visit, tmp_path: Path) -> None:
    visit.choose(image_zip(tmp_path / "written.zip"), f"{N_IMAGES:,} images")
    pictures = visit.page.get_by_role("img", name="Image labelled")
    expect(pictures).to_have_count(24, timeout=PATIENT)
    expect(visit.page.get_by_text("10 classes")).to_be_visible()
    visit.imported()
    visit.reached("written")


@pytest.mark.timeout(400)
def test_a_torch_file_with_checkpoints_becomes_proponents(
    page: Page, start_server: Callable[..., AppServer], tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.monotonic()
    for words, folder in (["-m", "influence_core", "init", str(mine)], ROOT), (["train.py"], mine):
        done = subprocess.run([sys.executable, *words], cwd=folder, env=here, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    path = os.pathsep.join((str(mine), str(ROOT)))
    server = start_server(mine / "studies", {"INFLUENCE_MODELS": "model:make_net", "PYTHONPATH": path})
    spent = time.monotonic() - start
    visit = Visit(page, server.url)
    visit.already(spent)
    page.get_by_role("link", name="Explain", exact=True).click(timeout=PATIENT)
    visit.interactions += 1 + 3  # two commands, the app's start, one click
    visit.reached("own-loop")


@with_shared
@pytest.mark.timeout(400)
def test_a_running_import_is_found_after_a_restart_and_can_be_discarded(
    page: Page, start_server: Callable[[Path], AppServer], studies: Path, tmp_path: Path
) -> None:
    server = start_server(studies)
    # Long enough to be met at work by a person: a file of a few thousand rows is done before anybody can cancel.
    long = tmp_path / "sms-spam.csv"
    table = pd.read_csv(FILE)
    copies = [table.assign(text=table["text"] + f" ({k})") for k in range(15)]
    pd.concat(copies).to_csv(long, index=False)
    page.goto(f"{server.url}/import")
    page.locator("input[type=file]").set_input_files(long, timeout=PATIENT)
    page.get_by_role("button", name="Import and train").click(timeout=PATIENT)
    expect(page.get_by_role("progressbar")).to_be_visible(timeout=PATIENT)

    server.restart(signal.SIGKILL)
    page.goto(f"{server.url}/import")  # a bare address, as from another browser
    expect(page.get_by_text("Importing sms-spam")).to_be_visible(timeout=PATIENT)
    assert len(list((studies / ".uploads").iterdir())) == 1, "the file was kept more than once"
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Importing sms-spam was cancelled")).to_be_visible(timeout=PATIENT)
    page.get_by_role("button", name="Discard").click()
    expect(page.get_by_text("Importing sms-spam was cancelled")).to_be_hidden(timeout=PATIENT)
    # A poll of the page may come between the removal of the folder and that of the file.
    for _ in range(100):
        if not (studies / "sms-spam").exists() and not list((studies / ".uploads").iterdir()):
            break
        page.wait_for_timeout(100)
    assert not (studies / "sms-spam").exists() and not list((studies / ".uploads").iterdir())
