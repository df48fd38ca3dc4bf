"""Peak memory of `describe` on a layer of 2,048 units, by number of photos.

    python benchmarks/memory.py [PHOTOS ...]

Makes a model with a 2,048-unit layer of 7x7 positions and noise photos in a temporary folder, and
prints each run's peak resident set and time, from the operating system's accounts.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save
from PIL import Image

UNITS = 2048


def model(path: Path) -> None:
    """Three strided convolutions to (N, 2048, 7, 7), rectified."""
    rng = np.random.default_rng(0)
    nodes, weights, x, channels = [], [], "input", 3
    for index, (out, stride) in enumerate([(16, 4), (32, 4), (UNITS, 2)]):
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
    result = helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", UNITS, 7, 7])
    graph = helper.make_graph(nodes, "wide", [value], [result], weights)
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def photos(folder: Path, count: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(1)
    for index in range(count):
        small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        small.resize((224, 224), Image.Resampling.BICUBIC).save(folder / f"{index:06}.jpg")


def describe(folder: Path, images: Path) -> tuple[float, float, float]:
    """Wall seconds, peak MiB and CPU seconds of one run."""
    program = Path(sys.executable).parent / "milan-onnx"
    line = [program, "describe", folder / "wide.onnx", "-l", "r2", "-i", images, "-q"]
    line += ["-o", folder / f"run-{images.name}"]
    start = time.monotonic()
    process = subprocess.Popen(list(map(str, line)), stdout=subprocess.DEVNULL)
    _, status, usage = _wait(process.pid)
    process.returncode = status
    if status:
        raise SystemExit(f"describe failed with status {status}")
    return time.monotonic() - start, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def _wait(pid: int) -> tuple[int, int, resource.struct_rusage]:
    import os

    return os.wait4(pid, 0)


def main() -> None:
    counts = [int(text) for text in sys.argv[1:]] or [500, 2000]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model(folder / "wide.onnx")
        print("photos  peak MiB  CPU s  wall s")
        for count in counts:
            photos(folder / str(count), count)
            wall, peak, cpu = describe(folder, folder / str(count))
            print(f"{count:>6}  {peak:>8.0f}  {cpu:>5.0f}  {wall:>6.0f}")


if __name__ == "__main__":
    main()
