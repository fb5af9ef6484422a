"""Images from a stranger: names that lead elsewhere, links, bombs, damaged files; one message each, nothing touched."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from influence_core.encoder import pictures
from influence_core.errors import BadInput
from influence_core.readers import import_images, limits, open_images
from influence_core.readers.images import ImageSource
from influence_core.run import Run
from tests.readers.image_cases import contents, encoded, folder_of, picture, zip_of

RUN = Run(device="cpu")


def opened(path: Path) -> ImageSource:
    return open_images(path, RUN)


def notes(path: Path) -> str:
    with opened(path) as images:
        assert images.n_rows == 10
        return " ".join(images.notes)


@pytest.mark.parametrize(
    "name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "C:/evil.png", "a\\..\\evil.png", "a//b.png"]
)
def test_names_that_lead_out_are_left_out(name: str, tmp_path: Path) -> None:
    file = tmp_path / "in" / "pets.zip"
    file.parent.mkdir()
    zip_of(contents(10) | {name: encoded(picture(0, 1))}, file)
    assert "lead out of the archive" in notes(file)
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "pets.zip"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    secret = folder_of({"secret/a.png": encoded(picture(0, 1))}, tmp_path / "elsewhere")
    folder = folder_of(contents(10), tmp_path / "pets")
    (folder / "dark" / "link.png").symlink_to(secret / "secret" / "a.png")
    (folder / "linked").symlink_to(secret / "secret")
    os.mkfifo(folder / "dark" / "pipe.png")
    with opened(folder) as images:
        assert images.n_rows == 10
        said = " ".join(images.notes)
    assert "2 links were not followed" in said and "pipe.png" in said
    entry = zipfile.ZipInfo("dark/link.png")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    file = zip_of(contents(10), tmp_path / "pets.zip")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(entry, "/etc/passwd")
    assert "1 links were not followed: dark/link.png" in notes(file)


def test_archives_inside_and_doubled_names_are_not_opened(tmp_path: Path) -> None:
    inner = zip_of(contents(2), tmp_path / "inner.zip").read_bytes()
    assert "inside were not opened" in notes(zip_of(contents(10) | {"more.zip": inner}, tmp_path / "a.zip"))
    with pytest.raises(BadInput, match="inside were not opened"):
        opened(zip_of({"more.zip": inner, "b.zip": inner}, tmp_path / "b.zip"))
    file = zip_of(contents(10), tmp_path / "c.zip")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(file, "a") as archive:
        archive.writestr("dark/000.png", b"other")
    assert "there already" in notes(file)


def bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(10_000, 10_000), (100_000, 100_000), (2**31 - 1, 1)])
def test_images_that_unpack_to_too_many_pixels_are_named(size: tuple[int, int], tmp_path: Path) -> None:
    said = notes(folder_of(contents(10) | {"dark/bomb.png": bomb(*size)}, tmp_path / "pets"))
    assert "1 image was left out" in said and "dark/bomb.png" in said and "Make them smaller" in said


def test_a_zip_bomb_is_refused_by_its_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RATIO_FROM", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/x.png", bytes(8 << 20))
    with pytest.raises(BadInput, match="archive is too large"):
        opened(tmp_path / "a.zip")


def test_a_long_file_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_BYTES", 5_000)
    said = notes(folder_of(contents(10) | {"dark/long.png": encoded(picture(0, 1)) + bytes(9_000)}, tmp_path / "pets"))
    assert "long.png" in said and "too large" in said


def test_more_files_than_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_MEMBERS", 9)
    for path in (folder_of(contents(10), tmp_path / "pets"), zip_of(contents(10), tmp_path / "pets.zip")):
        with pytest.raises(BadInput, match="too many files"):
            opened(path)


def test_damaged_images_are_named_and_left_out_or_all_refused(tmp_path: Path) -> None:
    whole = contents(30)
    cut = {f"dark/cut{i}.png": data[: len(data) - 40] for i, data in enumerate(list(whole.values())[:5])}
    broken = {f"dark/no{i}.png": b"<svg onload=alert(1)>" for i in range(4)}
    with opened(folder_of(whole | cut | broken, tmp_path / "pets")) as images:
        assert images.n_rows == 35 and "4 images were left out" in " ".join(images.notes)
        study = import_images(images, tmp_path / "out", RUN)
    assert sum(study.n_rows(split) for split in study.splits) == 30
    said = " ".join(study.header.notes)
    assert "5 images were left out" in said and "dark/cut0.png" in said and "and 2 more" in said
    most = folder_of({f"a/{i}.png": b"x" for i in range(9)} | contents(8), tmp_path / "most")
    with pytest.raises(BadInput, match=r"Most of the images cannot be used: .* 9 of 17: a/0\.png"):
        opened(most)


def test_locked_and_damaged_archives_are_refused(tmp_path: Path) -> None:
    data = bytearray(zip_of(contents(10), tmp_path / "a.zip").read_bytes())
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match="damaged"):
        opened(tmp_path / "cut.zip")
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        data[at + 8] |= 1
        at = data.find(b"PK\x01\x02", at + 4)
    (tmp_path / "locked.zip").write_bytes(data)
    with pytest.raises(BadInput, match="locked"):
        opened(tmp_path / "locked.zip")
    with pytest.raises(BadInput, match="no such file|does not exist"):
        opened(tmp_path / "nothing.zip")


def test_names_like_html_and_in_any_script_pass_as_text(tmp_path: Path) -> None:
    files = {f"<script>alert(1)<b>/{i}.png": encoded(picture(0, i)) for i in range(20)}
    files |= {f"Łódź 猫/{i}.png": encoded(picture(150, 50 + i)) for i in range(20)}
    with opened(folder_of(files, tmp_path / "pets")) as images:
        study = import_images(images, tmp_path / "out", RUN)
    assert set(study.header.classes) == {"<script>alert(1)<b>", "Łódź 猫"}


def test_a_name_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    folder = folder_of(contents(10), tmp_path / "pets")
    (Path(os.fsdecode(os.fsencode(folder) + b"/dark/\xff.png"))).write_bytes(encoded(picture(0, 1)))
    assert "no text" in notes(folder)


def test_pixels_of_a_damaged_file_never_reach_a_study(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    files = contents(30)
    for i in range(60):
        data = bytearray(encoded(picture(0, 100 + i), ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")[i % 6]))
        for at in draw.integers(0, len(data), 8):
            data[at] = draw.integers(0, 256)
        files[f"dark/flipped{i:02d}.png"] = bytes(data)
    try:
        with opened(folder_of(files, tmp_path / "pets")) as images:
            study = import_images(images, tmp_path / "out", RUN)
    except BadInput as error:
        assert "Most of the images" in error.what
        return
    assert study.encoder.shape in ((1, 32, 32), (1, 12, 12), (3, 32, 32), (3, 12, 12))
    assert Image.MAX_IMAGE_PIXELS is not None
