"""The images that an exemplar folder of the paper's format holds, by their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import ProbeError
from milan_onnx.exemplar_folder import ExemplarArrays, layer_folders, read_exemplars
from milan_onnx.probe.base import MadeProbe
from milan_onnx.probe.decode import Unusable

if TYPE_CHECKING:
    from PIL import Image


class ExemplarImages(MadeProbe):
    """Images of ``images.npy``; the others of the dataset, whose numbers lie between, are unusable.

    All layers of a network number the same images.
    """

    def __init__(self, path: Path) -> None:
        """Raises BadInput where the folder is damaged, ProbeError where a layer has no images."""
        self.name, self.source = f"exemplar folder {path}", str(path)
        self._where: dict[int, tuple[NDArray[np.uint8], int, int]] = {}
        for place in layer_folders(path):
            arrays = read_exemplars(place)
            if arrays.images is None:
                raise ProbeError(
                    f"{place} holds no images.npy", hint="say where the dataset is with --images"
                )
            for (unit, rank), number in np.ndenumerate(numbers(arrays)):
                self._where.setdefault(int(number), (arrays.images, unit, rank))
        self._names = [f"image {i}" for i in range(max(self._where) + 1)]

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def image(self, index: int) -> Image.Image:
        from PIL import Image

        if index not in self._where:
            raise Unusable("is no exemplar of any unit")
        images, unit, rank = self._where[index]
        return Image.fromarray(np.ascontiguousarray(images[unit, rank].transpose(1, 2, 0)))


def numbers(arrays: ExemplarArrays) -> NDArray[np.int64]:
    """Numbers of a layer's images (units, k); counted through where the folder tells none."""
    if (arrays.ids >= 0).all():
        return arrays.ids
    return np.arange(arrays.ids.size).reshape(arrays.ids.shape)
