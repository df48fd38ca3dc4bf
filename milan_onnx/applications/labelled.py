"""Labelled images: photos whose class a model should name, from class folders or a CSV file.

    FOLDER/CLASS/photo.jpg      a subfolder a class
    labels.csv                  columns image and class; paths relative to the file

Which output of the model a class is, in this order: a list of names that was given, numbers as
names, or where there are as many classes as outputs their alphabetical order, as torchvision's
ImageFolder has it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from milan_onnx.choice import Choice
from milan_onnx.errors import BadInput, ProbeError
from milan_onnx.files import sha256_bytes
from milan_onnx.probe import (
    PickedProbe,
    ProbeSet,
    Unusable,
    evenly,
    listed_files,
    listed_text,
    open_probe,
)

Ids = NDArray[np.int64]
COLUMNS = {"image": ("image", "path", "file", "filename"), "class": ("class", "label", "target")}


@dataclass(frozen=True)
class LabelledImages:
    """Photos with the class of each."""

    probe: ProbeSet
    """The photos (N)."""

    labels: Ids
    """Which output of the model each should raise most (N,)."""

    names: tuple[str, ...]
    """A name for each output."""

    chosen: Choice[str]
    """How classes and outputs were brought together."""

    def __len__(self) -> int:
        return len(self.labels)

    def parted(self, share: float) -> tuple[LabelledImages, LabelledImages]:
        """A part for choosing, ``share`` of each class, and the rest, for judging.

        By the photos' content, so that copies fall into one part and no listing's order matters.
        Raises ProbeError for a photo that cannot be read.
        """
        digests = [self._digest(index) for index in range(len(self))]
        first: list[int] = []
        for label in np.unique(self.labels).tolist():
            own = np.flatnonzero(self.labels == label).tolist()
            distinct = sorted({digests[index] for index in own})
            kept = set(distinct[: round(share * len(distinct))])
            first += [index for index in own if digests[index] in kept]
        rest = sorted({*range(len(self))}.difference(first))
        return self._some(sorted(first), "for choosing"), self._some(rest, "for judging")

    def _some(self, ids: Sequence[int], how: str) -> LabelledImages:
        probe = PickedProbe(self.probe, ids, how)
        return LabelledImages(probe, self.labels[list(ids)], self.names, self.chosen)

    def _digest(self, index: int) -> str:
        try:
            return sha256_bytes(self.probe.read(index))
        except Unusable as error:
            raise ProbeError(
                f"the labelled image {self.probe.names[index]} {error}", hint="take it out"
            ) from error


def open_labelled(
    source: str | Path, outputs: int, classes: Path | None = None, *, limit: int | None = None
) -> LabelledImages:
    """Labelled images for a model of so many outputs.

    ``classes``: a file of the outputs' names in order, a name a line or a JSON list. ``limit``: use
    only so many, evenly spaced. Raises ProbeError or BadInput where the classes do not match the
    outputs, naming them.
    """
    probe, said = (
        _read_csv(source) if str(source).lower().endswith(".csv") else _read_folder(source)
    )
    names = sorted(set(said))
    listed = read_class_names(classes, outputs) if classes else None
    chosen, places = _match(names, outputs, listed, source)
    shown = listed or ([""] * outputs)
    by_place = {place: name for name, place in zip(names, places, strict=True)}
    titles = tuple(by_place.get(i) or shown[i] or str(i) for i in range(outputs))
    label = dict(zip(names, places, strict=True))
    labels = np.array([label[name] for name in said], np.int64)
    picked = evenly(len(labels), limit)
    some = PickedProbe(probe, picked, "evenly spaced")
    return LabelledImages(some, labels[picked], titles, chosen)


def read_class_names(path: Path, outputs: int) -> list[str]:
    """Names of the outputs, in order. Raises BadInput where they are not as many."""
    try:
        text = path.read_text(encoding="utf-8")
        names = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read the class names {path}: {error}", hint="check it") from error
    if not isinstance(names, list) or not all(isinstance(n, str) and n.strip() for n in names):
        raise BadInput(f"{path} is no list of class names", hint="write one name a line")
    if len(names) != outputs:
        raise BadInput(
            f"{path} names {len(names)} classes, the model has {outputs} outputs",
            hint="name each output, in order",
        )
    return [name.strip() for name in names]


def _match(
    names: Sequence[str], outputs: int, listed: Sequence[str] | None, source: str | Path
) -> tuple[Choice[str], list[int]]:
    """How classes become outputs, and the output of each class."""
    found = f"{len(names)} classes"
    if listed is not None:
        strange = [name for name in names if name not in listed]
        if strange:
            raise BadInput(
                f"the class {strange[0]} of {source} is not among the class names",
                hint="name the folders as the list does",
            )
        return Choice(found, "--classes"), [listed.index(name) for name in names]
    if all(name.isdecimal() and int(name) < outputs for name in names):
        return Choice(found, "their names are numbers of outputs"), [int(name) for name in names]
    if len(names) != outputs:
        raise ProbeError(
            f"the {len(names)} classes of {source} do not match the {outputs} outputs of the model",
            hint="give --classes FILE, the outputs' names in order",
        )
    return Choice(found, "in alphabetical order, as many as outputs"), list(range(outputs))


def _read_folder(source: str | Path) -> tuple[ProbeSet, list[str]]:
    """Photos, and the class folder of each."""
    probe = open_probe(source)
    loose = [name for name in probe.names if "/" not in name]
    if loose:
        raise ProbeError(
            f"{source} is no folder of classes: {loose[0]} lies outside of any subfolder",
            hint="put photos into a subfolder for each class, or give a CSV of image and class",
        )
    return probe, [name.split("/")[0] for name in probe.names]


def _read_csv(source: str | Path) -> tuple[ProbeSet, list[str]]:
    """Photos, and the class of each."""
    rows = list(_rows(source))
    paths = [path for path, _ in rows]
    return listed_files(source, paths), [name for _, name in rows]


def _rows(source: str | Path) -> Iterator[tuple[tuple[int, str], str]]:
    """Line number, path and class of each row."""
    reader = csv.DictReader(io.StringIO(listed_text(source)))
    heads = {
        what: next((h for h in reader.fieldnames or () if h.strip().lower() in known), None)
        for what, known in COLUMNS.items()
    }
    image, label = heads["image"], heads["class"]
    if image is None or label is None:
        missing = "image" if image is None else "class"
        raise ProbeError(
            f"{source} has no column {missing}", hint="its first line must name image and class"
        )
    for row in reader:
        path, name = (row[image] or "").strip(), (row[label] or "").strip()
        if not path or not name:
            raise ProbeError(
                f"line {reader.line_num} of {source} lacks its image or class", hint="complete it"
            )
        yield (reader.line_num, path), name
