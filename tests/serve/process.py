"""The service as its users start it: a process on a free port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

PROGRAM = Path(sys.executable).parent / "milan-onnx"


@dataclass
class Served:
    """A service that runs."""

    process: subprocess.Popen[bytes]
    """Its process."""

    url: str
    """Where it listens."""

    log: Path
    """What it says."""

    def text(self) -> str:
        """What it has said so far."""
        return self.log.read_text(encoding="utf-8")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def served(
    folder: Path, *options: object, ready: bool = True, env: dict[str, str] | None = None
) -> Iterator[Served]:
    """Start it in a folder on a free port, and end it."""
    log = folder / "serve.log"
    line = [str(PROGRAM), "serve", "--port", "0", "--store", str(folder / "store")]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*line, *map(str, options)],
            stderr=stream,
            cwd=folder,
            env={**os.environ, **(env or {})},
        )
    try:
        yield Served(process, _address(process, log, ready), log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)


def _address(process: subprocess.Popen[bytes], log: Path, ready: bool) -> str:
    for _ in range(1200):
        text = log.read_text(encoding="utf-8")
        found = re.search(r"^address: (http://\S+)", text, re.MULTILINE)
        if found and (not ready or "\nready:" in text):
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(log.read_text(encoding="utf-8"))


def resident(process: int) -> float:
    """Resident memory of a process, MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


CLIENT = httpx.Client(timeout=60)
"""Kept, since making one takes longer than what is waited for."""


def figure(url: str, name: str) -> float:
    """A figure of /metrics, labels and all."""
    for line in CLIENT.get(f"{url}/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    return 0.0
