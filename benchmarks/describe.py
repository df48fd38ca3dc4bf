"""Whole `describe` against the original's way in eager PyTorch: same photos, weights, captions.

    python -m benchmarks.describe PHOTOS [--limit 2000] [--original CHECKPOINT] [--rounds 1]
                                  [--skip-opponent] [--json FILE]

The subject is a ResNet-18 with five layers, 1,024 units. Its weights are random, spread by a few
photos through its batch norms: what it sees costs the same. The checkpoint (default: one written
here with random weights; --original: another) is loaded by the opponent and converted for
`milan-onnx describe`, which runs as a user would run it, in a process of its own; so does the
opponent. The default bundle is timed beside it, without and with validity.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import LIST, Cost, cost, listed, report
from benchmarks.original.describing import describe
from benchmarks.original.exemplars import Photos
from benchmarks.original.networks import load_decoder
from milan_onnx.export.backbones import import_torchvision_models
from milan_onnx.export.original.checkpoint import read_checkpoint
from milan_onnx.export.original.convert import convert
from tests.export.original import Recipe, write_standin

LAYERS = ("conv1", "layer1", "layer2", "layer3", "layer4")
WORDS = 1600
SIZES = {"embedding": 128, "hidden": 512, "lm_embedding": 128, "lm_hidden": 512, "lm_layers": 2}


def subject(paths: list[Path]) -> torch.nn.Module:
    """A ResNet-18 whose batch norms know some photos, so that its units differ as trained ones."""
    torch.manual_seed(0)
    model = import_torchvision_models().resnet18(weights=None).train()
    dataset = Photos(paths[:64])
    with torch.no_grad():
        images = torch.stack([dataset[i] for i in range(len(dataset))])
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        model(images)
    return model.eval()


def export(model: torch.nn.Module, path: Path) -> None:
    """With its batch norms as nodes, so that conv1 means what the hook sees."""
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, 224, 224),),
        path,
        dynamo=False,
        input_names=["input"],
        dynamic_axes={"input": {0: "N"}},
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        opset_version=18,
    )


def opponent(arguments: argparse.Namespace) -> None:
    """In a process of its own: describe, and write captions and seconds."""
    start = time.perf_counter()
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    model = import_torchvision_models().resnet18(weights=None)
    model.load_state_dict(torch.load(arguments.subject, weights_only=True))
    checkpoint = read_checkpoint(arguments.checkpoint)
    dataset = Photos([Path(line) for line in arguments.photos.read_text().splitlines()])
    made = describe(
        model.eval(),
        LAYERS,
        dataset,
        load_decoder(arguments.checkpoint),
        checkpoint.encoder,
        len(checkpoint.words) + 1,
        workers=threads,
    )
    words = checkpoint.words
    texts = [" ".join(words[t] for t in row if t < len(words)) for row in made.tokens]
    ids = [layer.tolist() for layer in made.ids]
    seconds = {**made.seconds, "all": time.perf_counter() - start}
    arguments.write.write_text(json.dumps({"seconds": seconds, "texts": texts, "ids": ids}))


def command(folder: Path, arguments: argparse.Namespace, out: str, *more: str) -> list[str]:
    program = str(Path(sys.executable).parent / "milan-onnx")
    line = [program, "describe", str(folder / "subject.onnx"), "-i", str(folder / LIST)]
    line += [word for layer in LAYERS for word in ("-l", layer)]
    line += ["--no-report", "--no-cache", "--resize", "256", "--crop", "224"]
    line += ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
    return [*line, "-o", str(folder / out), "--overwrite", *more]


def make(folder: Path, arguments: argparse.Namespace) -> Path:
    """Subject and checkpoint on disk; returns the checkpoint."""
    paths = listed(arguments.photos, arguments.limit, folder)
    model = subject(paths)
    torch.save(model.state_dict(), folder / "subject.pth")
    export(model, folder / "subject.onnx")
    if arguments.original:
        return Path(arguments.original)
    words = tuple(f"w{i}" for i in range(WORDS))
    return write_standin(folder, Recipe("resnet18", words, beam_size=50, sizes=SIZES)).path


def texts_of(run: Path) -> list[str]:
    """The tokens of each description, as words apart."""
    rows = [json.loads(line) for line in (run / "labels.jsonl").read_text().splitlines()]
    return [row["description"] or "" for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--original", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--skip-opponent", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--subject", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        opponent(arguments)
        return
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), arguments)


def compare(folder: Path, arguments: argparse.Namespace) -> None:
    checkpoint = make(folder, arguments)
    convert(checkpoint, folder / "bundle")
    ours = {
        "same weights": ["--bundle", str(folder / "bundle"), "--legacy", "--no-validity"],
        "default bundle, no validity": ["--no-validity"],
        "default bundle": [],
    }
    rounds: list[tuple[dict[str, Cost], dict[str, Any]]] = []
    for _ in range(arguments.rounds):
        costs = {
            way: cost(command(folder, arguments, f"run{index}", *more))
            for index, (way, more) in enumerate(ours.items())
        }
        base = {} if arguments.skip_opponent else slow(folder, arguments, checkpoint)
        rounds.append((costs, base))
    texts = texts_of(folder / "run0")
    rows, agreement = [], ""
    for costs, base in rounds:
        for way in ours:
            run = costs[way]
            times = f"{base['seconds']['all'] / run.wall:.1f}" if base else "–"
            rows.append([way, f"{run.wall:.1f}", f"{run.cpu:.1f}", f"{run.peak:.0f}", times])
        if base:
            stages = ", ".join(f"{k} {v:.0f}" for k, v in base["seconds"].items())
            rows.append(["the original's way", stages, "", "", "1"])
            expected = base.pop("texts")
            store = sorted((folder / "run0" / "exemplars").glob("*/ids.npy"))
            base_ids = [np.array(layer) for layer in base.pop("ids")]
            agreement = _agreement(texts, expected, [np.load(p) for p in store], base_ids)
    value = [
        {way: vars(run) for way, run in costs.items()} | ({"original": base} if base else {})
        for costs, base in rounds
    ]
    report(["way", "wall s", "CPU s", "peak MiB", "times faster"], rows, value, arguments.json)
    print(f"\n{agreement}" if agreement else "")


def _agreement(texts: list[str], expected: list[str], ids: list, base: list) -> str:
    same = sum(_plain(a) == _plain(b) for a, b in zip(texts, expected, strict=True))
    text = f"{same} of {len(texts)} captions are the same"
    if ids:
        shares = [np.mean(np.sort(a, 1) == np.sort(b, 1)) for a, b in zip(ids, base, strict=True)]
        text += f", {100 * np.mean(shares):.2f} % of exemplars"
    return text


def _plain(text: str) -> str:
    """A caption without what makes sentences of words."""
    return "".join(c for c in text.lower() if c.isalnum())


def slow(folder: Path, arguments: argparse.Namespace, checkpoint: Path) -> dict[str, Any]:
    line = [sys.executable, "-m", "benchmarks.describe", str(folder / LIST)]
    line += ["--subject", str(folder / "subject.pth")]
    line += ["--checkpoint", str(checkpoint), "--write", str(folder / "opponent.json")]
    cost(line)
    made: dict[str, Any] = json.loads((folder / "opponent.json").read_text())
    return made


if __name__ == "__main__":
    main()
