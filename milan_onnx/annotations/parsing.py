"""A line of a file of described units: every key checked, masks too, before anything is used."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, get_args

from milan_onnx.annotations.units import AnnotatedUnit, Annotation
from milan_onnx.errors import ProbeError
from milan_onnx.geometry import Geometry, Interpolation
from milan_onnx.regions import run_lengths

LARGEST_SIDE = 4096
"""Largest side of frames and masks, pixels."""
COHERENCE = range(4)


class BadLine(Exception):
    """What is wrong with a line."""


@dataclass(frozen=True)
class Exemplar:
    """A photo that excites a unit, and where."""

    image: str
    """Path of the photo within the photos' folder."""

    activation: float
    """The unit's largest activation on it."""

    rle: str
    """The exciting region on the frame: COCO's compressed run lengths of a mask (grid, grid)."""


@dataclass(frozen=True)
class Line:
    """A described unit as a line has it."""

    unit: AnnotatedUnit
    """What was said of it."""

    geometry: Geometry
    """How its photos become frames."""

    grid: int
    """Side of its masks."""

    exemplars: tuple[Exemplar, ...]
    """What excites it, best first."""


def parse_line(text: bytes, number: int) -> Line:
    """The unit of a line. Raises BadLine with what is wrong."""
    try:
        row = json.loads(text.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        byte = text[error.start]
        raise BadLine(f"not UTF-8 (byte 0x{byte:02x} in column {error.start + 1})") from error
    except (ValueError, RecursionError) as error:
        raise BadLine(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadLine("not a JSON object")
    grid = _whole(row, "grid", 1, LARGEST_SIDE)
    exemplars = tuple(_exemplar(value) for value in _objects(row, "exemplars"))
    _check_masks(exemplars, grid)
    unit = AnnotatedUnit(
        network=_text(row, "network"),
        layer=_text(row, "layer"),
        unit=_whole(row, "unit", 0, 2**31),
        annotations=tuple(_annotation(value) for value in _objects(row, "notes")),
        exemplars=len(exemplars),
        tensor=_text(row, "tensor"),
        split=_text(row, "split"),
        line=number,
    )
    return Line(unit, _geometry(row), grid, exemplars)


def _exemplar(row: Mapping[str, Any]) -> Exemplar:
    image, rle = _text(row, "image"), _text(row, "rle")
    if _leaves(image):
        raise BadLine(f"{image} is outside the folder")
    activation = _get(row, "activation")
    if not isinstance(activation, int | float) or isinstance(activation, bool):
        raise BadLine("an activation that is no number")
    if not math.isfinite(activation):
        raise BadLine("an activation that is not finite")
    return Exemplar(image, float(activation), rle)


def _check_masks(exemplars: Sequence[Exemplar], grid: int) -> None:
    try:
        cells = run_lengths([exemplar.rle for exemplar in exemplars]).sum(1).tolist()
    except ProbeError as error:
        if len(exemplars) == 1:
            raise BadLine(f"the mask on {exemplars[0].image} has {error}") from error
        for exemplar in exemplars:  # which one is it?
            _check_masks([exemplar], grid)
        raise AssertionError from error
    for exemplar, count in zip(exemplars, cells, strict=True):
        if count != grid * grid:
            raise BadLine(
                f"the mask on {exemplar.image} has {count} cells, not those of a {grid}x{grid} grid"
            )


@functools.lru_cache(maxsize=1 << 17)
def _leaves(image: str) -> bool:
    """Whether a path may lead out of the folder that it starts from."""
    windows = PureWindowsPath(image)
    absolute = PurePosixPath(image).is_absolute() or bool(windows.drive or windows.root)
    return absolute or ".." in windows.parts or "\0" in image


def _annotation(row: Mapping[str, Any]) -> Annotation:
    coherence = _get(row, "coherence")
    if not isinstance(coherence, int) or isinstance(coherence, bool) or coherence not in COHERENCE:
        raise BadLine(f"coherence {coherence!r} is none of 0, 1, 2, 3")
    also = _text(row, "also") if row.get("also", "") != "" else ""
    return Annotation(_text(row, "description"), also, coherence)


def _geometry(row: Mapping[str, Any]) -> Geometry:
    frame = _get(row, "frame")
    if not isinstance(frame, dict):
        raise BadLine("its frame is not a JSON object")
    crop, resize = _sides(_get(frame, "crop")), _get(frame, "resize")
    if crop is None:
        raise BadLine(f"the frame's crop is {frame['crop']!r}, not [height, width]")
    exact = _sides(resize)
    if resize is not None and exact is None and not _is_side(resize):
        raise BadLine(f"the frame's resize is {resize!r}, not a number of pixels")
    interpolation = frame.get("interpolation", "bilinear")
    if interpolation not in get_args(Interpolation):
        raise BadLine(f"the frame's interpolation is {interpolation!r}")
    return Geometry(crop=crop, resize=exact or resize, interpolation=interpolation)


def _sides(value: Any) -> tuple[int, int] | None:
    """(height, width) where a value is that."""
    if isinstance(value, list) and len(value) == 2 and all(map(_is_side, value)):
        return value[0], value[1]
    return None


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_SIDE


def _get(row: Mapping[str, Any], key: str) -> Any:
    if key not in row:
        raise BadLine(f"no {key}")
    return row[key]


def _text(row: Mapping[str, Any], key: str) -> str:
    value = _get(row, key)
    if not isinstance(value, str):
        raise BadLine(f"its {key} is not text")
    if not value.strip():
        raise BadLine(
            f"an empty {key}" if key not in ("description", "also") else "an empty phrase"
        )
    return value.strip() if key in ("description", "also") else value


def _whole(row: Mapping[str, Any], key: str, least: int, most: int) -> int:
    value = _get(row, key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadLine(f"its {key} is {value!r}, not a number from {least} to {most}")
    return value


def _objects(row: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = _get(row, key)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadLine(f"its {key} are not a list of JSON objects")
    if not value:
        raise BadLine(f"it has no {key}")
    return value
