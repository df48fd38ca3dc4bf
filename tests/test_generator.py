"""Generators as subjects: units described by the images that latents make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from milan_onnx.errors import BadInput, SubjectError
from milan_onnx.generator import GeneratedImages, LatentNumbers
from milan_onnx.labels import read_jsonl
from milan_onnx.run import load_run
from milan_onnx.subject import list_layers, load_generator
from tests.conftest import Command
from tests.toy import FLOAT, Graph

COUNT, K, CLASSES = 90, 4, 5


def generator(path: Path, *, batch: int | str = "N", one_hot: bool = False) -> Path:
    """z (N,6) and a class to 8 maps of 4x4, 8x8, and pictures (N,3,16,16) of -1 to 1."""
    g = Graph(seed=3)
    if one_hot:
        known = g.op("MatMul", "y", g.weight(CLASSES, 6))
    else:
        known = g.op("Gather", g.weight(CLASSES, 6), "y", axis=0)
    mixed = g.op("Concat", "z", known, axis=1)
    dense = g.op("MatMul", mixed, g.weight(12, 128))
    maps = g.op("Reshape", dense, g.constant(np.array([-1, 8, 4, 4], np.int64)))
    first = g.op("Relu", maps, name="block0")
    wide = g.op("ConvTranspose", first, g.weight(8, 6, 2, 2), strides=[2, 2])
    second = g.op("Relu", wide, name="block1")
    last = g.op("ConvTranspose", second, g.weight(6, 3, 2, 2), strides=[2, 2])
    g.op("Tanh", last, name="picture")
    classes = ("y", FLOAT, [batch, CLASSES]) if one_hot else ("y", 7, [batch])
    inputs = [("z", FLOAT, [batch, 6]), classes]
    return g.save(path, inputs, [("picture", FLOAT, [batch, 3, 16, 16])])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with generator.onnx, zs.npy and ys.npy."""
    folder, rng = tmp_path_factory.mktemp("generator"), np.random.default_rng(1)
    generator(folder / "generator.onnx")
    np.save(folder / "zs.npy", rng.normal(size=(COUNT, 6)))
    np.save(folder / "ys.npy", rng.integers(0, CLASSES, COUNT))
    return folder


def reference(path: Path, folder: Path, tensors: list[str]) -> list[NDArray[np.float32]]:
    """Tensors of all latents, by ONNX Runtime alone."""
    import onnx

    model = onnx.load(path)
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(t) for t in tensors)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    zs, ys = np.load(folder / "zs.npy").astype(np.float32), np.load(folder / "ys.npy")
    return session.run(tensors, {"z": zs, "y": ys})


def line(files: Path, bundle: Path, out: Path, *more: object) -> tuple[object, ...]:
    latents = ("--latents", files / "zs.npy", "--classes", files / "ys.npy")
    layers = ("--layer", "block0", "--layer", "block1")
    own = ("--bundle", bundle, "--exemplars", K, "--out", out)
    return ("describe", files / "generator.onnx", *layers, *latents, *own, *more)


@pytest.fixture(scope="module")
def run_path(
    milan: Command, files: Path, bundle_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    done = milan(*line(files, bundle_path, out, "--no-validity", "--write-milan-format"))
    assert done.returncode == 0, done.stderr
    for said in ("latents:", "image output: picture", "image range: -1,1"):
        assert said in done.stderr
    return out


def test_exemplars_are_the_images_that_excite_a_unit_most(run_path: Path, files: Path) -> None:
    run = load_run(run_path)
    tensors = [layer.layer for layer in run.layers]
    for layer, values in zip(
        run.layers, reference(files / "generator.onnx", files, tensors), strict=True
    ):
        peaks = values.max(axis=(2, 3))
        for unit in range(layer.units):
            best = np.sort(peaks[:, unit])[::-1][:K]
            np.testing.assert_allclose(layer.activations[unit], best, rtol=1e-5)
            found = peaks[layer.ids[unit], unit]
            np.testing.assert_allclose(layer.activations[unit], found, rtol=1e-5)


def test_images_are_what_the_generator_makes(run_path: Path, files: Path) -> None:
    (made,) = reference(files / "generator.onnx", files, ["picture"])
    pictures = np.rint(255 * (made.transpose(0, 2, 3, 1).astype(np.float64) + 1) / 2)
    zs, ys = np.load(files / "zs.npy"), np.load(files / "ys.npy")
    subject = load_generator(files / "generator.onnx", zs, ys)
    images = GeneratedImages(LatentNumbers(Path("zs"), [zs, ys]), subject, "picture", (-1, 1))
    for index in (0, 17, COUNT - 1):
        found = np.asarray(images.image(index))
        assert np.abs(found - pictures[index]).max() <= 1
    assert (run_path / "milan" / "block0" / "images.npy").is_file()


def test_the_report_shows_them_and_the_run_can_be_judged(
    milan: Command, run_path: Path, files: Path, tmp_path: Path
) -> None:
    done = milan("report", run_path, "--out", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").stat().st_size > 10_000
    rows = [f"{x.layer},{x.unit},things" for x in read_jsonl(run_path / "labels.jsonl")]
    (tmp_path / "truth.csv").write_text("\n".join(["layer,unit,summary", *rows]) + "\n")
    done = milan("evaluate", run_path, "--truth", tmp_path / "truth.csv", "--no-similarity")
    assert done.returncode == 0 and "no PMI" in done.stdout
    zs = (files / "zs.npy").read_bytes()
    np.save(files / "zs.npy", np.zeros((COUNT, 6)))
    done = milan("report", run_path, "--out", tmp_path / "report.html")
    (files / "zs.npy").write_bytes(zs)
    assert done.returncode != 0 and "other latents" in done.stderr


def test_nothing_depends_on_the_batch_size(
    milan: Command, run_path: Path, files: Path, bundle_path: Path, tmp_path: Path
) -> None:
    more = ("--no-validity", "--batch-size", 7, "--threads", 1, "--no-report")
    done = milan(*line(files, bundle_path, tmp_path / "run", *more))
    assert done.returncode == 0, done.stderr
    ours, theirs = ((p / "labels.jsonl").read_bytes() for p in (run_path, tmp_path / "run"))
    assert ours == theirs


def test_validity_holds_latents_out(
    milan: Command, files: Path, bundle_path: Path, tmp_path: Path
) -> None:
    done = milan(*line(files, bundle_path, tmp_path / "run", "--validity", "--limit", 80))
    assert done.returncode == 0, done.stderr
    labels = [x for x in read_jsonl(tmp_path / "run/labels.jsonl") if x.description]
    assert labels and all(x.validity is not None for x in labels)


def test_fixed_batches_and_one_hot_classes(
    milan: Command, files: Path, bundle_path: Path, run_path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("zs.npy", "ys.npy"):
        (folder / name).write_bytes((files / name).read_bytes())
    generator(folder / "generator.onnx", batch=2, one_hot=True)
    done = milan(*line(folder, bundle_path, tmp_path / "run", "--no-validity", "--no-report"))
    assert done.returncode == 0, done.stderr
    # One-hot rows times a table are rows of the table.
    for a, b in zip(load_run(run_path).layers, load_run(tmp_path / "run").layers, strict=True):
        np.testing.assert_allclose(a.activations, b.activations, rtol=1e-5)


def test_added_nodes_are_no_layers(files: Path) -> None:
    zs, ys = np.load(files / "zs.npy"), np.load(files / "ys.npy")
    names = [
        layer.tensor for layer in list_layers(load_generator(files / "generator.onnx", zs, ys))
    ]
    assert not [name for name in names if name.startswith("milan_")]
    assert "picture" in names


@pytest.mark.parametrize(
    "more, code, named",
    [
        (("--images", "."), 2, "exclude each other"),
        (("--image-output", "block0"), 5, "is no image"),
        (("--image-range", "0,2"), 2, "no range of images"),
        (("--exemplars", 200), 5, "fewer than the 200 exemplars"),
    ],
)
def test_options_that_do_not_fit(
    more: tuple[object, ...],
    code: int,
    named: str,
    milan: Command,
    files: Path,
    bundle_path: Path,
    tmp_path: Path,
) -> None:
    done = milan(*line(files, bundle_path, tmp_path / "run", *more))
    assert done.returncode == code and named in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()


def test_files_that_do_not_fit_are_named(
    milan: Command, files: Path, bundle_path: Path, tmp_path: Path
) -> None:
    path, zs, ys = files / "generator.onnx", np.zeros((9, 6)), np.zeros(9, int)
    with pytest.raises(SubjectError, match=r"no input for latents of shape \(9, 7\)"):
        load_generator(path, np.zeros((9, 7)))
    with pytest.raises(BadInput, match="9 latents and 8 classes"):
        load_generator(path, zs, ys[:8])
    with pytest.raises(SubjectError, match="besides the image"):
        load_generator(path, zs)
    one_hot = generator(tmp_path / "one_hot.onnx", one_hot=True)
    with pytest.raises(BadInput, match="not numbers from 0 to 4"):
        load_generator(one_hot, zs, ys + 5)
    for name, content in (("text.npy", b"no array"), ("empty.npy", b"")):
        (tmp_path / name).write_bytes(content)
        done = milan("describe", path, "--latents", tmp_path / name, "--bundle", bundle_path)
        assert done.returncode == 5 and name in done.stderr and "Traceback" not in done.stderr
    done = milan("describe", path, "--classes", tmp_path / "text.npy", "--bundle", bundle_path)
    assert done.returncode == 2 and "--latents only" in done.stderr
    done = milan("describe", path, "--bundle", bundle_path)
    assert done.returncode == 5 and "--latents" in done.stderr
