"""Two halves of the probe images by content: exemplars come from one, the other is held out.

The side an image is on, and its rank in a random order, are bits of a hash over its content. Copies
of a photo share them, whatever they are called and wherever they are listed, so a held-out photo is
never one that a description was made from. The hash is salted: listings sorted by a hash of the
content (content-addressed file names) say nothing about it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SALT = b"milan-onnx: halves of the probe images\0"


@dataclass(frozen=True)
class Halves:
    """Where each of B images belongs."""

    held_out: NDArray[np.bool_]
    """Whether it is held out (B,)."""

    ranks: NDArray[np.int64]
    """Its place in a random order, a number of 63 bits (B,)."""


def halves(digests: Sequence[str]) -> Halves:
    """Where images with these digests (any text that names their content) belong."""
    hashes = [hashlib.sha256(SALT + digest.encode()).digest() for digest in digests]
    values = np.frombuffer(b"".join(hashes), dtype=">u8").reshape(len(hashes), 4)[:, 0]
    return Halves((values & 1).astype(np.bool_), (values >> np.uint64(1)).astype(np.int64))
