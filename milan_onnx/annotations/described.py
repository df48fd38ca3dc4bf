"""A file of described units, a JSON object a line, with photos beside it.

    network, layer, tensor, unit   which unit it is
    split                          what it may be used for, such as train or val
    frame                          how photos became the network's frames: resize (shorter side, or
                                   [height, width], or null) and crop [height, width], pixels;
                                   interpolation, bilinear where it is not told
    grid                           side of the masks
    exemplars                      best first: image (path within the photos' folder), activation,
                                   rle (the exciting region on the frame, grid x grid, as COCO's
                                   compressed run lengths)
    notes                          one an annotator: description, also (may be left out), coherence

Other keys are read over. The file may be compressed by gzip. Masks stay run lengths until they are
asked for.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from milan_onnx.annotations.parsing import BadLine, Exemplar, Line, parse_line
from milan_onnx.annotations.problems import Problem, in_order, listed
from milan_onnx.annotations.units import AnnotatedUnit, Frame, Mask, Photo
from milan_onnx.errors import BadInput
from milan_onnx.geometry import Geometry
from milan_onnx.probe import Unusable, decode
from milan_onnx.regions import decode_rle
from milan_onnx.runtime import in_order as run_in_order
from milan_onnx.runtime.pooling import resize_masks

GZIP = b"\x1f\x8b"
DECODERS = 2
"""Photos decoded at once."""
FramedPhoto = tuple[str, Geometry]
"""A photo, and how it becomes a frame."""


class DescribedUnits:
    """The units of a file."""

    def __init__(self, path: Path, images: Path | None = None, *, photos: bool = True) -> None:
        """Read and check the whole file.

        ``images``: the folder that paths of photos start from; by default the file's. ``photos``:
        whether all photos must be there. Raises BadInput naming every bad line (the first twenty,
        and how many more).
        """
        self.path, self.images = path, images or path.parent
        self._lines, problems = _lines(path)
        if not self._lines and not problems:
            raise BadInput(f"{path} describes no unit", hint="see docs/evaluate.md for its form")
        self._report([*problems, *(self.missing() if photos else ())])

    def chosen(self, wanted: Callable[[AnnotatedUnit], bool]) -> DescribedUnits:
        """The same source with some of its units."""
        some = copy(self)
        for cached in ("units", "_uses"):
            some.__dict__.pop(cached, None)
        some._lines = [line for line in self._lines if wanted(line.unit)]
        return some

    def check_photos(self) -> None:
        """Raise BadInput naming all photos that are not there."""
        self._report(self.missing())

    @cached_property
    def units(self) -> Sequence[AnnotatedUnit]:
        """All units, in the order of the file."""
        return [line.unit for line in self._lines]

    def exemplar(self, unit: int, rank: int) -> Exemplar:
        """An exemplar of a unit as the file has it."""
        return self._lines[unit].exemplars[rank]

    def photo(self, unit: int, rank: int) -> FramedPhoto:
        """Path and geometry of an exemplar's frame."""
        line = self._lines[unit]
        return line.exemplars[rank].image, line.geometry

    def missing(self) -> list[Problem]:
        """A problem for every exemplar whose photo is not there."""
        there = {image: (self.images / image).is_file() for image in self._uses}
        return [
            p
            for image, found in there.items()
            if not found
            for p in self._of(image, "no such file")
        ]

    def frames(self, photos: Sequence[Photo], size: int) -> Iterator[tuple[Photo, Frame]]:
        """Frames uint8 (size, size, 3) as `describe` makes them, decoded ahead, in order.

        Where a photo cannot be used the others are still looked at, and then BadInput names all
        that cannot.
        """
        problems: list[Problem] = []

        def load(photo: FramedPhoto) -> Frame | str:
            try:
                return self.frame(photo, size)
            except Unusable as error:
                return str(error)

        wanted = cast("Sequence[FramedPhoto]", photos)
        for photo, found in run_in_order(load, wanted, DECODERS):
            if isinstance(found, str):
                problems += self._of(photo[0], found)
            elif not problems:
                yield photo, found
        self._report(problems)

    def frame(self, photo: FramedPhoto, size: int) -> Frame:
        """One frame uint8 (size, size, 3). Raises Unusable with the reason where there is none."""
        image, geometry = photo
        try:
            data = (self.images / image).read_bytes()
        except OSError as error:
            raise Unusable((error.strerror or str(error)).lower()) from error
        return geometry.scaled(size, size).frame(decode(data).image)

    def mask(self, unit: int, rank: int, size: int) -> Mask:
        """The exciting region bool (size, size): cells repeated, or averaged where they do not fit.

        A cell that averages to a half belongs to it; where none does, those that show most of it.
        """
        grid = self._lines[unit].grid
        mask = decode_rle(self._lines[unit].exemplars[rank].rle, grid, grid)
        if size % grid == 0:
            return mask.repeat(size // grid, axis=0).repeat(size // grid, axis=1)
        share = resize_masks(mask[None], [(size, size)], "area")[size, size][0]
        return np.asarray((share >= min(0.5, float(share.max()))) & (share > 0), dtype=np.bool_)

    def digest(self, units: Sequence[int]) -> str:
        """Hash of names, frames and masks of some units."""
        digest = hashlib.sha256()
        for unit in units:
            line = self._lines[unit]
            shown = [(exemplar.image, exemplar.rle) for exemplar in line.exemplars]
            facts = (line.unit.key, repr(line.geometry), line.grid, shown)
            digest.update(json.dumps(facts).encode())
        return digest.hexdigest()

    @cached_property
    def _uses(self) -> Mapping[str, list[int]]:
        """Lines that show each photo."""
        uses: dict[str, list[int]] = {}
        for line in self._lines:
            for exemplar in line.exemplars:
                uses.setdefault(exemplar.image, []).append(line.unit.line)
        return uses

    def _of(self, image: str, reason: str) -> list[Problem]:
        return [Problem(line, f"{image}: {reason}") for line in self._uses[image]]

    def _report(self, problems: Sequence[Problem]) -> None:
        if problems:
            raise BadInput(
                f"{self.path} has {listed(in_order(problems))}",
                hint="mend them, or say where the photos are with --images",
            )


def describes_units(path: Path) -> bool:
    """Whether a file's first line is that of a described unit, damaged or not."""
    try:
        with _open(path) as file:
            first = next((line for line in file if line.strip()), b"")
    except (OSError, EOFError, zlib.error):
        return False
    head = first[:100_000].lstrip(b"\xef\xbb\xbf \t")
    return head[:1] == b"{" and b'"exemplars"' in head and (b'"notes"' in first)


def _lines(path: Path) -> tuple[list[Line], list[Problem]]:
    """The units of a file, and what is wrong with it."""
    lines: list[Line] = []
    problems: list[Problem] = []
    seen: dict[tuple[str, str, int], int] = {}
    try:
        with _open(path) as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    _take(text, number, lines, problems, seen)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        problems.append(Problem(0, f"its compression is damaged: {error}"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BadInput(f"cannot read {path}: {reason}", hint="give another file") from error
    return lines, problems


def _take(
    text: bytes,
    number: int,
    lines: list[Line],
    problems: list[Problem],
    seen: dict[tuple[str, str, int], int],
) -> None:
    """Keep a line, or what is wrong with it."""
    try:
        line = parse_line(text, number)
    except BadLine as error:
        problems.append(Problem(number, str(error)))
        return
    unit = line.unit
    firsts = [
        seen.setdefault((unit.network, n, unit.unit), number) for n in (unit.layer, unit.tensor)
    ]
    if (first := min(firsts)) != number:
        what = f"unit {unit.unit} of {unit.layer} in {unit.network} was on line {first} already"
        problems.append(Problem(number, what))
        return
    lines.append(line)


def _open(path: Path) -> Any:
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    return gzip.open(path, "rb") if packed else path.open("rb")
