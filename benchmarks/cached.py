"""What a second `describe` of the same costs: from the cache, and without it.

    python -m benchmarks.cached PHOTOS [--limit 500] [--limit 2000] [--rounds 5] [--json FILE]

`milan-onnx describe` of two layers of the default bundle's encoder, in a process of its own each
time: once into an empty cache, then from the cache with and without the report. Wall seconds, and
those of all processors; hashing the photos is timed by itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import LIST, cost, listed, report
from milan_onnx.bundle import ENCODER, load_bundle
from milan_onnx.cli.app import _demo_layers
from milan_onnx.probe import listing_digest, open_probe


def command(folder: Path, *more: str) -> list[str]:
    program = str(Path(sys.executable).parent / "milan-onnx")
    model = load_bundle().file(ENCODER)
    layers = [word for name in _demo_layers(model) for word in ("-l", name)]
    line = [program, "describe", str(model), *layers, "-i", str(folder / LIST), "-q"]
    return [
        *line,
        "-o",
        str(folder / "run"),
        "--overwrite",
        "--cache",
        str(folder / "cache"),
        *more,
    ]


def measured(photos: Path, limit: int, rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        listed(photos, limit, folder)
        first = cost(command(folder))
        again = [cost(command(folder)) for _ in range(rounds)]
        bare = [cost(command(folder, "--no-report")) for _ in range(rounds)]
        start = time.process_time()
        listing_digest(open_probe(folder / LIST))
        hashing = time.process_time() - start
        kept = sum(f.stat().st_size for f in (folder / "cache").rglob("*") if f.is_file())
        size = sum(Path(path).stat().st_size for path in paths(folder))
    return {
        "photos": limit,
        "photos_mb": size / 1e6,
        "kept_mb": kept / 1e6,
        "first": first.wall,
        "cached": statistics.median(c.wall for c in again),
        "cached_least": min(c.wall for c in again),
        "cached_cpu": statistics.median(c.cpu for c in again),
        "no_report_cpu": statistics.median(c.cpu for c in bare),
        "hashing_cpu": hashing,
    }


def paths(folder: Path) -> list[str]:
    return (folder / LIST).read_text().splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--limit", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ.pop("MILAN_ONNX_CACHE", None)
    limits = arguments.limit or [500, 2000]
    found = [measured(arguments.photos, limit, arguments.rounds) for limit in limits]
    head = (
        "photos",
        "MB",
        "kept, MB",
        "first, s",
        "cached, s",
        "least",
        "CPU s",
        "no report",
        "hash",
    )
    rows = [[f["photos"], *(f"{value:.2f}" for value in list(f.values())[1:])] for f in found]
    report(head, rows, found, arguments.json)


if __name__ == "__main__":
    main()
