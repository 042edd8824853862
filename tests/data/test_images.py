"""Whatever a file holds, an upright RGB picture comes out, or a reason."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minialex.data.images import PictureError, decode, load_image
from minialex.errors import DataError


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def gradient(width: int = 40, height: int = 24) -> Image.Image:
    """A picture that is different after every rotation and reflection."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 6, y * 10, x + y], axis=-1).astype(np.uint8))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_exactly(file_format: str) -> None:
    found = decode(encoded(gradient(), file_format))
    assert found.mode == "RGB"
    np.testing.assert_array_equal(pixels(found), pixels(gradient()))


@pytest.mark.parametrize(("file_format", "options"), [("JPEG", {"quality": 95}), ("WEBP", {}), ("GIF", {})])
def test_lossy_formats_come_back_nearly(file_format: str, options: dict[str, Any]) -> None:
    found = decode(encoded(gradient(), file_format, **options))
    assert found.mode == "RGB"
    assert np.abs(pixels(found) - pixels(gradient())).mean() < 12


@pytest.mark.parametrize("mode", ["1", "L"])
def test_greyscale_becomes_three_equal_channels(mode: str) -> None:
    grey = gradient().convert(mode)
    found = pixels(decode(encoded(grey, "PNG")))
    np.testing.assert_array_equal(found, np.repeat(pixels(grey.convert("L"))[:, :, None], 3, axis=2))


def test_palette_gives_its_colours() -> None:
    image = Image.new("P", (4, 2), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    np.testing.assert_array_equal(pixels(decode(encoded(image, "PNG")))[0, 0], [200, 100, 50])


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_transparent_palette_entries_become_white(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    found = pixels(decode(encoded(image, "PNG", transparency=transparency)))
    np.testing.assert_array_equal(found[0], [[255, 255, 255], [200, 100, 50]])


def test_transparent_gif_and_keyed_rgb_become_white() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    found = pixels(decode(encoded(image, "GIF", transparency=0)))
    np.testing.assert_array_equal(found[0, 0], [255, 255, 255])
    keyed = encoded(Image.new("RGB", (2, 1), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    np.testing.assert_array_equal(pixels(decode(keyed))[0, 0], [255, 255, 255])


@pytest.mark.parametrize(("mode", "colour"), [("RGBA", (200, 100, 50)), ("LA", (100,))])
def test_alpha_is_laid_on_white(mode: str, colour: tuple[int, ...]) -> None:
    image = Image.new(mode, (3, 1), (*colour, 255))
    image.putpixel((1, 0), (*colour, 0))
    image.putpixel((2, 0), (*colour, 128))
    found = pixels(decode(encoded(image, "PNG")))[0]
    solid = np.broadcast_to(colour, 3)
    np.testing.assert_array_equal(found[0], solid)
    np.testing.assert_array_equal(found[1], [255, 255, 255])
    assert np.abs(found[2] - (solid * 128 + 255 * 127) / 255).max() <= 1


def test_cmyk_becomes_rgb() -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # magenta and yellow ink: red
    for file_format in ("JPEG", "TIFF"):
        red, green, blue = pixels(decode(encoded(image, file_format)))[4, 4]
        assert red > 240
        assert max(green, blue) < 15


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_cut_off(file_format: str) -> None:
    values = np.array([[0, 128, 257, 32896, 65535]], dtype=np.uint16)
    found = pixels(decode(encoded(Image.fromarray(values), file_format)))
    np.testing.assert_array_equal(found[0, :, 0], [0, 0, 1, 128, 255])
    np.testing.assert_array_equal(found[..., 0], found[..., 2])


def test_floats_between_0_and_1_are_scaled_and_others_refused() -> None:
    found = decode(encoded(Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)), "TIFF"))
    np.testing.assert_array_equal(pixels(found)[0, :, 0], [0, 128, 255])
    for bad in (2.0, -0.5, np.nan):
        with pytest.raises(PictureError, match="expected 0 to 1 for mode F"):
            decode(encoded(Image.fromarray(np.array([[0.0, bad]], dtype=np.float32)), "TIFF"))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(file_format: str, orientation: int) -> None:
    upright = gradient()
    stored = {  # how the camera held the scene: the inverse of what turns it upright
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(file_format, {})
    found = decode(encoded(stored, file_format, exif=exif, **options))
    assert found.size == upright.size
    assert np.abs(pixels(found) - pixels(upright)).mean() < 3


def test_broken_exif_is_done_without() -> None:
    data = encoded(gradient(), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\x00\x00\xff\xffbroken")
    assert decode(data).size == gradient().size


def test_empty_foreign_and_truncated_files_say_so() -> None:
    with pytest.raises(PictureError, match="empty"):
        decode(b"")
    with pytest.raises(
        PictureError, match=r"no picture of a format that is read here .*it begins with b'<!DOCTYPE"
    ):
        decode(b"<!DOCTYPE html><html>Not found</html>")
    for file_format in ("JPEG", "PNG", "BMP", "TIFF"):
        whole = encoded(gradient(200, 200), file_format)
        for quick in (False, True):
            with pytest.raises(PictureError):
                decode(whole[: len(whole) // 2], quick=quick)


def test_a_jpeg_without_its_last_tenth_is_called_truncated() -> None:
    whole = encoded(gradient(200, 200), "JPEG")
    for quick in (False, True):
        with pytest.raises(PictureError, match="truncated"):
            decode(whole[: len(whole) * 9 // 10], quick=quick)


def test_only_named_formats_are_decoded() -> None:
    for file_format in ("PPM", "TGA", "ICO", "PCX"):
        with pytest.raises(PictureError, match="no picture of a format that is read here"):
            decode(encoded(gradient(), file_format))


def test_pixel_limit_is_checked_before_decoding_and_without_warnings() -> None:
    data = encoded(Image.new("1", (300, 200)), "PNG")
    assert decode(data, pixel_limit=60_000).size == (300, 200)
    with pytest.raises(PictureError, match=r"300 x 200 = 60,000 pixels, the limit is 59,999"):
        decode(data, pixel_limit=59_999)
    for side in (10_000, 20_000):  # Pillow warns of the first and refuses the second
        with pytest.raises(PictureError, match="pixels, the limit is 64,000,000"):
            decode(bomb(side))


def bomb(side: int) -> bytes:
    """A few bytes that claim to be a picture of side x side pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_load_image_names_the_file(tmp_path: Path) -> None:
    gradient().save(tmp_path / "good.png")
    assert load_image(tmp_path / "good.png").size == (40, 24)
    (tmp_path / "bad.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"bad\.jpg cannot be used: the file is empty"):
        load_image(tmp_path / "bad.jpg")
    with pytest.raises(DataError, match=r"gone\.jpg cannot be read: No such file"):
        load_image(tmp_path / "gone.jpg")
