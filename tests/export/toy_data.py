"""A tiny data folder in the layout that training reads: coloured shapes on plain grounds.

Regions label them, and described units show them.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LABELS = {"apple": (200, 30, 30), "car": (30, 60, 200), "tree": (30, 150, 40)}
SAID = {
    "apple": ("apples", "red things on the left"),
    "car": ("cars", "blue things"),
    "tree": ("trees", "green areas"),
}
"""What annotators say of units that show a label."""
GRID, EXEMPLARS = 112, 3
TRAIN, VAL = (("a", 12), ("b", 12)), (("c", 54),)
"""Networks of the described units, and how many units each has."""


def encode_rle(mask: np.ndarray) -> str:
    """COCO's compressed run lengths of a mask, written independently of the decoder."""
    flat = mask.T.reshape(-1).astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    bounds = [0, *edges, flat.size]
    runs = [b - a for a, b in pairwise(bounds)]
    text = ""
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            code = value & 0x1F
            value >>= 5
            more = not (value == 0 and not code & 0x10) and not (value == -1 and bool(code & 0x10))
            text += chr((code | 0x20 if more else code) + 48)
    return text


def write_toy_data(folder: Path, photos: int = 6) -> Path:
    """Photos of three kinds, one in three held out, with masks, boxes and whole labels.

    Described units of the split ``train`` show photos to train on only, and have one annotator;
    those of ``val`` show all photos and have two.
    """
    rng = np.random.default_rng(0)
    (folder / "images" / "toy").mkdir(parents=True)
    rows, seen = [], {}
    for label, colour in LABELS.items():
        for index in range(photos):
            name = f"images/toy/{label}_{index}.png"
            mask = seen[name] = _draw(folder / name, colour, rng)
            split = "val" if index % 3 == 2 else "train"
            row = {"source": "toy", "image": name, "label": label, "split": split}
            row |= {"w": 64, "h": 48, "attrs": {}}
            rows.append(row | {"kind": "mask", "rle": encode_rle(mask)})
            if index == 0:
                rows.append(row | {"kind": "box", "box": [8.0, 4.0, 30.0, 30.0]})
                rows.append(row | {"kind": "whole"})
    with gzip.open(folder / "regions.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    held_out = {str(row["image"]) for row in rows if row["split"] == "val"}
    to_train = {name: mask for name, mask in seen.items() if name not in held_out}
    units = [unit for network in TRAIN for unit in _units(*network, "train", to_train, rng)]
    units += [unit for network in VAL for unit in _units(*network, "val", seen, rng)]
    with gzip.open(folder / "units.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(unit) + "\n" for unit in units)
    return folder


def _units(
    network: str, count: int, split: str, masks: dict[str, np.ndarray], rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Units that show one label in all exemplars, or in all but the last."""
    for number in range(count):
        label = [*LABELS][number % len(LABELS)]
        own = rng.permutation([name for name in masks if label in name]).tolist()
        other = rng.permutation([name for name in masks if label not in name]).tolist()
        pure = bool(rng.random() < 0.7)
        shown = own[:EXEMPLARS] if pure else [*own[: EXEMPLARS - 1], other[0]]
        layer = f"block{number % 4}"
        said = {"description": SAID[label][0], "also": SAID[label][1], "coherence": 2 + pure}
        notes = [said, {**said, "description": SAID[label][1], "also": ""}]
        yield {
            "network": network,
            "layer": layer,
            "tensor": f"/{layer}/Relu",
            "unit": number,
            "split": split,
            "frame": {"resize": 48, "crop": [48, 48]},
            "grid": GRID,
            "exemplars": [
                {"image": name, "activation": 1.0, "rle": encode_rle(_on_grid(masks[name]))}
                for name in shown
            ],
            "notes": notes if split == "val" else notes[:1],
        }


def _on_grid(mask: np.ndarray) -> np.ndarray:
    """A mask of a whole photo on the grid of its middle square."""
    height, width = mask.shape
    rows = np.arange(GRID) * height // GRID
    return mask[rows][:, rows + (width - height) // 2]


def _draw(path: Path, colour: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((48, 64), dtype=bool)
    top, left = rng.integers(2, 12), rng.integers(4, 20)
    mask[top : top + 28, left : left + 32] = True
    pixels = rng.integers(150, 200, (48, 64, 3))
    pixels[mask] = np.array(colour) + rng.integers(0, 20, (int(mask.sum()), 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return mask
