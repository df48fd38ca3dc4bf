"""A small tree in the layout of MILANNOTATIONS."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

WORDS = ("red areas", "blue areas", "dogs", "cats on grass", "the color green")


def write_network(
    root: Path,
    network: str = "alexnet/places365",
    layers: dict[str, int] | None = None,
    *,
    side: int = 32,
    exemplars: int = 15,
    images: bool = True,
    sparse: bool = False,
    seed: int = 0,
) -> Path:
    """Write annotations and arrays; ``sparse`` ones take no room on disk and hold zeros."""
    folder, rng = root / network, np.random.default_rng(seed)
    lines = []
    for layer, units in (layers or {"conv1": 6, "conv2": 5}).items():
        (folder / layer).mkdir(parents=True)
        shape = (units, exemplars, 1, side, side)
        for name, channels in (("masks", 1), *((("images", 3),) if images else ())):
            array = np.lib.format.open_memmap(
                folder / layer / f"{name}.npy", "w+", np.uint8, (*shape[:2], channels, side, side)
            )
            if not sparse:
                array[:] = rng.integers(0, 2 if channels == 1 else 256, array.shape)
            array.flush()
        ids = rng.integers(0, 12, (units, exemplars))
        np.savetxt(folder / layer / "ids.csv", ids, fmt="%i", delimiter=",")
        lines += [
            (layer, unit, WORDS[int(rng.integers(len(WORDS)))])
            for unit in range(units)
            for _ in range(3)
        ]
    write_annotations(folder / "annotations.csv", lines)
    return folder


def write_annotations(path: Path, lines: list[tuple[str, object, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("worker", "layer", "unit", "summary"))
        writer.writerows(("w", *line) for line in lines)


def write_imagenet(folder: Path, classes: int = 3, images: int = 4) -> Path:
    """A folder a class, of photos of several sizes."""
    rng = np.random.default_rng(0)
    for name in range(classes):
        (folder / f"n{name:03}").mkdir(parents=True)
        for number in range(images):
            size = (300 + 10 * number, 260, 3)
            photo = Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8))
            photo.save(folder / f"n{name:03}" / f"{number}.png")
    return folder
