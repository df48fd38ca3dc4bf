"""A run that was stopped goes on where it was, to the same bytes; one process at a time has it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import milan_onnx
from milan_onnx.bundle import PARTS, Calibration, write_manifest
from milan_onnx.describing import DescribeOptions, kept
from milan_onnx.describing.journal import Journal
from milan_onnx.errors import FolderBusy, OutputUnwritable, UsageError
from milan_onnx.making import making
from milan_onnx.progress import Meter, Silent
from milan_onnx.run import MANIFEST
from milan_onnx.runtime import Hypothesis
from tests.conftest import Command
from tests.toy import toy_bundle

PHOTOS = 140
LAYERS = ["relu1", "relu6"]
OPTIONS = DescribeOptions(threads=2, exemplars=5, report=False)


class Stopped(Exception):
    """Stands for whatever ends a process."""


class Stopper(Silent):
    """Stops the job at a number of its steps; says what was said."""

    def __init__(self, steps: int | None = None) -> None:
        self.left, self.steps, self.said = steps, 0, list[str]()
        self.stages: dict[str, int] = {}

    def note(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Meter]:
        def meter(done: int) -> None:
            self.stages[name] = self.stages.get(name, 0) + 1
            self.steps += 1
            if self.left is not None and self.steps > self.left:
                raise Stopped(name)

        yield meter


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(PHOTOS):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 44, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    for number in (7, 70, 139):
        (folder / f"{number:03}-broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(200))
    return folder


@pytest.fixture(autouse=True)
def every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "EVERY", 0.0)
    monkeypatch.setattr(kept, "DEAR", 0.0)


def contents(run: Path) -> dict[str, bytes]:
    files = [path for path in run.rglob("*") if path.is_file() and path.name != MANIFEST]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in sorted(files)}


@pytest.fixture
def describe(subject_path: Path, bundle_path: Path, photos: Path, tmp_path: Path) -> Any:
    def run(
        out: str = "run", say: Stopper | None = None, options: Any = OPTIONS, images: Any = photos
    ) -> milan_onnx.Run:
        return milan_onnx.describe(
            subject_path,
            LAYERS,
            images,
            tmp_path / out,
            bundle=bundle_path,
            options=options,
            reporter=say,
        )

    return run


def test_stopped_at_any_step_it_goes_on_to_the_same_bytes(describe: Any, tmp_path: Path) -> None:
    whole = Stopper()
    expected = describe("whole", whole)
    assert min(whole.stages.values()) >= 2 and set(whole.stages) == {
        "scan",
        "encode",
        "describe",
        "validate",
    }
    rng = random.Random(1)
    for step in [1, whole.steps - 1, *rng.sample(range(2, whole.steps), 10)]:
        with pytest.raises(Stopped):
            describe("run", Stopper(step))
        assert not (tmp_path / "run").exists()
        again = Stopper()
        run = describe("run", again)
        assert again.steps < whole.steps + 4 - min(step, 4), step
        assert contents(tmp_path / "run") == contents(tmp_path / "whole"), step
        assert run.manifest == expected.manifest
        assert {path.name for path in tmp_path.iterdir()} == {"run", "whole"}
        shutil.rmtree(tmp_path / "run")


def test_stopped_again_and_again_it_comes_to_an_end(describe: Any, tmp_path: Path) -> None:
    describe("whole")
    for _ in range(200):
        try:
            describe("run", Stopper(7))
            break
        except Stopped:
            continue
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_all_that_a_bundle_may_have_goes_on_to_the_same_bytes(
    subject_path: Path, photos: Path, tmp_path: Path
) -> None:
    """Every part of the features, the search consensus, confidences; and other threads."""
    calibration = Calibration({"agreement": 2.0, "coherence": 1.0, "pmi": 0.1}, -1.0)
    made = toy_bundle(tmp_path / "bundle", parts=PARTS, vectors=4, calibration=calibration)
    search = replace(made.manifest.search, strategy="consensus", beam_size=8)
    bundle = write_manifest(made.path, replace(made.manifest, search=search))

    def describe(out: str, say: Stopper, threads: int) -> None:
        options = replace(OPTIONS, threads=threads)
        place = tmp_path / out
        milan_onnx.describe(
            subject_path, LAYERS, photos, place, bundle=bundle.path, options=options, reporter=say
        )

    whole = Stopper()
    describe("whole", whole, 1)
    for step in (whole.steps // 2, 6):
        with pytest.raises(Stopped):
            describe("run", Stopper(step), 2)
    describe("run", Stopper(), 3)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_a_journal_gives_back_what_it_was_given(tmp_path: Path) -> None:
    found = [
        [
            Hypothesis("red", 0.1, -1 / 3, -7.0, (3, 9), 1 / 7, 0.7),
            Hypothesis("a", 1e-9, -2.0, -3.0),
        ]
    ]
    with Journal(kept.Kept(tmp_path)) as journal:
        journal.put(found[0])
    with Journal(kept.Kept(tmp_path)) as journal:
        assert journal.take(1, 1) == found


def test_photos_that_changed_are_scanned_again(describe: Any, photos: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(photos, tmp_path / "copy")
    with pytest.raises(Stopped):
        describe("run", Stopper(6), images=copy)
    (copy / "001.png").write_bytes((photos / "002.png").read_bytes())
    say = Stopper()
    describe("run", say, images=copy)
    assert any("photos have changed meanwhile" in line for line in say.said)
    describe("other", images=copy)
    assert contents(tmp_path / "run") == contents(tmp_path / "other")


def test_a_damaged_state_is_not_trusted(describe: Any, tmp_path: Path) -> None:
    describe("whole")
    with pytest.raises(Stopped):
        describe("run", Stopper(12))
    state = tmp_path / ".run.partial" / "work" / "scan.npz"
    state.write_bytes(state.read_bytes()[:-500])
    say = Stopper()
    describe("run", say)
    assert any("scanning from the beginning" in line for line in say.said)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_a_finished_run_is_not_made_again(describe: Any, tmp_path: Path) -> None:
    first = describe()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    say = Stopper()
    again = describe("run", say)
    assert say.steps == 0 and "nothing to do" in say.said[-1]
    assert [u.description for u in again.labels] == [u.description for u in first.labels]
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_another_job_is_not_gone_on_with(describe: Any, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        describe("run", Stopper(9))
    other = DescribeOptions(threads=2, exemplars=6, report=False)
    with pytest.raises(UsageError, match="begun with another exemplars") as caught:
        describe("run", options=other)
    assert "--overwrite" in caught.value.hint
    say = Stopper()
    other = DescribeOptions(threads=2, exemplars=6, report=False, overwrite=True)
    describe("run", say, options=other)
    assert any("begins anew" in line for line in say.said)
    with pytest.raises(UsageError, match="already holds a run"):
        describe("run")


def test_the_second_process_is_told_who_the_first_is(describe: Any, tmp_path: Path) -> None:
    with (
        making(tmp_path / "run", overwrite=False, marker=MANIFEST),
        pytest.raises(FolderBusy, match=f"is being made by process {os.getpid()} on "),
    ):
        describe()
    describe()
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_full_disk_is_one_sentence_and_the_work_stays(
    describe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe("whole")
    real = kept.write_json

    def full(path: Path, value: Any) -> None:
        if value.get("done", 0) >= 3:
            raise OutputUnwritable(f"cannot write {path}: no space left on device")
        real(path, value)

    monkeypatch.setattr(kept, "write_json", full)
    say = Stopper()
    with pytest.raises(OutputUnwritable, match="no space left"):
        describe("run", say)
    assert "the same command goes on from there" in say.said[-1]
    monkeypatch.setattr(kept, "write_json", real)
    describe("run")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@pytest.mark.parametrize("moment", [0.6, 1.3, 2.2])
def test_killed_processes_leave_what_the_next_goes_on_from(
    subject_path: Path, bundle_path: Path, milan: Command, tmp_path: Path, moment: float
) -> None:
    line = ["describe", subject_path, "-l", "relu6", "--bundle", bundle_path, "--synthetic", "400"]
    program = str(Path(sys.executable).parent / "milan-onnx")
    killed = subprocess.Popen(
        [program, *map(str, line), "--out", "run"], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    time.sleep(moment)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    for out in ("run", "whole"):
        done = milan(*line, "--out", out, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "whole"}
