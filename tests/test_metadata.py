"""Labels in the metadata of a copy of the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import milan_onnx
from milan_onnx.errors import SubjectError
from tests.conftest import Command


@pytest.fixture
def model(tmp_path: Path, subject_path: Path) -> Path:
    """The toy classifier, with metadata of its own."""
    whole = onnx.load(subject_path)
    onnx.helper.set_model_props(whole, {"author": "somebody", "milan_onnx.labels.gone": "[]"})
    onnx.save(whole, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def outputs(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).random((3, 3, 32, 32), np.float32)
    return np.asarray(session.run(None, {"input": images})[0])


def line(bundle: Path, *more: object) -> tuple[object, ...]:
    layers = ("-l", "relu1", "-l", "relu6")
    own = ("--bundle", bundle, "--synthetic", 40, "--exemplars", 5, "--validity", "--no-report")
    return ("describe", "m.onnx", *layers, *own, "--write-metadata", *more)


def test_a_copy_computes_the_same_and_gives_the_labels_back(
    milan: Command, model: Path, bundle_path: Path
) -> None:
    before = model.read_bytes()
    done = milan(*line(bundle_path, "-o", "run"), cwd=model.parent)
    assert done.returncode == 0, done.stderr
    copy = model.parent / "run" / "labelled.onnx"
    assert "model with labels: run/labelled.onnx" in done.stderr
    assert model.read_bytes() == before
    np.testing.assert_array_equal(outputs(copy), outputs(model))
    onnx.checker.check_model(onnx.load(copy))
    assert onnx.load(copy).graph == onnx.load(model).graph
    held = {entry.key: entry.value for entry in onnx.load(copy).metadata_props}
    assert held["author"] == "somebody"
    assert "milan_onnx.labels.gone" not in held

    run = milan_onnx.load_run(model.parent / "run")
    found = milan_onnx.labels_from_metadata(copy)
    assert list(found.layers) == ["relu1", "relu6"]
    told = [
        (x, u["unit"], u["description"], u["pmi"]) for x in found.layers for u in found.layers[x]
    ]
    assert told == [(x.layer, x.unit, x.description, x.pmi) for x in run.labels]
    first = found.layers["relu1"][0]
    assert run.labels[0].validity is not None
    assert first["validity"]["correlation"] == run.labels[0].validity.correlation
    assert first["confidence"] is run.labels[0].confidence is None
    assert first["flags"] == list(run.labels[0].flags)
    assert found.provenance["model"] == run.manifest["model"]["sha256"]
    assert found.provenance["bundle"] == run.manifest["bundle"]

    again = milan(*line(bundle_path, "-o", "again"), cwd=model.parent)
    assert again.returncode == 0
    assert (model.parent / "again" / "labelled.onnx").read_bytes() == copy.read_bytes()


def test_labels_of_a_labelled_model_are_replaced(
    milan: Command, model: Path, bundle_path: Path
) -> None:
    given = ("-o", "run", "--metadata-out", "out.onnx")
    assert milan(*line(bundle_path, *given), cwd=model.parent).returncode == 0
    assert not (model.parent / "run" / "labelled.onnx").exists()
    done = milan(
        *("describe", "out.onnx", "-l", "conv1", "--bundle", bundle_path, "--synthetic", 20),
        *("--no-report", "--write-metadata", "-o", "two"),
        cwd=model.parent,
    )
    assert done.returncode == 0, done.stderr
    found = milan_onnx.labels_from_metadata(model.parent / "two" / "labelled.onnx")
    assert list(found.layers) == ["conv1"]
    keys = [e.key for e in onnx.load(model.parent / "two" / "labelled.onnx").metadata_props]
    assert len(keys) == len(set(keys)) == 3


def test_weights_in_other_files_keep_the_copy_beside_them(
    milan: Command, model: Path, bundle_path: Path
) -> None:
    whole = onnx.load(model)
    onnx.save(whole, model, save_as_external_data=True, location="w.data", size_threshold=0)
    refused = milan(*line(bundle_path, "-o", "run"), cwd=model.parent)
    assert refused.returncode == 2
    assert "--metadata-out m-labelled.onnx" in refused.stderr.splitlines()[-1]
    assert not (model.parent / "run").exists()
    beside = ("-o", "run", "--metadata-out", "m-labelled.onnx")
    done = milan(*line(bundle_path, *beside), cwd=model.parent)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(outputs(model.parent / "m-labelled.onnx"), outputs(model))
    assert milan_onnx.labels_from_metadata(model.parent / "m-labelled.onnx").layers


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--metadata-out", "m.onnx"), "is the model itself"),
        (("--metadata-out", "none/x.onnx"), "the folder none is not there"),
    ],
)
def test_a_copy_that_cannot_be_is_refused_before_the_work(
    milan: Command, model: Path, bundle_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = milan(*line(bundle_path, "-o", "run", *arguments), cwd=model.parent)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert "scan:" not in done.stderr
    assert not (model.parent / "run").exists()


def test_metadata_out_wants_write_metadata(milan: Command, model: Path) -> None:
    done = milan("describe", "m.onnx", "--metadata-out", "x.onnx", cwd=model.parent)
    assert (done.returncode, "--write-metadata only" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "holds no labels"),
        ("{", "are damaged"),
        ("[]", "are damaged"),
        ('{"format_version":2,"layers":[]}', "format version 2"),
        ('{"format_version":1,"layers":["x"]}', "are damaged"),
        ("[" * 100_000, "are damaged"),
    ],
)
def test_metadata_that_holds_no_labels_is_refused(
    model: Path, value: str | None, words: str
) -> None:
    whole = onnx.load(model)
    onnx.helper.set_model_props(whole, {} if value is None else {"milan_onnx": value})
    onnx.save(whole, model)
    with pytest.raises(SubjectError, match=words):
        milan_onnx.labels_from_metadata(model)
