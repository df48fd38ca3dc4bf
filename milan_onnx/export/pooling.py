"""Masked average pooling of a pyramid: the torch reference of what the runtime does in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Resize = Literal["area", "bilinear"]


def resize_masks(masks: Tensor, height: int, width: int, resize: Resize = "area") -> Tensor:
    """Masks of the frame (N,S,S), 0/1 of any dtype, to a level: float32 (N,height,width).

    ``area`` is the mean of the covered pixels, ``bilinear`` two taps without antialias, as in the
    paper's code, where a thin mask can vanish.
    """
    planes = masks.float().unsqueeze(1)
    if resize == "area":
        resized = functional.adaptive_avg_pool2d(planes, (height, width))
    else:
        resized = functional.interpolate(planes, (height, width), mode="bilinear")
    return resized.squeeze(1)


def pool_level(maps: Tensor, masks: Tensor, resize: Resize = "area") -> Tensor:
    """Average of maps (N,C,h,w) under masks (N,S,S): float32 (N,C). An empty mask gives zeros."""
    weights = resize_masks(masks, int(maps.shape[2]), int(maps.shape[3]), resize).flatten(1)
    totals = weights.sum(1, keepdim=True)
    weights = torch.where(totals > 0, weights / totals.clamp_min(1e-12), 0.0)
    return torch.einsum("ncp,np->nc", maps.flatten(2).float(), weights)


def pool_pyramid(pyramid: Sequence[Tensor], masks: Tensor, resize: Resize = "area") -> Tensor:
    """Features of exemplars (paper, section 3.2): (N,F), levels concatenated in their order."""
    return torch.cat([pool_level(maps, masks, resize) for maps in pyramid], dim=1)
