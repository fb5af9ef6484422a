"""Small folders, zips and data sets of images for the tests of the image import."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def picture(level: int, seed: int, size: tuple[int, int] = (12, 12), mode: str = "L") -> np.ndarray:
    """Noise around a level of grey; in colour the level is that of the first channel."""
    draw = np.random.default_rng(seed)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    noise = draw.integers(0, 60, shape)
    if mode == "L":
        return (noise + level).astype(np.uint8)
    noise[..., 0] += level
    return noise.astype(np.uint8)


def encoded(pixels: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def contents(n: int = 40, size: tuple[int, int] = (12, 12), mode: str = "L") -> dict[str, bytes]:
    """Path -> file: ``bright/..`` and ``dark/..`` in turn."""
    return {
        f"{('dark', 'bright')[i % 2]}/{i:03d}.png": encoded(picture((0, 150)[i % 2], i, size, mode)) for i in range(n)
    }


def folder_of(files: dict[str, bytes], path: Path) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def zip_of(files: dict[str, bytes], path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path
