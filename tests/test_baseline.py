"""``describe --baseline``: a run held against an earlier one as it is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.toy import toy_subject

GATE, USAGE, BAD_DATA = 3, 2, 5


@pytest.fixture
def place(tmp_path: Path, milan: Command, bundle_path: Path) -> Path:
    """Two models of other weights, and a run of the first."""
    for name, seed in (("one", 0), ("two", 5)):
        toy_subject(tmp_path / f"{name}.onnx", seed=seed)
    done = milan("describe", "one.onnx", *line(bundle_path), "-o", "before", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path


def line(bundle: Path) -> tuple[object, ...]:
    own = ("--bundle", bundle, "--synthetic", 30, "--exemplars", 5, "--no-report")
    return ("-l", "relu6", *own)


def test_the_same_model_changes_nothing_and_another_breaks_the_limit(
    milan: Command, place: Path, bundle_path: Path
) -> None:
    limit = ("--baseline", "before", "--max-changed", "2%")
    same = milan("describe", "one.onnx", *line(bundle_path), *limit, "-o", "same", cwd=place)
    assert same.returncode == 0, same.stderr
    other = milan("describe", "two.onnx", *line(bundle_path), *limit, "-o", "other", cwd=place)
    assert other.returncode == GATE, other.stderr
    assert (place / "other" / "manifest.json").is_file()
    full = milan("diff", "before", "other", "--max-changed", "2%", "-o", "diff.json", cwd=place)
    assert full.returncode == GATE
    assert full.stderr.splitlines()[-1] == other.stderr.splitlines()[-1]
    free = milan(
        *("describe", "two.onnx", *line(bundle_path), "--baseline", "before", "-o", "free"),
        cwd=place,
    )
    assert free.returncode == 0, free.stderr


def test_a_job_says_which_model_broke_it_and_keeps_its_run(
    milan: Command, place: Path, bundle_path: Path
) -> None:
    (place / "job.toml").write_text(
        f"""
[defaults]
bundle = "{bundle_path}"
synthetic = 30
exemplars = 5
report = false
layers = "relu6"
baseline = "before"
max-changed = "2%"
[[model]]
path = "*.onnx"
"""
    )
    done = milan("describe", "--job", "job.toml", cwd=place)
    assert done.returncode == GATE, done.stderr
    rows = json.loads((place / "runs" / "summary.json").read_text())
    assert [(row["name"], row["exit_code"], row["units"]) for row in rows] == [
        ("one", 0, 12),
        ("two", GATE, 12),
    ]


def test_what_cannot_be_compared_is_said_before_the_work(
    milan: Command, place: Path, bundle_path: Path
) -> None:
    cases = {
        ("--baseline", "none"): (BAD_DATA, "none is not a run"),
        ("--max-changed", "2%"): (USAGE, "--max-changed goes with --baseline only"),
        ("--baseline", "before", "--max-changed", "some"): (USAGE, "--max-changed some"),
    }
    for given, (code, words) in cases.items():
        done = milan("describe", "one.onnx", *line(bundle_path), *given, "-o", "x", cwd=place)
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
        assert "scan:" not in done.stderr
        assert not (place / "x").exists()
