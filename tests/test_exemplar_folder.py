"""Exemplars in the format of the paper's own code: written, read back, described."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from milan_onnx.describing.folders import folder_names
from milan_onnx.errors import BadInput
from milan_onnx.exemplar_folder import layer_folders, read_exemplars
from milan_onnx.exemplars import exemplar_masks
from milan_onnx.geometry import Geometry
from milan_onnx.labels import read_jsonl
from milan_onnx.probe import open_probe
from milan_onnx.run import load_run
from tests.conftest import Command

LAYERS = ("--layer", "relu1", "--layer", "relu6")
K = 5


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos in folders of classes, of several sizes."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for index in range(24):
        place = folder / f"class{index % 3}"
        place.mkdir(exist_ok=True)
        size = (int(rng.integers(60, 90)), int(rng.integers(60, 90)), 3)
        blocks = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        image = Image.fromarray(blocks).resize(size[:2], Image.Resampling.BICUBIC)
        image.save(place / f"{index:02d}.png")
    return folder


@pytest.fixture(scope="module")
def written(
    milan: Command,
    subject_path: Path,
    bundle_path: Path,
    photos: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run with its exemplars in the paper's format."""
    out = tmp_path_factory.mktemp("written") / "run"
    line = ("describe", subject_path, *LAYERS, "--bundle", bundle_path, "--images", photos)
    more = ("--exemplars", K, "--no-validity", "--write-milan-format", "--out", out)
    done = milan(*line, *more)
    assert done.returncode == 0, done.stderr
    return out


def test_what_is_written_is_what_the_run_holds(written: Path, photos: Path) -> None:
    run, probe = load_run(written), open_probe(photos)
    geometry = run.manifest["preprocessing"]["geometry"]
    view = Geometry(tuple(geometry["crop"]), geometry["resize"], geometry["interpolation"])
    places = layer_folders(written / "milan")
    assert len(places) == 2
    for layer, place in zip(run.layers, places, strict=True):
        found = read_exemplars(place)
        np.testing.assert_array_equal(found.ids, layer.ids)
        np.testing.assert_allclose(found.activations, layer.activations, rtol=1e-5)
        assert found.images is not None and found.images.shape == (layer.units, K, 3, 224, 224)
        for unit, rank in ((0, 0), (3, 4)):
            frame = view.scaled(224, 224).frame(probe.image(int(layer.ids[unit, rank])))
            np.testing.assert_array_equal(found.images[unit, rank].transpose(1, 2, 0), frame)
            maps, level = layer.maps[unit, rank][None], layer.thresholds[unit : unit + 1]
            mask = exemplar_masks(np.asarray(maps), level, 224, 224)[0]
            np.testing.assert_array_equal(found.masks[unit, rank, 0], mask)


def test_the_original_reads_the_same_numbers(written: Path) -> None:
    """The tables have no header and commas between numbers, and activations five decimals."""
    place = layer_folders(written / "milan")[0]
    ids = (place / "ids.csv").read_text().splitlines()
    assert all(part.isdigit() for line in ids for part in line.split(","))
    first = (place / "activations.csv").read_text().split(",")[0]
    assert len(first.partition("e")[0].partition(".")[2]) == 5


def test_describing_the_folder_gives_the_labels_of_the_run(
    milan: Command, written: Path, bundle_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    line = ("describe-exemplars", written / "milan", "--bundle", bundle_path, "--out", out)
    done = milan(*line)
    assert done.returncode == 0, done.stderr
    ours, theirs = (read_jsonl(path / "labels.jsonl") for path in (written, out))
    assert [(a.unit, a.description) for a in ours] == [(b.unit, b.description) for b in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert [e.image for e in a.exemplars] == [e.image for e in b.exemplars]
        if a.pmi is not None:
            assert b.pmi == pytest.approx(a.pmi, abs=0.02)  # resized twice
    run = load_run(out)
    for a, b in zip(load_run(written).layers, run.layers, strict=True):
        np.testing.assert_array_equal(a.ids, b.ids)
        assert b.maps.dtype == np.uint8
    assert "no PMI" in milan("evaluate", out, "--truth", _truth(tmp_path, out)).stdout
    again = milan("report", out, "--out", tmp_path / "report.html")
    assert again.returncode == 0 and (tmp_path / "report.html").stat().st_size > 10_000


def _truth(folder: Path, run: Path) -> Path:
    path = folder / "truth.csv"
    rows = [f"{label.layer},{label.unit},things" for label in read_jsonl(run / "labels.jsonl")]
    path.write_text("\n".join(["layer,unit,summary", *rows]) + "\n")
    return path


def test_images_may_be_those_of_the_dataset(
    milan: Command, written: Path, bundle_path: Path, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(written / "milan", folder)
    for place in layer_folders(folder):
        (place / "images.npy").unlink()
        (place / "activations.csv").unlink()
    out = tmp_path / "run"
    line = ("describe-exemplars", folder, "--bundle", bundle_path, "--out", out)
    bad = milan(*line)
    assert bad.returncode == 5 and "--images" in bad.stderr and not out.exists()
    done = milan(*line, "--images", photos)
    assert done.returncode == 0, done.stderr
    label = json.loads((out / "labels.jsonl").read_text().splitlines()[0])
    assert label["exemplars"][0]["activation"] is None
    few = tmp_path / "few"
    shutil.copytree(photos / "class0", few)
    bad = milan(*line, "--images", few, "--overwrite")
    assert bad.returncode == 5 and "numbered up to" in bad.stderr


def test_folders_that_are_none_or_damaged_are_named(
    milan: Command, written: Path, bundle_path: Path, tmp_path: Path
) -> None:
    done = milan("describe-exemplars", tmp_path, "--bundle", bundle_path)
    assert done.returncode == 5 and "holds no exemplars" in done.stderr
    folder = tmp_path / "network"
    shutil.copytree(written / "milan", folder)
    place = layer_folders(folder)[0]
    for name, content, named in (
        ("ids.csv", b"1,2\n", "ids.csv"),
        ("ids.csv", b"a,b\n", "ids.csv"),
        ("masks.npy", b"no array", "masks.npy"),
        ("images.npy", b"", "images.npy"),
    ):
        whole = (place / name).read_bytes()
        (place / name).write_bytes(content)
        with pytest.raises(BadInput, match=named):
            read_exemplars(place)
        (place / name).write_bytes(whole)
    np.save(place / "units.npy", np.arange(1, 9))
    done = milan("describe-exemplars", folder, "--bundle", bundle_path, "--out", tmp_path / "run")
    assert done.returncode == 5 and "other units than the first" in done.stderr
    assert not (tmp_path / "run").exists()


def test_names_of_layers_become_names_of_folders() -> None:
    assert folder_names(["layer1.0", "/a/b", "a-b", "::", "?"]) == [
        "layer1.0",
        "a-b",
        "a-b-2",
        "layer",
        "layer-2",
    ]
