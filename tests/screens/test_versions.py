"""Every screen on a version, with the real service: what works on a study works on its versions."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from influence_core import Study, service
from influence_core.__main__ import main
from influence_core.changes import Change
from influence_core.run import Run
from influence_core.workflows.projection import ProjectionConfig, found_projection
from influence_core.workflows.retraining import retrain
from tests.screens.conftest import ROOT, markup

SCREENS = ("overview", "explain", "row", "suspects", "review", "map", "compare", "trust", "methods", "decisions")


@pytest.fixture(scope="module")
def study(studies_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A study with a version in which the planted errors are mended."""
    folder = tmp_path_factory.mktemp("versions") / "table"
    shutil.copytree(studies_folder / "table", folder, ignore=shutil.ignore_patterns("cache", "trust", "jobs.sqlite*"))
    made = Study(folder)
    assert made.planted is not None and made.true_labels is not None
    ids, given = made.column("train", "id").tolist(), made.column("train", "label").tolist()
    changes = [
        Change("train", ids[i], "relabel", given[i], str(made.true_labels[i])) for i in np.flatnonzero(made.planted)
    ]
    version = retrain(made, changes, "mended", Run(store=made.store), 2)
    assert version.id == "v1"
    yield folder


@pytest.fixture
def served(study: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INFLUENCE_STUDIES", str(study.parent))
    monkeypatch.setattr("influence_core.service.tasks.ensure_worker", lambda folder: True)
    return study


@pytest.mark.parametrize("screen", SCREENS)
def test_a_screen_opens_on_a_version(served: Path, screen: str) -> None:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.query_params["study"] = "table@v1"
    if screen == "row":
        app.query_params["split"], app.query_params["row"] = "train", str(Study(served).column("train", "id")[0])
    if screen != "overview":
        app.switch_page(f"pages/screens/{screen}.py")
    app.run()
    page = markup(app)
    assert not app.exception
    assert page.count("if-problem") == page.count("⚠ Alarm"), page[-2000:]  # Compare's alarm has the same frame
    chosen = next(box for box in app.sidebar.selectbox if box.label == "Version")
    assert chosen.value == "v1" and chosen.options == ["original", "mended"]


def test_a_version_is_projected_by_itself(served: Path) -> None:
    assert main(["project", f"{served}@v1", "--kind", "pca"]) == 0
    whole, version = Study(served), Study.open(f"{served}@v1")
    config = ProjectionConfig.checked({"kind": "pca"})
    assert version.fingerprint != whole.fingerprint
    assert found_projection(version.fingerprint, config, Run(store=version.store)) is not None
    found = service.map_points("table@v1", service.MapRequest(drawn="pca"))
    assert isinstance(found, service.MapView) and found.drawn == "pca"
    before = dict(zip(found.points.ids, found.points.labels, strict=True))
    assert before[whole.column("train", "id").tolist()[1]] == whole.true_labels[1]  # as it was mended
