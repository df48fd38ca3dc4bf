"""A tiny data folder in the layout that training reads: coloured shapes on plain grounds."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

LABELS = {"apple": (200, 30, 30), "car": (30, 60, 200), "tree": (30, 150, 40)}


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
    """Photos of three kinds, one in three held out, with masks, boxes and whole labels."""
    rng = np.random.default_rng(0)
    (folder / "images" / "toy").mkdir(parents=True)
    rows = []
    for label, colour in LABELS.items():
        for index in range(photos):
            name = f"images/toy/{label}_{index}.png"
            mask = _draw(folder / name, colour, rng)
            split = "val" if index % 3 == 2 else "train"
            row = {"source": "toy", "image": name, "label": label, "split": split}
            row |= {"w": 64, "h": 48, "attrs": {}}
            rows.append(row | {"kind": "mask", "rle": encode_rle(mask)})
            if index == 0:
                rows.append(row | {"kind": "box", "box": [8.0, 4.0, 30.0, 30.0]})
                rows.append(row | {"kind": "whole"})
    with gzip.open(folder / "regions.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    with gzip.open(folder / "unit_descriptions.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("description\tsource\tlayer\tunit\n")
        file.writelines(f"{text}\tx\tlayer1\t0\n" for text in ("trees", "red objects", "apples"))
    return folder


def _draw(path: Path, colour: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((48, 64), dtype=bool)
    top, left = rng.integers(2, 12), rng.integers(4, 20)
    mask[top : top + 28, left : left + 32] = True
    pixels = rng.integers(150, 200, (48, 64, 3))
    pixels[mask] = np.array(colour) + rng.integers(0, 20, (int(mask.sum()), 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return mask
