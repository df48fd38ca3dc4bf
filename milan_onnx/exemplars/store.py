"""What a scan found in a layer, in memory and on disk.

On disk a layer is a folder of plain ``.npy`` arrays (no pickle, memory-mapped when read) and a
``layer.json``; equal results are equal bytes.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import RunError
from milan_onnx.exemplars.quantile import Method
from milan_onnx.files import unwritable, write_bytes, write_json

Floats = NDArray[np.float32]

ARRAYS = (
    "ids",
    "activations",
    "maps",
    "thresholds",
    "bottomed",
    "maximum",
    "sample",
    "fingerprint",
)
DTYPES: Mapping[str, tuple[type[np.generic], ...]] = {
    "ids": (np.int64,),
    "maps": (np.float32, np.uint8),
    "bottomed": (np.bool_,),
    "sample": (np.int64,),
}
"""What arrays may hold that are not float32."""
LAYER_FILE = "layer.json"


@dataclass(frozen=True)
class LayerExemplars:
    """The exemplars of every unit of one layer."""

    layer: str
    """Tensor name of the layer."""

    ids: NDArray[np.int64]
    """Image ids (U, k), best first."""

    activations: Floats
    """The largest activation of the unit in each of these images (U, k)."""

    maps: Floats | NDArray[np.uint8]
    """Activation maps of these images (U, k, h, w); uint8 where they are masks of another tool."""

    thresholds: Floats
    """The quantile of each unit's activations (U,)."""

    bottomed: NDArray[np.bool_]
    """Whether no activation of the unit lies below its threshold (U,)."""

    maximum: Floats
    """Largest activation of each unit (U,)."""

    sample: NDArray[np.int64]
    """Image ids (S,) of a random sample of the scanned images, the same for all units and for all
    models that see these images; none (S = 0) where maps are masks of another tool."""

    fingerprint: Floats
    """The largest activation of each unit in each of the sample's images (U, S)."""

    images: int
    """Images that were scanned."""

    method: Method
    """How the thresholds were found: the exact ``tail``, the bounded ``histogram``, or ``given``
    where maps are masks of another tool."""

    @property
    def units(self) -> int:
        """U, the number of units."""
        return len(self.ids)

    def flags(self, unit: int) -> tuple[str, ...]:
        """What is unusual in a unit, sorted.

        ``dead``: always zero. ``constant``: always one other value. ``saturated``: the threshold
        is the largest value and several positions tie there, more than one per cent. ``sparse``:
        the threshold is the smallest value, so fewer than one per cent of positions are above it.
        """
        threshold, high = self.thresholds[unit], self.maximum[unit]
        if self.bottomed[unit] and threshold == high:
            return ("dead",) if high == 0 else ("constant",)
        if threshold == high:
            # Of fewer than a hundred positions the quantile is the maximum anyway.
            ties = np.count_nonzero(self.maps[unit] == high)
            return ("saturated",) if ties > 1 else ()
        return ("sparse",) if self.bottomed[unit] else ()


def layer_folder(index: int, layer: str) -> str:
    """Name of the folder of the index-th layer of a run."""
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", layer).strip("-.")[:60]
    return f"{index:03d}-{readable}" if readable else f"{index:03d}"


def save_layers(folder: Path, layers: Sequence[LayerExemplars]) -> None:
    """Write the store: a folder a layer."""
    for index, layer in enumerate(layers):
        place = folder / layer_folder(index, layer.layer)
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(place, error) from error
        for name in ARRAYS:
            write_bytes(place / f"{name}.npy", _npy(getattr(layer, name)))
        facts = {"layer": layer.layer, "images": layer.images, "method": layer.method}
        write_json(place / LAYER_FILE, facts)


def load_layers(folder: Path) -> list[LayerExemplars]:
    """Read a store. Raises RunError naming the file that is missing or damaged."""
    places = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    if not places:
        raise RunError(f"{folder} holds no exemplars", hint="describe the model again")
    return [_load_layer(place) for place in places]


def _load_layer(place: Path) -> LayerExemplars:
    try:
        facts = json.loads((place / LAYER_FILE).read_text(encoding="utf-8"))
        arrays = {n: np.load(place / f"{n}.npy", mmap_mode="r") for n in ARRAYS}
        _check_arrays(arrays)
        return LayerExemplars(
            layer=str(facts["layer"]), images=facts["images"], method=facts["method"], **arrays
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(
            f"the exemplars in {place} are damaged: {error}", hint="describe the model again"
        ) from error


def _check_arrays(arrays: Mapping[str, Any]) -> None:
    """The arrays must fit one another as `LayerExemplars` says. Raises ValueError."""
    for name, array in arrays.items():
        kinds = DTYPES.get(name, (np.float32,))
        if not isinstance(array, np.ndarray) or array.dtype not in kinds:
            raise ValueError(f"{name}.npy holds no {np.dtype(kinds[0])} array")
    units, k = arrays["ids"].shape if arrays["ids"].ndim == 2 else (-1, -1)
    maps = arrays["maps"].shape
    grid = maps[2:] if len(maps) == 4 and min(maps[2:]) > 0 else (-1, -1)
    shapes = {
        "ids": (units, k),
        "activations": (units, k),
        "maps": (units, k, *grid),
        "sample": (arrays["sample"].size,),
        "fingerprint": (units, arrays["sample"].size),
    }
    for name, array in arrays.items():
        if array.shape != shapes.get(name, (units,)):
            raise ValueError(f"{name}.npy has the shape {array.shape}, which does not fit the rest")


def _npy(array: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()
