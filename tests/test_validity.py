"""Validity through the installed command, and on cases whose answer is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import milan_onnx
from milan_onnx.describing.validating import OTHERS, Scored, judge, shuffled
from milan_onnx.errors import ProbeError
from milan_onnx.exemplars import HeldOut, halves
from milan_onnx.labels import UnitLabel, summarize
from milan_onnx.labels.record import rounded_score
from milan_onnx.probe import open_probe
from milan_onnx.progress import Console
from tests.conftest import Command
from tests.labels.samples import sample_label
from tests.test_describe import values_model

LAYERS = ("--layer", "relu1", "--layer", "relu6")


@pytest.fixture(scope="module")
def tested(
    milan: Command, subject_path: Path, bundle_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    line = ("describe", subject_path, *LAYERS, "--bundle", bundle_path, "--synthetic", 130)
    done = milan(*line, "--out", out, "--no-report")
    assert done.returncode == 0, done.stderr
    (out / "said").write_text(done.stderr)
    (out / "table").write_text(done.stdout)
    return out


def test_every_label_carries_its_test(tested: Path) -> None:
    run = milan_onnx.load_run(tested)
    manifest = run.manifest
    assert manifest["validity"]["level"] == 0.2
    held_out = manifest["validity"]["held_out"]
    assert 40 < held_out < 90
    for label in run.labels:
        assert label.validity is not None
        assert label.validity.correlation is not None
        assert -1 <= label.validity.correlation <= 1
        assert label.validity.images >= 12
    said, table = (tested / "said").read_text(), (tested / "table").read_text()
    assert "validity: on 4 most active and 12 random held-out photos" in said
    for layer in manifest["layers"]:
        summary = summarize(layer["tensor"], run.labels)
        assert summary.validity is not None
        assert layer["validity"]["correlation"] == summary.validity.correlation
        assert layer["distinct"] == summary.distinct
        assert f"validity of {layer['tensor']}: correlation " in said
    rows = [line.split("\t") for line in table.splitlines()[1:]]
    for row, label in zip(rows, run.labels, strict=True):
        assert label.validity is not None
        assert float(row[3]) == pytest.approx(label.validity.correlation or 0, abs=0.006)
        assert ("abstained" in row[5]) == ("abstained" in label.flags)


def test_exemplars_are_of_the_half_that_is_not_held_out(tested: Path) -> None:
    probe = open_probe(None, synthetic=130, seed=0)
    digests = [probe.load(i).digest for i in range(130)]
    held_out = halves(digests).held_out
    run = milan_onnx.load_run(tested)
    assert run.manifest["validity"]["held_out"] == held_out.sum()
    for layer in run.layers:
        assert not held_out[np.asarray(layer.ids)].any()


def test_no_validity_is_as_ever(subject_path: Path, bundle_path: Path, tested: Path) -> None:
    def run(**options: object) -> milan_onnx.Run:
        settings = milan_onnx.DescribeOptions(synthetic=130, **options)  # type: ignore[arg-type]
        layers = ["relu1", "relu6"]
        return milan_onnx.describe(subject_path, layers, bundle=bundle_path, options=settings)

    off, on = run(validity=False), milan_onnx.load_run(tested)
    assert off.manifest["validity"] is None
    assert all(label.validity is None and not label.flags for label in off.labels)
    for layer, tested_layer in zip(off.layers, on.layers, strict=True):
        assert layer.thresholds.tobytes() == tested_layer.thresholds.tobytes()
        # Exemplars of all photos: at least as active, rank by rank, and more so somewhere.
        assert (layer.activations >= tested_layer.activations).all()
        assert (layer.activations > tested_layer.activations).any()


def test_few_photos_turn_it_off_and_that_is_said(
    milan: Command, subject_path: Path, bundle_path: Path, tmp_path: Path
) -> None:
    line = ("describe", subject_path, "-l", "relu1", "--bundle", bundle_path, "--no-report")
    few = milan(*line, "--synthetic", 119, "--out", tmp_path / "few")
    assert few.returncode == 0
    assert "validity: off (119 images; half are held out from 120 on" in few.stderr
    asked = milan(*line, "--synthetic", 60, "--validity", "--out", tmp_path / "asked")
    assert asked.returncode == 0, asked.stderr
    assert milan_onnx.load_run(tmp_path / "asked").labels[0].validity is not None
    none = milan(*line, "--synthetic", 20, "--validity", "--out", tmp_path / "none")
    assert none.returncode == 5
    assert "too few in one half" in none.stderr
    assert "--no-validity" in none.stderr
    assert not (tmp_path / "none").exists()
    odd = milan(*line, "--validity-level", 1.5, "--out", tmp_path / "odd")
    assert (odd.returncode, odd.stderr.count("--validity-level")) == (2, 1)


def test_copies_of_a_photo_turn_it_off_after_the_scan(
    subject_path: Path, bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "000.png")
    for copy in range(1, 130):
        (tmp_path / f"{copy:03}.png").write_bytes((tmp_path / "000.png").read_bytes())
    options = milan_onnx.DescribeOptions()
    run = milan_onnx.describe(
        subject_path, "relu1", tmp_path, bundle=bundle_path, options=options, reporter=Console()
    )
    assert "validity: off, scanning again" in capsys.readouterr().err
    assert run.manifest["validity"] is None
    assert run.labels[0].validity is None
    assert [e.image for e in run.labels[0].exemplars] == list(range(15))
    with pytest.raises(ProbeError, match="one half"):
        milan_onnx.describe(
            subject_path,
            "relu1",
            tmp_path,
            bundle=bundle_path,
            options=replace(options, validity=True),
        )


@pytest.mark.parametrize("scale", [0, 1e38])
def test_units_without_a_label_or_with_huge_activations(
    bundle_path: Path, tmp_path: Path, scale: float
) -> None:
    model = values_model(tmp_path, scale, 0)
    options = milan_onnx.DescribeOptions(synthetic=40, validity=True)
    run = milan_onnx.describe(model, "y", bundle=bundle_path, options=options)
    for label in run.labels:
        assert (label.validity is None) == (scale == 0)
        assert scale or label.flags == ("dead",)


def held_out(units: int, images: int, seed: int = 0) -> HeldOut:
    """Photos 0 to images - 1 of all units, the first four the most active; maps do not matter."""
    rng = np.random.default_rng(seed)
    activations = -np.sort(-rng.random((units, images)).astype(np.float32), axis=1)
    ids = np.tile(np.arange(images), (units, 1))
    nothing = np.zeros((0, 0, 1, 1), np.float32)
    return HeldOut(ids, activations, 4, nothing, nothing, images)


def scored(photos: HeldOut, good: list[bool], seed: int = 1) -> Scored:
    """Labels whose score is the activation, or noise; the others' scores are noise."""
    units, images = photos.ids.shape
    scores = np.random.default_rng(seed).standard_normal((units, 1 + OTHERS, images))
    for unit, right in enumerate(good):
        if right:
            scores[unit, 0] = photos.activations[unit]
    others = (np.arange(units)[:, None] + [1, 2]) % units
    return Scored(np.arange(units), others, scores)


def labels(units: int) -> list[UnitLabel]:
    return [sample_label(unit) for unit in range(units)]


def test_right_labels_stand_and_random_ones_pass_as_often_as_said() -> None:
    photos = held_out(600, 36)
    good = [unit % 2 == 0 for unit in range(600)]
    for level in (0.05, 0.2, 0.5):
        judged = judge(scored(photos, good), photos, labels(600), level)
        stands = np.array(["abstained" not in label.flags for label in judged])
        assert stands[::2].all()
        assert stands[1::2].mean() < level + 0.05
    assert stands[1::2].mean() > 0.1
    first = judged[0].validity
    assert first is not None
    assert first.correlation == pytest.approx(1)
    assert (first.auprc, first.images) == (1, 36)
    baseline = np.mean([j.validity.shuffled_auprc for j in judged if j.validity])
    assert baseline == pytest.approx(4 / 36, abs=0.08)


def test_few_units_go_by_their_own_margin() -> None:
    photos = held_out(4, 36)
    judged = judge(scored(photos, [True, False, True, False]), photos, labels(4), 0.2)
    for label in judged:
        assert label.validity is not None
        own, chance = label.validity.correlation, label.validity.shuffled_correlation
        assert own is not None
        assert chance is not None
        assert ("abstained" in label.flags) == (own <= max(0, chance))
    assert [label.flags for label in judged[::2]] == [(), ()]


def test_a_worse_label_than_its_own_others_abstains_though_the_layer_s_are_worse() -> None:
    photos = held_out(40, 36)
    layer = scored(photos, [True] * 40)
    layer.scores[7, 0] += np.random.default_rng(0).standard_normal(36) * 0.05
    layer.scores[7, 1:] = photos.activations[7]
    judged = judge(layer, photos, labels(40), 0.2)
    assert [u for u, label in enumerate(judged) if "abstained" in label.flags] == [7]


def test_photos_that_are_all_alike_show_nothing() -> None:
    photos = held_out(3, 20)
    photos.activations[1] = 6
    judged = judge(scored(photos, [True] * 3), photos, labels(3), 0.2)
    assert judged[1].flags == ("abstained",)
    assert judged[1].validity is not None
    assert judged[1].validity.correlation is None
    assert rounded_score(judged[1].validity.correlation) is None
    assert judged[0].flags == ()


def test_without_another_label_there_is_no_baseline() -> None:
    photos = held_out(2, 20)
    layer = replace(scored(photos, [True, True]), others=np.full((2, OTHERS), -1))
    judged = judge(layer, photos, labels(2), 0.2)
    assert judged[0].flags == ()
    assert judged[0].validity is not None
    assert judged[0].validity.shuffled_correlation is None


def test_others_are_other_descriptions() -> None:
    phrases = [(1,), (1,), (2,), (1,), (), (3,), (1,)]
    places = shuffled(phrases)
    for own, others in enumerate(places.tolist()):
        lent = [phrases[o] for o in others]
        assert len({phrases[own], *lent}) == 1 + OTHERS
        assert () not in lent
    assert shuffled([(1,), (1,), (2,)]).tolist() == [[2, -1], [2, -1], [0, -1]]
    assert shuffled([(1,), (1,)]).tolist() == [[-1, -1], [-1, -1]]
    assert shuffled([]).shape == (0, OTHERS)


def test_the_report_shows_it(tested: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    run = milan_onnx.load_run(tested)
    milan_onnx.write_run_report(page, run)
    text = page.read_text()
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    for unit, label in zip(data["units"], run.labels, strict=True):
        assert label.validity is not None
        assert unit["v"][0] == label.validity.correlation
        assert unit["v"][4] == label.validity.images
    layer = run.manifest["layers"][0]["validity"]
    assert f"shuffled {layer['shuffled_correlation']:.2f}" in text
