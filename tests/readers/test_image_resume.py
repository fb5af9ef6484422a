"""An import of images that was stopped or killed goes on where it was: no decoded image is decoded again."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from influence_core import default_model, scratch, trajectory
from influence_core.errors import BadInput, Cancelled, StoreProblem
from influence_core.readers import image_decoding, import_images, limits, open_images, partial
from influence_core.run import Run
from influence_core.study import Study
from tests.readers.image_cases import contents, encoded, folder_of, picture, zip_of
from tests.readers.kills import content, killed

N, BATCH = 80, 16
READING = "reading the images"
LATER = [
    "dividing the images", "writing the images", "fitting the encoder", "encoding the train rows", "training",
]  # fmt: skip
KINDS = ["folder", "zip", "table", "data set"]

_IMPORT = """
import hashlib, sys, time
from pathlib import Path
from influence_core import default_model, trajectory
from influence_core.readers import image_decoding, import_images, limits, open_images, partial
from influence_core.run import Run
trajectory._KEEP_SECONDS = partial._SETTLE_SECONDS = image_decoding._PART_SECONDS = 0.0
limits.IMAGES_AT_ONCE, default_model._IMAGE_STEPS = 16, 20
decode = image_decoding.opened_picture
def decoded(data):
    with open(sys.argv[3], "a") as log:
        log.write(hashlib.md5(data).hexdigest() + "\\n")
    return decode(data)
image_decoding.opened_picture = decoded
def progress(stage, done, total):
    print(f"{stage} {done}", flush=True)
    time.sleep(float(sys.argv[4]))
run = Run(device="cpu", progress=progress)
with open_images(sys.argv[1], run) as images:
    import_images(images, Path(sys.argv[2]), run)
"""


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trajectory, "_KEEP_SECONDS", 0.0)
    monkeypatch.setattr(partial, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(image_decoding, "_PART_SECONDS", 0.0)
    monkeypatch.setattr(limits, "IMAGES_AT_ONCE", BATCH)
    monkeypatch.setattr(default_model, "_IMAGE_STEPS", 20)  # a short training


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The content of every image that is decoded from here on."""
    seen: list[str] = []
    real = image_decoding.opened_picture

    def opened(data: bytes):
        seen.append(md5(data))
        return real(data)

    monkeypatch.setattr(image_decoding, "opened_picture", opened)
    return seen


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def files() -> dict[str, bytes]:
    """Some in colour and larger than the model's images, and one that cannot be decoded."""
    large = {f"dark/big{i}.png": encoded(picture(0, 900 + i, (40, 40), "RGB")) for i in range(3)}
    cut = {"bright/cut.png": encoded(picture(150, 999))[:-40]}
    return dict(sorted((contents(N - 4) | large | cut).items()))


def table(files: dict[str, bytes], note: str = "note", last: str = "bright") -> bytes:
    names = list(files)
    lines = [f"file_name,label,{note}", *(f"{n},{n.split('/')[0]},n{i}" for i, n in enumerate(names[:-1]))]
    return "\n".join([*lines, f"{names[-1]},{last},end"]).encode()


def source(kind: str, path: Path, files: dict[str, bytes]) -> Path:
    if kind == "folder":
        return folder_of(files, path / "pets")
    if kind == "zip":
        return zip_of(files, path / "pets.zip")
    if kind == "table":
        return folder_of(files | {"metadata.csv": table(files)}, path / "pets")
    cells = pa.array([{"bytes": data, "path": None} for data in files.values()])
    labels = pa.array([name.split("/")[0] for name in files])
    pq.write_table(pa.table({"image": cells, "label": labels}), path / "pets.parquet")
    return path / "pets.parquet"


def imported(images: Path, out: Path, run: Run | None = None) -> Path:
    run = run or Run(device="cpu")
    with open_images(images, run) as opened:
        import_images(opened, out, run)
    return out


def stopped(images: Path, out: Path, stage: str, at: int = 0) -> None:
    """Cancel at the ``at``-th report of a stage."""
    seen: list[str] = []
    run = Run(
        device="cpu", progress=lambda said, done, total: seen.append(said),
        cancel=lambda: sum(said.startswith(stage) for said in seen) > at,
    )  # fmt: skip
    with pytest.raises(Cancelled):
        imported(images, out, run)
    assert not out.exists()


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp("given")
        made[kind] = source(kind, folder, files())
    return made


_whole: dict[str, dict[str, bytes]] = {}


def whole(given: dict[str, Path], kind: str, folder: Path) -> dict[str, bytes]:
    """Return what an import of these images makes that nobody disturbs."""
    if kind not in _whole:
        _whole[kind] = content(imported(given[kind], folder / "whole" / "study"))
    return _whole[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_images_that_are_decoded_are_not_decoded_again(
    given: dict[str, Path], tmp_path: Path, decodings: list[str], kind: str
) -> None:
    out, expected = tmp_path / "made" / "study", whole(given, kind, tmp_path)
    decodings.clear()
    stopped(given[kind], out, READING, 2)
    assert len(decodings) == 2 * BATCH
    stopped(given[kind], out, READING, 4)
    assert len(decodings) == 4 * BATCH
    reports: list[tuple[float, float]] = []

    def progress(said: str, done: float, total: float) -> None:
        if said == READING:
            reports.append((done, total))

    imported(given[kind], out, Run(device="cpu", progress=progress))
    assert Counter(decodings) == Counter(md5(data) for data in files().values())
    assert reports == [(i, 5) for i in range(6)]
    assert content(out) == expected
    assert [path.name for path in out.parent.iterdir()] == ["study"]


@pytest.mark.parametrize("stage", LATER)
def test_whatever_stage_it_stopped_in_the_study_is_the_same(
    given: dict[str, Path], tmp_path: Path, decodings: list[str], stage: str
) -> None:
    out, expected = tmp_path / "made" / "study", whole(given, "folder", tmp_path)
    stopped(given["folder"], out, stage, 3 if stage == "training" else 0)
    (kept,) = out.parent.iterdir()
    late = LATER.index(stage) >= 2
    assert len(list(kept.glob("decoded-*"))) == (0 if late else 10), "decoded images go once their rows are recorded"
    decodings.clear()
    seen: set[str] = set()
    imported(given["folder"], out, Run(device="cpu", progress=lambda said, done, total: seen.add(said)))
    assert decodings == [] and content(out) == expected
    assert not late or not {READING, *LATER[:2]} & seen
    assert stage != "training" or not set(LATER[:4]) & seen


@pytest.mark.parametrize("damage", ["cut", "gone", "no record"])
def test_only_a_damaged_part_is_decoded_again(
    given: dict[str, Path], tmp_path: Path, decodings: list[str], damage: str
) -> None:
    out, expected = tmp_path / "made" / "study", whole(given, "folder", tmp_path)
    stopped(given["folder"], out, LATER[0])
    (kept,) = out.parent.iterdir()
    part, record = kept / "decoded-2.parquet", kept / "decoded-2.json"
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:-100])
    elif damage == "gone":
        part.unlink()
    else:
        record.write_text("{")
    decodings.clear()
    imported(given["folder"], out)
    assert len(decodings) == BATCH and content(out) == expected


def changed_file(folder: Path) -> None:
    (folder / "dark" / "000.png").write_bytes(encoded(picture(0, 7_000)))


def removed_file(folder: Path) -> None:
    (folder / "dark" / "000.png").unlink()
    (folder / "metadata.csv").write_bytes((folder / "metadata.csv").read_bytes().replace(b"dark/000.png", b"gone.png"))


def added_file(folder: Path) -> None:
    (folder / "dark" / "zzz.png").write_bytes(encoded(picture(0, 7_001)))
    (folder / "metadata.csv").write_bytes((folder / "metadata.csv").read_bytes() + b"\ndark/zzz.png,dark,new")


def changed_label(folder: Path) -> None:
    (folder / "metadata.csv").write_bytes(table(files(), last="bright"))


def renamed_column(folder: Path) -> None:
    (folder / "metadata.csv").write_bytes(table(files(), note="remark", last="dark"))


@pytest.mark.parametrize("change", [changed_file, removed_file, added_file, changed_label, renamed_column])
@pytest.mark.parametrize("stage", [READING, "training"])
def test_other_images_or_another_table_begin_anew(tmp_path: Path, decodings: list[str], change, stage: str) -> None:
    folder, out = source("folder", tmp_path, files()), tmp_path / "made" / "study"
    (folder / "metadata.csv").write_bytes(table(files(), last="dark"))
    stopped(folder, out, stage, 3)
    (kept,) = out.parent.iterdir()
    change(folder)
    decodings.clear()
    imported(folder, out)
    assert len(decodings) == N + {"added_file": 1, "removed_file": -1}.get(change.__name__, 0)
    assert not kept.exists()
    assert content(out) == content(imported(folder, tmp_path / "anew" / "study"))


def test_files_that_were_only_touched_are_the_same_images(tmp_path: Path, decodings: list[str]) -> None:
    folder, out = source("folder", tmp_path, files()), tmp_path / "made" / "study"
    stopped(folder, out, READING, 2)
    for name, data in files().items():
        (folder / name).unlink()
        (folder / name).write_bytes(data)
    imported(folder, out)
    assert len(decodings) == N


def test_an_image_that_changes_while_it_is_imported_is_left_out_and_said(tmp_path: Path, decodings: list[str]) -> None:
    folder, out = source("folder", tmp_path, files()), tmp_path / "made" / "study"
    first = next(path for path in files() if path.startswith("bright"))
    seen: list[str] = []
    run = Run(device="cpu", progress=lambda said, done, total: seen.append(said), cancel=lambda: LATER[0] in seen)
    with open_images(folder, run) as images:
        (folder / first).write_bytes(encoded(picture(0, 7_000)))  # dark, and never looked at
        assert len(images.head(N)) == N - 2
        with pytest.raises(Cancelled):
            import_images(images, out, run)
    folder_of({first: files()[first]}, folder)  # it is what it was again: the same import, and still nothing mixed
    decodings.clear()
    study = Study(imported(folder, out))
    assert decodings == []
    ids = {row for split in study.splits for row in study.column(split, "id").tolist()}
    assert ids == set(files()) - {first, "bright/cut.png"}
    assert f"1 image was left out (the image changed during the import): {first}" in " ".join(study.header.notes)


def test_another_label_begins_anew(tmp_path: Path, decodings: list[str]) -> None:
    folder, out = source("table", tmp_path, files()), tmp_path / "made" / "study"
    stopped(folder, out, READING, 2)
    decodings.clear()
    with open_images(folder, Run(device="cpu")) as images:
        study = import_images(images, out, Run(device="cpu"), label="folder")
    assert len(decodings) == N and study.header.classes == ("bright", "dark")
    assert [path.name for path in out.parent.iterdir()] == ["study"]


def test_refusals_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = contents(10) | {f"dark/cut{i}.png": encoded(picture(0, 50 + i))[:-40] for i in range(30)}
    out = tmp_path / "made" / "study"
    with pytest.raises(BadInput, match="Most of the images"):
        imported(folder_of(most, tmp_path / "most"), out)
    assert list(out.parent.iterdir()) == []

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    folder = source("folder", tmp_path, files())
    with open_images(folder, Run(device="cpu")) as images, monkeypatch.context() as patch:
        patch.setattr(image_decoding.pq.ParquetWriter, "write_table", full)
        with pytest.raises(StoreProblem):
            import_images(images, out, Run(device="cpu"))
    assert list(out.parent.iterdir()) == []
    imported(folder, out)


def recorded(parent: Path) -> set[str]:
    """Return the names of the images that recorded parts tell of, or recorded rows."""
    names: set[str] = set()
    for record in parent.glob(".study-importing-*/*.json"):
        for file in record.parent.glob(f"{record.stem}.parquet"):
            names |= set(pq.read_table(file, columns=["id"])["id"].to_pylist())
        names |= {row for row, *_ in json.loads(record.read_text()).get("said", {}).get("problems", ())}
        if record.stem == "rows":
            names |= set(files())
    return names


def killed_again_and_again(images: Path, out: Path, moments: list[tuple[str, float]], pause: float) -> int:
    """Kill the import at some moments, each a report and seconds after it; return how often that hit it.

    Whatever lies in a recorded part when the process dies is decoded in no later one.
    """
    log, known = out.parent / "decoded.log", {md5(data): name for name, data in files().items()}
    out.parent.mkdir()
    kills, done = 0, set[str]()
    for ready, seconds in moments:
        if (out / "study.toml").exists():
            break
        log.write_text("")
        kills += killed(_IMPORT, [images, out, log, pause], ready, seconds)
        again = {known[line] for line in log.read_text().split()}
        assert not again & done, "a recorded image was decoded again"
        done = max(done, recorded(out.parent), key=len)
    log.unlink(missing_ok=True)
    return kills


@pytest.mark.parametrize("kind", ["folder", pytest.param("zip", marks=pytest.mark.slow)])
def test_kill_nine_and_again(given: dict[str, Path], tmp_path: Path, decodings: list[str], kind: str) -> None:
    out, expected = tmp_path / "made" / "study", whole(given, kind, tmp_path)
    moments = [("reading the images 2", 0.1), ("reading the images 4", 0.1)]
    assert killed_again_and_again(given[kind], out, moments, 0.15) == 2
    assert not out.exists() and len(done := recorded(out.parent)) >= 2 * BATCH
    decodings.clear()
    imported(given[kind], out)
    assert len(decodings) == N - len(done)
    assert content(out) == expected and [path.name for path in out.parent.iterdir()] == ["study"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_a_series_of_kills_at_any_moment_ends_in_the_same_study(
    given: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    draw, out = np.random.default_rng(KINDS.index(kind)), tmp_path / "made" / "study"
    moments = [("looking at the images", float(draw.uniform(0.0, 1.5))) for _ in range(8)]
    assert killed_again_and_again(given[kind], out, moments, 0.05) >= 1
    if not (out / "study.toml").exists():
        imported(given[kind], out)
    assert content(out) == whole(given, kind, tmp_path)
    scratch.swept(out.parent)
    assert [path.name for path in out.parent.iterdir()] == ["study"]
