"""The service under load: one request at a time against many, then four times what it can do.

    python -m benchmarks.serve [--seconds 10] [--overload 60] [--json FILE]

Wants wrk (Debian: apt install wrk). A request describes one unit. Kinds of requests:

    new       one image nobody has sent before
    shared    one of 15 images, with a mask of its own: units of a layer that share photos
    layer     15 exemplars out of 32 images, each with a mask of its own
    new-15    15 images nobody has sent before

Each kind is asked one at a time (one client, no batches: ``--batch 1 --wait-ms 0``) and by many
clients at once, first without the cache of feature maps on either side, so that what is gained is
gained by batching alone, then with it. Then ``--overload`` seconds of the kind `shared` at four
times the rate just measured, open to all: statuses, milliseconds to an accepted answer and to a
refusal as the client sees them, and the service's memory.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measure import machine, table
from milan_onnx.geometry import Geometry
from milan_onnx.probe import ProbeSet, open_probe

SIDE = 224
LUA = Path(__file__).with_suffix(".lua")
ALONE = ("--batch", "1", "--wait-ms", "0")
TIMES = 4
KINDS = {
    "new": (1, None, 512, 64),
    "shared": (1, 15, 512, 64),
    "layer": (15, 32, 256, 64),
    "new-15": (15, None, 64, 4),
}
"""Exemplars a unit; images that are shared, None for new ones; bodies; clients at once."""


@dataclass(frozen=True)
class Load:
    """What wrk saw."""

    seconds: float
    """How long it lasted."""

    statuses: dict[int, int]
    """Answers by status."""

    errors: int
    """Connections that failed."""

    accepted_ms: tuple[float, float, float]
    """Median, 99th percentile and largest of the answers with 200."""

    refused_ms: tuple[float, float, float]
    """Of the others."""

    @property
    def rate(self) -> float:
        """Answers with 200 a second."""
        return self.statuses.get(200, 0) / self.seconds


def bodies(folder: Path, kind: str) -> int:
    """Write the bodies of a kind; how many."""
    k, shared, count, _ = KINDS[kind]
    folder.mkdir()
    rng, pool = random.Random(kind), shared or k * count
    probe = open_probe(None, synthetic=pool, seed=sorted(KINDS).index(kind))
    jpegs = [_jpeg(probe, i) for i in range(pool)]
    for number in range(count):
        images = rng.sample(range(pool), k) if shared else range(number * k, number * k + k)
        files = {f"{i}.jpg": jpegs[i] for i in images}
        files |= {f"{i}-mask.png": _mask(rng) for i in images}
        exemplars = [{"image": f"{i}.jpg", "mask": f"{i}-mask.png"} for i in images]
        coded = {name: base64.b64encode(data).decode() for name, data in files.items()}
        body = {"files": coded, "units": [{"exemplars": exemplars}]}
        (folder / f"{number}.json").write_text(json.dumps(body))
    return count


def _jpeg(probe: ProbeSet, index: int) -> bytes:
    file = io.BytesIO()
    frame = Geometry((SIDE, SIDE), SIDE).frame(probe.image(index))
    Image.fromarray(frame).save(file, "JPEG", quality=90)
    return file.getvalue()


def _mask(rng: random.Random) -> bytes:
    mask = np.zeros((SIDE, SIDE), np.bool_)
    top, left = rng.randrange(SIDE // 2), rng.randrange(SIDE // 2)
    mask[top : top + rng.randrange(20, SIDE // 2), left : left + rng.randrange(20, SIDE // 2)] = (
        True
    )
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


@contextmanager
def service(folder: Path, *options: str) -> Iterator[tuple[str, int]]:
    """A ready service; its address and process id."""
    log = folder / "serve.log"
    line = [str(Path(sys.executable).parent / "milan-onnx"), "serve", "--port", "0"]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*line, "--store", str(folder / "store"), *options], stderr=stream
        )
    try:
        while "\nready:" not in log.read_text():
            if process.poll() is not None:
                sys.exit(log.read_text())
            time.sleep(0.05)
        found = re.search(r"^address: (\S+)", log.read_text(), re.MULTILINE)
        assert found
        yield found[1], process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        if process.wait(60):
            sys.exit(log.read_text())


def load(url: str, folder: Path, clients: int, seconds: float, between: float = 0.0) -> Load:
    """Ask for so long with so many clients."""
    count = len(list(folder.iterdir()))
    line = ["wrk", f"-t{clients}", f"-c{clients}", f"-d{seconds:.0f}s", "--timeout", "120s"]
    line += ["-s", str(LUA), f"{url}/v1/describe", "--", str(folder), str(count)]
    line += [f"{between:.6f}", str(clients)]
    text = subprocess.run(line, check=True, capture_output=True, text=True).stdout
    taken = [(int(s), float(ms)) for s, ms in re.findall(r"^(\d{3}) ([\d.]+)$", text, re.MULTILINE)]
    return Load(
        seconds=float(re.findall(r"^seconds (\S+)", text, re.MULTILINE)[0]),
        statuses=dict(Counter(status for status, _ in taken)),
        errors=int(re.findall(r"^errors (\S+)", text, re.MULTILINE)[0]),
        accepted_ms=_percentiles([ms for status, ms in taken if status == 200]),
        refused_ms=_percentiles([ms for status, ms in taken if status != 200]),
    )


def _percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    if not values:
        return (0.0, 0.0, 0.0)
    ordered = sorted(values)
    return statistics.median(ordered), ordered[int(0.99 * (len(ordered) - 1))], ordered[-1]


@contextmanager
def memory(process: int) -> Iterator[list[float]]:
    """Resident MiB of a process, every second while the block runs."""
    found: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
            found.append(pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def compared(work: Path, kind: str, cache: str, seconds: float) -> dict[str, object]:
    """One at a time against many at once."""
    clients = KINDS[kind][-1]
    with service(work, "--cache", cache, *ALONE) as (url, _):
        load(url, work / kind, 1, 2)
        alone = load(url, work / kind, 1, seconds)
    with service(work, "--cache", cache) as (url, _):
        load(url, work / kind, clients, 2)
        many = load(url, work / kind, clients, seconds)
    return {"kind": kind, "cache_mib": int(cache), "alone": asdict(alone), "many": asdict(many)} | {
        "alone_rate": alone.rate,
        "many_rate": many.rate,
    }


def overload(work: Path, kind: str, seconds: float) -> dict[str, object]:
    """Four times what it can do."""
    with service(work) as (url, process):
        load(url, work / kind, 64, 3)
        capacity = load(url, work / kind, 64, 10).rate
        # As many as wait in the line, and as many again to go on asking.
        clients = 800
        with memory(process) as resident:
            found = load(url, work / kind, clients, seconds, clients / (TIMES * capacity))
    asked = sum(found.statuses.values()) / found.seconds
    return {"kind": kind, "capacity": capacity, "asked": asked, "resident_mib": resident} | asdict(
        found
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--overload", type=float, default=60)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, object] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for kind in {*given.kinds, "shared"}:
            bodies(work / kind, kind)
        rows = [
            compared(work, kind, cache, given.seconds)
            for cache in ("0", "128")
            for kind in given.kinds
        ]
        found["batching"] = rows
        head = (
            "kind",
            "cache",
            "alone, units/s",
            "many, units/s",
            "times",
            "p50 / p99 of many, ms",
        )
        print(table(head, [_row(row) for row in rows]), flush=True)
        if given.overload:
            found["overload"] = under = overload(work, "shared", given.overload)
            print(json.dumps(under, indent=1))
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


def _row(row: dict[str, object]) -> list[object]:
    alone, many, times = row["alone_rate"], row["many_rate"], row["many_rate"] / row["alone_rate"]
    middle, high, _ = row["many"]["accepted_ms"]
    cache = f"{row['cache_mib']} MiB"
    return [
        row["kind"],
        cache,
        f"{alone:.1f}",
        f"{many:.1f}",
        f"{times:.1f}",
        f"{middle:.0f} / {high:.0f}",
    ]


if __name__ == "__main__":
    main()
