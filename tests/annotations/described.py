"""A small file of described units, with photos beside it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.export.toy_data import encode_rle
from tests.toy import toy_photos

GRID = 16
PHRASES = ("red dogs", "blue sky", "green grass", "round eyes", "striped areas", "bright letters")


def rows_of(
    network: str, split: str, units: int, rng: np.random.Generator, annotators: int = 1
) -> list[dict[str, Any]]:
    """Units of two layers, three exemplars each, of the twenty photos that `toy_photos` draws."""
    return [
        {
            "network": network,
            "layer": f"block.{2 if unit % 2 else 10}",
            "tensor": f"/block.{2 if unit % 2 else 10}/Relu",
            "unit": unit,
            "split": split,
            "frame": {"resize": 40, "crop": [32, 32]},
            "grid": GRID,
            "exemplars": [exemplar(int(photo), rng) for photo in rng.permutation(20)[:3]],
            "notes": [note(rng) for _ in range(annotators)],
        }
        for unit in range(units)
    ]


def exemplar(photo: int, rng: np.random.Generator) -> dict[str, Any]:
    mask = rng.random((GRID, GRID)) < 0.3
    return {"image": f"images/{photo:02}.png", "activation": 1.5, "rle": encode_rle(mask)}


def note(rng: np.random.Generator) -> dict[str, Any]:
    said = [PHRASES[i] for i in rng.permutation(len(PHRASES))[:2]]
    return {"description": said[0], "also": said[1], "coherence": int(rng.integers(0, 4))}


def write_rows(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_described(folder: Path) -> Path:
    """Twelve units to learn from, of two networks, and eight to judge, of a third."""
    folder.mkdir(parents=True, exist_ok=True)
    toy_photos(folder / "images")
    rng = np.random.default_rng(5)
    rows = rows_of("a", "train", 6, rng) + rows_of("b", "train", 6, rng)
    rows += rows_of("c", "val", 8, rng, annotators=2)
    return write_rows(folder / "units.jsonl.gz", rows)
