"""What a second `describe` of the same costs: from the cache, and without it.

    python -m benchmarks.cached PHOTOS [--limit 500] [--limit 2000] [--rounds 5] [--json FILE]

`milan-onnx describe` of two layers of the default bundle's encoder, in a process of its own each
time: once into an empty cache, then in turns from the cache with and without the report. How long
hashing the photos takes of that is timed by itself.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import LIST, Contest, Cost, cost, listed, report
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
        first: Cost = cost(command(folder))
        timed = Contest()
        ways = {
            "cached": lambda: cost(command(folder)),
            "cached, no report": lambda: cost(command(folder, "--no-report")),
        }
        timed.run(ways, rounds)
        probe = open_probe(folder / LIST)
        start = time.perf_counter()
        listing_digest(probe)
        hashing = time.perf_counter() - start
        size = sum((folder / LIST).parent.joinpath(p).stat().st_size for p in paths(folder))
        kept = sum(f.stat().st_size for f in (folder / "cache").rglob("*") if f.is_file())
    return {
        "photos": limit,
        "photos_mb": size / 1e6,
        "first": first.wall,
        **{way: timed.seconds(way) for way in ways},
        "hashing": hashing,
        "cache_mb": kept / 1e6,
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
    head = ("photos", "MB", "first, s", "cached, s", "without report, s", "hashing, s", "kept, MB")
    rows = [[f["photos"], *(f"{value:.2f}" for value in list(f.values())[1:])] for f in found]
    report(head, rows, found, arguments.json)


if __name__ == "__main__":
    main()
