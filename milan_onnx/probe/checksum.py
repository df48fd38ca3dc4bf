"""One hash for a set of photos that are met in parts: it adds up, in any order.

It is LtHash (Bellare and Micciancio 1997, in the form of Lewi and others 2019): every photo is
hashed to 1,024 numbers of 16 bits, which are added up. A set's hash takes 2 KiB however many photos
it has, and two parts' hashes are added to that of both.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

LANES = 1024


class Checksum:
    """The hash of a set of photos."""

    def __init__(self, lanes: NDArray[np.uint16] | None = None) -> None:
        """Of no photo; or of those whose ``lanes`` another one had."""
        self.lanes = np.zeros(LANES, np.uint16) if lanes is None else lanes.copy()

    def add(self, index: int, name: str, digest: str) -> None:
        """Count a photo: its id, name, and what tells its content."""
        text = f"{index}\0{name}\0{digest}\n".encode("utf-8", "surrogateescape")
        self.lanes += np.frombuffer(hashlib.shake_128(text).digest(2 * LANES), "<u2")

    def merge(self, other: Checksum) -> None:
        """Count the photos of another part."""
        self.lanes += other.lanes

    def hexdigest(self) -> str:
        """Hexadecimal SHA-256 of the whole."""
        return hashlib.sha256(self.lanes.astype("<u2").tobytes()).hexdigest()
