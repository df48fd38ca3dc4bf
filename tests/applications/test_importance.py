"""Importance by ablation: what is lost is what a plain run of the edited model loses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

import milan_onnx
from milan_onnx.applications.importance import (
    Importance,
    ImportanceOptions,
    measure_importance,
)
from milan_onnx.errors import UsageError
from milan_onnx.progress import Silent
from milan_onnx.run import Run
from milan_onnx.subject import Ablation, ablated, load, resolve
from tests.applications.painted import COLOURS, painted_classifier, painted_photos
from tests.applications.test_edit import PREPROCESSING

CRITERIA = {
    "colours": np.array([3.0, 2, 1, 0, 0, 0]),
    "useless": np.array([0.0, 0, 0, 0, 1, 1]),
    "equal": np.zeros(6),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path) -> Run:
    folder = tmp_path_factory.mktemp("importance")
    painted_photos(folder / "photos", 12, marked=False)
    return milan_onnx.describe(
        painted_classifier(folder / "colours.onnx"),
        ["act"],
        folder / "photos",
        folder / "run",
        bundle=bundle_path,
        options=milan_onnx.DescribeOptions(
            preprocessing=PREPROCESSING, validity=False, report=False
        ),
    )


def photos(run: Run) -> Path:
    return Path(run.manifest["environment"]["images"])


def measured(run: Run, **options: Any) -> Importance:
    chosen = ImportanceOptions(photos(run), share=0.5, steps=3, **options)
    return measure_importance(run, CRITERIA, chosen, Silent())


def plain_accuracy(run: Run, units: tuple[int, ...]) -> float:
    """By the edited model in a session of its own, photo by photo."""
    subject = load(Path(run.manifest["environment"]["model_path"]))
    edited = ablated(subject, [Ablation(resolve(subject, "act").layer, units)])
    session = ort.InferenceSession(edited.SerializeToString())
    right = []
    for label, name in enumerate(sorted(COLOURS)):
        for path in sorted((photos(run) / name).iterdir()):
            pixels = np.asarray(Image.open(path), np.float32).transpose(2, 0, 1)[None] / 255
            right.append(session.run(None, {"input": pixels})[0].argmax() == label)
    return float(np.mean(right))


def test_curves_are_what_edited_models_do(run: Run) -> None:
    found = measured(run)
    assert found.ablated == (0, 1, 2, 3) and found.units == 6 and found.images == 36
    curves = {curve.name: curve for curve in found.curves}
    assert [*curves] == ["random", "colours", "useless"], "a criterion that tells nothing is out"
    expected = [plain_accuracy(run, tuple(range(count))) for count in found.ablated]
    assert curves["colours"].accuracy == pytest.approx(expected)
    assert expected[0] == 1.0 and expected[-1] < 0.7
    assert curves["useless"].accuracy[:3] == (1.0, 1.0, 1.0)
    random = curves["random"]
    assert all(
        lo <= x <= hi for lo, x, hi in zip(random.low, random.accuracy, random.high, strict=True)
    )
    assert curves["colours"].mean < random.mean < 1


def test_each_unit_alone(run: Run) -> None:
    found = measured(run, each_unit=True)
    assert found.loss is not None
    for unit in range(6):
        lost = 1 - plain_accuracy(run, (unit,))
        assert found.loss["act", unit] == pytest.approx(lost)
    assert found.to_json()["loss"][0][:2] == ["act", 0]


def test_classes_are_told_apart(run: Run) -> None:
    curve = next(c for c in measured(run).curves if c.name == "colours")
    assert set(curve.classes) == set(COLOURS)
    assert np.mean([*curve.classes.values()]) == pytest.approx(curve.accuracy[-1])


def test_threads_change_nothing(run: Run) -> None:
    assert measured(run, threads=1) == measured(run, threads=3)


def test_what_cannot_be_is_said(run: Run) -> None:
    with pytest.raises(UsageError, match="no criterion beauty"):
        measured(run, criteria=("beauty",))
    with pytest.raises(UsageError, match="no layer conv7"):
        measured(run, layers=("conv7",))
    with pytest.raises(UsageError, match="--seeds"):
        measured(run, seeds=0)


def test_the_command_shows_curves_and_writes_what_an_audit_reads(
    run: Run, milan: Any, tmp_path: Path
) -> None:
    done = milan(
        "analyze", run.path, "--images", photos(run), "--share", 0.5, "--steps", 3, "--each-unit",
        "--csv", tmp_path / "tables", "--html", tmp_path / "page.html", "-o", tmp_path / "out.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ablated by" in done.stdout and "random" in done.stdout
    lines = (tmp_path / "tables" / "importance.csv").read_text().splitlines()
    assert lines[0] == "layer,unit,importance" and len(lines) == 7
    assert "Importance by ablation" in (tmp_path / "page.html").read_text()
    assert json.loads((tmp_path / "out.json").read_text())["importance"]["units"] == 6
    rules = '[[rule]]\nname = "any"\ngroups = ["faces", "text"]\nmax_importance = 0.9\n'
    policy = tmp_path / "policy.toml"
    policy.write_text("version = 1\n" + rules)
    done = milan(
        "audit", run.path, "--policy", policy, "--importance", tmp_path / "tables/importance.csv"
    )
    assert done.returncode == 0, done.stderr


def test_images_belong_to_one_run(run: Run, milan: Any) -> None:
    done = milan("analyze", run.path, run.path, "--images", photos(run))
    assert done.returncode == 2 and "one run only" in done.stderr
    done = milan("analyze", run.path, "--each-unit")
    assert done.returncode == 2 and "--each-unit goes with --images only" in done.stderr
