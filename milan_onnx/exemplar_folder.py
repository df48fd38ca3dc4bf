"""Exemplars as the paper's own code keeps them: a folder a layer.

    images.npy       uint8 (units, k, 3, S, S), RGB; not there where it may not be handed on
    masks.npy        uint8 (units, k, 1, S, S), 0 or 1
    ids.csv          units x k numbers of the dataset's images, no header
    activations.csv  units x k largest activations, best first; not there in MILANNOTATIONS
    units.npy        numbers of the units in these arrays, where not all were kept

Arrays are memory-mapped: a layer of 2,048 units is 6 GB. A folder whose subfolders hold these files
is a network, its subfolders are the layers.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import BadInput
from milan_onnx.files import unwritable, write_bytes

Bytes = NDArray[np.uint8]
N = TypeVar("N", bound=np.generic)

IMAGES, MASKS, UNITS = "images.npy", "masks.npy", "units.npy"
IDS, ACTIVATIONS = "ids.csv", "activations.csv"
AGAIN = "get the folder again"


@dataclass(frozen=True)
class ExemplarArrays:
    """What a layer's folder holds."""

    masks: Bytes
    """(units, k, 1, S, S), memory-mapped."""

    images: Bytes | None
    """(units, k, 3, S, S), memory-mapped; None where they are in the dataset."""

    ids: NDArray[np.int64]
    """(units, k); -1 where they are not told."""

    activations: NDArray[np.float32] | None
    """(units, k); None where they are not told."""

    units: NDArray[np.int64]
    """Numbers of the units (units,)."""


def layer_folders(folder: Path) -> list[Path]:
    """The folder itself where it is a layer's, else its subfolders that are, by name.

    Raises BadInput where there is none.
    """
    if (folder / MASKS).is_file():
        return [folder]
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [path for path in inside if (path / MASKS).is_file()]
    if not found:
        raise BadInput(
            f"{folder} holds no exemplars of the paper's format",
            hint=f"give a folder with {MASKS}, or one with a folder a layer",
        )
    return found


def read_exemplars(folder: Path) -> ExemplarArrays:
    """Open a layer's folder and check its files against one another.

    Raises BadInput naming the file that is missing, damaged or does not fit.
    """
    masks = _mapped(folder / MASKS)
    images = _mapped(folder / IMAGES) if (folder / IMAGES).is_file() else None
    shape = masks.shape[:2]
    square = masks.shape[2] == 1 and masks.shape[3] == masks.shape[4]
    if not square or (images is not None and images.shape != (*shape, 3, *masks.shape[3:])):
        shapes = f"masks {masks.shape}" + ("" if images is None else f", images {images.shape}")
        raise BadInput(f"{folder} holds arrays that do not fit: {shapes}", hint=AGAIN)
    ids = _table(folder / IDS, shape, np.int64)
    if images is None and ids is None:
        raise BadInput(f"{folder} holds neither {IMAGES} nor {IDS}", hint=AGAIN)
    return ExemplarArrays(
        masks=masks,
        images=images,
        ids=np.full(shape, -1, np.int64) if ids is None else ids,
        activations=_table(folder / ACTIVATIONS, shape, np.float32),
        units=read_units(folder),
    )


def exemplar_count(folder: Path) -> int:
    """k, how many exemplars a unit of a layer's folder has. Raises BadInput where it is damaged."""
    return int(_mapped(folder / MASKS).shape[1])


def read_units(folder: Path) -> NDArray[np.int64]:
    """Numbers of the units in a layer's arrays (units,). Raises BadInput where they do not fit."""
    count, path = len(_mapped(folder / MASKS)), folder / UNITS
    if not path.is_file():
        return np.arange(count)
    try:
        units = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"{path} cannot be read: {error}", hint=AGAIN) from error
    if units.shape != (count,) or not np.issubdtype(units.dtype, np.integer):
        raise BadInput(f"{path} names {units.size} units, {MASKS} holds {count}", hint=AGAIN)
    return np.asarray(units, np.int64)


def _mapped(path: Path) -> Bytes:
    try:
        found = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"{path} cannot be read: {error}", hint=AGAIN) from error
    if found.dtype != np.uint8 or found.ndim != 5:
        raise BadInput(f"{path} holds {found.dtype} {found.shape}, not bytes of 5 axes", hint=AGAIN)
    return np.asarray(found) if not isinstance(found, np.memmap) else found


def _table(path: Path, shape: tuple[int, ...], kind: type[N]) -> NDArray[N] | None:
    if not path.is_file():
        return None
    try:
        found: NDArray[N] = np.loadtxt(path, dtype=kind, delimiter=",", ndmin=2)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if found.shape != shape:
        raise BadInput(f"{path} holds {found.shape} numbers, {MASKS} {shape}", hint=AGAIN)
    return found


class ExemplarWriter:
    """Writes a layer's folder, image by image."""

    def __init__(self, folder: Path, units: int, exemplars: int, side: int) -> None:
        """Begin a folder. Raises OutputUnwritable where it cannot be written."""
        self.folder = folder
        shape = (units, exemplars)
        try:
            folder.mkdir(parents=True)
            self._images = _created(folder / IMAGES, (*shape, 3, side, side))
            self._masks = _created(folder / MASKS, (*shape, 1, side, side))
        except OSError as error:
            raise unwritable(folder, error) from error

    def put(self, unit: int, rank: int, image: Bytes, mask: NDArray[np.bool_]) -> None:
        """One exemplar: image (S, S, 3), mask (S, S)."""
        self._images[unit, rank] = image.transpose(2, 0, 1)
        self._masks[unit, rank, 0] = mask

    def close(self, ids: NDArray[np.int64], activations: NDArray[np.float32]) -> None:
        """Write the tables (units, k) and let go of the arrays."""
        self._images.flush()
        self._masks.flush()
        del self._images, self._masks
        write_bytes(self.folder / IDS, _csv(ids, "%i"))
        write_bytes(self.folder / ACTIVATIONS, _csv(activations, "%.5e"))


def _created(path: Path, shape: Iterable[int]) -> np.memmap[Any, np.dtype[np.uint8]]:
    made: np.memmap[Any, np.dtype[np.uint8]] = np.lib.format.open_memmap(
        path, "w+", np.uint8, tuple(shape)
    )
    return made


def _csv(table: NDArray[np.generic], form: str) -> bytes:
    text = io.BytesIO()
    np.savetxt(text, table, form, delimiter=",")
    return text.getvalue()
