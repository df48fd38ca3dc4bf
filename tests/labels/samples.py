"""Made-up labels and photos for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from milan_onnx.labels import Candidate, Exemplar, ReportRun, UnitLabel

MODEL = "ab" * 32
WORDS = ("dog faces", "red wheels", "the sky", "text on signs", "dogs and people")


def sample_label(unit: int, layer: str = "relu1", *, images: Sequence[int] = ()) -> UnitLabel:
    """A described unit, with candidates and the given exemplars."""
    texts = [WORDS[(unit + i) % len(WORDS)] for i in range(3)]
    candidates = tuple(Candidate(t, -1.5 - i, -4.0 - i, -12.5) for i, t in enumerate(texts))
    best = candidates[0]
    return UnitLabel(
        model=MODEL,
        layer=layer,
        unit=unit,
        description=best.description,
        pmi=best.pmi,
        log_p_given_exemplars=best.log_p_given_exemplars,
        log_p=best.log_p,
        candidates=candidates,
        exemplars=tuple(Exemplar(i, f"photo{i:05}.jpg", 9.0 - n) for n, i in enumerate(images)),
        threshold=2.5,
    )


def dead_label(unit: int, layer: str = "relu1") -> UnitLabel:
    """A unit with nothing to describe."""
    return UnitLabel(MODEL, layer, unit, None, None, None, None, (), (), 0.0, ("dead",))


def sample_run(labels: Sequence[UnitLabel], *, noise: bool = False) -> ReportRun:
    """A run of these labels whose photos are smooth, or noise (what JPEG does worst at)."""
    return ReportRun(
        title="toy.onnx",
        facts={"Model": "toy.onnx", "λ": "0.2"},
        layers=tuple(dict.fromkeys(label.layer for label in labels)),
        labels=labels,
        mask=noise_mask if noise else blob_mask,
        frames=noise_frames if noise else smooth_frames,
    )


def blob_mask(layer: str, unit: int, rank: int, size: int) -> NDArray[np.bool_]:
    """A disc whose place depends on the rank."""
    rows, columns = np.mgrid[:size, :size] / size
    return np.asarray((rows - 0.5) ** 2 + (columns - 0.06 * (rank + 1)) ** 2 < 0.06)


def noise_mask(layer: str, unit: int, rank: int, size: int) -> NDArray[np.bool_]:
    """A mask that no run-length code shortens."""
    return np.random.default_rng(unit * 100 + rank).random((size, size)) < 0.5


def smooth_frames(images: Sequence[int], side: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """A gradient a photo, in a colour of its own."""
    for image in images:
        ramp = np.linspace(0, 255, side * side).reshape(side, side, 1)
        yield image, (ramp * [(image % 7) / 7, (image % 5) / 5, 1.0]).astype(np.uint8)


def noise_frames(images: Sequence[int], side: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Random pixels."""
    for image in images:
        yield image, np.random.default_rng(image).integers(0, 256, (side, side, 3), np.uint8)
