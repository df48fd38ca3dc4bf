"""Each odd kind of file: faithful pixels with a note, or a reason."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from milan_onnx.probe import Unusable, decode
from tests.probe.helpers import encoded, picture, png


def pixels(data: bytes) -> np.ndarray:
    image = decode(data).image
    assert image.mode == "RGB"
    return np.asarray(image)


def header_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size)
    return start + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_plain_rgb_is_untouched(kind):
    decoded = decode(encoded(picture(), kind))
    assert decoded.converted == ""
    np.testing.assert_array_equal(np.asarray(decoded.image), np.asarray(picture()))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_rgb_is_pillows(kind):
    data = encoded(picture(), kind)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert decode(data).converted == ""
    np.testing.assert_array_equal(pixels(data), expected)


def test_grey():
    grey = picture().convert("L")
    assert decode(encoded(grey)).converted == "1-channel to RGB"
    np.testing.assert_array_equal(pixels(encoded(grey))[..., 1], np.asarray(grey))


def test_one_bit():
    assert decode(encoded(picture().convert("1"))).converted == "1-bit to RGB"
    assert set(np.unique(pixels(encoded(picture().convert("1"), "PPM")))) == {0, 255}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(kind):
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    data = encoded(Image.fromarray(values), kind)
    assert decode(data).converted == "16-bit to 8-bit"
    np.testing.assert_array_equal(pixels(data)[..., 0].ravel(), np.arange(256))


def test_floats_and_wide_integers():
    field = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    assert decode(encoded(Image.fromarray(field), "TIFF")).converted == "float to 8-bit"
    assert pixels(encoded(Image.fromarray(field), "TIFF")).max() == 255
    wide = decode(encoded(Image.fromarray(field * 1000 - 5), "TIFF"))
    assert wide.converted == "float stretched to 8-bit"
    big = Image.fromarray((field * 1e6).astype(np.int32))
    assert decode(encoded(big, "TIFF")).converted == "32-bit stretched to 8-bit"


def test_cmyk_jpeg_has_the_right_colours():
    flat = Image.new("RGB", (32, 32), (200, 40, 40)).convert("CMYK")
    decoded = decode(encoded(flat, "JPEG", quality=95))
    assert decoded.converted == "CMYK to RGB"
    assert abs(np.asarray(decoded.image)[16, 16].astype(int) - (200, 40, 40)).max() < 8


def test_palette():
    data = encoded(Image.new("RGB", (8, 8), (10, 200, 30)).convert("P", palette=1))
    assert decode(data).converted == "palette to RGB"
    assert tuple(pixels(data)[0, 0]) == (10, 200, 30)


def test_transparency_is_put_on_white():
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert decode(encoded(half)).converted == "RGBA on white"
    assert tuple(pixels(encoded(half))[0, 0]) == (127, 127, 127)
    clear = encoded(Image.new("LA", (4, 4), (0, 0)))
    assert decode(clear).converted == "LA on white" and pixels(clear).min() == 255


def test_transparent_palette_and_key_colour():
    paletted = Image.new("P", (4, 4), 0)
    paletted.putpalette([255, 0, 0, 0, 255, 0])
    paletted.putpixel((1, 1), 1)
    data = encoded(paletted, transparency=0)
    assert decode(data).converted == "transparent P on white"
    assert tuple(pixels(data)[0, 0]) == (255, 255, 255) and tuple(pixels(data)[1, 1]) == (0, 255, 0)
    keyed = encoded(Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3))
    assert pixels(keyed).min() == 255


def test_opaque_alpha_is_no_conversion():
    image = picture().convert("RGBA")
    assert decode(encoded(image)).converted == ""
    np.testing.assert_array_equal(pixels(encoded(image)), np.asarray(picture()))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame(kind):
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(first, kind, save_all=True, append_images=[second], **options)
    assert "first of several frames" in decode(data).converted
    assert tuple(pixels(data)[4, 4]) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_photo_and_is_no_conversion(orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(), exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert decode(data).converted == ""
    np.testing.assert_array_equal(pixels(data), np.asarray(expected))


def test_broken_exif_does_no_harm():
    data = encoded(picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert decode(data).image.size == picture().size


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello, this is a text\n", "a text file, not an image"),
        (b"<html><body>404 Not Found</body></html>", "a text file, not an image"),
        (bytes(range(256)) * 4, "not an image of a supported format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n\0", "not an image of a supported"),
        (png()[:200], "truncated file"),
        (encoded(picture(), "JPEG")[:-200], "truncated file"),
        (encoded(picture(), "JPEG")[:30], "broken file|truncated file"),
        (encoded(picture(), "WEBP")[:60], "broken file|truncated file"),
        (encoded(picture(), "GIF")[:80], "broken file|truncated file"),
        (encoded(picture(), "TIFF")[:300], "broken file|truncated file"),
        (header_png(40_000, 40_000), "1600 Mpx is over the limit of 64 Mpx"),
        (header_png(9_000, 8_000), "72 Mpx is over the limit of 64 Mpx"),
        (header_png(11_000, 10_000), "110 Mpx is over the limit of 64 Mpx"),
        (header_png(0, 10), "broken file|without pixels|not an image"),
    ],
)
def test_unusable(data, reason, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.raises(Unusable, match=reason):
            decode(data)
    assert capfd.readouterr() == ("", "")


def test_nothing_is_decoded_of_an_image_over_the_limit(monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(Unusable, match="over the limit"):
        decode(png(), max_pixels=100)


def test_pillows_warnings_are_silenced_even_if_filters_were_reset():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(Unusable):
            decode(header_png(11_000, 10_000))
    assert not seen


def test_any_cut_or_flip_is_either_an_image_or_unusable():
    rng = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"):
        whole = encoded(picture(), kind)
        for _ in range(60):
            data = bytearray(whole[: int(rng.integers(1, len(whole) + 1))])
            for place in rng.integers(0, len(data), 3):
                data[place] = int(rng.integers(256))
            try:
                assert decode(bytes(data)).image.mode == "RGB"
            except Unusable as error:
                assert str(error)
