"""Exemplars as the original finds them: for each layer one pass to tally, and one for masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Subset

from benchmarks.original.networks import MEAN, STD
from benchmarks.original.sketches import RunningQuantile, RunningTopK

SIZE = 224
BATCH = 128


class Photos(Dataset):
    """Photos as the original reads them: shorter side 256, centre 224, normalised."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as photo:
            image = photo.convert("RGB")
        width, height = image.size
        scale = 256 / min(width, height)
        size = (256, int(height * scale)) if width <= height else (int(width * scale), 256)
        image = image.resize(size, Image.Resampling.BILINEAR)
        left, top = round((size[0] - SIZE) / 2), round((size[1] - SIZE) / 2)
        pixels = np.asarray(image.crop((left, top, left + SIZE, top + SIZE)))
        value = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div(255)
        return value.sub(_column(MEAN)).div(_column(STD))


@dataclass(frozen=True)
class Exemplars:
    """One layer's."""

    ids: Tensor
    """Photo of each exemplar (units, k), best first."""

    activations: Tensor
    """Its largest activation (units, k)."""

    levels: np.ndarray
    """Thresholds (units,)."""

    images: np.ndarray
    """uint8 (units, k, 3, 224, 224)."""

    masks: np.ndarray
    """0/1 uint8 (units, k, 1, 224, 224)."""


class Retained:
    """A network whose layer's output is kept."""

    def __init__(self, model: nn.Module, layer: str) -> None:
        self.model, self.kept = model, torch.empty(0)
        self.hook = model.get_submodule(layer).register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self.kept = output

    def __call__(self, images: Tensor) -> Tensor:
        self.model(images)
        return self.kept


@torch.no_grad()
def find_exemplars(
    model: nn.Module, layer: str, photos: Photos, *, k: int, quantile: float, workers: int
) -> Exemplars:
    """Two passes of the whole network: one over all photos, one over those that any unit chose."""
    retained = Retained(model, layer)
    try:
        topk, sketch = RunningTopK(k), RunningQuantile()
        for images in _batches(photos, workers):
            activations = retained(images)
            topk.add(activations.amax((2, 3)))
            sketch.add(activations.permute(0, 2, 3, 1).reshape(-1, activations.shape[1]))
        values, ids = topk.result()
        levels = sketch.quantile(quantile)
        images, masks = _render(retained, photos, ids, levels, workers)
    finally:
        retained.hook.remove()
    return Exemplars(ids, values, levels, images, masks)


def _render(
    retained: Retained, photos: Photos, ids: Tensor, levels: np.ndarray, workers: int
) -> tuple[np.ndarray, np.ndarray]:
    units, k = ids.shape
    used = sorted(set(ids.flatten().tolist()))
    # image, what the unit sees of it, mask: as the original keeps them until it saves
    result = np.zeros((units, k, 7, SIZE, SIZE), np.uint8)
    done = 0
    for images in _batches(Subset(photos, used), workers):
        activations = retained(images)
        for row in range(len(images)):
            for unit, rank in (ids == used[done + row]).nonzero().tolist():
                mask = upsample(activations[row, unit]) > levels[unit].item()
                image = _bytes(images[row])
                seen = _bytes(images[row]) * mask + 0.25 * _bytes(images[row]) * ~mask
                parts = torch.cat((seen, image, mask[None].float()))
                result[unit, rank] = parts.clamp(0, 255).byte().numpy()
        done += len(images)
    return result[:, :, 3:6].copy(), result[:, :, 6:].copy()


def upsample(activation: Tensor) -> Tensor:
    """A map (h, w) at (224, 224): bilinear, half-pixel centres, zeros beyond the border."""
    height, width = activation.shape
    rows = (torch.arange(SIZE) + 0.5) * (height / SIZE) - 0.5
    columns = (torch.arange(SIZE) + 0.5) * (width / SIZE) - 0.5
    y = rows * 2 / max(height - 1, 1) - 1
    x = columns * 2 / max(width - 1, 1) - 1
    grid = torch.stack((x[None].expand(SIZE, -1), y[:, None].expand(-1, SIZE)), dim=-1)
    made = functional.grid_sample(
        activation[None, None], grid[None], padding_mode="zeros", align_corners=True
    )
    return made[0, 0]


def _bytes(image: Tensor) -> Tensor:
    """A normalised image (3, 224, 224) in 0..255 again."""
    return ((image * _column(STD) + _column(MEAN)) * 255).round().clamp(0, 255)


def _column(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)


def _batches(photos: Dataset, workers: int) -> DataLoader:
    return DataLoader(photos, batch_size=BATCH, num_workers=workers)
