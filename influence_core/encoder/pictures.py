"""A picture file as the pixels that a model of images takes, and as the small copy that people see."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from influence_core.errors import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MAX_BYTES = 20 << 20
MAX_PIXELS = 50_000_000
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
_FIX = f"Give a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture."
_DRAFT = 512  # a JPEG may be decoded at a half, a quarter ... of its size, as long as this much of it is left
_EXACT = 64  # pixels on the long side up to which a copy keeps every one of them
_TURNED = (5, 6, 7, 8)  # orientations of a camera that exchange width and height
_ORIENTATION = 0x0112
_COLOUR = 8  # levels between channels from which a picture has colour; JPEG gives grey ones a little


def picture_pixels(data: bytes, size: tuple[int, int, int]) -> np.ndarray:
    """Return a picture's pixels in the size of the model's images.

    The picture is turned as its camera says, laid on white where it is transparent, made grey or coloured, and resized
    to the whole area; the first frame counts.

    Args:
        data: Content of a file.
        size: Channels (1 or 3), height, width.

    Returns:
        ``[channels, height, width]``, uint8.

    Raises:
        BadInput: No picture, or a too large one.
    """
    return pixels_of(opened_picture(data), size)


def picture_size(data: bytes) -> tuple[int, int]:
    """Return width and height as the picture is looked at, from the head of the file alone.

    Raises:
        BadInput: No picture, or a too large one.
    """
    with _reading(data) as image:
        # Pillow would decode a whole PNG to look for a word about its orientation behind the pixels.
        says = image.format in ("JPEG", "TIFF", "WEBP") or (image.format == "PNG" and "exif" in image.info)
        turned = says and image.getexif().get(_ORIENTATION) in _TURNED
        width, height = image.size
        return (height, width) if turned else (width, height)


def opened_picture(data: bytes) -> Picture:
    """Return a picture as a plain one, grey ("L") or coloured ("RGB"), upright, without anything else of its file.

    Raises:
        BadInput: No picture, or a too large one.
    """
    from PIL import ImageOps

    with _reading(data) as image:
        image.draft(None, (_DRAFT, _DRAFT))
        image.load()
        plain = _plain(ImageOps.exif_transpose(image))
        plain.info.clear()  # colour profiles and comments would travel into copies
        return plain


@contextmanager
def _reading(data: bytes) -> Iterator[Picture]:
    """Open a file within limits; whatever Pillow says about it becomes one message."""
    if len(data) > MAX_BYTES:
        raise BadInput(
            "The picture is too large", f"The file has {len(data) / 1e6:.0f} MB; {MAX_BYTES / 1e6:.0f} are taken.",
            "Make it smaller first.",
        )  # fmt: skip
    from PIL import Image

    try:
        # Pillow warns of many small faults that it mends, and of sizes that are checked below, and lower.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadInput(
                    "The picture is too large", f"It has {width:,} × {height:,} pixels.",
                    f"Make it smaller first: at most {MAX_PIXELS:,} pixels in all.",
                )  # fmt: skip
            if not width * height:
                raise ValueError("it has no pixels")
            yield image
    except Image.DecompressionBombError:
        raise BadInput("The picture is too large", "It has far too many pixels.", "Make it smaller first.") from None
    # A damaged file fails in whichever of Pillow's decoders reads it, each with errors of its own.
    except (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError,
            MemoryError, RuntimeError, AssertionError) as error:  # fmt: skip
        why = " ".join(str(error).split())[:200].rstrip(".")
        known = "cannot identify" not in why
        raise BadInput("The picture cannot be read", f"{why}." if known else "It is no picture.", _FIX) from None


def _plain(image: Picture) -> Picture:
    from PIL import Image

    if image.mode.startswith("I;16") or image.mode == "I":
        image = Image.fromarray((np.asarray(image, np.float64) / 257).clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        image = Image.fromarray(_stretched(np.asarray(image, np.float64)))
    grey = image.mode in ("1", "L", "LA", "La")
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return image.convert("L" if grey else "RGB")


def _stretched(values: np.ndarray) -> np.ndarray:
    """Return real numbers as 8 bits: 0..1 or 0..255 as they are meant, anything else from the least to the most."""
    if not np.isfinite(values).all():
        raise ValueError("it has pixels that are no finite numbers")
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 255:
        return np.round(values * (255 if high <= 1 else 1)).astype(np.uint8)
    return np.round((values - low) / max(high - low, 1e-300) * 255).astype(np.uint8)


def pixels_of(image: Picture, size: tuple[int, int, int]) -> np.ndarray:
    """Return an opened picture as ``[channels, height, width]``, uint8."""
    from PIL import Image

    channels, height, width = size
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def has_colour(pixels: np.ndarray) -> bool:
    """Tell whether ``[3, height, width]`` is more than grey."""
    return int((pixels.max(0) - pixels.min(0)).max()) > _COLOUR


def small_copy(image: Picture, longest: int) -> bytes:
    """Return an opened picture as the bytes of a new file, at most ``longest`` pixels on its long side."""
    from PIL import Image

    copy = image.copy()
    copy.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if max(copy.size) <= _EXACT:
        copy.save(buffer, "PNG")
    else:
        copy.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def as_png(pixels: np.ndarray) -> bytes:
    """Return ``[channels, height, width]``, uint8, as the bytes of a PNG file."""
    from PIL import Image

    image = Image.fromarray(pixels[0]) if len(pixels) == 1 else Image.fromarray(np.moveaxis(pixels, 0, -1))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def media_type(data: bytes) -> str | None:
    """Return what kind of picture some bytes begin like, among those that ``small_copy`` and ``as_png`` make."""
    return {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}.get(data[:4] if data[:1] == b"\x89" else data[:3])
