"""Features of described units, computed once and kept on disk as float16.

The encoder is frozen, so what it makes of exemplars never changes while a captioner learns. 20,000
units of ResNet-101 features are 2.3 GB; they are memory-mapped, so training holds what a batch
needs. A photo that serves many units is encoded once, so photos are the unit of work: they are
marked as done after all features that they are part of are on disk, and a cache that was
interrupted goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.annotations.features import photo_features, photo_uses
from milan_onnx.annotations.units import AnnotatedUnits
from milan_onnx.bundle import EncoderSpec
from milan_onnx.errors import UsageError
from milan_onnx.files import sha256_bytes, sha256_file, unwritable, write_json
from milan_onnx.progress import Reporter
from milan_onnx.runtime import Encoder

FEATURES, DONE, ABOUT = "features.npy", "done.npy", "cache.json"
FLUSH = 256
"""Photos, at least, between writes to disk."""


def encoder_name(path: Path, spec: EncoderSpec) -> str:
    """Names an encoder: hash of its graph and of what a bundle's manifest says of it."""
    facts = json.dumps([sha256_file(path), asdict(spec)], sort_keys=True)
    return sha256_bytes(facts.encode())


class FeatureCache:
    """Features float16 (units, K, F) of some described units by one encoder.

    A unit with fewer exemplars than K has its last one again.
    """

    def __init__(
        self,
        folder: Path,
        source: AnnotatedUnits,
        encoder: Encoder,
        name: str,
        *,
        units: Sequence[int] | None = None,
        exemplars: int = 15,
    ) -> None:
        """Open the cache in a folder, or begin one.

        ``name``: the encoder's (`encoder_name`). ``units``: places in the source, by default all.
        ``exemplars``: K. Raises UsageError where the folder holds features of other units or
        another encoder, OutputUnwritable where it cannot be written.
        """
        self.folder, self._source, self._encoder = folder, source, encoder
        self._units = range(len(source.units)) if units is None else units
        counts = [min(exemplars, source.units[unit].exemplars) for unit in self._units]
        self._uses = photo_uses(source, self._units, counts)
        self._counts = counts
        about = {"units": source.digest(self._units), "encoder": name, "exemplars": exemplars}
        shape = (len(self._units), exemplars, encoder.spec.features)
        try:
            self._open(about, shape)
        except OSError as error:
            raise unwritable(folder, error) from error

    def _open(self, about: dict[str, Any], shape: tuple[int, int, int]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        place = self.folder / ABOUT
        if place.is_file():
            if json.loads(place.read_text("utf-8")) != about:
                raise UsageError(
                    f"{self.folder} holds features of other units or of another encoder",
                    hint="give another folder, or remove it",
                )
            self._features = np.lib.format.open_memmap(self.folder / FEATURES, "r+")
            self._done = np.lib.format.open_memmap(self.folder / DONE, "r+")
            return
        self._features = np.lib.format.open_memmap(self.folder / FEATURES, "w+", np.float16, shape)
        self._done = np.lib.format.open_memmap(
            self.folder / DONE, "w+", np.bool_, (len(self._uses),)
        )
        write_json(place, about)

    @property
    def features(self) -> NDArray[np.float16]:
        """All features, memory-mapped (units, K, F); zeros where they are not computed yet."""
        return self._features

    def filled(self) -> NDArray[np.float16]:
        """The same, all computed. Raises UsageError where some are not."""
        if not self._done.all():
            raise UsageError(
                f"{self.folder} lacks features of {int((~self._done).sum())} photos",
                hint="run the stage `features` first",
            )
        return self._features

    def fill(self, workers: int, say: Reporter) -> None:
        """Compute what is missing, ``workers`` batches of photos at once.

        Raises BadInput naming the photos that cannot be used; the others are kept.
        """
        photos, done = tuple(self._uses), int(self._done.sum())
        if done:
            say.note(f"features: {done} of {len(photos)} photos are cached")
        todo = np.flatnonzero(~self._done).tolist()
        asked = [photos[index] for index in todo]
        found = photo_features(self._source, self._units, self._uses, asked, self._encoder, workers)
        written = 0
        with say.stage("features", len(todo), "photos") as meter:
            try:
                for batch in found:
                    for photo, vectors in batch:
                        for (unit, rank), vector in zip(self._uses[photo], vectors, strict=True):
                            self._put(unit, rank, vector)
                    written += len(batch)
                    meter(len(batch))
                    if written >= FLUSH:
                        self._mark(todo[:written])
                        todo, written = todo[written:], 0
            finally:
                self._mark(todo[:written])

    def _put(self, unit: int, rank: int, vector: NDArray[np.float32]) -> None:
        last = rank == self._counts[unit] - 1
        self._features[unit, rank : None if last else rank + 1] = vector

    def _mark(self, photos: Sequence[int]) -> None:
        """Photos are done, once their features are on disk."""
        self._features.flush()
        self._done[list(photos)] = True
        self._done.flush()
