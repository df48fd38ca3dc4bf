"""Labelled regions of photos: reading the list, decoding masks, cutting square views."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from milan_onnx.errors import ProbeError

Kind = Literal["mask", "box", "whole"]
REGIONS = "regions.jsonl.gz"
LONGEST_SHIFT = 30
"""Bits before a run's last group: no run is longer than 2^35 pixels, so sums fit 64 bits."""


@dataclass(frozen=True)
class Region:
    """A labelled part of a photo: one line of ``regions.jsonl.gz``."""

    source: str
    """Collection the photo came from."""

    image: str
    """Path of the photo inside the data folder."""

    kind: Kind
    """How exact the outline is."""

    label: str
    """What the region shows."""

    split: str
    """What it may be used for: ``train``, ``val``, or any other name."""

    width: int
    """Width of the photo in pixels."""

    height: int
    """Height of the photo in pixels."""

    rle: str = ""
    """Mask in COCO's compressed run lengths, for kind ``mask``."""

    box: tuple[float, float, float, float] | None = None
    """Left, top, width, height in pixels, for kind ``box``."""

    attrs: Mapping[str, Any] = field(default_factory=dict)
    """What else the source says of it."""


@dataclass(frozen=True)
class View:
    """A square cut of a photo, scaled to the encoder's input."""

    left: float
    """Left edge in pixels of the photo."""

    top: float
    """Top edge in pixels of the photo."""

    side: float
    """Side in pixels of the photo."""


def read_regions(data: Path) -> list[Region]:
    """Read ``regions.jsonl.gz`` of a data folder.

    Raises ProbeError where it is not there, or naming the first line that is damaged.
    """
    path = data / REGIONS
    if not path.is_file():
        raise ProbeError(f"{data} holds no {REGIONS}", hint="give the folder that holds it")
    regions: list[Region] = []
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                regions.append(_region(json.loads(line)))
    except (
        OSError,
        EOFError,
        zlib.error,
        ValueError,
        TypeError,
        KeyError,
        RecursionError,
    ) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ProbeError(
            f"{path} line {len(regions) + 1} is damaged: {reason}", hint="copy the folder again"
        ) from error
    return regions


def _region(row: Mapping[str, Any]) -> Region:
    box = row.get("box")
    if row["kind"] not in get_args(Kind):
        raise ValueError(f"unknown kind {row['kind']!r}")
    if Path(row["image"]).is_absolute() or ".." in Path(row["image"]).parts:
        raise ValueError(f"{row['image']} is outside the folder")
    if min(int(row["w"]), int(row["h"])) < 1:
        raise ValueError("a photo without pixels")
    return Region(
        str(row["source"]),
        str(row["image"]),
        row["kind"],
        str(row["label"]),
        str(row["split"]),
        int(row["w"]),
        int(row["h"]),
        str(row.get("rle", "")),
        _box(box) if box else None,
        row.get("attrs", {}),
    )


def _box(numbers: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, width, height = map(float, numbers)
    if not math.isfinite(left + top + width + height):
        raise ValueError("a box that is not finite")
    return left, top, width, height


def decode_rle(counts: str, height: int, width: int) -> NDArray[np.bool_]:
    """Decode COCO's compressed run lengths to a mask (height, width).

    Runs alternate between background and mask, down the columns. Raises ProbeError where they are
    damaged or fill another size.
    """
    runs = run_lengths([counts])[0]
    if int(runs.sum()) != height * width:
        raise ProbeError(f"a mask of {int(runs.sum())} pixels does not fit {width}x{height}")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def run_lengths(counts: Sequence[str]) -> NDArray[np.int64]:
    """Run lengths (n, R) of some masks in COCO's compressed form, filled up with zeros.

    A run is stored in groups of five bits, lowest first; from the fourth on, as the difference to
    the run two before. All at once, since a file may hold a hundred thousand. Raises ProbeError
    where one is damaged.
    """
    sizes = np.array([len(text) for text in counts])
    data = "".join(counts).encode("latin-1", "replace")
    codes = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    # Each text must end with the last group of a run.
    if (
        sizes.min() < 1
        or codes.min() < 0
        or codes.max() > 63
        or (codes[sizes.cumsum() - 1] > 31).any()
    ):
        raise ProbeError("damaged run lengths")
    ends = np.flatnonzero(codes < 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    shifts = 5 * (np.arange(codes.size) - np.repeat(starts, ends - starts + 1))
    if shifts.max() > LONGEST_SHIFT:
        raise ProbeError("damaged run lengths")
    values = np.add.reduceat((codes & 0x1F) << shifts, starts)
    values -= (codes[ends] & 0x10) << (shifts[ends] + 1)
    text = np.repeat(np.arange(len(counts)), sizes)[ends]
    first = np.searchsorted(text, np.arange(len(counts)))
    place = np.arange(text.size) - first[text]
    runs = np.zeros((len(counts), int(place.max()) + 1), np.int64)
    runs[text, place] = values
    runs[:, 1::2] = runs[:, 1::2].cumsum(1)
    runs[:, 2::2] = runs[:, 2::2].cumsum(1)
    runs[np.arange(runs.shape[1]) > place[np.append(first[1:], text.size) - 1][:, None]] = 0
    if runs.min() < 0:
        raise ProbeError("damaged run lengths")
    return runs


def region_mask(region: Region) -> NDArray[np.bool_]:
    """The region in the photo's own pixels: bool (height, width).

    Raises ProbeError naming the photo where the run lengths are damaged.
    """
    if region.kind == "mask":
        try:
            return decode_rle(region.rle, region.height, region.width)
        except ProbeError as error:
            raise ProbeError(
                f"the mask of {region.label!r} in {region.image} is damaged: {error}",
                hint="copy the folder again",
            ) from error
    mask = np.zeros((region.height, region.width), dtype=bool)
    left, top, width, height = region.box or (0.0, 0.0, float(region.width), float(region.height))
    rows = slice(max(0, round(top)), max(0, round(top + height)))
    mask[rows, max(0, round(left)) : max(0, round(left + width))] = True
    return mask


def centre_view(width: int, height: int) -> View:
    """The largest square in the middle of a photo."""
    side = min(width, height)
    return View((width - side) / 2, (height - side) / 2, side)


def cut_image(photo: Image.Image, view: View, size: int) -> NDArray[np.uint8]:
    """The view of an RGB photo as uint8 (size, size, 3)."""
    return np.asarray(_cut(photo, view, size, Image.Resampling.BILINEAR), dtype=np.uint8)


def cut_mask(mask: NDArray[np.bool_], view: View, size: int) -> NDArray[np.bool_]:
    """The view of a mask as bool (size, size)."""
    plane = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(_cut(plane, view, size, Image.Resampling.NEAREST)) > 0


def _cut(image: Image.Image, view: View, size: int, how: Image.Resampling) -> Image.Image:
    box = (view.left, view.top, view.left + view.side, view.top + view.side)
    return image.resize((size, size), how, box=box)
