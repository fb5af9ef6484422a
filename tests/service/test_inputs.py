"""Input attribution: it adds up, and what is drawn is what was computed."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from influence_core import Study, service
from influence_core.errors import Unavailable
from influence_core.service import InfluenceError
from influence_core.workflows.input_attribution import integrated_gradients
from tests.service.test_catalog import MODELS, frame_of, inputs_of, model_of, table_of
from tests.small_studies import CLASSES, COLUMNS


def neutral_of(path: Path) -> float:
    encoder = json.loads((path / "encoder.json").read_text())
    return -encoder["mean"] / encoder["std"] if encoder["kind"] == "image" else 0.0


def path_sum(model: torch.nn.Module, row: torch.Tensor, target: int, neutral: float) -> np.ndarray:
    """Integrated gradients by the midpoint rule in 4000 steps, in float64."""
    model, row = model.double(), row.double()
    start = torch.full_like(row, neutral)
    share = ((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000).reshape(-1, *[1] * row[0].dim())
    points = (start + share * (row - start)).requires_grad_()
    (gradient,) = torch.autograd.grad(model(points)[:, target].sum(), points)
    return ((row - start)[0] * gradient.mean(0)).numpy()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("target", range(3))
def test_contributions_add_up_to_the_difference_of_the_logits(name: str, target: int, studies: Path) -> None:
    task, inputs = Study(studies / name).task, inputs_of(studies / name, "test")
    model, neutral = model_of(studies / name), neutral_of(studies / name)
    for position in range(4):
        row = inputs[position : position + 1]
        found = integrated_gradients(task, row, target, neutral)
        assert found.values.shape == row.shape[1:]
        with torch.no_grad():
            rise = float(model(row)[0, target] - model(torch.full_like(row, neutral))[0, target])
        assert abs(float(found.values.sum()) - rise) == pytest.approx(found.gap, abs=1e-4)
        assert found.gap <= 0.02 * max(1.0, abs(rise))  # ReLU: the path sum has kinks between its 64 steps
        expected = path_sum(model_of(studies / name), row, target, neutral)
        np.testing.assert_allclose(found.values.numpy(), expected, rtol=0, atol=0.02 * max(1.0, np.abs(expected).max()))


def test_a_linear_model_is_told_exactly(studies: Path) -> None:
    task, inputs = Study(studies / "linear").task, inputs_of(studies / "linear", "test")
    weights = model_of(studies / "linear").state_dict()["1.weight"]
    for target in range(3):
        found = integrated_gradients(task, inputs[:1], target, 0.0)
        np.testing.assert_allclose(found.values.numpy(), (weights[target] * inputs[0]).numpy(), rtol=0, atol=1e-5)
        assert found.gap < 1e-4


@pytest.mark.parametrize("name", ["table", "linear"])
@pytest.mark.parametrize("target", ["predicted", "true", "cat"])
def test_columns_are_listed_by_strength_for_the_label_asked_for(name: str, target: str, studies: Path) -> None:
    rows = frame_of(studies / name, "test")
    for position in (0, 6):
        label = {"predicted": rows["predicted"][position], "true": rows["given"][position]}.get(target, target)
        shown = service.input_attribution(name, "test", rows["id"].tolist()[position], target)
        row = inputs_of(studies / name, "test")[position : position + 1]
        expected = path_sum(model_of(studies / name), row, CLASSES.index(label), 0.0)
        found = dict(shown.parts)
        assert set(found) == set(COLUMNS) and shown.image is None
        assert [found[column] for column in COLUMNS] == pytest.approx(
            expected.tolist(), abs=0.02 * np.abs(expected).max()
        )
        strengths = [abs(value) for _, value in shown.parts]
        assert strengths == sorted(strengths, reverse=True)
        assert f"the logit of {label}," in shown.note and f"for {label}: {shown.parts[0][0]}" in shown.alt


def test_the_map_is_green_where_pixels_speak_for_the_label(studies: Path) -> None:
    rows, pixels = frame_of(studies / "image", "test"), table_of(studies / "image", "test")["pixels"]
    for position in (0, 5):
        shown = service.input_attribution("image", "test", int(rows["id"][position]))
        assert shown.image is not None and shown.image.startswith("data:image/png;base64,") and shown.parts == ()
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.image.partition(",")[2]))), dtype=float)
        assert picture.shape == (8, 8, 3)
        target = CLASSES.index(rows["predicted"][position])
        row = inputs_of(studies / "image", "test")[position : position + 1]
        task = Study(studies / "image").task
        values = integrated_gradients(task, row, target, neutral_of(studies / "image")).values[0].numpy()
        strength = np.clip(values, 0, None) / values.max()
        grey = 255 - 0.35 * np.asarray(pixels[position], dtype=float).reshape(8, 8)
        for channel, ink in enumerate((0, 158, 115)):
            np.testing.assert_allclose(picture[..., channel], grey * (1 - strength) + ink * strength, rtol=0, atol=0.51)
        assert rows["predicted"][position] in shown.note and rows["predicted"][position] in shown.alt


def test_what_is_no_tensor_of_real_numbers_is_refused(studies: Path) -> None:
    task = Study(studies / "table").task
    for inputs in (torch.zeros(1, 4, dtype=torch.long), {"x": torch.zeros(1, 4)}):
        with pytest.raises(Unavailable, match="The input cannot be attributed"):
            integrated_gradients(task, inputs, 0, 0.0)


@pytest.mark.parametrize(
    "change", [{"split": "none"}, {"row_id": 3}, {"row_id": "x"}, {"target": "dog"}, {"target": ""}]
)
def test_a_bad_request_is_explained(change: dict, studies: Path) -> None:
    words = {"split": "test", "row_id": int(frame_of(studies / "table", "test")["id"][0]), "target": "true", **change}
    with pytest.raises(InfluenceError) as caught:
        service.input_attribution("table", words["split"], words["row_id"], words["target"])
    assert caught.value.what and caught.value.why and caught.value.fix
