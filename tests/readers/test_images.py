"""A folder or zip of images becomes a study: classes, splits, tables, sizes, colours, cards."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from influence_core.api import attribute
from influence_core.encoder import ImageEncoder
from influence_core.errors import BadInput, Cancelled
from influence_core.readers import holds_images, import_images, open_images
from influence_core.run import Run
from influence_core.study import Study
from tests.readers.image_cases import contents, encoded, folder_of, picture, zip_of

RUN = Run(device="cpu")


def made(source: Path, out: Path, **options) -> Study:
    with open_images(source, RUN) as images:
        return import_images(images, out / "studies" / "mine", RUN, **options)


def all_rows(study: Study) -> dict[str, dict]:
    return {
        row["id"]: row | {"split": split}
        for split in study.splits
        for row in study.rows(split, range(study.n_rows(split))).to_pylist()
    }


def accuracy(study: Study, split: str) -> float:
    return float((study.task.outputs_of(split).argmax(1).numpy() == study.targets(split)).mean())


def test_class_folders_become_a_study_that_explains(tmp_path: Path) -> None:
    files = contents(60)
    study = made(folder_of(files, tmp_path / "pets"), tmp_path)
    header, rows = study.header, all_rows(study)
    assert (header.modality, header.task, header.classes) == ("image", "classification", ("bright", "dark"))
    assert set(rows) == set(files) and set(study.splits) == {"train", "test", "locked"}
    for name, data in files.items():
        assert rows[name]["label"] == name.split("/")[0]
        assert rows[name]["image"] == np.asarray(Image.open(io.BytesIO(data))).reshape(-1).tolist()
    assert isinstance(study.encoder, ImageEncoder) and study.encoder.size == (1, 12, 12)
    assert study.encoder.picture is None and "picture" not in rows["dark/000.png"]
    train = np.stack([row["image"] for row in rows.values() if row["split"] == "train"]) / 255
    assert study.encoder.mean == pytest.approx((train.mean(),), abs=1e-6)
    assert accuracy(study, "test") == 1.0
    scores = attribute(study, "tracin_cp", test=study.column("test", "id")[:1].tolist(), run=RUN).scores
    assert scores.shape == (1, study.n_rows("train")) and bool(scores.isfinite().all())
    assert [p.name for p in (tmp_path / "studies").iterdir()] == ["mine"]


def test_a_zip_with_a_folder_around_gives_the_same_study(tmp_path: Path) -> None:
    files = contents(40)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    plain = made(folder_of(files, tmp_path / "pets"), tmp_path / "a")
    packed = zip_of({f"pets/{name}": data for name, data in files.items()}, tmp_path / "pets.zip")
    assert made(packed, tmp_path / "b").fingerprint == plain.fingerprint


def test_large_coloured_images_are_reduced_and_keep_a_copy_to_look_at(tmp_path: Path) -> None:
    files = contents(16, (400, 200), "RGB")
    study = made(folder_of(files, tmp_path / "pets"), tmp_path)
    assert study.encoder.shape == (3, 32, 32)
    for name, row in all_rows(study).items():
        image = Image.open(io.BytesIO(files[name]))
        small = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert row["image"] == small.reshape(-1).tolist()
        copy = Image.open(io.BytesIO(row["picture"]))
        assert copy.size == (256, 128) and copy.format == "JPEG"
        assert np.abs(np.asarray(copy).mean((0, 1)) - np.asarray(image).mean((0, 1))).max() < 3


def test_split_folders_are_the_splits(tmp_path: Path) -> None:
    files = contents(40)
    words = ("train", "train", "val", "test")
    named = {f"{words[(i // 2) % 4]}/{name}": data for i, (name, data) in enumerate(files.items())}
    study = made(folder_of(named, tmp_path / "pets"), tmp_path)
    expected = {"train": "train", "val": "test", "test": "locked"}
    assert {name: row["split"] for name, row in all_rows(study).items()} == {
        name: expected[name.split("/")[0]] for name in named
    }


def test_identical_images_share_a_split_whatever_their_files(tmp_path: Path) -> None:
    files = contents(40)
    copies = {f"dark/copy-{i}.bmp": encoded(picture(0, 0), "BMP") for i in range(12)}
    rows = all_rows(made(folder_of(files | copies, tmp_path / "pets"), tmp_path))
    assert {rows[name]["split"] for name in [*copies, "dark/000.png"]} == {rows["dark/000.png"]["split"]}


def test_a_table_beside_the_images_says_what_they_are(tmp_path: Path) -> None:
    files = {f"img/{i:03d}.png": encoded(picture(5 * i, i)) for i in range(30)}
    lines = ["file_name,label,note,image"]
    lines += [f"img/{i:03d}.png,{'high' if i >= 15 else 'low'},n{i},x{i}" for i in range(28)]
    lines += ["img/gone.png,low,,", "../../etc/passwd,low,,", "img/000.png,high,twice,"]
    files["metadata.csv"] = "\n".join(lines).encode()
    study = made(zip_of(files, tmp_path / "pets.zip"), tmp_path)
    rows = all_rows(study)
    assert len(rows) == 28 and study.header.classes == ("high", "low")
    assert all(rows[f"img/{i:03d}.png"]["label"] == ("high" if i >= 15 else "low") for i in range(28))
    assert rows["img/007.png"]["note"] == "n7" and rows["img/007.png"]["original image"] == "x7"
    said = " ".join(study.header.notes)
    for part in ("2 rows name no image", "img/gone.png", "a second time", "2 images that no row names"):
        assert part in said


def test_numbers_as_labels_make_a_regression(tmp_path: Path) -> None:
    files = {f"{i:03d}.png": encoded(picture(3 * i, i)) for i in range(60)}
    table = "".join(f'{{"file_name": "{i:03d}.png", "age": {20 + i / 2 + 0.01}}}\n' for i in range(60))
    files["metadata.jsonl"] = table.encode()
    study = made(folder_of(files, tmp_path / "faces"), tmp_path, label="age")
    assert study.header.task == "regression" and study.header.classes == ()
    said, given = study.task.outputs_of("test").numpy().reshape(-1), study.targets("test")
    assert np.abs(said - given).mean() < 0.3 * np.abs(given - given.mean()).mean()


def test_what_the_source_says_before_an_import(tmp_path: Path) -> None:
    files = contents(30) | {"dark/wide.png": encoded(picture(0, 99, (40, 20))), "readme.txt": b"x", ".DS_Store": b"x"}
    with open_images(folder_of(files, tmp_path / "pets"), RUN) as images:
        assert (images.n_rows, images.classes) == (31, {"bright": 15, "dark": 16})
        assert images.sizes == {(12, 12): 30, (40, 20): 1} and images.side == 32 and images.label == "folder"
        assert images.notes == ("1 files that are no images were left out: readme.txt.",)
        shown = images.head(4)
        assert [label for _, label in shown] == ["bright", "dark"] * 2 or {label for _, label in shown} == {
            "bright",
            "dark",
        }
        assert all(Image.open(io.BytesIO(data)).size == (12, 12) for data, _ in shown)


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({}, "no images"), ({"a.txt": b"x"}, "no images"),
        ({f"{i}.png": encoded(picture(0, i)) for i in range(5)}, "no label"),
        ({f"only/{i}.png": encoded(picture(0, i)) for i in range(5)}, "no label"),
        ({f"{c}/x.png": encoded(picture(0, 1)) for c in "ab"}, "no rows"),
    ],
)  # fmt: skip
def test_what_makes_no_study_is_refused(files: dict, what: str, tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    with pytest.raises(BadInput, match=what):
        made(folder_of(files, tmp_path / "pets"), tmp_path)
    assert not list(tmp_path.glob("studies/*")) and not list(tmp_path.glob("studies/.*"))


def test_an_import_can_be_stopped_anywhere_and_leaves_no_study(tmp_path: Path) -> None:
    folder = folder_of(contents(40), tmp_path / "pets")
    stages: list[str] = []
    made_with = Run(device="cpu", progress=lambda stage, done, total: stages.append(stage))
    with open_images(folder, made_with) as images:
        import_images(images, tmp_path / "whole", made_with)
    for stop in ("looking", "reading", "dividing", "writing", "fitting", "encoding", "training"):
        at = [i for i, stage in enumerate(stages) if stage.startswith(stop)]
        assert at, stop
        seen: list[str] = []

        def cancel(seen: list[str] = seen, stop: str = stop) -> bool:
            return bool(seen) and seen[-1].startswith(stop)

        run = Run(device="cpu", progress=lambda stage, done, total, seen=seen: seen.append(stage), cancel=cancel)
        with pytest.raises(Cancelled), open_images(folder, run) as images:
            import_images(images, tmp_path / "studies" / "mine", run)
        assert all(p.name.startswith(".mine-importing-") for p in (tmp_path / "studies").glob("*"))


def test_images_and_tables_are_told_apart(tmp_path: Path) -> None:
    assert holds_images(folder_of(contents(2), tmp_path / "pets"))
    assert holds_images(zip_of(contents(2), tmp_path / "pets.zip"))
    assert not holds_images(zip_of({"a.csv": b"a,b\n1,2\n"}, tmp_path / "a.zip"))
    (tmp_path / "b.csv").write_text("a,b\n1,2\n")
    assert not holds_images(tmp_path / "b.csv")


def test_cards_show_the_larger_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import base64

    from influence_core import service

    study = made(folder_of(contents(40, (80, 80)), tmp_path / "pets"), tmp_path)
    monkeypatch.setenv("INFLUENCE_STUDIES", str(study.path.parent))
    row = study.column("train", "id")[0]
    card = service.row_card("mine", "train", row, "tracin_cp").datum
    assert card.image is not None and card.image.startswith("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(card.image.split(",")[1]))).size == (80, 80)
    assert service.input_attribution("mine", "train", row).image is not None


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_images_pass_in_bounded_memory(tmp_path: Path) -> None:
    import resource

    files = contents(200, (28, 28))
    folder = tmp_path / "pets"
    for i in range(100_000):
        name = f"{('dark', 'bright')[i % 2]}/{i:06d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(files[f"{('dark', 'bright')[i % 2]}/{i % 200:03d}.png"] + i.to_bytes(4, "big"))
    study = made(folder, tmp_path)
    assert sum(study.n_rows(split) for split in study.splits) == 100_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < 2 << 30


@pytest.mark.slow
def test_two_thousand_images_are_learned(tmp_path: Path) -> None:
    files = contents(2_000, (64, 64), "RGB")
    study = made(zip_of(files, tmp_path / "pets.zip"), tmp_path)
    assert accuracy(study, "test") > 0.95
