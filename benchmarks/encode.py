"""Features of exemplars: the encoder once a photo and pooling as a product, against unit by unit.

    python -m benchmarks.encode PHOTOS [--units 64] [--rounds 3] [--json FILE]

Each unit has 15 exemplars among 200 photos with masks of random blobs. The runtime encodes each
photo once and pools under all masks that it has; the original encodes each exemplar of each unit.
Both use a ResNet-18 with the same random weights, and must give the same features; the default
bundle's encoder is timed beside them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import LIST, Contest, listed, ratio_text, report
from benchmarks.original.networks import features_of
from milan_onnx.bundle import load_bundle
from milan_onnx.export.original.convert import convert
from milan_onnx.geometry import Geometry
from milan_onnx.probe import Loader, open_probe
from milan_onnx.runtime import Describer, choose_threads, in_order
from milan_onnx.runtime.describer import Encoder
from milan_onnx.runtime.device import Device
from tests.export.original import Recipe, write_standin

EXEMPLARS, PHOTOS, BATCH, UNITS_AT_ONCE = 15, 200, 8, 16


def blobs(count: int, rng: np.random.Generator) -> np.ndarray:
    """Masks bool (count, 224, 224): a coarse random field upsampled and cut."""
    field = torch.from_numpy(rng.standard_normal((count, 1, 7, 7)).astype(np.float32))
    wide = torch.nn.functional.interpolate(field, size=224, mode="bilinear")[:, 0]
    return (wide > 0.8).numpy()


def by_photo(
    encoder: Encoder, frames: np.ndarray, ids: np.ndarray, masks: np.ndarray, threads: int
) -> np.ndarray:
    """As `describe` does: features (U, K, F)."""
    features = np.zeros((*ids.shape, encoder.spec.features), np.float32)
    used = np.unique(ids)
    parts = [used[start : start + BATCH] for start in range(0, len(used), BATCH)]

    def encode(part: np.ndarray) -> None:
        maps = encoder.maps(frames[part])
        for place, image in enumerate(part.tolist()):
            unit, slot = np.nonzero(ids == image)
            features[unit, slot] = encoder.pool(maps, place, masks[unit, slot])

    for _ in in_order(encode, parts, threads):
        pass
    return features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    threads = choose_threads().value
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rng = np.random.default_rng(0)
    ids = np.stack([rng.permutation(PHOTOS)[:EXEMPLARS] for _ in range(arguments.units)])
    masks = blobs(ids.size, rng).reshape(*ids.shape, 224, 224)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        listed(arguments.photos, PHOTOS, folder)
        geometry = Geometry(crop=(224, 224), resize=256)
        loader = Loader(open_probe(folder / LIST), geometry, batch_size=BATCH)
        frames = np.concatenate([batch.images for batch in loader])
        standin = write_standin(folder, Recipe())
        bundles = {"same": convert(standin.path, folder / "same"), "default": load_bundle(None)}
        encoders = {n: Describer(b, Device("cpu")).encoder() for n, b in bundles.items()}
        made: dict[str, np.ndarray] = {}

        def original() -> None:
            parts = []
            for start in range(0, len(ids), UNITS_AT_ONCE):
                some = slice(start, start + UNITS_AT_ONCE)
                images = torch.from_numpy(frames[ids[some].reshape(-1)]).permute(0, 3, 1, 2) / 255
                mask = torch.from_numpy(masks[some].reshape(-1, 1, 224, 224)).float()
                with torch.inference_mode():
                    parts.append(features_of(standin.decoder, "resnet18", images, mask))
            made["original"] = torch.cat(parts).view(*ids.shape, -1).numpy()

        ways: dict[str, Callable[[], object]] = {
            name: lambda name=name, encoder=encoder: made.update(
                {name: by_photo(encoder, frames, ids, masks, threads)}
            )
            for name, encoder in encoders.items()
        }
        timed = Contest()
        timed.run({**ways, "original": original}, arguments.rounds)
    error = np.abs(made["same"] - made["original"]).max() / np.abs(made["original"]).max()
    labels = {
        "original": "eager PyTorch, unit by unit",
        "same": "runtime, same weights",
        "default": "runtime, default bundle",
    }
    rows = [
        [
            label,
            f"{arguments.units / timed.seconds(way):.1f}",
            ratio_text(timed.ratio("original", way)),
        ]
        for way, label in labels.items()
    ]
    value = {"units": arguments.units, "rounds": timed.rounds, "error": float(error)}
    report(["encoder", "units/s", "times as fast"], rows, value, arguments.json)
    print(f"\nlargest difference of features, as a share of the largest: {error:.1e}")


if __name__ == "__main__":
    main()
