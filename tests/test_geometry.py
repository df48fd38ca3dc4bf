"""Frames are the very pixels that torchvision's Resize and CenterCrop give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from milan_onnx import geometry
from milan_onnx.geometry import Geometry, Interpolation

SIDES = st.integers(1, 90)
METHODS: list[Interpolation] = ["nearest", "bilinear", "bicubic", "lanczos"]


def photo(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def smooth(height: int, width: int) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    planes = [255 * y / height, 255 * x / width, 255 * (y / height + x / width) / 2]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def like_torchvision(image: Image.Image, g: Geometry) -> np.ndarray:
    """torchvision's own arithmetic (transforms/functional.py), in Pillow's calls."""
    method = Image.Resampling[g.interpolation.upper()]
    width, height = image.size
    if isinstance(g.resize, int):
        short, long = min(width, height), max(width, height)
        new = (g.resize, int(g.resize * long / short))
        image = image.resize(new if width <= height else new[::-1], method)
    elif g.resize is not None:
        image = image.resize(g.resize[::-1], method)
    width, height = image.size
    crop_height, crop_width = g.crop
    if crop_width > width or crop_height > height:
        image = ImageOps.expand(
            image,
            (
                (crop_width - width) // 2 if crop_width > width else 0,
                (crop_height - height) // 2 if crop_height > height else 0,
                (crop_width - width + 1) // 2 if crop_width > width else 0,
                (crop_height - height + 1) // 2 if crop_height > height else 0,
            ),
        )
        width, height = image.size
    top = round((height - crop_height) / 2.0)
    left = round((width - crop_width) / 2.0)
    return np.asarray(image.crop((left, top, left + crop_width, top + crop_height)))


@settings(max_examples=200, deadline=None)
@given(
    size=st.tuples(SIDES, SIDES),
    crop=st.tuples(SIDES, SIDES),
    resize=st.none() | SIDES | st.tuples(SIDES, SIDES),
    method=st.sampled_from(METHODS),
)
def test_frame_has_torchvisions_arithmetic(size, crop, resize, method):
    g = Geometry(crop, resize, method)
    frame = g.frame(photo(*size))
    assert frame.shape == (*crop, 3) and frame.dtype == np.uint8
    np.testing.assert_array_equal(frame, like_torchvision(photo(*size), g))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("height", "width"), [(375, 500), (500, 375), (1, 40), (40, 1), (223, 225), (17, 400), (3, 3)]
)
def test_frame_is_torchvisions(method, height, width):
    pytest.importorskip("torch", reason="parity wants the export extra")
    from milan_onnx.export.backbones import import_torchvision_models

    import_torchvision_models()
    from torchvision import transforms

    mode = transforms.InterpolationMode(method)
    for crop, resize in (((224, 224), 256), ((97, 64), 64), ((50, 51), (60, 41)), ((64, 65), None)):
        steps = [transforms.CenterCrop(crop)]
        if resize is not None:
            side = resize if isinstance(resize, int) else list(resize)
            steps.insert(0, transforms.Resize(side, mode))
        expected = np.asarray(transforms.Compose(steps)(photo(height, width)))
        frame = Geometry(crop, resize, method).frame(photo(height, width))
        np.testing.assert_array_equal(frame, expected)


def test_odd_padding_goes_after_the_photo():
    frame = Geometry((5, 5), None).frame(Image.new("RGB", (2, 2), "white"))
    assert frame[..., 0].nonzero()[0].min() == 1 and frame[..., 0].nonzero()[0].max() == 2


@pytest.mark.parametrize(("height", "width"), [(1, 60_000), (60_000, 1), (3, 20_000)])
def test_extreme_photos_do_not_take_gigabytes(height, width):
    resized = Geometry((224, 224), 256)._resized(height, width)
    assert resized[0] * resized[1] > geometry.WHOLE_PIXELS
    assert Geometry((224, 224), 256).frame(Image.new("RGB", (width, height))).shape == (224, 224, 3)


@pytest.mark.parametrize("size", [(60, 80), (9, 400), (400, 9), (33, 17)])
@pytest.mark.parametrize("crop", [(48, 40), (64, 30)])
def test_the_part_under_the_crop_is_the_same_picture(monkeypatch, size, crop):
    g = Geometry(crop, 56)
    whole = g.frame(smooth(*size)).astype(int)
    monkeypatch.setattr(geometry, "WHOLE_PIXELS", 0)
    part = g.frame(smooth(*size)).astype(int)
    assert part.shape == whole.shape and abs(part - whole).max() <= 2


def test_scaled_keeps_the_view():
    g = Geometry((224, 224), 256)
    assert g.scaled(224, 224) is g
    assert g.scaled(448, 448) == Geometry((448, 448), 512)
    assert g.scaled(112, 112) == Geometry((112, 112), 128)
    big, small = g.scaled(448, 448).frame(smooth(300, 400)), g.frame(smooth(300, 400))
    shrunk = np.asarray(Image.fromarray(big).reduce(2)).astype(int)
    assert abs(shrunk - small).max() <= 2


def test_scaled_without_a_resize_resizes_the_crop():
    g = Geometry((40, 40), None)
    scaled = g.scaled(20, 20)
    assert scaled.size == (20, 20) and scaled.crop == (40, 40)
    assert scaled.frame(photo(60, 60)).shape == (20, 20, 3)
    assert scaled.scaled(40, 40) == g
