"""Tests that want the machine for themselves have it, and the others run side by side."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

CHILD = """
import os, sys, time
from pathlib import Path
from tests.turns import turn

kind, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
(folder / f"here-{os.getpid()}").touch()
while len(list(folder.glob("here-*"))) < count:
    time.sleep(0.005)
for _ in range(8):
    with turn(alone=kind == "alone", queue=folder / "queue", machine=folder / "machine"):
        begun = time.monotonic()
        time.sleep(0.02)
        print(begun, time.monotonic())
"""


def spans(folder: Path, *kinds: str) -> list[list[tuple[float, float]]]:
    """When each of several processes had its turns."""
    pytest.importorskip("fcntl")
    for name in ("queue", "machine"):
        (folder / name).touch()
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, kind, folder, str(len(kinds))],
                         cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for kind in kinds
    ]  # fmt: skip
    said = [child.communicate(timeout=60)[0] for child in children]
    assert not any(child.returncode for child in children)
    return [[tuple(map(float, line.split())) for line in text.splitlines()] for text in said]


def overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def test_one_alone_meets_no_other(tmp_path: Path) -> None:
    alone, *others = spans(tmp_path, "alone", "many", "many")
    assert len(alone) == 8
    assert not any(overlap(span, met) for span in alone for met in [*others[0], *others[1]])


def test_many_run_side_by_side(tmp_path: Path) -> None:
    first, second = spans(tmp_path, "many", "many")
    assert any(overlap(span, met) for span in first for met in second)
