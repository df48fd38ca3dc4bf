"""Features of annotated units, computed once and kept on disk as float16.

The encoder is frozen, so what it makes of a unit's exemplars never changes while the captioner
learns. 20,000 units of ResNet-101 features are 2.3 GB; they are memory-mapped, so training holds
what a batch needs. Units are marked as done after their features are on disk: a cache that was
interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from milan_onnx.errors import UsageError
from milan_onnx.export.backbones import IMAGE_SIZE, PyramidEncoder
from milan_onnx.export.original.milannotations import AnnotatedUnit, Milannotations
from milan_onnx.export.pooling import pool_pyramid
from milan_onnx.files import write_json

FEATURES, DONE, ABOUT = "features.npy", "done.npy", "cache.json"
FLUSH = 32
"""Units between writes to disk."""
Say = Callable[[str], None]


class FeatureCache:
    """Features float16 (units, K, F) of an annotated set by one encoder."""

    def __init__(
        self, folder: Path, data: Milannotations, encoder: PyramidEncoder, exemplars: int = 15
    ) -> None:
        """Open the cache in a folder, or begin one.

        Raises UsageError where the folder holds the cache of other units or another encoder.
        """
        self.data, self.encoder, self.exemplars = data, encoder, exemplars
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "units": _digest(unit.key.encode() for unit in data.units),
            "encoder": _digest(encoder_bytes(encoder)),
            "exemplars": exemplars,
        }
        shape = (len(data.units), exemplars, encoder.spec().features)
        if (folder / ABOUT).is_file():
            if json.loads((folder / ABOUT).read_text("utf-8")) != about:
                raise UsageError(
                    f"{folder} holds features of other units or of another encoder",
                    hint="give another --work, or remove it",
                )
            self._features = np.lib.format.open_memmap(folder / FEATURES, "r+")
            self._done = np.lib.format.open_memmap(folder / DONE, "r+")
        else:
            self._features = np.lib.format.open_memmap(folder / FEATURES, "w+", np.float16, shape)
            self._done = np.lib.format.open_memmap(folder / DONE, "w+", np.bool_, shape[:1])
            write_json(folder / ABOUT, about)

    @property
    def features(self) -> NDArray[np.float16]:
        """All features, memory-mapped (units, K, F); zeros where they are not computed yet."""
        return self._features

    def filled(self) -> NDArray[np.float16]:
        """The same, all computed. Raises UsageError where some are not."""
        if not self._done.all():
            raise UsageError(
                f"{self.folder} lacks features of {int((~self._done).sum())} units",
                hint="run the stage `features` first",
            )
        return self._features

    def fill(self, say: Say, device: str = "cpu") -> None:
        """Compute what is missing, with a rate and an estimate."""
        todo = np.flatnonzero(~self._done).tolist()
        if len(todo) < len(self._done):
            say(f"features: {len(self._done) - len(todo)} of {len(self._done)} units are cached")
        encoder, started = self.encoder.to(device), perf_counter()
        for count, row in enumerate(todo, start=1):
            self._features[row] = self._of(self.data.units[row], encoder, device)
            if count % FLUSH == 0 or count == len(todo):
                self._features.flush()
                self._done[todo[:count]] = True
                self._done.flush()
                rate = count / (perf_counter() - started)
                left = (len(todo) - count) / rate
                say(f"features: {count}/{len(todo)} units, {rate:.1f}/s, {left:.0f} s left")
        self.encoder.to("cpu")

    @torch.inference_mode()
    def _of(self, unit: AnnotatedUnit, encoder: PyramidEncoder, device: str) -> NDArray[np.float16]:
        images, masks = (array[: self.exemplars] for array in self.data.exemplars(unit))
        if len(images) < self.exemplars:  # the last again, where a unit has fewer
            places = np.minimum(np.arange(self.exemplars), len(images) - 1)
            images, masks = images[places], masks[places]
        frames = torch.from_numpy(images).to(device)
        if frames.shape[1] != IMAGE_SIZE:
            planes = frames.permute(0, 3, 1, 2).float()
            sized = torch.nn.functional.interpolate(planes, (IMAGE_SIZE, IMAGE_SIZE))
            frames = sized.permute(0, 2, 3, 1).to(torch.uint8)
        pooled = pool_pyramid(
            encoder(frames), torch.from_numpy(masks).to(device), encoder.mask_resize
        )
        return pooled.half().cpu().numpy()


def encoder_bytes(encoder: PyramidEncoder) -> list[bytes]:
    """What tells one encoder's weights from another's."""
    return [
        value.detach().cpu().contiguous().numpy().tobytes()
        for _, value in sorted(encoder.state_dict().items())
    ]


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
