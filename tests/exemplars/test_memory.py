"""A scan's memory is bounded: by the budget, not by the number of photos."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import numpy as np
from milan_onnx.exemplars import HostActivations, Scan, ScanOptions

images, budget = int(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
block = np.maximum(rng.standard_normal((8, 128, 7, 7)), 0).astype(np.float32)

def batches():
    for start in range(0, images, 8):
        yield np.arange(start, start + 8), [
            HostActivations(np.roll(block, start // 8, axis=1) + start % 3)
        ]

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
scan = Scan(["layer"], images, ScanOptions(tail_memory=budget))
for ids, found in batches():
    scan.add(ids, found)
scan.layers[0].result()
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(scan.layers[0].quantile.method, (after - before) / 1024)
"""


def grown(images: int, budget: int) -> tuple[str, float]:
    """Quantile method and MiB that a scan of 128 units took."""
    command = [sys.executable, "-c", SCRIPT, str(images), str(budget)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    method, size = done.stdout.split()
    return method, float(size)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_memory_does_not_grow_with_photos() -> None:
    budget = 1 << 20
    few, many, more = (grown(images, budget) for images in (400, 8_000, 16_000))
    assert [few[0], many[0], more[0]] == ["tail", "histogram", "histogram"]
    assert few[1] < 20
    # At most some 8,000 bins of 24 bytes a unit until the tail is known, and copies to sort them.
    assert many[1] < 100
    assert more[1] < 100
