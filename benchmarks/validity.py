"""What validity adds to `describe`: CPU seconds with and without it, in turns.

    python benchmarks/validity.py MODEL PHOTOS LIMIT LAYER [LAYER ...] [--rounds N]

The ratio of each round is taken from its own two runs; CPU seconds (from the operating system's
accounts), because other work on the machine stretches wall time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def cost(arguments: argparse.Namespace, *options: str) -> tuple[float, float, int]:
    """CPU seconds, wall seconds and peak MiB of one run."""
    program = Path(sys.executable).parent / "milan-onnx"
    with tempfile.TemporaryDirectory() as folder:
        line = [program, "describe", arguments.model, "-i", arguments.photos, "-q", *options]
        line += ["--limit", arguments.limit, "--no-report", "-o", f"{folder}/run"]
        line += [word for layer in arguments.layers for word in ("-l", layer)]
        start = time.monotonic()
        process = subprocess.Popen(list(map(str, line)), stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"describe ended with {os.waitstatus_to_exitcode(status)}")
    wall = time.monotonic() - start
    return usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss >> 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("photos")
    parser.add_argument("limit", type=int)
    parser.add_argument("layers", nargs="+")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    for _ in range(arguments.rounds):
        off, wall_off, peak_off = cost(arguments, "--no-validity")
        on, wall_on, peak_on = cost(arguments, "--validity")
        print(
            f"{arguments.limit} photos: CPU {off:.0f} s without, {on:.0f} s with: "
            f"{100 * (on / off - 1):+.0f} %; wall {wall_off:.0f} s, {wall_on:.0f} s; "
            f"peak {peak_off} MiB, {peak_on} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
