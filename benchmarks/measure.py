"""What the benchmarks share: contests timed in turns, the machine's description, tables, JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIST = "photos.txt"
EXTENSIONS = {".jpg", ".jpeg", ".png"}
PACKAGES = ("milan-onnx", "onnxruntime", "onnxruntime-gpu", "numpy", "pillow", "torch")


@dataclass
class Contest:
    """Wall seconds of several ways to do one thing, in turns, so that all have the same noise."""

    rounds: list[dict[str, float]] = field(default_factory=list)
    """Seconds of each way, a round each."""

    def run(self, ways: Mapping[str, Callable[[], object]], rounds: int, warm: int = 1) -> None:
        """Time each way once a round; the first ``warm`` rounds do not count."""
        for turn in range(warm + rounds):
            taken = {}
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                taken[name] = time.perf_counter() - start
            if turn >= warm:
                self.rounds.append(taken)

    def seconds(self, name: str) -> float:
        """Median of a way."""
        return statistics.median(r[name] for r in self.rounds)

    def ratio(self, name: str, base: str) -> tuple[float, float, float]:
        """Median, least and largest ratio of two ways within a round."""
        ratios = [r[name] / r[base] for r in self.rounds]
        return statistics.median(ratios), min(ratios), max(ratios)


@dataclass(frozen=True)
class Cost:
    """What a command took, by the operating system's accounts."""

    wall: float
    """Seconds."""

    cpu: float
    """Seconds of all processors, the processes that it waited for included."""

    peak: float
    """Resident MiB at most."""


def cost(line: Sequence[str | Path]) -> Cost:
    """Run a command to its end, its output dropped; one that fails ends the benchmark."""
    start = time.monotonic()
    process = subprocess.Popen(list(map(str, line)), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        sys.exit(f"{' '.join(map(str, line))} ended with {process.returncode}")
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(time.monotonic() - start, cpu, usage.ru_maxrss / 1024)


def listed(photos: Path, limit: int, folder: Path) -> list[Path]:
    """So many photos of a folder, evenly spaced; also written to `LIST` in the second folder."""
    found = sorted(p.resolve() for p in photos.rglob("*") if p.suffix.lower() in EXTENSIONS)
    count = min(limit, len(found))
    paths = [found[i * len(found) // count] for i in range(count)]
    (folder / LIST).write_text("".join(f"{path}\n" for path in paths))
    return paths


def ratio_text(ratio: tuple[float, float, float]) -> str:
    """Median with its range."""
    middle, low, high = ratio
    digits = 2 if middle < 10 else 1
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": found,
        "command": " ".join([Path(sys.argv[0]).stem, *sys.argv[1:]]),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def report(
    head: Sequence[str], rows: Sequence[Sequence[object]], value: Any, out: Path | None
) -> None:
    """Print a table; write what it was made of as JSON beside the machine's description."""
    print(table(head, rows), flush=True)
    if out is not None:
        out.write_text(json.dumps({"machine": machine(), "result": value}, indent=2) + "\n")
