"""One pass over the probe images: exemplars, quantiles, extremes and fingerprints of every asked
layer.

Memory does not grow with the number of images beyond the tail buffers' budget: a layer keeps the
maps of its winners, a tail (or histogram) of activations, two extremes and a fingerprint a unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import SubjectError
from milan_onnx.exemplars.activations import Activations
from milan_onnx.exemplars.fingerprint import Fingerprints
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
from milan_onnx.exemplars.state import Arrays, State, fitting, flat, number, part, within
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
        self.fingerprints = Fingerprints(self.units)
        self.held_out = (
            HeldOutScan(self.units, (self.height, self.width), options.held_out)
            if options.held_out
            else None
        )
        self.images = 0
        # Smallest activations, followed until they are known to lie below the threshold.
        self._lowest = np.full(self.units, np.inf, np.float32)
        self._maximum = np.full(self.units, -np.inf, np.float32)

    def add(self, ids: Ids, activations: Activations, sides: Halves) -> None:
        """Count images: ids (B,) and their activations; ``sides``: their ranks, and the halves
        they are in where one is held out."""
        scores = activations.maxima
        if np.isnan(scores).any():
            unit = int(np.flatnonzero(np.isnan(scores).any(axis=0))[0])
            raise SubjectError(
                f"layer {self.layer} gives NaN for unit {unit}",
                hint="the model is broken, or its preprocessing is another one (--mean, --std)",
            )
        self.images += len(ids)
        self._maximum = np.maximum(self._maximum, scores.max(axis=0))
        open_units = np.flatnonzero(self._lowest >= self.quantile.bars())
        if open_units.size:
            lowest = activations.lowest(open_units)
            self._lowest[open_units] = np.minimum(self._lowest[open_units], lowest)
        self.quantile.add(activations)
        self.fingerprints.add(ids, sides.ranks, scores)
        if self.held_out is None:
            self.topk.add(ids, activations)
            return
        self.topk.add(ids, activations, np.flatnonzero(~sides.held_out))
        self.held_out.add(ids, activations, sides)

    def merge(self, other: LayerScan) -> None:
        """Count what the scan of other images counted."""
        self.images += other.images
        self._maximum = np.maximum(self._maximum, other._maximum)
        self._lowest = np.minimum(self._lowest, other._lowest)
        self.topk.merge(other.topk)
        self.quantile.merge(other.quantile)
        self.fingerprints.merge(other.fingerprints)
        if self.held_out is not None and other.held_out is not None:
            self.held_out.merge(other.held_out)

    def settle(self) -> None:
        """Make the state depend on nothing but what was counted: on no order and no batches."""
        self.quantile.settle()
        # Nothing is asked of it but whether it lies below the threshold, which the bar does not.
        self._lowest[self._lowest < self.quantile.bars()] = -np.inf

    def state(self) -> Arrays:
        """All statistics, from which `load` goes on."""
        return {
            "images": np.int64(self.images).reshape(1),
            "lowest": self._lowest,
            "maximum": self._maximum,
            **within("topk", self.topk.state()),
            **within("quantile", self.quantile.state()),
            **within("fingerprints", self.fingerprints.state()),
            **(within("held_out", self.held_out.state()) if self.held_out else {}),
        }

    def load(self, state: State) -> None:
        """Go on from a state. Raises ValueError where it is of another layer, or other options."""
        self.images = number(state, "images")
        self._lowest = fitting(state, "lowest", self._lowest)
        self._maximum = fitting(state, "maximum", self._maximum)
        self.topk.load(part("topk", state))
        self.quantile.load(part("quantile", state))
        self.fingerprints.load(part("fingerprints", state))
        if self.held_out:
            self.held_out.load(part("held_out", state))

    def result(self) -> LayerExemplars:
        """The exemplars, once all images are counted."""
        ids, activations, maps = self.topk.ranked()
        thresholds = self.quantile.value()
        sample, fingerprint = self.fingerprints.result()
        return LayerExemplars(
            layer=self.layer,
            ids=ids,
            activations=activations,
            maps=maps.reshape(*maps.shape[:2], self.height, self.width),
            thresholds=thresholds,
            bottomed=self._lowest >= thresholds,
            maximum=self._maximum,
            sample=sample,
            fingerprint=fingerprint,
            images=self.images,
            method=self.quantile.method,
        )


class Scan:
    """One pass over the probe images, for all layers."""

    def __init__(
        self,
        layers: Sequence[str],
        images: int,
        options: ScanOptions,
    ) -> None:
        """Of at most ``images`` images."""
        self._names, self._images, self._options = layers, images, options
        self.layers: list[LayerScan] = []

    def bars(self) -> list[Floats | None]:
        """Of each layer what activations must be above to count in the quantile (U,), as far as is
        known; it may be read while images are counted."""
        if not self.layers:
            return [None] * len(self._names)
        return [layer.quantile.bars() for layer in self.layers]

    def add(
        self, ids: Ids, activations: Sequence[Activations], digests: Sequence[str] | None = None
    ) -> None:
        """Count images: ids (B,), each layer's activations, and what tells their contents (B,).

        The contents say which images make the fingerprints and, where a half is held out, which is
        in which; None: the ids stand for them. Raises SubjectError where a layer gives NaN.
        """
        if not self.layers:
            self._begin([out.shape[1:] for out in activations])
        sides = halves(digests or [str(i) for i in ids.tolist()])
        for layer, found in zip(self.layers, activations, strict=True):
            layer.add(ids, found, sides)

    def merge(self, other: Scan) -> None:
        """Count what the scan of other images counted, of the same layers and with the same
        options. Raises ValueError where they are others."""
        if not other.layers:
            return
        shapes = [(layer.units, layer.height, layer.width) for layer in other.layers]
        if not self.layers:
            self._begin(shapes)
        if shapes != [(layer.units, layer.height, layer.width) for layer in self.layers]:
            raise ValueError("layers of other shapes cannot be merged")
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.merge(theirs)

    def settle(self) -> None:
        """Make the state depend on nothing but which images were counted."""
        for layer in self.layers:
            layer.settle()

    def state(self) -> Arrays:
        """All statistics of all layers, from which `load` goes on."""
        arrays: Arrays = {}
        for index, layer in enumerate(self.layers):
            shape = np.array((layer.units, layer.height, layer.width), np.int64)
            arrays |= within(str(index), {"shape": shape, **layer.state()})
        return arrays

    def load(self, state: State) -> None:
        """Go on from a state; the empty one is of a scan that saw no image.

        Raises ValueError where it is of other layers or options.
        """
        if not state:
            return
        parts = [part(str(index), state) for index in range(len(self._names))]
        shapes = [tuple(flat(found, "shape", 3).tolist()) for found in parts]
        self._begin([(u, h, w) for u, h, w in shapes])
        for layer, found in zip(self.layers, parts, strict=True):
            layer.load(found)

    def _begin(self, shapes: Sequence[tuple[int, int, int]]) -> None:
        methods = choose_methods(shapes, self._images, self._options)
        self.layers = [
            LayerScan(layer, shape, self._images, self._options, method)
            for layer, shape, method in zip(self._names, shapes, methods, strict=True)
        ]


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
