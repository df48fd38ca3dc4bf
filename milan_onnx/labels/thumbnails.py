"""Photos as small JPEGs, and the steps by which a report gives up size for its byte budget."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FrameSource = Callable[[Sequence[int], int], Iterator[tuple[int, NDArray[np.uint8]]]]
"""(image ids in rising order, longer side in pixels) to (id, RGB frame); may leave some out."""

SAMPLE = 48
"""Photos encoded at every step to foresee its size."""


@dataclass(frozen=True)
class Step:
    """How large and how many thumbnails are."""

    side: int
    """Longer side, pixels."""

    quality: int
    """JPEG quality."""

    exemplars: int
    """Most exemplars shown a unit."""


STEPS: tuple[Step, ...] = (
    Step(224, 84, 15),
    Step(192, 82, 15),
    Step(160, 80, 15),
    Step(144, 78, 15),
    Step(128, 76, 15),
    Step(112, 75, 15),
    Step(112, 68, 15),
    Step(96, 70, 15),
    Step(96, 60, 15),
    Step(80, 62, 15),
    Step(80, 52, 15),
    Step(80, 52, 12),
    Step(72, 50, 10),
    Step(72, 45, 8),
    Step(64, 40, 6),
    Step(64, 40, 4),
    Step(48, 35, 3),
    Step(48, 35, 1),
    Step(48, 35, 0),
)
"""Best first. Photos shrink to what still reads at a glance before exemplars are left out."""


@dataclass(frozen=True)
class Thumbnails:
    """Encoded photos."""

    step: Step
    """How they were made."""

    jpegs: Mapping[int, bytes]
    """Image id to JPEG; without the photos that could not be had."""

    height: int
    """Rows of each, pixels."""

    width: int
    """Columns of each, pixels."""


def encode_all(frames: FrameSource, images: Sequence[int], step: Step) -> Thumbnails:
    """Encode photos at a step, one at a time."""
    jpegs: dict[int, bytes] = {}
    height = width = step.side
    for image, frame in frames(images, step.side) if images else ():
        small = shrunk(frame, step.side)
        height, width = small.shape[:2]
        jpegs[int(image)] = encode(small, step.quality)
    return Thumbnails(step, jpegs, height, width)


def encode(frame: NDArray[np.uint8], quality: int) -> bytes:
    """A frame as baseline JPEG with the standard tables, so that all share their header."""
    from PIL import Image

    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(frame))
    image.save(file, "JPEG", quality=quality, subsampling="4:2:0", optimize=False)
    return file.getvalue()


def shrunk(frame: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The frame with its longer side at most ``side``."""
    from PIL import Image

    height, width = frame.shape[:2]
    ratio = side / max(height, width)
    if ratio >= 1:
        return frame
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize(size), dtype=np.uint8)


def shared_head(jpegs: Sequence[bytes]) -> bytes:
    """What all begin with, cut to a multiple of 3 so that base64 of the parts can be joined."""
    if not jpegs:
        return b""
    low, high = min(jpegs), max(jpegs)
    same = next((i for i, byte in enumerate(low) if byte != high[i]), len(low))
    return low[: same - same % 3]


def foreseen_bytes(frames: FrameSource, images: Sequence[int]) -> dict[tuple[int, int], float]:
    """Mean base64 bytes of a photo for each (side, quality), from an even sample of photos."""
    stride = max(1, -(-len(images) // SAMPLE))
    sample = [frame for _, frame in frames(images[::stride], STEPS[0].side)] if images else []
    return {
        (step.side, step.quality): _mean_bytes([shrunk(f, step.side) for f in sample], step.quality)
        for step in STEPS
    }


def _mean_bytes(frames: Sequence[NDArray[np.uint8]], quality: int) -> float:
    jpegs = [encode(frame, quality) for frame in frames]
    head = len(shared_head(jpegs)) if len(jpegs) > 1 else 0
    return sum(4 / 3 * (len(j) - head) + 6 for j in jpegs) / max(1, len(jpegs))
