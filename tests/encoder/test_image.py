"""Images as numbers: per-channel scaling, larger copies, and files of older studies."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from influence_core.encoder import ImageEncoder, load_encoder
from influence_core.encoder.pictures import (
    has_colour,
    media_type,
    opened_picture,
    picture_pixels,
    picture_size,
    pixels_of,
    small_copy,
)
from influence_core.errors import BadInput


def table(pixels: np.ndarray, **more: object) -> pa.Table:
    flat = pa.array(pixels.reshape(-1))
    return pa.table({"image": pa.FixedSizeListArray.from_arrays(flat, int(np.prod(pixels.shape[1:]))), **more})


def test_each_channel_has_its_own_mean_and_spread() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (50, 3, 4, 4)).astype(np.uint8)
    pixels[:, 2] //= 5
    halves = [table(pixels[:20]), table(pixels[20:])]
    encoder = ImageEncoder.fitted(lambda: iter(halves), "image", (3, 4, 4))
    values = pixels.astype(np.float64) / 255
    assert encoder.mean == pytest.approx(values.mean((0, 2, 3)), abs=1e-6)
    assert encoder.std == pytest.approx(values.std((0, 2, 3)), abs=1e-6)
    out = encoder.encoded(table(pixels))
    assert out.dtype == np.float32 and out.shape == (50, 3, 4, 4)
    assert out.mean((0, 2, 3)) == pytest.approx(np.zeros(3), abs=1e-4)
    assert out.std((0, 2, 3)) == pytest.approx(np.ones(3), abs=1e-4)
    black = encoder.encoded(table(np.zeros((1, 3, 4, 4), np.uint8)))
    assert np.allclose(black[0], np.broadcast_to(encoder.neutral, (3, 4, 4)), atol=1e-6)
    assert (
        ImageEncoder.from_json({k: v for k, v in json.loads(json.dumps(encoder.to_json())).items() if k != "kind"})
        == encoder
    )


def test_a_file_of_an_older_study_reads_and_writes_as_it_was(tmp_path) -> None:
    old = {"kind": "image", "column": "image", "size": [1, 4, 4], "mean": 0.3, "std": 0.25}
    (tmp_path / "encoder.json").write_text(json.dumps(old))
    encoder = load_encoder(tmp_path / "encoder.json")
    assert json.loads(json.dumps(encoder.to_json())) == old
    pixels = np.arange(32, dtype=np.uint8).reshape(2, 1, 4, 4)
    expected = ((pixels.astype(np.float32) / 255 - 0.3) / 0.25).astype(np.float32)
    assert np.array_equal(encoder.encoded(table(pixels)), expected)


def test_the_larger_copy_is_shown_where_it_is_a_picture() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 1, 4, 4)).astype(np.uint8)
    copy = small_copy(Image.new("L", (100, 50), 7), 80)
    rows = table(pixels, picture=pa.array([copy, None, b"<svg onload=x>"], pa.binary()))
    shown = ImageEncoder("image", (1, 4, 4), 0.0, 1.0, "picture").shown(rows)
    assert shown[0] == copy and media_type(copy) == "image/jpeg"
    for i in (1, 2):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(shown[i]))), pixels[i, 0])


@pytest.mark.parametrize("wrong", [{"std": 0.0}, {"std": (1.0, 1.0)}, {"mean": float("nan")}])
def test_a_spread_of_nothing_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="std|mean"):
        ImageEncoder(**{"column": "image", "size": (3, 4, 4), "mean": 0.0, "std": 1.0, **wrong})


def file(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_every_kind_of_picture_becomes_plain() -> None:
    draw = np.random.default_rng(0)
    rgb = Image.fromarray(draw.integers(0, 255, (20, 30, 3)).astype(np.uint8))
    grey = rgb.convert("L")
    assert np.array_equal(np.asarray(opened_picture(file(grey, "PNG"))), np.asarray(grey))
    assert np.array_equal(np.asarray(opened_picture(file(rgb, "WEBP", lossless=True))), np.asarray(rgb))
    palette = rgb.quantize(16)
    assert np.array_equal(np.asarray(opened_picture(file(palette, "GIF"))), np.asarray(palette.convert("RGB")))
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert np.array_equal(np.asarray(opened_picture(file(wide, "PNG"))), np.asarray(grey))
    real = Image.fromarray((np.asarray(grey) / 255).astype(np.float32))
    assert np.array_equal(np.asarray(opened_picture(file(real, "TIFF"))), np.asarray(grey))
    cmyk = opened_picture(file(rgb.convert("CMYK"), "TIFF"))
    assert np.array_equal(np.asarray(cmyk), np.asarray(rgb.convert("CMYK").convert("RGB")))
    frames = file(grey, "GIF", save_all=True, append_images=[Image.new("L", grey.size, 0)])
    assert np.array_equal(np.asarray(opened_picture(frames).convert("L")), np.asarray(grey))
    bits = opened_picture(file(grey.convert("1"), "PNG"))
    assert bits.mode == "L" and set(np.unique(bits)) <= {0, 255}
    clear = opened_picture(file(Image.new("LA", (5, 5), (0, 0)), "PNG"))
    assert clear.mode == "L" and np.unique(clear).tolist() == [255]


def test_a_camera_s_orientation_is_applied() -> None:
    pixels = np.zeros((10, 20), np.uint8)
    pixels[:, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    data = file(Image.fromarray(pixels), "PNG", exif=exif)
    turned = opened_picture(data)
    assert turned.size == picture_size(data) == (10, 20)
    assert np.array_equal(np.asarray(turned), np.rot90(pixels, -1))


def test_nothing_of_the_users_file_but_its_pixels_travels_into_a_copy() -> None:
    exif = Image.Exif()
    exif[0x010E] = "SECRET"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3)).astype(np.uint8))
    data = file(image, "JPEG", exif=exif, comment=b"SECRET", icc_profile=b"SECRET" * 30)
    assert b"SECRET" in data
    for longest in (256, 40):
        copy = small_copy(opened_picture(data), longest)
        assert b"SECRET" not in copy and max(Image.open(io.BytesIO(copy)).size) == longest


def test_grey_in_three_channels_is_no_colour() -> None:
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40)).astype(np.uint8)).convert("RGB")
    assert not has_colour(pixels_of(opened_picture(file(grey, "JPEG")), (3, 32, 32)))
    assert has_colour(pixels_of(Image.new("RGB", (9, 9), (200, 0, 0)), (3, 8, 8)))
    direct = picture_pixels(file(grey, "PNG"), (1, 32, 32))
    assert np.array_equal(direct, pixels_of(opened_picture(file(grey, "PNG")), (1, 32, 32)))


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"BM" + b"\xff" * 60, b"II*\0" * 20]
)
def test_damaged_files_get_one_kind_of_error(data: bytes) -> None:
    for reads in (opened_picture, picture_size):
        with pytest.raises(BadInput, match="picture"):
            reads(data)
