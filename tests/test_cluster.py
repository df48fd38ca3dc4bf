"""On a Ray cluster a run has the same bytes, whoever does what, and whoever is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from milan_onnx.describing.cluster.driver import _ranges
from tests.conftest import Command
from tests.test_resume import contents
from tests.toy import toy_bundle, toy_subject

pytest.importorskip("ray", reason="ray is not installed")
pytestmark = pytest.mark.xdist_group("cluster")

LINE = ("describe", "m.onnx", "-l", "relu1", "-l", "relu6", "--bundle", "b", "--no-report")
LINE = (*LINE, "--exemplars", "5", "--synthetic", "400")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, milan: Command) -> Path:
    """A model, a bundle and the run that one process makes."""
    folder = tmp_path_factory.mktemp("place")
    toy_subject(folder / "m.onnx")
    toy_bundle(folder / "b")
    done = milan(*LINE, "--out", "whole", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_parts_are_all_photos_once() -> None:
    for photos in (1, 31, 64, 65, 1000, 12345):
        for workers in (1, 2, 7):
            parts = _ranges(photos, workers)
            assert [i for part in parts for i in part] == list(range(photos))
            assert len(parts) <= 4 * workers


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_make_the_same_bytes(milan: Command, place: Path, workers: int) -> None:
    out = f"ray-{workers}"
    line = (*LINE, "--engine", "ray", "--workers", str(workers), "--out", out)
    done = milan(*line, cwd=place)
    assert done.returncode == 0, done.stderr
    assert f"workers: {workers} on this machine" in done.stderr
    assert contents(place / out) == contents(place / "whole")


def test_a_lost_worker_is_replaced(place: Path) -> None:
    program = str(Path(sys.executable).parent / "milan-onnx")
    line = [program, *LINE, "--engine", "ray", "--workers", "2", "--out", "lost"]
    before = ray_workers()
    process = subprocess.Popen(line, cwd=place, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (busy := ray_workers() - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    for worker in sorted(busy)[:1]:
        os.kill(worker, signal.SIGKILL)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert busy, "no worker was seen"
    assert contents(place / "lost") == contents(place / "whole")
    assert not list(place.glob(".*.partial"))


def test_what_a_worker_cannot_do_is_one_sentence(
    milan: Command, place: Path, tmp_path: Path
) -> None:
    line = (*LINE, "--engine", "ray", "--ray-address", "127.0.0.1:1", "--out", tmp_path / "none")
    done = milan(*line, cwd=place)
    assert done.returncode == 4, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: the Ray cluster cannot do it")
    alone = milan(*LINE, "--workers", "2", "--out", tmp_path / "none", cwd=place)
    assert alone.returncode == 2 and "goes with --engine ray" in alone.stderr
    assert not list(tmp_path.iterdir())


def ray_workers() -> set[int]:
    """Processes of this machine that are workers in the middle of something."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if line.startswith((b"ray::Worker", b"ray::Worker.")):
                found.add(int(entry.name))
    return found
