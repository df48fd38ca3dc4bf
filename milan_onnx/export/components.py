"""Principal components: what training sees of long features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

TINY = 1e-6


def principal_components(
    sample: Tensor, widths: Mapping[str, int], wanted: Mapping[str, int]
) -> Tensor:
    """Components float32 (F, R) of standardised features (n, F), part by part.

    ``widths``: length of each part, in order; ``wanted``: to how many components a part is reduced,
    which then have a mean square of 1 (0: the part is left out); others stay as they are.
    """
    blocks, begin = [], 0
    for part, width in widths.items():
        values = sample[:, begin : begin + width]
        begin += width
        if part not in wanted:
            blocks.append(torch.eye(width))
            continue
        _, vectors = torch.linalg.eigh((values.T @ values / len(values)).double())
        found = vectors.flip(1)[:, : wanted[part]].float()
        # The sign of an eigenvector is chance.
        found = found * found.gather(0, found.abs().argmax(0, keepdim=True)).sign()
        size = (values @ found).square().mean().sqrt()  # of a part that never varies it is 0
        blocks.append(found / size.clamp_min(TINY))
    joined: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return joined
