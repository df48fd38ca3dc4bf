"""Features of exemplars between encoder and captioner: in memory, or where they are many in a file.

A unit's 15 exemplars have 0.1 MB of features with the default bundle. They are made photo by photo
and read unit by unit, so a layer's cannot be handed on before the last photo is encoded.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.files import unwritable, write_bytes

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

MEMORY = 32 << 20
"""Bytes of a layer's features from which on they go to a file."""


class StoredFeatures:
    """Features (U, K, F), zeros until they are put."""

    def __init__(self, units: int, exemplars: int, features: int, place: Path | None) -> None:
        """``place``: a file that they are kept in, and may be in from an earlier try; None: they
        are not kept.

        Raises OutputUnwritable where they need a file and there is no room for it.
        """
        self._shape = (units, exemplars, features)
        self._place = place
        self.found = place is not None and _size(place) == 4 * units * exemplars * features
        """Whether an earlier try's are here."""
        size = 4 * units * exemplars * features
        kept = place if self.found else None
        self._memory = _read(kept, self._shape) if size <= MEMORY else None
        if self._memory is None:
            self._lock = Lock()
            self._folder = place.parent if place else Path(tempfile.gettempdir())
            try:
                self._file = _open(place)
                self._file.truncate(size)
            except OSError as error:
                raise unwritable(self._folder, error) from error

    def put(self, units: Ids, slots: Ids, vectors: Floats) -> None:
        """Set the features (n, F) of n slots of units. Raises OutputUnwritable on a full disk."""
        if self._memory is not None:
            self._memory[units, slots] = vectors
            return
        places = (units * self._shape[1] + slots) * 4 * self._shape[2]
        try:
            for place, vector in zip(places.tolist(), vectors, strict=True):
                self._file.seek(place)
                self._file.write(vector.tobytes())
        except OSError as error:
            raise unwritable(self._folder, error) from error

    def keep(self) -> None:
        """Let what was put outlive this process. Raises OutputUnwritable."""
        if self._place is None:
            return
        if self._memory is not None:
            write_bytes(self._place, self._memory.tobytes())
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise unwritable(self._folder, error) from error

    def __len__(self) -> int:
        return self._shape[0]

    def __getitem__(self, part: slice, /) -> Floats:
        if self._memory is not None:
            return self._memory[part]
        start, stop, _ = part.indices(len(self))
        unit = 4 * self._shape[1] * self._shape[2]
        with self._lock:  # batches of the search read from several threads
            self._file.seek(start * unit)
            data = self._file.read((stop - start) * unit)
        return np.frombuffer(data, np.float32).reshape(-1, *self._shape[1:])


def _size(place: Path) -> int:
    return place.stat().st_size if place.is_file() else -1


def _read(place: Path | None, shape: tuple[int, int, int]) -> Floats:
    """What was kept, or zeros."""
    return np.zeros(shape, np.float32) if place is None else np.fromfile(place, "f4").reshape(shape)


def _open(place: Path | None) -> Any:
    """A file to read and write: the one that is there, or one that goes with this process."""
    if place is None:
        return tempfile.TemporaryFile(prefix="milan-onnx-")
    place.touch()
    return place.open("r+b")
