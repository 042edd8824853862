"""Reading one picture: whatever its file holds, an upright RGB image of eight bits comes out, or a reason why
not.

Greyscale, palette, transparent, CMYK and 16-bit pictures all become RGB, and a photograph that a camera
stored on its side is turned upright. Only the formats in `FORMATS` are decoded: each decoder is code that
reads bytes from strangers, so one that nobody needs is better left alone.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from minialex.errors import DataError

__all__ = ["FORMATS", "PIXEL_LIMIT", "PictureError", "decode", "load_image"]

# Pillow's names. Of an animated GIF, a WebP or a TIFF of several pages, the first picture is read.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
# Pictures that we do not read. They are reported as bad: a folder of them must not vanish without a word.
OTHER_PICTURE_SUFFIXES = frozenset(
    [
        ".heic",
        ".heif",
        ".avif",
        ".jp2",
        ".jxl",
        ".psd",
        ".svg",
        ".tga",
        ".ppm",
        ".dng",
        ".cr2",
        ".nef",
        ".arw",
    ]
)

PIXEL_LIMIT = 64_000_000  # 8,000 x 8,000: 192 MB as RGB, for each process that loads pictures

EXIF_ORIENTATION = 0x0112
UPRIGHT = {  # Exif 2.3, tag 0x0112: what undoes each orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_warnings_lock = threading.RLock()


class PictureError(DataError):
    """Why one picture cannot be used; the message is the reason alone, without the file's name."""


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings from Pillow about sizes (we check them) and broken metadata (we do without).

    Python's warning filters are one list for all threads, so only one thread at a time may swap it.
    """
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_image(path: str | Path, pixel_limit: int = PIXEL_LIMIT) -> Image.Image:
    """The picture in a file, upright, as RGB.

    Raises: DataError, naming the file, if it is missing, empty, truncated, too big or of no format we read.
    """
    try:
        return decode(Path(path).read_bytes(), pixel_limit)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. Check the path.") from error
    except PictureError as error:
        raise DataError(f"{path} cannot be used: {error}. Replace or remove it.") from error


def decode(data: bytes, pixel_limit: int = PIXEL_LIMIT, *, quick: bool = False) -> Image.Image:
    """The picture in these bytes, upright, as RGB.

    Args:   quick: read all of the data but, where the format is JPEG, compute an eighth of the size: enough
            to know that the file is whole, not a picture to train on.
    Raises: PictureError with the reason.
    """
    if not data:
        raise PictureError("the file is empty (0 bytes)")
    try:
        return _decode(data, pixel_limit, quick)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise PictureError(f"no picture of a format that is read here ({known}): "
                           f"it begins with {data[:12]!r}") from error  # fmt: skip
    except Image.DecompressionBombError as error:
        raise PictureError(f"too many pixels, the limit is {pixel_limit:,}: {error}") from error
    except Exception as error:  # a decoder fed with broken bytes raises anything
        raise PictureError(_reason(error)) from error


def _decode(data: bytes, pixel_limit: int, quick: bool) -> Image.Image:
    with _quiet():
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = image.size
    if width * height > pixel_limit:
        raise PictureError(
            f"{width} x {height} = {width * height:,} pixels, the limit is {pixel_limit:,}; "
            "make it smaller or raise the limit (pixel_limit)"
        )
    if quick:
        image.draft(image.mode, (width // 8, height // 8))
    image.load()
    with _quiet():  # after load(): Pillow itself turns TIFF upright there, and says so by removing the tag
        orientation = _orientation(image)
        rgb = to_rgb(image)
    return rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb


def _orientation(image: Image.Image) -> int:
    """The Exif orientation, 1 (upright) where there is none or the metadata is broken."""
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except (ValueError, TypeError, KeyError, OSError, SyntaxError, EOFError):
        return 1  # the pixels are sound, and no viewer could turn such a picture either


def _reason(error: Exception) -> str:
    """A decoder's complaint in our words."""
    text = str(error) or type(error).__name__
    return f"truncated: {text}" if "truncated" in text.lower() else f"unreadable: {text}"


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB; what is transparent is laid on white.

    Raises: PictureError for a mode or a range of values without an evident meaning as colour.
    """
    mode = image.mode
    transparent = mode in {"LA", "La", "PA", "RGBA", "RGBa"}
    if not transparent and "transparency" in image.info:
        transparent = mode in {"1", "L", "P", "RGB"}
    if transparent:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    if mode.startswith("I") or mode == "F":
        return Image.fromarray(_to_bytes(np.asarray(image), mode)).convert("RGB")
    return image if mode == "RGB" else image.convert("RGB")


def _to_bytes(values: np.ndarray, mode: str) -> np.ndarray:
    """Grey values of 16 bits (0 .. 65535) or floats (0 .. 1) as bytes, rounded."""
    top = 1.0 if mode == "F" else 65535.0
    low, high = float(values.min()), float(values.max())
    if not (low >= 0.0 and high <= top):  # also NaN
        raise PictureError(f"values from {low:g} to {high:g}, expected 0 to {top:g} for mode {mode}")
    return np.floor(values.astype(np.float64) * (255.0 / top) + 0.5).astype(np.uint8)
