"""The original's whole way: exemplars of each layer, then a caption of each unit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from benchmarks.original.decoding import ended, rerank
from benchmarks.original.exemplars import Exemplars, Photos, find_exemplars
from benchmarks.original.networks import Decoder, features_of

UNITS = 16
"""Units encoded and decoded at once."""


@dataclass
class Described:
    """What came out, and the seconds of each stage."""

    tokens: list[tuple[int, ...]] = field(default_factory=list)
    """The caption of each unit, layer by layer, up to its stop token."""

    ids: list[Tensor] = field(default_factory=list)
    """The exemplars of each layer (units, k)."""

    seconds: dict[str, float] = field(default_factory=dict)
    """By stage: exemplars, encode, search."""

    def spend(self, stage: str, since: float) -> float:
        """Add the time since a moment to a stage; returns now."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - since
        return now


def describe(
    model: nn.Module,
    layers: Sequence[str],
    photos: Photos,
    decoder: Decoder,
    config: str,
    stop: int,
    *,
    workers: int,
) -> Described:
    """Describe all units of some layers, with the original's settings (k 15, quantile 0.99, beam
    50, λ 0.2)."""
    made = Described()
    for layer in layers:
        start = time.perf_counter()
        found = find_exemplars(model, layer, photos, k=15, quantile=0.99, workers=workers)
        made.ids.append(found.ids)
        made.spend("exemplars", start)
        for first in range(0, len(found.ids), UNITS):
            made.tokens += _caption(found, first, decoder, config, stop, made)
    return made


@torch.no_grad()
def _caption(
    found: Exemplars, first: int, decoder: Decoder, config: str, stop: int, made: Described
) -> list[tuple[int, ...]]:
    start = time.perf_counter()
    images = torch.from_numpy(found.images[first : first + UNITS]).float() / 255
    masks = torch.from_numpy(found.masks[first : first + UNITS]).float()
    units, k = images.shape[:2]
    features = features_of(decoder, config, images.flatten(0, 1), masks.flatten(0, 1))
    start = made.spend("encode", start)
    best = rerank(decoder, features.view(units, k, -1), stop, beam=50, length=15, weight=0.2)
    made.spend("search", start)
    return [ended(row, stop) for row in best.tokens.tolist()]
