"""Data sets of the ``datasets`` library: saved folders, files with its features, and names on the hub."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from influence_core.errors import BadInput
from influence_core.readers import (
    guessed_roles,
    holds_images,
    hub,
    import_images,
    import_table,
    open_images,
    open_source,
)
from influence_core.run import Run
from influence_core.study import Study
from tests.readers.image_cases import encoded, picture

RUN = Run(device="cpu")
CLASSES = ["low", "high"]


def image_set(n: int, first: int = 0, **more: Any) -> Dataset:
    values = {
        "image": [{"bytes": encoded(picture(150 * (i % 2), first + i)), "path": f"{i}.png"} for i in range(n)],
        "label": [i % 2 for i in range(n)],
        **more,
    }
    kinds = {name: Value("string") for name in more}
    return Dataset.from_dict(values, Features({"image": ImageFeature(), "label": ClassLabel(names=CLASSES), **kinds}))


def text_set(n: int, first: int = 0) -> Dataset:
    kinds = Features({"text": Value("string"), "label": ClassLabel(names=["ham", "spam"])})
    texts = [
        f"{('see you at dinner tomorrow', 'win a cash prize now claim')[i % 2]} number {first + i}" for i in range(n)
    ]
    return Dataset.from_dict({"text": texts, "label": [i % 2 for i in range(n)]}, kinds)


def made(source: Path | str, out: Path) -> Study:
    with open_images(source, RUN) as images:
        return import_images(images, out / "mine", RUN)


def check_images(study: Study, n: int) -> None:
    assert study.header.classes == ("high", "low")
    assert sum(study.n_rows(split) for split in study.splits) == n
    for split in study.splits:
        for row in study.rows(split, range(study.n_rows(split))).to_pylist():
            assert row["label"] == ("high" if np.mean(row["image"]) > 100 else "low")


def test_a_saved_data_set_of_images_becomes_a_study(tmp_path: Path) -> None:
    image_set(40, caption=[f"c{i}" for i in range(40)]).save_to_disk(tmp_path / "saved")
    assert holds_images(tmp_path / "saved")
    study = made(tmp_path / "saved", tmp_path)
    check_images(study, 40)
    row = study.rows("train", [0]).to_pylist()[0]
    data = encoded(picture(150 * ((int(row["id"]) - 1) % 2), int(row["id"]) - 1))
    assert row["image"] == np.asarray(Image.open(io.BytesIO(data))).reshape(-1).tolist()
    assert row["caption"] == f"c{int(row['id']) - 1}"


def test_the_splits_of_a_saved_dictionary_are_the_splits(tmp_path: Path) -> None:
    parts = {"train": image_set(20), "validation": image_set(10, 100), "test": image_set(8, 200), "extra": image_set(3)}
    DatasetDict(parts).save_to_disk(tmp_path / "saved")
    study = made(tmp_path / "saved", tmp_path)
    check_images(study, 38)
    assert {split: study.n_rows(split) for split in study.splits} == {"train": 20, "test": 10, "locked": 8}
    assert any("extra" in note for note in study.header.notes)
    assert all(str(row).startswith("train/") for row in study.column("train", "id"))


def test_parquet_files_with_images_are_read_with_their_class_names(tmp_path: Path) -> None:
    folder = tmp_path / "repository" / "data"
    folder.mkdir(parents=True)
    image_set(16).to_parquet(folder / "train-00000-of-00002.parquet")
    image_set(16, 50).to_parquet(folder / "train-00001-of-00002.parquet")
    image_set(10, 100).to_parquet(folder / "test-00000-of-00001.parquet")
    study = made(tmp_path / "repository", tmp_path)
    check_images(study, 42)
    assert study.n_rows("train") == 32
    alone = tmp_path / "alone.parquet"  # structures without a word of the library
    pq.write_table(pa.table({"photo": image_set(30).with_format("arrow")[:]["image"], "y": CLASSES * 15}), alone)
    assert holds_images(alone)
    check_images(made(alone, tmp_path / "b"), 30)


def test_texts_of_a_saved_dictionary_keep_splits_and_class_names(tmp_path: Path) -> None:
    DatasetDict(train=text_set(60), test=text_set(30, 100)).save_to_disk(tmp_path / "saved")
    assert not holds_images(tmp_path / "saved")
    with open_source(tmp_path / "saved", RUN) as source:
        assert source.names == ("text", "label", "split") and source.n_rows == 90
        study = import_table(source, guessed_roles(source, "label").changed(text="text"), tmp_path / "mine", RUN)
    assert study.header.classes == ("ham", "spam") and study.n_rows("train") == 60
    text_set(50).to_parquet(tmp_path / "one.parquet")
    with open_source(tmp_path / "one.parquet", RUN) as source:
        assert set(source.head(50)["label"].to_pylist()) == {"ham", "spam"}


def test_a_hidden_label_is_a_missing_one() -> None:
    feature = {"_type": "ClassLabel", "names": ["a", "b"]}
    assert hub.decoded(pa.chunked_array([[0, -1, 1, None, 7]]), feature).to_pylist() == ["a", None, "b", None, None]


@pytest.mark.parametrize("name", ["../outside.arrow", "/etc/passwd", "a/b.arrow", "", None, "..", 3])
def test_file_lists_that_lead_elsewhere_are_refused(name: object, tmp_path: Path) -> None:
    image_set(4).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(BadInput, match="damaged"):
        open_images(tmp_path / "saved", RUN)
    DatasetDict(train=text_set(4)).save_to_disk(tmp_path / "dict")
    (tmp_path / "dict" / "dataset_dict.json").write_text(json.dumps({"splits": [name]}))
    with pytest.raises(BadInput, match="damaged"):
        open_source(tmp_path / "dict", RUN)


def test_links_among_the_files_are_refused(tmp_path: Path) -> None:
    image_set(4).save_to_disk(tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("*.arrow")
    file.rename(tmp_path / "elsewhere.arrow")
    file.symlink_to(tmp_path / "elsewhere.arrow")
    with pytest.raises(BadInput, match="leads elsewhere"):
        open_images(tmp_path / "saved", RUN)


def test_paths_in_a_data_set_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(encoded(picture(0, 1)))
    rows = [{"bytes": None, "path": str(tmp_path / "secret.png")}] * 3
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(rows, kind), "label": ["a", "b", "a"]}), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match="Most of the images"):
        open_images(tmp_path / "a.parquet", RUN)


@pytest.mark.parametrize("damage", ["cut", "json", "empty"])
def test_damaged_data_sets_are_refused(damage: str, tmp_path: Path) -> None:
    image_set(40).save_to_disk(tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("*.arrow")
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:3000])
    else:
        (tmp_path / "saved" / "state.json").write_text("{" if damage == "json" else "{}")
    with pytest.raises(BadInput, match="damaged"):
        open_images(tmp_path / "saved", RUN)


def test_a_name_on_the_hub_is_asked_of_the_library_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def load(name: str, config: str | None) -> DatasetDict:
        asked.append((name, config))
        return DatasetDict(train=image_set(20), test=image_set(10, 100))

    monkeypatch.setattr(hub, "load", load)
    check_images(made("hf:owner/pets:small", tmp_path), 30)
    assert set(asked) == {("owner/pets", "small")}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionError("no route to host"), "The hub cannot be reached"),
        (RuntimeError("Offline mode is enabled"), "The hub cannot be reached"),
        (ValueError("Config name is missing. Please pick one of: a, b"), "cannot be loaded from the hub.*pick one"),
    ],
)
def test_a_hub_that_does_not_answer_is_one_message(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str, config: str | None) -> None:
        raise error

    monkeypatch.setattr(hub, "load", load)
    with pytest.raises(BadInput, match=f"{said}.*save_to_disk"):
        open_images("hf:owner/pets", RUN)


@pytest.mark.parametrize("name", ["hf:", "hf:../x", "hf:a/b/c", "hf:https://x", "hf:a b"])
def test_what_is_no_name_on_the_hub_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="no name on the hub"):
        open_source(name, RUN)
