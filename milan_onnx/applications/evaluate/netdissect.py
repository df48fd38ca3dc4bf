"""NetDissect's label of a unit (Bau et al. 2017): the concept its masks overlap most.

Over a unit's exemplars, IoU of a concept is the sum of intersections of the unit's masks with the
concept's regions over the sum of their unions. The original sums over all photos of a set; here it
is the exemplars, since those are what a description is made from. Photos without any labelled
region are left out: whether they show the concept is not known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from milan_onnx.annotations.virtual import concept_name
from milan_onnx.applications.evaluate.answers import TOP
from milan_onnx.exemplars import LayerExemplars, exemplar_masks
from milan_onnx.geometry import Geometry
from milan_onnx.regions import NameTable, Region, region_mask

Mask = NDArray[np.bool_]


class LabelledPhotos:
    """The labelled regions of a run's photos, in the run's frames."""

    def __init__(self, regions: Sequence[Region], table: NameTable, geometry: Geometry) -> None:
        self._table = table
        self._geometry = geometry
        self._by_photo: dict[str, list[Region]] = defaultdict(list)
        for region in regions:
            self._by_photo[region.image].append(region)
        self._known: dict[str, dict[str, NDArray[np.uint8]]] = {}

    def find(self, name: str) -> str | None:
        """The labelled photo that a photo of the run is: the same path, ``images/`` aside."""
        plain = name.replace("\\", "/")
        return next((p for p in (plain, f"images/{plain}") if p in self._by_photo), None)

    def concepts(self, photo: str) -> dict[str, Mask]:
        """The mask of each concept in a photo's frame (H, W); of several regions their union."""
        if photo not in self._known:
            # Packed: those of all photos of a large run would take gigabytes.
            packed = {n: np.packbits(mask) for n, mask in self._concepts(photo).items()}
            self._known[photo] = packed
        height, width = self._geometry.size
        return {
            name: np.unpackbits(bits, count=height * width).reshape(height, width).astype(np.bool_)
            for name, bits in self._known[photo].items()
        }

    def _concepts(self, photo: str) -> dict[str, Mask]:
        masks: dict[str, Mask] = {}
        for region in self._by_photo[photo]:
            name = concept_name(region.label, self._table)
            mask = _frame_mask(region_mask(region), self._geometry)
            masks[name] = masks[name] | mask if name in masks else mask
        return masks


def _frame_mask(mask: Mask, geometry: Geometry) -> Mask:
    plane = Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB")
    return np.asarray(geometry.frame(plane)[:, :, 0] >= 128, dtype=np.bool_)


def dissect(
    layer: LayerExemplars, unit: int, names: Sequence[str], photos: LabelledPhotos
) -> list[str]:
    """The five concepts that a unit's exemplars overlap most, best first; ties by name.

    ``names``: the photos' names, of each exemplar. None where no exemplar is labelled.
    """
    found = [(rank, photos.find(name)) for rank, name in enumerate(names)]
    labelled = [(rank, photo) for rank, photo in found if photo is not None]
    if not labelled:
        return []
    ranks = [rank for rank, _ in labelled]
    concepts = [photos.concepts(photo) for _, photo in labelled]
    height, width = next(iter(concepts[0].values())).shape
    thresholds = layer.thresholds[np.full(len(ranks), unit)]
    maps = layer.maps[unit, ranks].astype(np.float32, copy=False)
    masks = exemplar_masks(maps, thresholds, height, width)
    overlap = iou(masks, concepts)
    best = sorted((name for name in overlap if overlap[name] > 0), key=lambda n: (-overlap[n], n))
    return best[:TOP]


def iou(masks: Mask, concepts: Sequence[dict[str, Mask]]) -> dict[str, float]:
    """Summed intersections over summed unions, by concept.

    ``masks``: (n, H, W); ``concepts``: of each the concepts' masks (H, W). A photo that does not
    show a concept counts as one where it has no pixels.
    """
    areas = masks.sum((1, 2))
    shared: dict[str, int] = defaultdict(int)
    own: dict[str, int] = defaultdict(int)
    for mask, shown in zip(masks, concepts, strict=True):
        for name, other in shown.items():
            shared[name] += int((mask & other).sum())
            own[name] += int(other.sum())
    total = int(areas.sum())
    return {name: shared[name] / max(1, total + own[name] - shared[name]) for name in shared}
