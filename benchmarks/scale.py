"""What scale costs: merging a million states, and a job on 1, 2 and 4 workers against a prediction.

    python -m benchmarks.scale states [--most 1000000] [--json FILE]
    python -m benchmarks.scale workers PHOTOS MODEL LAYER [--limit N] [--json FILE]

`states`: a fake subject gives every state one photo's random activations; states are loaded and
merged one after another as `milan-onnx merge` does, a thousand to a million of them, with seconds
and peak memory. `workers`: the coefficients of the cost model of docs/scale.md are fitted to runs
of one process with one thread, at two numbers of photos; then the same job is timed on 1, 2 and 4
Ray workers of one processor each, and held against what the model says.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import listed, report
from milan_onnx.describing.part import Met, Part
from milan_onnx.exemplars import Scan, ScanOptions
from milan_onnx.exemplars.activations import HostActivations

UNITS, GRID, DISTINCT = 16, 2, 500
PROGRAM = str(Path(sys.executable).parent / "milan-onnx")


def states(most: int) -> list[dict[str, float]]:
    """Seconds and peak MiB of merging ever more states, each size in a process of its own."""
    sizes = [size for size in (1_000, 10_000, 100_000, 1_000_000) if size <= most]
    rows = []
    for size in sizes:
        line = [sys.executable, "-m", "benchmarks.scale", "merge-states", str(size)]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def merge_states(count: int) -> dict[str, float]:
    """Merge so many states of one photo each; their ids are all different."""

    def new() -> Scan:
        return Scan(["layer"], count, ScanOptions(15, 0.99, 512 << 20))

    rng = np.random.default_rng(0)
    made = []
    for index in range(min(count, DISTINCT)):
        scan, met = new(), Met(1)
        values = rng.standard_normal((1, UNITS, GRID, GRID)).astype(np.float32)
        scan.add(np.array([index]), [HostActivations(values)], [str(index)])
        met.photos.add(index, f"{index}.jpg", str(index))
        made.append(Part(index, index + 1, scan, met).state())
    whole, start = Part(0, 0, new()), time.perf_counter()
    for index in range(count):
        whole.merge(Part.of(_moved(made[index % len(made)], index), new()))
    seconds = time.perf_counter() - start
    layer = whole.scan.layers[0].result()
    if layer.images != count or whole.met.usable != count:
        sys.exit("the merged state is not of all photos")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"states": count, "seconds": seconds, "peak MiB": peak}


def _moved(state: dict[str, Any], index: int) -> dict[str, Any]:
    """The state of another photo with the same activations."""
    facts = json.loads(bytes(state["facts"])) | {"begin": index, "done": index + 1}
    moved = dict(state)
    moved["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    for name in ("scan.0.topk.ids", "scan.0.fingerprints.ids"):
        ids = state[name]
        moved[name] = np.where(ids == np.iinfo(np.int64).max, ids, index)
    return moved


def timed(line: list[str]) -> float:
    """Seconds of a command that must succeed."""
    start = time.perf_counter()
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - start


def fit(job: list[str], few: Path, many: Path, counts: tuple[int, int], place: Path) -> Any:
    """Coefficients of one process with one thread, from its stages' own clocks."""
    found = {}
    for count, photos in zip(counts, (few, many), strict=True):
        line = [*job, "-i", str(photos), "--threads", "1", "--out", str(place / f"fit-{count}")]
        start = time.perf_counter()
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        found[count] = {"whole": time.perf_counter() - start} | _stages(done.stderr)
    first, second = found[counts[0]], found[counts[1]]
    per_photo = (second["scan"] - first["scan"]) / (counts[1] - counts[0])
    stages = sum(second[name] for name in ("scan", "encode", "describe"))
    return {
        "photo": per_photo,
        "encoded photo": second["encode"] / second["encoded"],
        "unit": second["describe"] / second["units"],
        "start": second["whole"] - stages,
        "encoded": second["encoded"],
        "units": second["units"],
        "runs": found,
    }


def _stages(said: str) -> dict[str, float]:
    """Seconds of the stages, and what they counted, from the lines that end them."""
    found = {}
    for line in said.splitlines():
        name, _, rest = line.partition(": ")
        words = rest.split()
        if name in ("scan", "encode", "describe") and line.endswith(" s") and "left" not in line:
            minutes = float(words[-4]) if words[-3] == "min" else 0.0
            found[name] = 60 * minutes + float(words[-2])
            found[{"scan": "photos", "encode": "encoded", "describe": "units"}[name]] = int(
                words[0]
            )
    return found


def work(model: Any, photos: int, encoded: int, units: int) -> float:
    """Seconds of one thread."""
    made = encoded * model["encoded photo"] + units * model["unit"]
    return float(photos * model["photo"] + made)


def workers(given: argparse.Namespace) -> dict[str, Any]:
    """Measured and predicted seconds on 1, 2 and 4 workers."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        counts = (given.limit // 8, given.limit)
        lists = []
        for count in counts:
            (place / str(count)).mkdir()
            listed(given.photos, count, place / str(count))
            lists.append(place / str(count) / "photos.txt")
        job = [PROGRAM, "describe", str(given.model), "-l", given.layer]
        job += ["--no-report", "--no-validity", "--no-cache"]
        model = fit(job, *lists, counts, place)
        two = timed([*job, "-i", str(lists[1]), "--threads", "2", "--out", str(place / "two")])
        model["gain of two threads"] = (model["runs"][counts[1]]["whole"] - model["start"]) / (
            two - model["start"]
        )

        def ray(number: int, photos: Path, out: str) -> float:
            line = [*job, "-i", str(photos), "--engine", "ray", "--workers", str(number)]
            return timed([*line, "--worker-cpus", "1", "--out", str(place / out)])

        def done(number: int, count: int) -> float:
            found = model["runs"][count]
            alone = work(model, count, int(found["encoded"]), int(found["units"]))
            return alone / (model["gain of two threads"] if number > 1 else 1.0)

        # Starting is what a small job takes beyond its work; of 2 workers it is between 1 and 4.
        start = {n: ray(n, lists[0], f"few-{n}") - done(n, counts[0]) for n in (1, 4)}
        start[2] = start[1] + (start[4] - start[1]) / 3
        rows = [
            {
                "workers": number,
                "measured": ray(number, lists[1], f"ray-{number}"),
                "predicted": start[number] + done(number, counts[1]),
                "same": _same(place / f"ray-{number}", place / f"fit-{counts[1]}"),
            }
            for number in (1, 2, 4)
        ]
        shard = ["--shard", "1/2", "--out", str(place / "state")]
        timed([*job, "-i", str(lists[1]), *shard])
        size = (place / "state" / "scan.npz").stat().st_size
    return {"model": model, "start": start, "workers": rows, "state MiB": size / 2**20}


def _figures(row: dict[str, float]) -> tuple[float, float, float]:
    return row["seconds"], 1000 * row["seconds"] / row["states"], row["peak MiB"]


def _same(one: Path, other: Path) -> bool:
    return (one / "labels.jsonl").read_bytes() == (other / "labels.jsonl").read_bytes()


def main() -> None:
    if sys.argv[1:2] == ["merge-states"]:
        print(json.dumps(merge_states(int(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    merging, spread = commands.add_parser("states"), commands.add_parser("workers")
    merging.add_argument("--most", type=int, default=1_000_000)
    spread.add_argument("photos", type=Path)
    spread.add_argument("model", type=Path)
    spread.add_argument("layer")
    spread.add_argument("--limit", type=int, default=2000)
    for command in (merging, spread):
        command.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.what == "states":
        rows = states(given.most)
        head = ("states", "seconds", "milliseconds each", "peak MiB")
        table = [[r["states"], *(f"{value:.2f}" for value in _figures(r))] for r in rows]
        report(head, table, rows, given.json)
        return
    result = workers(given)
    head = ("workers", "measured s", "predicted s", "same labels")
    table = [
        (r["workers"], f"{r['measured']:.1f}", f"{r['predicted']:.1f}", r["same"])
        for r in result["workers"]
    ]
    report(head, table, result, given.json)
    print({k: v for k, v in result["model"].items() if k != "runs"})
    print(f"start: {result['start']}, state of half of the photos: {result['state MiB']:.1f} MiB")


if __name__ == "__main__":
    main()
