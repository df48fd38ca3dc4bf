"""`describe` killed at random moments, on full disks and in read-only folders: what is left?

    python -m benchmarks.kills [--kills 50] [--seed 0] [--images 160] [--json FILE]

The run is of a toy model's 20 units with the default bundle on built-in images. One unbroken run
says what the bytes are and how long it takes. Then, again and again: start, wait a random part of
that time, kill -9, start again, compare every byte, look for files that are left. Then on a small
tmpfs that gets full (needs the right to mount), which is enlarged; and in a folder that may not be
written (needs not to be root, or `setpriv`).
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import report
from tests.toy import toy_subject

PROGRAM = str(Path(sys.executable).parent / "milan-onnx")


def contents(run: Path) -> dict[str, bytes]:
    """All files but the manifest, which tells of device and versions."""
    files = [path for path in run.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


class Runs:
    """Starts of the same command."""

    def __init__(self, place: Path, images: int) -> None:
        self.place = place
        toy_subject(place / "model.onnx")
        self.line = [PROGRAM, "describe", str(place / "model.onnx"), "-l", "relu1", "-l", "relu6"]
        self.line += ["--synthetic", str(images), "--no-cache", "--out"]

    def whole(self, out: Path) -> tuple[int, str, float]:
        """One start to its end: exit code, what was said, seconds."""
        start = time.monotonic()
        done = subprocess.run([*self.line, str(out)], capture_output=True, text=True)
        return done.returncode, done.stderr, time.monotonic() - start

    def killed(self, out: Path, after: float) -> bool:
        """One start, killed; whether it had not ended before."""
        process = subprocess.Popen(
            [*self.line, str(out)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL


def kills(runs: Runs, count: int, seed: int) -> dict[str, Any]:
    """So many kills, each gone on from."""
    expected = contents(runs.place / "whole")
    seconds = runs.whole(runs.place / "again")[2]
    shutil.rmtree(runs.place / "again")
    rng, found = random.Random(seed), {"killed": 0, "kept": 0, "equal": 0, "clean": 0}
    spared = []
    for number in range(count):
        out = runs.place / "out" / "run"
        out.parent.mkdir()
        after = rng.uniform(0, seconds)
        found["killed"] += runs.killed(out, after)
        found["kept"] += any((out.parent / ".run.partial" / "work").rglob("*.json"))
        code, said, took = runs.whole(out)
        spared.append(seconds - took)
        found["equal"] += code == 0 and contents(out) == expected
        found["clean"] += [path.name for path in out.parent.iterdir()] == ["run"]
        print(f"{number + 1}: killed after {after:.1f} s, the rest took {took:.1f} s, {found}")
        if code:
            print(said)
        shutil.rmtree(out.parent)
    return {"seconds": seconds, "runs": count, **found}


def full_disk(runs: Runs) -> dict[str, Any]:
    """A tmpfs of ever more room: one sentence each time, and in the end the run."""
    disk, tries = runs.place / "disk", []
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]).returncode:
        return {"skipped": "mount is not allowed here"}
    try:
        for size in ("16k", "100k", "300k", "800k", "2m", "4m", "64m"):
            subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
            code, said, _ = runs.whole(disk / "run")
            last = said.strip().splitlines()[-1]
            sentence = code == 0 or (code == 4 and last.startswith("error: "))
            tries.append({"size": size, "code": code, "last": last, "sentence": sentence})
            print(size, code, last)
            if code == 0:
                break
        same = contents(disk / "run") == contents(runs.place / "whole")
        left = sorted(path.name for path in disk.iterdir())
        return {"tries": tries, "equal": same, "left": left}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def read_only(runs: Runs) -> dict[str, Any]:
    """A mount that may not be written."""
    disk = runs.place / "fixed"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(disk)]).returncode:
        return {"skipped": "mount is not allowed here"}
    try:
        code, said, _ = runs.whole(disk / "run")
        last = said.strip().splitlines()[-1]
        print("read-only", code, last)
        return {"code": code, "last": last}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder), given.images)
        code, said, _ = runs.whole(Path(folder) / "whole")
        if code:
            sys.exit(said)
        result = {
            "kills": kills(runs, given.kills, given.seed),
            "full disk": full_disk(runs),
            "read-only": read_only(runs),
        }
    rows = [(name, value) for name, value in result["kills"].items()]
    rows += [(f"tmpfs of {t['size']}", t["last"]) for t in result["full disk"].get("tries", [])]
    rows += [("read-only", result["read-only"].get("last", result["read-only"]))]
    report(("what", "found"), rows, result, given.json)


if __name__ == "__main__":
    main()
