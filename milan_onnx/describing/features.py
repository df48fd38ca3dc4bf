"""Features of exemplars between encoder and captioner: in memory, or where they are many in a file.

A unit's 15 exemplars have 0.1 MB of features with the default bundle. They are made photo by photo
and read unit by unit, so a layer's cannot be handed on before the last photo is encoded.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from milan_onnx.files import unwritable

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

MEMORY = 32 << 20
"""Bytes of a layer's features from which on they go to a file."""


class StoredFeatures:
    """Features (U, K, F), zeros until they are put."""

    def __init__(self, units: int, exemplars: int, features: int) -> None:
        """Raises OutputUnwritable where they need a file and there is no room for it."""
        self._shape = (units, exemplars, features)
        size = 4 * units * exemplars * features
        self._memory = np.zeros(self._shape, np.float32) if size <= MEMORY else None
        if self._memory is None:
            self._lock = Lock()
            try:
                self._file = tempfile.TemporaryFile(prefix="milan-onnx-")  # noqa: SIM115 - lives on
                self._file.truncate(size)
            except OSError as error:
                raise unwritable(Path(tempfile.gettempdir()), error) from error

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
            raise unwritable(Path(tempfile.gettempdir()), error) from error

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
