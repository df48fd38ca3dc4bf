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
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from milan_onnx.errors import BadInput
from milan_onnx.exemplar_folder import MASKS, ExemplarArrays, read_exemplars, read_units

Bytes = NDArray[np.uint8]

ANNOTATIONS = "annotations.csv"
COLUMNS = ("layer", "unit", "summary")
PEOPLE = 3
"""Descriptions of a unit that are used; units with fewer are left out, as in the paper."""
RESIZE, CROP = 256, 224
HINT = "point at the folder that holds ARCH/DATASET/annotations.csv"
NETWORKS = {
    "alexnet/imagenet": "cls",
    "alexnet/places365": "cls",
    "resnet152/imagenet": "cls",
    "resnet152/places365": "cls",
    "biggan/imagenet": "gen",
    "biggan/places365": "gen",
}
"""The networks of the paper's ``base`` set, and their task."""


@dataclass(frozen=True)
class AnnotatedUnit:
    """A unit that people described."""

    network: str
    """ARCH/DATASET."""

    layer: str
    """Name of the layer, as its folder is called."""

    unit: int
    """Number of the unit."""

    row: int
    """Its row in the layer's arrays."""

    descriptions: tuple[str, ...]
    """What people said, in the order of the file."""

    @property
    def key(self) -> str:
        """Names the unit in splits and caches."""
        return f"{self.network}/{self.layer}/{self.unit}"


class Milannotations:
    """One or more networks' annotations; opening reads the tables and no image."""

    def __init__(self, folder: Path, networks: Sequence[str], imagenet: Path | None = None) -> None:
        """``networks``: ARCH/DATASET each; ``imagenet``: the validation folder.

        Raises BadInput naming the file, and the line where there is one, that cannot be used.
        """
        self.folder, self.networks = folder, tuple(networks)
        self.imagenet = ImageFolder(imagenet) if imagenet is not None else None
        self._layers: dict[tuple[str, str], ExemplarArrays] = {}
        self.units = [unit for network in self.networks for unit in self._read(network)]
        if not self.units:
            raise BadInput(f"{folder} describes no unit {PEOPLE} times", hint=HINT)

    def arrays(self, network: str, layer: str) -> ExemplarArrays:
        """The arrays of a layer; checked against one another when first asked for."""
        key = (network, layer)
        if key not in self._layers:
            self._layers[key] = read_exemplars(self.folder / network / layer)
        return self._layers[key]

    def exemplars(self, unit: AnnotatedUnit) -> tuple[Bytes, Bytes]:
        """Images uint8 (K, S, S, 3) and masks uint8 (K, S, S) of a unit."""
        found = self.arrays(unit.network, unit.layer)
        masks = np.ascontiguousarray(found.masks[unit.row, :, 0])
        if found.images is not None:
            return np.ascontiguousarray(found.images[unit.row].transpose(0, 2, 3, 1)), masks
        if self.imagenet is None:
            raise BadInput(
                f"{self.folder / unit.network / unit.layer} holds no images.npy",
                hint="give the ImageNet validation folder (--set imagenet=FOLDER)",
            )
        ids = found.ids[unit.row].tolist()
        return np.stack([self.imagenet.load(i) for i in ids]), masks

    def _read(self, network: str) -> Iterator[AnnotatedUnit]:
        path = self.folder / network / ANNOTATIONS
        said: dict[tuple[str, int], list[str]] = {}
        for line, row in _rows(path):
            said.setdefault(_unit_of(path, line, row), []).append(_summary(path, line, row))
        rows: dict[str, dict[int, int]] = {}
        for (layer, unit), descriptions in said.items():
            if len(descriptions) < PEOPLE:
                continue
            if layer not in rows:
                rows[layer] = _unit_rows(self.folder / network / layer, path)
            if unit not in rows[layer]:
                raise BadInput(
                    f"{path} describes unit {unit} of layer {layer}, which {layer}/masks.npy lacks",
                    hint="get the folder again",
                )
            texts = tuple(descriptions[:PEOPLE])
            yield AnnotatedUnit(network, layer, unit, rows[layer][unit], texts)


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

    def load(self, number: int) -> Bytes:
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


def _cut(photo: Image.Image) -> Bytes:
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


# --- groups and splits ---------------------------------------------------------------------------


def networks_of(group: str) -> tuple[str, ...]:
    """The networks of a group of the paper, or of one network's own name.

    base, cls, gen, imagenet, places365, alexnet, resnet152, biggan, and not-ARCH-DATASET for all of
    base but one. Raises BadInput for any other name.
    """
    if group == "base":
        return tuple(NETWORKS)
    if group.startswith("not-"):
        left_out = group.removeprefix("not-").replace("-", "/", 1)
        if left_out in NETWORKS:
            return tuple(name for name in NETWORKS if name != left_out)
    chosen = [name for name, task in NETWORKS.items() if group in (task, *name.split("/"))]
    if chosen:
        return tuple(chosen)
    if group.count("/") == 1:
        return (group,)
    known = "base, cls, gen, imagenet, places365, alexnet, resnet152, biggan, not-ARCH-DATASET"
    raise BadInput(f"no group of MILANNOTATIONS is named {group!r}", hint=f"give one of {known}")


@dataclass(frozen=True)
class Split:
    """Which units train and which tell how well that goes."""

    train: tuple[str, ...]
    """Keys of units."""

    val: tuple[str, ...]
    """Keys of units that were held out."""

    def to_json(self) -> str:
        """The split written down."""
        return json.dumps({"train": self.train, "val": self.val}, indent=1)

    @staticmethod
    def from_json(text: str) -> Split:
        """What ``to_json`` wrote."""
        found = json.loads(text)
        return Split(tuple(found["train"]), tuple(found["val"]))


def split_units(units: Sequence[AnnotatedUnit], held_out: float, seed: int) -> Split:
    """A random split by unit: no sentence of a held-out unit is trained on.

    The original holds out positions in a list of sentences for the language model, so that it
    trains on most of them.
    """
    keys = sorted(unit.key for unit in units)
    order = np.random.default_rng(seed).permutation(len(keys))
    count = max(1, round(held_out * len(keys))) if held_out > 0 else 0
    val = {keys[i] for i in order[:count].tolist()}
    return Split(tuple(key for key in keys if key not in val), tuple(sorted(val)))
