"""MILANNOTATIONS as its authors distribute it: what people said of units, and what they saw.

A folder holds ``ARCH/DATASET/`` with

    annotations.csv     a line a description: layer, unit, summary (other columns are ignored)
    LAYER/              the exemplars of a layer (see `milan_onnx.exemplar_folder`)

Where there is no ``images.npy`` the images are those of an ImageNet validation folder (a folder a
class), by their place in it, cut as the masks were: shorter side 256, centre 224 (the paper's own
loader squeezes them to 224 instead, so that masks and images do not fit: reference in docs).

Everything stays on disk: arrays are memory-mapped, and only what a batch needs is read. The
original makes floats of all of it, 12 MB a unit.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from milan_onnx.annotations.units import AnnotatedUnit, Annotation, Frame, Mask, Photo
from milan_onnx.errors import BadInput
from milan_onnx.exemplar_folder import (
    MASKS,
    ExemplarArrays,
    exemplar_count,
    read_exemplars,
    read_units,
)

A = TypeVar("A", bound=np.generic)

ANNOTATIONS = "annotations.csv"
COLUMNS = ("layer", "unit", "summary")
PEOPLE = 3
"""Descriptions of a unit that are used; units with fewer are left out, as in the paper."""
RESIZE, CROP = 256, 224
HINT = "point at the folder that holds ARCH/DATASET/annotations.csv"


class Milannotations:
    """One or more networks' annotations; opening reads the tables and no image."""

    def __init__(self, folder: Path, networks: Sequence[str], imagenet: Path | None = None) -> None:
        """``networks``: ARCH/DATASET each; ``imagenet``: the validation folder.

        Raises BadInput naming the file, and the line where there is one, that cannot be used.
        """
        self.folder, self.networks = folder, tuple(networks)
        self.imagenet = ImageFolder(imagenet) if imagenet is not None else None
        self._layers: dict[tuple[str, str], ExemplarArrays] = {}
        found = [pair for network in self.networks for pair in self._read(network)]
        self.units = [unit for unit, _ in found]
        self._rows = [row for _, row in found]
        if not self.units:
            raise BadInput(f"{folder} describes no unit {PEOPLE} times", hint=HINT)

    def arrays(self, network: str, layer: str) -> ExemplarArrays:
        """The arrays of a layer; checked against one another when first asked for."""
        key = (network, layer)
        if key not in self._layers:
            self._layers[key] = read_exemplars(self.folder / network / layer)
        return self._layers[key]

    def photo(self, unit: int, rank: int) -> Photo:
        """The number of an image of ImageNet; else the image's own place in the arrays.

        Images that a folder holds are not told apart by their numbers, which it need not tell.
        """
        found, row = self._found(unit)
        if found.images is None and self.imagenet is not None:
            return int(found.ids[row, rank])
        return unit, rank

    def frames(self, photos: Sequence[Photo], size: int) -> Iterator[tuple[Photo, Frame]]:
        """Frames uint8 (size, size, 3), in the order asked for.

        Images of another size are sampled at the nearest pixels, as the original does.
        """
        for photo in photos:
            yield photo, np.ascontiguousarray(_resampled(self._image(photo), size))

    def mask(self, unit: int, rank: int, size: int) -> Mask:
        """The exciting region bool (size, size), sampled at the nearest pixels."""
        found, row = self._found(unit)
        return np.asarray(_resampled(found.masks[row, rank, 0], size) != 0, dtype=np.bool_)

    def digest(self, units: Sequence[int]) -> str:
        """Hash of the units' names: masks are too large to read for it."""
        digest = hashlib.sha256()
        for unit in units:
            digest.update(f"{self.units[unit].key}\n".encode())
        return digest.hexdigest()

    def _found(self, unit: int) -> tuple[ExemplarArrays, int]:
        """The arrays of a unit's layer, and its row in them."""
        asked = self.units[unit]
        return self.arrays(asked.network, asked.layer), self._rows[unit]

    def _image(self, photo: Photo) -> Frame:
        if isinstance(photo, int) and self.imagenet is not None:
            return self.imagenet.load(photo)
        unit, rank = cast("tuple[int, int]", photo)
        found, row = self._found(unit)
        if found.images is None:
            asked = self.units[unit]
            raise BadInput(
                f"{self.folder / asked.network / asked.layer} holds no images.npy",
                hint="give the ImageNet validation folder (--set imagenet=FOLDER)",
            )
        image: Frame = found.images[row, rank].transpose(1, 2, 0)
        return image

    def _read(self, network: str) -> Iterator[tuple[AnnotatedUnit, int]]:
        """Units, and the row of each in its layer's arrays."""
        path = self.folder / network / ANNOTATIONS
        texts: dict[tuple[str, int], list[str]] = {}
        for line, cells in _rows(path):
            texts.setdefault(_unit_of(path, line, cells), []).append(_summary(path, line, cells))
        rows: dict[str, dict[int, int]] = {}
        widths: dict[str, int] = {}
        for (layer, unit), descriptions in texts.items():
            if len(descriptions) < PEOPLE:
                continue
            if layer not in rows:
                rows[layer] = _unit_rows(self.folder / network / layer, path)
                widths[layer] = exemplar_count(self.folder / network / layer)
            if unit not in rows[layer]:
                raise BadInput(
                    f"{path} describes unit {unit} of layer {layer}, which {layer}/masks.npy lacks",
                    hint="get the folder again",
                )
            said = tuple(Annotation(text) for text in descriptions[:PEOPLE])
            row = rows[layer][unit]
            yield AnnotatedUnit(network, layer, unit, said, widths[layer]), row


def _resampled(plane: NDArray[A], size: int) -> NDArray[A]:
    """A square (S, S, ...) at the nearest pixels of (size, size, ...)."""
    side = plane.shape[0]
    if side == size:
        return plane
    places = np.arange(size) * side // size
    sampled: NDArray[A] = plane[places][:, places]
    return sampled


class ImageFolder:
    """Images of a folder a class, numbered as torchvision's ``ImageFolder`` numbers them."""

    ENDS = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise BadInput(f"{folder} is not a folder", hint="give the ImageNet validation folder")
        self.folder = folder

    @cached_property
    def paths(self) -> list[Path]:
        """All images in order."""
        classes = sorted(path for path in self.folder.iterdir() if path.is_dir())
        return [path for name in classes for path in self._within(name)]

    def _within(self, folder: Path) -> Iterator[Path]:
        for found in sorted(folder.rglob("*")):
            if found.suffix.lower() in self.ENDS:
                yield found

    def load(self, number: int) -> Frame:
        """One image, shorter side 256 and cut to the centre 224: uint8 (224, 224, 3)."""
        if not 0 <= number < len(self.paths):
            raise BadInput(
                f"{self.folder} holds {len(self.paths)} images, and image {number} is asked for",
                hint="give the folder that the exemplars were computed from",
            )
        path = self.paths[number]
        try:
            with Image.open(path) as photo:
                return _cut(photo.convert("RGB"))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise BadInput(f"{path} cannot be read: {error}") from error


def _cut(photo: Image.Image) -> Frame:
    width, height = photo.size
    short = min(width, height)
    size = (int(RESIZE * width / short), int(RESIZE * height / short))
    photo = photo.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - CROP) / 2), round((size[1] - CROP) / 2)
    return np.asarray(photo.crop((left, top, left + CROP, top + CROP)))


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Lines of annotations.csv with their numbers."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise BadInput(f"{path} has no column {', '.join(missing)}", hint=HINT)
            for row in reader:
                yield reader.line_num, row
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}", hint=HINT) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} is not a UTF-8 CSV file: {error}") from error


def _unit_of(path: Path, line: int, row: Mapping[str, Any]) -> tuple[str, int]:
    layer, unit = row["layer"], row["unit"]
    if not layer or not str(unit or "").strip().isdigit():
        raise BadInput(f"{path}, line {line}: layer {layer!r}, unit {unit!r} names no unit")
    return str(layer), int(unit)


def _summary(path: Path, line: int, row: Mapping[str, Any]) -> str:
    text = str(row["summary"] or "").strip()
    if not text:
        raise BadInput(f"{path}, line {line}: the description is empty")
    return text


def _unit_rows(folder: Path, path: Path) -> dict[int, int]:
    """Row of each unit in a layer's arrays."""
    if not (folder / MASKS).is_file():
        raise BadInput(f"{path} describes layer {folder.name}, but {folder} holds no {MASKS}")
    return {unit: row for row, unit in enumerate(read_units(folder).tolist())}
