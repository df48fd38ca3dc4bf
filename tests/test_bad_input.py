"""Every mistake is one sentence on stderr with its exit code, and leaves nothing behind."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

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
    text = manifest.read_text().replace('"format_version": 1', '"format_version": 2')
    manifest.write_text(text)
    (folder / "incomplete" / "encoder.onnx").unlink()


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
    "mean": ([*GOOD, "--mean", "1,2"], USAGE, "--mean 1,2 is not R,G,B"),
    "crop": ([*GOOD, "--crop", "64"], USAGE, "32x32"),
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
    refused = milan(*line, cwd=place)
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


def test_closed_pipe_is_no_error(milan: Command, place: Path) -> None:
    import subprocess
    import sys

    program = Path(sys.executable).parent / "milan-onnx"
    command = f"{program} layers {place / 'm.onnx'} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("index")
    assert done.stderr == ""
