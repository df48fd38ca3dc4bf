"""The bundle contract, and the bundle that ships."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from milan_onnx.bundle import (
    ENCODER,
    PARTS,
    REQUIRED,
    WORD_VECTORS,
    Calibration,
    load_bundle,
    parse_manifest,
    verify_files,
    write_manifest,
)
from milan_onnx.errors import BundleError
from milan_onnx.runtime import Device, Encoder
from tests.conftest import Command
from tests.toy import toy_bundle


def test_manifest_reads_back_as_written(bundle_path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle_path, tmp_path / "b"))
    first = load_bundle(copy)
    again = write_manifest(copy, first.manifest)
    assert again.manifest == first.manifest
    assert again.sha256 == first.sha256


def test_later_keys_are_ignored(bundle_path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle_path, tmp_path / "b"))
    path = copy / "bundle.json"
    value = json.loads(path.read_text())
    value["encoder"]["something_new"] = value["something_new"] = 3
    path.write_text(json.dumps(value))
    assert parse_manifest(path) == load_bundle(bundle_path).manifest


WEIGHTS = {"agreement": 1.5, "coherence": -2.0}


def changed(folder: Path, place: Sequence[str], value: object) -> Path:
    """A bundle with one value of its manifest set."""
    bundle = toy_bundle(folder, parts=PARTS, vectors=3, calibration=Calibration(WEIGHTS, 0.5))
    path = bundle.path / "bundle.json"
    whole = json.loads(path.read_text())
    inner = whole
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(whole))
    return bundle.path


def test_parts_and_calibration_read_back_as_written(tmp_path: Path) -> None:
    bundle = load_bundle(changed(tmp_path / "b", ["version"], "1"))
    assert bundle.manifest.encoder.parts == PARTS
    assert bundle.manifest.encoder.features == 4 * 10 + 25
    assert bundle.manifest.calibration == Calibration(WEIGHTS, 0.5)
    assert WORD_VECTORS in bundle.manifest.files


def test_format_1_has_the_part_mean_alone(tmp_path: Path) -> None:
    manifest = load_bundle(changed(tmp_path / "b", ["format_version"], 1)).manifest
    assert manifest.encoder.parts == ("mean",)
    assert manifest.encoder.features == sum(level.channels for level in manifest.encoder.levels)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("format_version", 3, "upgrade milan-onnx"),
        ("format_version", 0, "make the bundle again"),
        ("format_version", True, "make the bundle again"),
        ("encoder parts", [], "parts is out of range"),
        ("encoder parts", ["mean", "mean"], "parts is out of range"),
        ("encoder parts", ["mean", "colour"], "parts is out of range"),
        ("encoder parts", 3, "TypeError"),
        ("search sharpness", -0.1, "sharpness is out of range"),
        ("search sharpness", math.nan, "sharpness is out of range"),
        ("search sharpness", "sharp", "its sharpness is 'sharp'"),
        ("search strategy", "random", "strategy is out of range"),
        ("calibration", 3, "not a valid bundle manifest"),
        ("calibration", {"bias": 1.0}, "KeyError: 'weights'"),
        ("calibration weights", {"mood": 1.0}, "the input 'mood', known are agreement"),
        ("calibration weights", {"bias": 1.0}, "the input 'bias'"),
        ("calibration weights", {"pmi": math.inf}, "the number inf"),
        ("calibration weights", {"pmi": "much"}, "not a valid bundle manifest"),
        ("calibration bias", math.nan, "the number nan"),
        ("calibration bias", None, "its bias is None"),
    ],
)
def test_values_out_of_range_are_told(
    tmp_path: Path, place: str, value: object, words: str
) -> None:
    with pytest.raises(BundleError, match=words):
        load_bundle(changed(tmp_path / "b", place.split(), value))


def test_coherence_needs_a_context_with_a_row_an_exemplar(tmp_path: Path) -> None:
    contexts = [{"name": "keys", "shape": [16], "dtype": "float32"}]
    with pytest.raises(BundleError, match="no row an exemplar"):
        load_bundle(changed(tmp_path / "b", ["captioner", "contexts"], contexts))


@pytest.mark.parametrize("name", REQUIRED)
def test_each_file_is_needed_and_checked(bundle_path: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(bundle_path, tmp_path / "b"))
    data = bytearray((copy / name).read_bytes())
    data[-1] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} does not match its sha256"):
        load_bundle(copy)
    assert [
        n for n, problem in verify_files(load_bundle(copy, verify=False)).items() if problem
    ] == [name]
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        load_bundle(copy, verify=False)


def test_the_built_in_bundle_is_whole_and_small() -> None:
    bundle = load_bundle()
    assert sum(entry.bytes for entry in bundle.manifest.files.values()) < 30_000_000
    assert bundle.manifest.search.beam_size >= 10
    assert 0 < bundle.manifest.search.pmi_weight < 1
    card = bundle.file("MODEL_CARD.md").read_text(encoding="utf-8")
    for word in ("Training data", "licences", "Figures"):
        assert word in card


def test_the_built_in_encoder_gives_its_levels() -> None:
    bundle = load_bundle()
    spec = replace(bundle.manifest.encoder, parts=("mean",))
    encoder = Encoder.load(bundle.file(ENCODER), spec, Device("cpu"))
    size = encoder.image_size
    frames = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    maps = encoder.maps(frames)
    for level, found in zip(bundle.manifest.encoder.levels, maps, strict=True):
        assert found.shape == (2, level.channels, level.height, level.width)
        assert found.dtype == np.float32
    features = encoder.pool(maps, 0, np.ones((1, size, size), bool))
    expected = np.concatenate([found[0].mean(axis=(1, 2)) for found in maps])
    np.testing.assert_allclose(features[0], expected, atol=1e-4)


def test_the_built_in_bundle_names_plain_colours(tmp_path: Path, milan: Command) -> None:
    """A red detector, planted in a graph, is called red by the whole installed pipeline."""
    from tests.toy import FLOAT, Graph

    g = Graph(0)
    kernel = np.array([[1, -1, -1], [-1, -1, 1]], np.float32).reshape(2, 3, 1, 1)
    x = g.op("AveragePool", "input", kernel_shape=[8, 8], strides=[8, 8])
    x = g.op("Conv", x, g.constant(kernel), name="colours")
    g.op("Relu", x, name="detectors")
    shape = ["N", 3, 224, 224]
    g.save(tmp_path / "m.onnx", [("input", FLOAT, shape)], [("detectors", FLOAT, ["N", 2, 28, 28])])
    line = ("describe", tmp_path / "m.onnx", "-l", "detectors", "--mean", 0, "--std", 1)
    done = milan(*line, "--synthetic", 400, "--no-report", "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    header, *rows = (line.split("\t") for line in done.stdout.splitlines())
    red, blue = (row[header.index("description")] for row in rows)
    assert "red" in red
    assert "blue" in blue


def test_show_and_verify(milan: Command, bundle_path: Path) -> None:
    shown = milan("bundle", "show", bundle_path)
    assert json.loads(shown.stdout)["name"] == "toy"
    assert milan("bundle", "show", bundle_path, "--card").stdout.startswith("# toy")
    verified = milan("bundle", "verify")
    assert verified.returncode == 0, verified.stderr
    rows = [line.split("\t") for line in verified.stdout.splitlines()]
    assert {row[0] for row in rows[1:]} >= set(REQUIRED)
    assert {row[2] for row in rows[1:]} == {"ok"}


def test_verify_names_every_damaged_file(milan: Command, bundle_path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle_path, tmp_path / "b"))
    for name in ("encoder.onnx", "lm_step.onnx"):
        data = bytearray((copy / name).read_bytes())
        data[-1] ^= 1
        (copy / name).write_bytes(data)
    done = milan("bundle", "verify", copy)
    assert done.returncode == 5
    states = {line.split("\t")[0]: line.split("\t")[2] for line in done.stdout.splitlines()[1:]}
    assert {name for name, state in states.items() if state != "ok"} == {
        "encoder.onnx",
        "lm_step.onnx",
    }
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_doctor_finds_this_installation_well(milan: Command) -> None:
    done = milan("doctor", "--json")
    assert done.returncode == 0, done.stderr
    states = {finding["check"]: finding["state"] for finding in json.loads(done.stdout)}
    assert states["ONNX Runtime"] == states["bundle"] == states["device"] == "ok"
