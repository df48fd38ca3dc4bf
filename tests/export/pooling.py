"""Masked average pooling written plainly in PyTorch: what the runtime's is held against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def pool_pyramid(pyramid: Sequence[Tensor], masks: Tensor, resize: str) -> Tensor:
    """Features of exemplars (paper, section 3.2): float32 (N, F), levels in their order.

    ``pyramid``: (N, C, h, w) a level; ``masks``: (N, S, S). ``area`` is the mean of the covered
    pixels, ``bilinear`` two taps without antialias, as in the paper's code.
    """
    return torch.cat([_pool_level(maps, masks, resize) for maps in pyramid], dim=1)


def _pool_level(maps: Tensor, masks: Tensor, resize: str) -> Tensor:
    size, planes = maps.shape[2:], masks.float().unsqueeze(1)
    if resize == "area":
        weights = functional.adaptive_avg_pool2d(planes, size).flatten(1)
    else:
        weights = functional.interpolate(planes, size, mode="bilinear").flatten(1)
    totals = weights.sum(1, keepdim=True)
    weights = torch.where(totals > 0, weights / totals.clamp_min(1e-12), 0.0)
    return torch.einsum("ncp,np->nc", maps.flatten(2).float(), weights)
