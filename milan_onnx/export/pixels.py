"""What pixels alone tell: colour names, light, edges and their direction.

Early layers need such words, and photos give them without any annotation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS = (
    "black", "white", "gray", "red", "orange", "yellow", "green", "blue", "purple", "pink",
    "brown", "tan",
)  # fmt: skip
DIRECTIONS = ("vertical", "diagonal", "horizontal")
STATISTICS = (*COLOURS, "light", "light_squared", "energy", "tensor_real", "tensor_imaginary")


@dataclass(frozen=True)
class PixelMaps:
    """Statistics of each pixel of a frame, at half its resolution."""

    colour: NDArray[np.int64]
    """Index into COLOURS (h, w)."""

    light: NDArray[np.float32]
    """Brightness, 0..1 (h, w)."""

    gradient: NDArray[np.complex64]
    """Change of brightness: across (real) and down (imaginary) (h, w)."""


def pixel_maps(frame: NDArray[np.uint8]) -> PixelMaps:
    """Statistics of a frame uint8 (S,S,3), at (S/2, S/2)."""
    half = frame.shape[0] // 2
    small = Image.fromarray(frame).resize((half, half), Image.Resampling.BOX)
    hsv = np.asarray(small.convert("HSV"), dtype=np.float32) / np.float32(255)
    light = np.asarray(small.convert("L"), dtype=np.float32) / np.float32(255)
    down, across = np.gradient(light)
    gradient: NDArray[np.complex64] = np.asarray(across + 1j * down, dtype=np.complex64)
    return PixelMaps(colour_names(hsv), light, gradient)


def colour_names(hsv: NDArray[np.float32]) -> NDArray[np.int64]:
    """The colour word of each pixel: indices into COLOURS, from HSV of 0..1 (..., 3)."""
    hue, saturation, value = hsv[..., 0] * 360, hsv[..., 1], hsv[..., 2]
    warm = (hue >= 15) & (hue < 45)
    rules = (
        ("black", value < 0.2),
        ("white", (saturation < 0.15) & (value > 0.8)),
        ("gray", saturation < 0.15),
        ("tan", warm & (saturation < 0.5) & (value > 0.55)),
        ("brown", (warm | (hue < 15)) & (value < 0.6) & (saturation < 0.85)),
        ("orange", warm),
        ("yellow", (hue >= 45) & (hue < 70)),
        ("green", (hue >= 70) & (hue < 165)),
        ("blue", (hue >= 165) & (hue < 255)),
        ("purple", (hue >= 255) & (hue < 300)),
        ("pink", ((hue >= 300) & (hue < 345)) | ((saturation < 0.5) & (value > 0.7))),
    )
    choices = [COLOURS.index(name) for name, _ in rules]
    return np.select([rule for _, rule in rules], choices, COLOURS.index("red"))


def statistics(maps: PixelMaps, masks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of STATISTICS under masks (M,h,w) of weights: float32 (M, len(STATISTICS))."""
    squared = maps.gradient**2  # doubling the angle makes opposite gradients agree
    planes = [*(maps.colour == index for index in range(len(COLOURS)))]
    planes += [maps.light, maps.light**2, np.abs(squared), squared.real, squared.imag]
    values = np.stack([plane.astype(np.float32).ravel() for plane in planes], axis=1)
    weights = masks.reshape(len(masks), -1)
    totals = np.maximum(weights.sum(1, keepdims=True), np.float32(1e-6))
    return np.asarray(weights @ values / totals)


def edge_direction(statistic: NDArray[np.float32]) -> tuple[float, float, float]:
    """Strength, agreement (0..1) and angle in degrees (0 across, 90 down) of the edges."""
    energy, real, imaginary = (float(v) for v in statistic[-3:])
    agreement = float(np.hypot(real, imaginary)) / max(energy, 1e-9)
    return float(np.sqrt(energy)), agreement, float(np.degrees(np.arctan2(imaginary, real))) / 2


def colour_mask(maps: PixelMaps, rng: np.random.Generator) -> tuple[str, NDArray[np.bool_]] | None:
    """Pixels of one colour of the frame, a rare one sooner: its name and mask (h,w)."""
    share = np.bincount(maps.colour.ravel(), minlength=len(COLOURS)) / maps.colour.size
    weight = np.where((share > 0.02) & (share < 0.6), 1 / np.sqrt(share + 0.02), 0.0)
    if not weight.any():
        return None
    index = int(rng.choice(len(COLOURS), p=weight / weight.sum()))
    return COLOURS[index], maps.colour == index


def edge_mask(maps: PixelMaps, rng: np.random.Generator) -> tuple[str, NDArray[np.bool_]] | None:
    """Strong edges of one direction: its name and mask (h,w)."""
    strength = np.abs(maps.gradient)
    angle = np.abs(np.degrees(np.angle(maps.gradient**2))) / 2
    name = str(rng.choice(DIRECTIONS))
    # A gradient across the picture is an edge that stands upright.
    low, high = {"vertical": (0, 15), "diagonal": (32, 58), "horizontal": (75, 91)}[name]
    mask = (strength > 0.06) & (angle >= low) & (angle < high)
    return (name, mask) if mask.mean() > 0.01 else None


def light_mask(maps: PixelMaps, rng: np.random.Generator) -> tuple[str, NDArray[np.bool_]] | None:
    """The brightest or the darkest part of a frame that has both: "light" or "dark"."""
    low, high = np.quantile(maps.light, [0.1, 0.9])
    if high - low < 0.4:
        return None
    name = "light" if rng.random() < 0.6 else "dark"
    return name, (maps.light >= high) if name == "light" else (maps.light <= low)
