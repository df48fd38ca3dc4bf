"""The main job through the installed command and the Python API, on a tiny model and bundle."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import milan_onnx
from milan_onnx.cli.table import FAINT, PLAIN, LabelTable
from milan_onnx.errors import SubjectError, UsageError
from milan_onnx.files import staged_folder
from milan_onnx.labels import read_jsonl
from milan_onnx.progress import Quiet
from tests.conftest import Command
from tests.toy import FLOAT, Graph

LAYERS = ("--layer", "relu1", "--layer", "relu6")


@pytest.fixture(scope="module")
def run_folder(
    milan: Command, subject_path: Path, bundle_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    done = milan(
        "describe", subject_path, *LAYERS, "--bundle", bundle_path, "--synthetic", 130, "--out", out
    )
    assert done.returncode == 0, done.stderr
    return out


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of the labels and the store."""
    files = [folder / "labels.jsonl", *sorted((folder / "exemplars").rglob("*.*"))]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files if f.is_file()}


def test_prints_labels_and_says_every_choice(
    milan: Command, subject_path: Path, bundle_path: Path, tmp_path: Path
) -> None:
    done = milan(
        "describe", subject_path, *LAYERS, "--bundle", bundle_path, "--synthetic", 60, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert rows[0] == ["layer", "unit", "pmi", "validity", "description", "flags"]
    assert [(r[0], int(r[1])) for r in rows[1:]] == [("relu1", u) for u in range(8)] + [
        ("relu6", u) for u in range(12)
    ]
    for choice in ("layer:", "probe images:", "device:", "threads:", "preprocessing:", "batch:"):
        assert choice in done.stderr
    assert "\r" not in done.stderr
    assert (tmp_path / "model-run" / "report.html").is_file()
    assert "model-run/report.html" in done.stderr


def test_a_second_run_takes_the_next_free_name(
    milan: Command, subject_path: Path, bundle_path: Path, tmp_path: Path
) -> None:
    line = ("describe", subject_path, "-l", "relu1", "--bundle", bundle_path, "--synthetic", 30)
    for name in ("model-run", "model-run-2"):
        assert milan(*line, "--no-report", cwd=tmp_path).returncode == 0
        assert (tmp_path / name / "manifest.json").is_file()
    assert not (tmp_path / "model-run" / "report.html").exists()


@pytest.mark.parametrize(
    "options", [("--batch-size", 1), ("--batch-size", 7, "--threads", 1), ("--threads", 3)]
)
def test_same_bytes_whatever_batch_and_threads(
    milan: Command,
    subject_path: Path,
    bundle_path: Path,
    run_folder: Path,
    tmp_path: Path,
    options: tuple[object, ...],
) -> None:
    out = tmp_path / "again"
    line = ("describe", subject_path, *LAYERS, "--bundle", bundle_path, "--synthetic", 130)
    done = milan(*line, "--out", out, "--no-report", *options)
    assert done.returncode == 0, done.stderr
    assert contents(out) == contents(run_folder)


def test_a_layer_is_the_same_alone(
    milan: Command, subject_path: Path, bundle_path: Path, run_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "alone"
    line = ("describe", subject_path, "-l", "relu6", "--bundle", bundle_path, "--synthetic", 130)
    assert milan(*line, "--out", out, "--no-report").returncode == 0
    alone = (out / "labels.jsonl").read_text().splitlines()
    both = (run_folder / "labels.jsonl").read_text().splitlines()
    assert alone == [line for line in both if '"layer":"relu6"' in line]


def test_the_run_reads_back(run_folder: Path, subject_path: Path) -> None:
    run = milan_onnx.load_run(run_folder)
    assert [layer.layer for layer in run.layers] == ["relu1", "relu6"]
    assert len(run.labels) == 20
    label = run.labels[0]
    assert [e.activation for e in label.exemplars] == sorted(
        (e.activation for e in label.exemplars), reverse=True
    )
    assert label.candidates[0].description == label.description
    layer = run.layer("relu1")
    assert layer.maps.shape == (8, 15, 16, 16)
    np.testing.assert_array_equal(layer.maps.max(axis=(2, 3)), layer.activations)
    manifest = json.loads((run_folder / "manifest.json").read_text())
    assert manifest["probe"]["usable"] == 130
    assert manifest["layers"][0]["quantile_method"] == "tail"


def test_python_api_gives_the_same_without_a_folder(
    subject_path: Path, bundle_path: Path, run_folder: Path
) -> None:
    seen: list[milan_onnx.UnitLabel] = []
    run = milan_onnx.describe(
        subject_path,
        ["relu1", "relu6"],
        bundle=bundle_path,
        options=milan_onnx.DescribeOptions(synthetic=130),
        on_label=seen.append,
    )
    assert run.path is None
    assert tuple(seen) == run.labels
    written = read_jsonl(run_folder / "labels.jsonl")
    assert [label.description for label in run.labels] == [label.description for label in written]


def test_bounded_histogram_is_said_in_the_manifest(
    milan: Command, subject_path: Path, bundle_path: Path, run_folder: Path, tmp_path: Path
) -> None:
    line = ("describe", subject_path, *LAYERS, "--bundle", bundle_path, "--synthetic", 130)
    out = tmp_path / "run"
    assert milan(*line, "--out", out, "--no-report", "--tail-memory", 0).returncode == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert {layer["quantile_method"] for layer in manifest["layers"]} == {"histogram"}
    exact = milan_onnx.load_run(run_folder).layer("relu6").thresholds
    near = milan_onnx.load_run(out).layer("relu6").thresholds
    np.testing.assert_allclose(near, exact, rtol=2e-3)
    assert near[exact == 6].tolist() == exact[exact == 6].tolist()


def test_report_is_written_again_from_the_run(
    milan: Command, run_folder: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    done = milan("report", run_folder, "--out", page)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(page)
    assert page.read_bytes() == (run_folder / "report.html").read_bytes()


def test_interrupt_leaves_no_run(subject_path: Path, bundle_path: Path, tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "milan-onnx"
    line = [program, "describe", subject_path, "-l", "relu1", "--bundle", bundle_path]
    line += ["--synthetic", "5000", "--out", "run"]
    process = subprocess.Popen(
        list(map(str, line)),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A shell's background job starts with interrupts ignored, and so would this child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "interrupted"
    # What took less than two seconds is not kept; a busy machine may have taken longer.
    assert {path.name for path in tmp_path.iterdir()} <= {".run.partial"}


def test_a_link_is_followed_and_stays(
    subject_path: Path, bundle_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    options = milan_onnx.DescribeOptions(synthetic=20, report=False)
    out = tmp_path / "run"
    milan_onnx.describe(subject_path, "relu1", None, out, bundle=bundle_path, options=options)
    assert out.is_symlink()
    assert (tmp_path / "disk" / "manifest.json").is_file()


def test_a_run_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(UsageError, match="already holds a run"):  # noqa: SIM117
        with staged_folder(out, overwrite=False, marker="manifest.json") as staged:
            (staged / "manifest.json").write_text("slow")
            out.mkdir()
            (out / "manifest.json").write_text("fast")
    assert (out / "manifest.json").read_text() == "fast"
    assert list(tmp_path.iterdir()) == [out]


def values_model(folder: Path, scale: float, shift: float) -> Path:
    """A layer ``y`` of the photo times a number plus a number."""
    g = Graph(0)
    x = g.op("Conv", "input", g.weight(4, 3, 3, 3), name="c")
    x = g.op("Mul", x, g.constant(np.float32(scale)))
    g.op("Add", x, g.constant(np.float32(shift)), name="y")
    inputs, outputs = [("input", FLOAT, ["N", 3, 32, 32])], [("y", FLOAT, ["N", 4, 30, 30])]
    return g.save(folder / "m.onnx", inputs, outputs)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("scale", "shift", "flags"),
    [
        (0, 0, ("dead",)),
        (0, 3, ("constant",)),
        (0, np.inf, ("constant",)),
        (1e38, 3e38, ("saturated",)),
        (1e30, 0, ()),
        (1, -1e6, ()),
    ],
)
@pytest.mark.parametrize("tail_memory", [0, 1 << 20])
def test_extreme_activations(
    bundle_path: Path,
    tmp_path: Path,
    scale: float,
    shift: float,
    flags: tuple[str, ...],
    tail_memory: int,
) -> None:
    model = values_model(tmp_path, scale, shift)
    options = milan_onnx.DescribeOptions(synthetic=20, tail_memory=tail_memory)
    run = milan_onnx.describe(
        model, "y", None, tmp_path / "run", bundle=bundle_path, options=options
    )
    described = flags not in [("dead",), ("constant",)]
    for label in run.labels:
        assert label.flags == flags
        assert (label.description is not None) == described


def test_few_positions_are_not_called_saturated(subject_path: Path, bundle_path: Path) -> None:
    options = milan_onnx.DescribeOptions(synthetic=40)
    run = milan_onnx.describe(subject_path, "logits", bundle=bundle_path, options=options)
    assert {label.flags for label in run.labels} == {()}


def test_an_empty_layer_is_refused(bundle_path: Path, tmp_path: Path) -> None:
    g = Graph(0)
    none, two = g.constant(np.array([0])), g.constant(np.array([2]))
    g.op("Slice", "input", none, none, two, name="c")
    shapes = [("input", FLOAT, ["N", 3, 32, 32])], [("y", FLOAT, ["N", 3, "h", "w"])]
    g.op("Relu", "c", name="y")
    model = g.save(tmp_path / "m.onnx", *shapes)
    options = milan_onnx.DescribeOptions(synthetic=20)
    with pytest.raises(SubjectError, match="layer c is empty"):
        milan_onnx.describe(model, "c", bundle=bundle_path, options=options)


def test_progress_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("milan_onnx.progress.TERMINAL_SECONDS", 0.0)
    stream = io.StringIO()
    with milan_onnx.Console(stream, terminal=True).stage("scan", 3_000_000, "images") as meter:
        for _ in range(3):
            meter(1_000_000)
    lines = stream.getvalue().replace("\x1b[K", "").replace("\n", "").split("\r")
    assert max(map(len, lines)) == 39


def test_the_table_keeps_descriptions_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run_folder: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    label = replace(milan_onnx.load_run(run_folder).labels[0], flags=("abstained",))
    LabelTable(Quiet())(label)
    out = capsys.readouterr().out
    assert FAINT in out
    lines = out.replace(FAINT, "").replace(PLAIN, "").splitlines()
    assert max(map(len, lines)) <= 40
    assert (label.description or "-")[:8] in lines[1]


def test_a_layer_that_mixes_images_is_said(
    milan: Command, bundle_path: Path, tmp_path: Path
) -> None:
    g = Graph(0)
    x = g.op("Conv", "input", g.weight(4, 3, 3, 3), name="conv")
    centred = g.op("Sub", x, g.op("ReduceMean", x, axes=[0], keepdims=1), name="centred")
    shapes = [("input", FLOAT, ["N", 3, 32, 32])], [(centred, FLOAT, ["N", 4, 30, 30])]
    g.save(tmp_path / "m.onnx", *shapes)
    line = ("describe", tmp_path / "m.onnx", "-l", "conv", "-l", "centred")
    line = (*line, "--bundle", bundle_path, "--synthetic", 30, "--no-report")
    done = milan(*line, "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "centred depends on the other images of a batch" in warnings[0]
