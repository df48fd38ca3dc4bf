"""Every mistake is one sentence on stderr with its exit code, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import milan_onnx
from milan_onnx.bundle import write_manifest
from milan_onnx.errors import BundleError, RunError, UsageError
from tests.conftest import Command
from tests.toy import FLOAT, Graph, toy_bundle, toy_subject

USAGE, ENVIRONMENT, BAD_DATA = 2, 4, 5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good model and bundle, and everything that can be wrong with each."""
    folder = tmp_path_factory.mktemp("bad")
    toy_subject(folder / "m.onnx")
    toy_subject(folder / "b1.onnx", batch=1)
    toy_bundle(folder / "b")
    _bad_models(folder)
    _bad_bundles(folder)
    _photos(folder)
    return folder


def _bad_models(folder: Path) -> None:
    (folder / "text.onnx").write_text("hello")
    (folder / "empty.onnx").touch()
    whole = (folder / "m.onnx").read_bytes()
    (folder / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    onnx.save(
        onnx.load(folder / "m.onnx"),
        folder / "external.onnx",
        save_as_external_data=True,
        location="weights.data",
        size_threshold=0,
    )
    (folder / "weights.data").unlink()
    g = Graph(0)
    g.op("Conv", "input", g.weight(4, 3, 3, 3), name="c")
    g.op("Mul", "c", "scale", name="y")
    inputs = [("input", FLOAT, ["N", 3, 32, 32]), ("scale", FLOAT, [1])]
    g.save(folder / "two.onnx", inputs, [("y", FLOAT, ["N", 4, 30, 30])])


def _bad_bundles(folder: Path) -> None:
    for name in ("damaged", "newer", "incomplete"):
        shutil.copytree(folder / "b", folder / name)
    graph = folder / "damaged" / "lm_step.onnx"
    data = bytearray(graph.read_bytes())
    data[100] ^= 1
    graph.write_bytes(data)
    manifest = folder / "newer" / "bundle.json"
    text = manifest.read_text().replace('"format_version": 2', '"format_version": 3')
    manifest.write_text(text)
    (folder / "incomplete" / "encoder.onnx").unlink()
    made = toy_bundle(folder / "pickled", vectors=3)
    np.save(folder / "pickled" / "word_vectors.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(BundleError):
        write_manifest(made.path, made.manifest)


def _photos(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("none", "few", "mixed", "all-bad"):
        (folder / name).mkdir()
    for i in range(20):
        photo = Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
        photo.save(folder / "mixed" / f"{i:02}.jpg")
        if i < 5:
            photo.save(folder / "few" / f"{i}.png")
        (folder / "all-bad" / f"{i}.jpg").write_bytes(b"\x00" * 100)
    mixed = folder / "mixed"
    Image.new("CMYK", (50, 40), (9, 99, 9, 9)).save(mixed / "cmyk.jpg")
    Image.fromarray(np.full((40, 50), 40_000, np.uint16)).save(mixed / "deep.png")
    Image.new("L", (50, 40), 90).save(mixed / "grey.png")
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(mixed / "moving.gif", save_all=True, append_images=frames[1:])
    (mixed / "broken.jpg").write_bytes((mixed / "00.jpg").read_bytes()[:400])
    (mixed / "huge.png").write_bytes(_huge_png())


def _huge_png() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


GOOD = ["m.onnx", "--layer", "relu1", "--bundle", "b"]

CASES = {
    "no file": (["nothere.onnx"], BAD_DATA, "no file nothere.onnx"),
    "text": (["text.onnx"], BAD_DATA, "text.onnx is not an ONNX model"),
    "empty": (["empty.onnx"], BAD_DATA, "empty.onnx is empty"),
    "cut short": (["cut.onnx"], BAD_DATA, "cut.onnx is not an ONNX model, or is cut short"),
    "folder": (["."], BAD_DATA, "a folder, not an ONNX file"),
    "external data": (["external.onnx"], BAD_DATA, "files that are not there: weights.data"),
    "several inputs": (["two.onnx"], BAD_DATA, "--input scale=0"),
    "input form": (["two.onnx", "--input", "scale"], USAGE, "--input scale is not NAME=VALUE"),
    "no layer": (["m.onnx", "-l", "conv3"], USAGE, "did you mean conv2, conv1"),
    "glob": (["m.onnx", "-l", "zz*"], USAGE, "zz*"),
    "index": (["m.onnx", "-l", "@99"], USAGE, "layers go from @0 to @6"),
    "no units": (["m.onnx", "-l", "const_0"], USAGE, "has no units: it is a weight"),
    "empty photos": ([*GOOD, "-i", "none"], BAD_DATA, "none holds no images"),
    "few photos": ([*GOOD, "-i", "few"], BAD_DATA, "--exemplars 5"),
    "all photos bad": ([*GOOD, "-i", "all-bad"], BAD_DATA, "none of the 20 probe images"),
    "no photos": ([*GOOD, "-i", "nowhere"], BAD_DATA, "nowhere do not exist"),
    "device name": ([*GOOD, "--device", "tpu"], USAGE, "unknown device 'tpu'"),
    "damaged": (["m.onnx", "--bundle", "damaged"], BAD_DATA, "lm_step.onnx does not match"),
    "newer": (["m.onnx", "--bundle", "newer"], BAD_DATA, "upgrade milan-onnx"),
    "incomplete": (["m.onnx", "--bundle", "incomplete"], BAD_DATA, "encoder.onnx is missing"),
    "no bundle": (["m.onnx", "--bundle", "few"], BAD_DATA, "few is not a bundle"),
    "out is a file": ([*GOOD, "-o", "m.onnx"], USAGE, "m.onnx is a file"),
    "out is not a run": ([*GOOD, "-o", "mixed"], USAGE, "mixed is not empty and not a run"),
    "out cannot be": ([*GOOD, "-o", "/proc/none/run"], ENVIRONMENT, "cannot write /proc/none/run"),
    "quantile": ([*GOOD, "--quantile", "2"], USAGE, "--quantile is out of range"),
    "lambda": ([*GOOD, "--lambda", "nan"], USAGE, "--lambda is out of range"),
    "beam": ([*GOOD, "--beam", "99999999999"], USAGE, "--beam is out of range"),
    "out is here": ([*GOOD, "-o", "."], USAGE, "the current folder"),
    "mean": ([*GOOD, "--mean", "1,2"], USAGE, "--mean 1,2 is not R,G,B"),
    "crop": ([*GOOD, "--crop", "64"], USAGE, "32x32"),
    "vectors": ([*GOOD, "--strategy", "consensus"], USAGE, "the bundle toy has none; search with"),
    "damaged vectors": (["m.onnx", "--bundle", "pickled"], BAD_DATA, "pickled/word_vectors.npy"),
    "layout": ([*GOOD, "--layout", "round"], USAGE, "unknown --layout round"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_sentence_and_nothing_left(milan: Command, place: Path, case: str) -> None:
    arguments, code, words = CASES[case]
    before = sorted(place.iterdir())
    done = milan("describe", *arguments, cwd=place)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == code, done.stderr
    assert last.startswith("error: ")
    assert words in last
    assert "Traceback" not in done.stderr
    assert sorted(place.iterdir()) == before


def test_cuda_that_is_not_there(milan: Command, place: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    done = milan("describe", *GOOD, "--device", "cuda", cwd=place)
    assert done.returncode == ENVIRONMENT
    assert "has no CUDA execution provider" in done.stderr


def test_ambiguous_layer_names_the_candidates(milan: Command, tmp_path: Path) -> None:
    g = Graph(0)
    x = g.op("Conv", "input", g.weight(4, 3, 3, 3), name="a/conv")
    g.op("Conv", x, g.weight(4, 4, 3, 3), name="b/conv")
    shapes = [("input", FLOAT, ["N", 3, 32, 32])], [("b/conv", FLOAT, ["N", 4, 28, 28])]
    g.save(tmp_path / "m.onnx", *shapes)
    done = milan("describe", "m.onnx", "--layer", "conv", cwd=tmp_path)
    assert done.returncode == USAGE
    assert "a/conv" in done.stderr.splitlines()[-1]
    assert "b/conv" in done.stderr.splitlines()[-1]


def test_odd_photos_are_counted_and_listed(milan: Command, place: Path, tmp_path: Path) -> None:
    line = ("describe", place / "m.onnx", "-l", "relu1", "--bundle", place / "b", "--no-report")
    done = milan(*line, "-i", place / "mixed", "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    said = next(line for line in done.stderr.splitlines() if " usable;" in line)
    assert "24 usable; 2 skipped (broken.jpg: " in said
    assert "huge.png: 1600 Mpx" in said
    assert "4 converted (" in said
    for name in ("cmyk.jpg", "deep.png", "grey.png", "moving.gif"):
        assert name in said


def test_fixed_batch_of_one_gives_the_same(milan: Command, place: Path, tmp_path: Path) -> None:
    for name in ("m", "b1"):
        line = ("describe", place / f"{name}.onnx", "-l", "relu1", "--bundle", place / "b")
        done = milan(*line, "--synthetic", 40, "--no-report", "-o", tmp_path / name)
        assert done.returncode == 0, done.stderr
    stores = [sorted((tmp_path / n / "exemplars").rglob("*.npy")) for n in ("m", "b1")]
    for one, other in zip(*stores, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_overwrite_is_asked_for(milan: Command, place: Path, tmp_path: Path) -> None:
    line = ("describe", place / "m.onnx", "-l", "relu1", "--bundle", place / "b", "-i", "mixed")
    line = (*line, "--no-report", "-o", tmp_path / "run")
    assert milan(*line, cwd=place).returncode == 0
    before = (tmp_path / "run" / "manifest.json").read_bytes()
    refused = milan(*line, "--candidates", "4", cwd=place)
    assert refused.returncode == USAGE
    assert "already holds a run" in refused.stderr
    assert (tmp_path / "run" / "manifest.json").read_bytes() == before
    assert milan(*line, "--overwrite", cwd=place).returncode == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_reports_of_other_photos_or_no_run_are_refused(
    milan: Command, place: Path, tmp_path: Path
) -> None:
    line = ("describe", place / "m.onnx", "-l", "relu1", "--bundle", place / "b", "--no-report")
    assert milan(*line, "-i", place / "mixed", "-o", tmp_path / "run").returncode == 0
    other = milan("report", tmp_path / "run", "--images", place / "few")
    assert (other.returncode, "other photos" in other.stderr) == (BAD_DATA, True)
    none = milan("report", place / "few")
    assert (none.returncode, "few is not a run" in none.stderr) == (BAD_DATA, True)
    (tmp_path / "run" / "labels.jsonl").write_text("{}\n")
    damaged = milan("report", tmp_path / "run")
    assert (damaged.returncode, "line 1" in damaged.stderr) == (BAD_DATA, True)
    assert not (tmp_path / "run" / "report.html").exists()


def change(path: Path, *keys: str | int, value: object) -> None:
    """Set one value of a JSON file."""
    whole = json.loads(path.read_text())
    part = whole
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    path.write_text(json.dumps(whole))


BUNDLE_FAULTS = {
    "beam_size": ("search", "beam_size", "50"),
    "length": ("search", "length", -1),
    "pmi_weight": ("search", "pmi_weight", None),
    "no_repeat": ("search", "no_repeat", -1),
    "image_size": ("encoder", "image_size", 0),
    "level high": ("encoder", "levels", 1, "channels", 7),
    "levels": ("encoder", "levels", []),
    "mask_resize": ("encoder", "mask_resize", "round"),
    "states": ("language_model", "states", 0, "shape", [-1]),
    "vocabulary": ("vocabulary", "stop", -1),
}


@pytest.mark.parametrize("named", BUNDLE_FAULTS)
def test_a_bundle_whose_manifest_does_not_fit_is_refused(
    place: Path, tmp_path: Path, named: str
) -> None:
    *keys, value = BUNDLE_FAULTS[named]
    shutil.copytree(place / "b", tmp_path / "b")
    change(tmp_path / "b" / "bundle.json", *keys, value=value)
    options = milan_onnx.DescribeOptions(synthetic=20)
    with pytest.raises(BundleError, match=named):
        milan_onnx.describe(place / "m.onnx", "relu1", bundle=tmp_path / "b", options=options)


@pytest.fixture(scope="module")
def small_run(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("small") / "run"
    options = milan_onnx.DescribeOptions(synthetic=20, report=False)
    milan_onnx.describe(place / "m.onnx", "relu1", None, out, bundle=place / "b", options=options)
    return out


ARRAY_FAULTS = {
    "empty": lambda path: path.write_bytes(b""),
    "other type": lambda path: np.save(path, np.load(path).astype("U4")),
    "other shape": lambda path: np.save(path, np.zeros((3, 2), np.float32)),
    "no positions": lambda path: np.save(path, np.zeros((8, 15, 0, 0), np.float32)),
}


@pytest.mark.parametrize("fault", ARRAY_FAULTS)
def test_damaged_exemplars_are_refused(small_run: Path, tmp_path: Path, fault: str) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    ARRAY_FAULTS[fault](run / "exemplars" / "000-relu1" / "maps.npy")
    with pytest.raises(RunError, match="are damaged"):
        milan_onnx.load_run(run)


def test_labels_that_do_not_fit_the_exemplars_are_refused(small_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    lines = (run / "labels.jsonl").read_text().splitlines(keepends=True)
    (run / "labels.jsonl").write_text("".join(lines[:3]))
    with pytest.raises(RunError, match="labels 3 of 8 units"):
        milan_onnx.load_run(run)
    other = lines[-1].replace('"unit":7', '"unit":99')
    (run / "labels.jsonl").write_text("".join([*lines[:-1], other]))
    with pytest.raises(RunError, match="unit 99 of relu1"):
        milan_onnx.load_run(run)


@pytest.mark.parametrize("key", ["bundle", "environment", "layers", "options", "preprocessing"])
def test_a_report_of_a_damaged_manifest_is_refused(
    small_run: Path, tmp_path: Path, key: str
) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    change(run / "manifest.json", key, value=7)
    with pytest.raises(RunError, match=r"manifest of the run .* is damaged"):
        milan_onnx.write_run_report(run / "report.html", milan_onnx.load_run(run))
    assert not (run / "report.html").exists()


def test_a_manifest_of_deep_brackets_is_refused(small_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    (run / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(RunError, match="is damaged"):
        milan_onnx.load_run(run)
    (run / "bundle.json").write_text("[" * 100_000)
    with pytest.raises(BundleError, match="cannot be read"):
        milan_onnx.load_bundle(run)


def test_unknown_preprocessing_is_refused(place: Path) -> None:
    options = milan_onnx.DescribeOptions(preprocessing={"blur": 1})
    with pytest.raises(UsageError, match="preprocessing has no blur; it has resize, crop"):
        milan_onnx.describe(place / "m.onnx", "relu1", options=options)


def test_a_path_that_is_no_text_is_written(place: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"m\xff.onnx")
    try:
        shutil.copy(place / "m.onnx", odd)
    except OSError:
        pytest.skip("this file system takes only text")
    options = milan_onnx.DescribeOptions(synthetic=20)
    milan_onnx.describe(odd, "relu1", None, tmp_path / "run", bundle=place / "b", options=options)
    run = milan_onnx.load_run(tmp_path / "run")
    assert run.manifest["environment"]["model_path"] == str(odd)


def shell(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which ``milan`` is the command."""
    program = f'milan() {{ "{sys.executable}" -m milan_onnx "$@"; }}; '
    done = subprocess.run(
        ["bash", "-c", program + line], cwd=cwd, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_output_is_one_sentence(place: Path) -> None:
    for line in ("milan layers m.onnx > /dev/full", "milan describe --help > /dev/full"):
        done = shell(line, place)
        assert done.returncode == ENVIRONMENT
        assert done.stderr.startswith("error: cannot write the output: no space left")
        assert len(done.stderr.splitlines()) == 1


def test_closed_streams_are_no_error(place: Path) -> None:
    assert shell("milan layers m.onnx >&- 2>&-", place).returncode == 0
    assert shell("milan layers nothere.onnx 2>&-", place).returncode == BAD_DATA


def test_another_encoding_is_no_error(place: Path) -> None:
    done = shell("PYTHONIOENCODING=cp1252 milan describe --help", place)
    assert (done.returncode, "\\u03bb" in done.stdout) == (0, True)


def test_names_cannot_steer_the_terminal(milan: Command, tmp_path: Path) -> None:
    g = Graph(0)
    g.op("Conv", "input", g.weight(4, 3, 3, 3), name="a\x1b[2J\nb")
    shapes = [("input", FLOAT, ["N", 3, 32, 32])], [("a\x1b[2J\nb", FLOAT, ["N", 4, 30, 30])]
    g.save(tmp_path / "m.onnx", *shapes)
    done = milan("layers", "m.onnx", cwd=tmp_path)
    assert "a\\x1b[2J\\nb" in done.stdout
    assert "\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == 2
    missing = milan("layers", "no\nthing.onnx", cwd=tmp_path)
    assert len(missing.stderr.splitlines()) == 1


def test_a_reader_that_leaves_does_not_stop_the_run(place: Path, tmp_path: Path) -> None:
    line = f"milan describe m.onnx -l relu1 --bundle b --synthetic 20 -q -o {tmp_path / 'run'}"
    shell(line + " | true", place)
    assert (tmp_path / "run" / "report.html").is_file()


def test_closed_pipe_is_no_error(milan: Command, place: Path) -> None:
    program = Path(sys.executable).parent / "milan-onnx"
    command = f"{program} layers {place / 'm.onnx'} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("index")
    assert done.stderr == ""
