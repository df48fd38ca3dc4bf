"""One pass over the probe images: exemplars, quantiles and extremes of every asked layer.

Memory does not grow with the number of images beyond the tail buffers' budget: a layer keeps the
maps of its winners, a tail (or histogram) of activations and two extremes a unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import SubjectError
from milan_onnx.exemplars.halves import Halves, halves
from milan_onnx.exemplars.held_out import HeldOutOptions, HeldOutScan
from milan_onnx.exemplars.quantile import (
    HistogramQuantile,
    Method,
    Quantile,
    TailQuantile,
    tail_bytes,
    tail_slack,
)
from milan_onnx.exemplars.store import LayerExemplars
from milan_onnx.exemplars.topk import TopK

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class ScanOptions:
    """What decides the result of a scan, beside model and images."""

    exemplars: int = 15
    """k, images kept a unit (paper: 15)."""

    quantile: float = 0.99
    """Level of the activation threshold (paper: 0.99)."""

    tail_memory: int = 512 << 20
    """Bytes for the exact quantile's buffers of all layers; beyond it, histograms."""

    held_out: HeldOutOptions | None = None
    """Take exemplars from one half of the images and keep this of the other; None: use all."""


class LayerScan:
    """The statistics of one layer, as they grow."""

    def __init__(
        self,
        layer: str,
        shape: tuple[int, int, int],
        images: int,
        options: ScanOptions,
        method: Method,
    ) -> None:
        """For activations of shape (U, h, w) of at most ``images`` images.

        Raises SubjectError for a layer that turns out to be empty.
        """
        if 0 in shape:
            raise SubjectError(
                f"layer {layer} is empty: an image gives it {shape[0]} units at "
                f"{shape[1]}x{shape[2]} positions",
                hint="describe another layer, or set the size of the input with --crop",
            )
        self.layer = layer
        self.units, self.height, self.width = shape
        positions = self.height * self.width
        self.topk = TopK(self.units, options.exemplars, positions)
        self.quantile = _quantile(self.units, positions, images, options.quantile, method)
        self.held_out = (
            HeldOutScan(self.units, (self.height, self.width), options.held_out)
            if options.held_out
            else None
        )
        self.images = 0
        self._minimum = np.full(self.units, np.inf, np.float32)
        self._maximum = np.full(self.units, -np.inf, np.float32)

    def add(self, ids: Ids, activations: Floats, sides: Halves | None = None) -> None:
        """Count images: ids (B,) and float32 activations (B, U, h, w).

        ``sides``: the halves they are in, where one is held out.
        """
        flat = np.ascontiguousarray(activations).reshape(len(ids), self.units, -1)
        scores = flat.max(axis=2)
        if np.isnan(scores).any():
            unit = int(np.flatnonzero(np.isnan(scores).any(axis=0))[0])
            raise SubjectError(
                f"layer {self.layer} gives NaN for unit {unit}",
                hint="the model is broken, or its preprocessing is another one (--mean, --std)",
            )
        self.images += len(ids)
        self._maximum = np.maximum(self._maximum, scores.max(axis=0))
        self._minimum = np.minimum(self._minimum, flat.min(axis=(0, 2)))
        with np.errstate(over="ignore", invalid="ignore"):  # infinite sums are equal sums
            sums = flat.sum(axis=2)
        sums = np.nan_to_num(sums, posinf=np.inf, neginf=-np.inf)
        self.quantile.add(flat)
        if self.held_out is None or sides is None:
            self.topk.add(ids, flat, scores, sums)
            return
        self.topk.add(ids, flat, scores, sums, np.flatnonzero(~sides.held_out))
        self.held_out.add(ids, flat, scores, sums, sides)

    def merge(self, other: LayerScan) -> None:
        """Count what the scan of other images counted."""
        self.images += other.images
        self._maximum = np.maximum(self._maximum, other._maximum)
        self._minimum = np.minimum(self._minimum, other._minimum)
        self.topk.merge(other.topk)
        self.quantile.merge(other.quantile)
        if self.held_out is not None and other.held_out is not None:
            self.held_out.merge(other.held_out)

    def result(self) -> LayerExemplars:
        """The exemplars, once all images are counted."""
        ids, activations, maps = self.topk.ranked()
        return LayerExemplars(
            layer=self.layer,
            ids=ids,
            activations=activations,
            maps=maps.reshape(*maps.shape[:2], self.height, self.width),
            thresholds=self.quantile.value(),
            minimum=self._minimum,
            maximum=self._maximum,
            images=self.images,
            method=self.quantile.method,
        )


def scan(
    batches: Iterable[tuple[Ids, Sequence[Floats]]],
    layers: Sequence[str],
    images: int,
    options: ScanOptions,
    progress: Callable[[int], None] = lambda _: None,
    digest: Callable[[int], str] = str,
) -> list[LayerScan]:
    """Scan all layers in one pass.

    ``batches`` gives image ids (B,) and each layer's activations float32 (B,U,h,w); ``images`` is
    the most there can be; ``progress`` is told how many images each batch had. ``digest`` names the
    content of an image by its id: where a half is held out, it says which image is in which.
    Raises SubjectError where a layer gives NaN.
    """
    scans: list[LayerScan] = []
    for ids, outputs in batches:
        if not scans:
            shapes = [(out.shape[1], out.shape[2], out.shape[3]) for out in outputs]
            methods = choose_methods(shapes, images, options)
            scans = [
                LayerScan(layer, shape, images, options, method)
                for layer, shape, method in zip(layers, shapes, methods, strict=True)
            ]
        sides = halves([digest(i) for i in ids.tolist()]) if options.held_out else None
        for layer_scan, activations in zip(scans, outputs, strict=True):
            layer_scan.add(ids, activations, sides)
        progress(len(ids))
    return scans


def choose_methods(
    shapes: Sequence[tuple[int, int, int]], images: int, options: ScanOptions
) -> list[Method]:
    """Exact tails while they fit the budget together; the largest become histograms first."""
    sizes = [tail_bytes(u, h * w, images, options.quantile) for u, h, w in shapes]
    methods: list[Method] = ["tail"] * len(sizes)
    total = sum(sizes)
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        if total <= options.tail_memory:
            break
        methods[index] = "histogram"
        total -= sizes[index]
    return methods


def _quantile(units: int, positions: int, images: int, level: float, method: Method) -> Quantile:
    if method == "histogram":
        return HistogramQuantile(units, level, images * positions)
    slack = tail_slack(positions, images, level)
    return TailQuantile(units, level, images * positions, slack)
