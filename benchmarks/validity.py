"""What validity adds to `describe`: CPU seconds with and without it, in turns.

    python -m benchmarks.validity MODEL PHOTOS LIMIT LAYER [LAYER ...] [--rounds N]

The ratio of each round is taken from its own two runs; CPU seconds (from the operating system's
accounts), because other work on the machine stretches wall time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Cost, cost


def describe(arguments: argparse.Namespace, *options: str) -> Cost:
    """One run."""
    program = Path(sys.executable).parent / "milan-onnx"
    with tempfile.TemporaryDirectory() as folder:
        line = [program, "describe", arguments.model, "-i", arguments.photos, "-q", *options]
        line += ["--limit", arguments.limit, "--no-report", "-o", f"{folder}/run"]
        return cost([*line, *(word for layer in arguments.layers for word in ("-l", layer))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("photos")
    parser.add_argument("limit", type=int)
    parser.add_argument("layers", nargs="+")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    for _ in range(arguments.rounds):
        off, on = (describe(arguments, option) for option in ("--no-validity", "--validity"))
        print(
            f"{arguments.limit} photos: CPU {off.cpu:.0f} s without, {on.cpu:.0f} s with: "
            f"{100 * (on.cpu / off.cpu - 1):+.0f} %; wall {off.wall:.0f} s, {on.wall:.0f} s; "
            f"peak {off.peak:.0f} MiB, {on.peak:.0f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
