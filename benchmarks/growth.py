"""How time and memory grow with photos and with units.

    python -m benchmarks.growth [--photos 300] [--times 10] [--json FILE]

`describe` of a 2,048-unit layer of 7x7 positions, made here, on noise photos: so many and ten times
as many, with all processes' peak resident set and time from the operating system's accounts. Then
the same layer with 64 units, for the memory that a unit takes; and the search alone on 256 units
and on four times as many.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save
from PIL import Image

from benchmarks.measure import Contest, Cost, cost, ratio_text, report
from milan_onnx.bundle import load_bundle
from milan_onnx.runtime import Describer, choose_threads
from milan_onnx.runtime.device import Device

UNITS, FEW = 2048, 64
SEARCHED, TIMES = 256, 4


def model(path: Path, units: int) -> None:
    """Three strided convolutions to (N, units, 7, 7), rectified."""
    rng = np.random.default_rng(0)
    nodes, weights, x, channels = [], [], "input", 3
    for index, (out, stride) in enumerate([(16, 4), (32, 4), (units, 2)]):
        weight = rng.standard_normal((out, channels, stride, stride)) / np.sqrt(
            channels * stride**2
        )
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"w{index}"))
        nodes.append(
            helper.make_node("Conv", [x, f"w{index}"], [f"c{index}"], strides=[stride] * 2)
        )
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        x, channels = f"r{index}", out
    shape = ["N", 3, 224, 224]
    value = helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)
    result = helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", units, 7, 7])
    graph = helper.make_graph(nodes, "wide", [value], [result], weights)
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def photos(folder: Path, count: int) -> Path:
    """Smooth noise, 224x224."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for index in range(count):
        small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        small.resize((224, 224), Image.Resampling.BICUBIC).save(folder / f"{index:06}.jpg")
    return folder


def describe(folder: Path, name: str, images: Path) -> Cost:
    """One run."""
    program = Path(sys.executable).parent / "milan-onnx"
    line = [program, "describe", folder / f"{name}.onnx", "-l", "r2", "-i", images, "-q"]
    return cost([*line, "-o", folder / f"run-{name}-{images.name}", "--no-report", "--no-cache"])


def search_time(rounds: int = 3) -> Contest:
    """The search on so many units of the default bundle, and on four times as many."""
    bundle = load_bundle(None)
    describer = Describer(bundle, Device("cpu"), choose_threads().value)
    shape = (SEARCHED * TIMES, 15, bundle.manifest.encoder.features)
    features = np.random.default_rng(0).gamma(0.6, 1.0, shape).astype(np.float32)
    timed = Contest()
    ways = {
        "some": lambda: list(describer.describe(features[:SEARCHED])),
        "more": lambda: list(describer.describe(features)),
    }
    timed.run(ways, rounds)
    return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    some, more = arguments.photos, arguments.photos * arguments.times
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model(folder / "wide.onnx", UNITS)
        model(folder / "narrow.onnx", FEW)
        sets = {count: photos(folder / str(count), count) for count in (some, more)}
        runs = {
            (model_name, count): describe(folder, model_name, images)
            for model_name in ("narrow", "wide")
            for count, images in sets.items()
        }
    rows = [
        [
            f"{UNITS if name == 'wide' else FEW} units, {count} photos",
            *(f"{v:.0f}" for v in (run.wall, run.cpu, run.peak)),
        ]
        for (name, count), run in runs.items()
    ]
    searched = search_time()
    small, large, narrow = runs["wide", some], runs["wide", more], runs["narrow", more]
    a_unit = (large.peak - narrow.peak) / (UNITS - FEW)
    figures = {
        f"{arguments.times} times the photos, times the wall time": large.wall / small.wall,
        f"{arguments.times} times the photos, times the CPU time": large.cpu / small.cpu,
        f"{arguments.times} times the photos, times the peak memory": large.peak / small.peak,
        "MiB a unit": a_unit,
    }
    rows += [[name, f"{value:.3f}", "", ""] for name, value in figures.items()]
    ratio = ratio_text(searched.ratio("more", "some"))
    rows.append([f"{TIMES} times the units, times the search time", ratio, "", ""])
    taken = [{"model": name, "photos": count, **vars(run)} for (name, count), run in runs.items()]
    value = {"runs": taken, "figures": figures, "search": searched.rounds}
    report(["", "wall s", "CPU s", "peak MiB"], rows, value, arguments.json)


if __name__ == "__main__":
    main()
