"""Several models from one job file, through the installed command."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import milan_onnx
from tests.conftest import Command
from tests.toy import toy_bundle, toy_photos, toy_subject

USAGE, BAD_DATA = 2, 5


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two models in a folder, a bundle and photos; jobs are written beside them."""
    folder = tmp_path / "work"
    for name, seed in (("first", 0), ("second", 1)):
        (folder / "models").mkdir(parents=True, exist_ok=True)
        toy_subject(folder / "models" / f"{name}.onnx", seed=seed)
    toy_bundle(folder / "b")
    toy_photos(folder / "photos")
    return folder


DEFAULTS = """
[defaults]
images = "photos"
bundle = "b"
exemplars = 5
report = false
mean = [0.5, 0.5, 0.5]
std = 0.25
layers = ["relu1"]
"""


def job(place: Path, text: str, name: str = "job.toml") -> Path:
    path = place / name
    path.write_text(text)
    return path


def summary(out: Path) -> list[dict[str, object]]:
    rows = json.loads((out / "summary.json").read_text())
    with (out / "summary.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["name"] for row in table] == [row["name"] for row in rows]
    assert [row["exit_code"] for row in table] == [str(row["exit_code"]) for row in rows]
    return rows


def test_models_are_described_as_by_the_command(milan: Command, place: Path) -> None:
    path = job(
        place,
        DEFAULTS
        + """
[[model]]
path = "models/first.onnx"
layers = ["relu1", "relu6"]
format = ["csv"]

[[model]]
path = "models/second.onnx"
name = "other"
out = "elsewhere/second"
report = true
exemplars = 4
abstain-below = 0.5
""",
    )
    done = milan("describe", "--job", path, cwd=place.parent)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[:5] for row in rows[1:]] == [
        ["first", "0", "2", "20", "20"],
        ["other", "0", "1", "8", "8"],
    ]
    assert sorted(p.name for p in (place / "runs").iterdir()) == [
        *("first", "summary.csv", "summary.json")
    ]
    assert [row["layers"] for row in summary(place / "runs")] == [2, 1]
    assert (place / "runs" / "first" / "labels.csv").is_file()
    assert not (place / "runs" / "first" / "report.html").exists()
    assert (place / "elsewhere" / "second" / "report.html").is_file()
    line = ("describe", "models/first.onnx", "-l", "relu1", "-l", "relu6", "-i", "photos")
    line = (*line, "--bundle", "b", "--exemplars", 5, "--mean", ".5,.5,.5", "--std", "0.25")
    alone = milan(*line, "--no-report", "-o", "alone", cwd=place)
    assert alone.returncode == 0, alone.stderr
    labels = [
        (run / "labels.jsonl").read_bytes() for run in (place / "runs/first", place / "alone")
    ]
    assert labels[0] == labels[1]
    other = milan_onnx.load_run(place / "elsewhere" / "second")
    assert other.manifest["options"]["exemplars"] == 4
    assert other.manifest["options"]["abstain_below"] == 0.5


def test_a_glob_is_many_models_and_a_model_that_fails_stops_no_other(
    milan: Command, place: Path
) -> None:
    (place / "models" / "broken.onnx").write_text("hello")
    path = job(
        place,
        DEFAULTS
        + '[[model]]\npath = "models/*.onnx"\n[[model]]\npath = "models/first.onnx"\nname="again"\n'
        'layers = "conv9"\n',
    )
    done = milan("describe", "--job", path, "-q", cwd=place)
    assert done.returncode == BAD_DATA
    found = [(row["name"], row["exit_code"]) for row in summary(place / "runs")]
    assert found == [("broken", BAD_DATA), ("first", 0), ("second", 0), ("again", USAGE)]
    assert "broken.onnx is not an ONNX model" in done.stdout
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in (place / "runs").iterdir() if p.is_dir()) == ["first", "second"]


def test_the_command_line_wins_and_the_cache_serves_all(milan: Command, place: Path) -> None:
    path = job(place, 'out = "x"\n' + DEFAULTS + '[[model]]\npath = "models/first.onnx"\n')
    assert milan("describe", "--job", path, cwd=place).returncode == 0
    assert (place / "x").is_dir()
    again = milan("describe", "--job", path, cwd=place)
    assert again.returncode == 0 and "nothing to do" in again.stderr
    other = milan("describe", "--job", path, "--candidates", 2, cwd=place)
    assert other.returncode == USAGE
    assert "already holds a run" in other.stdout
    line = ("describe", "--job", path, "--overwrite", "--exemplars", 3, "--cache", "c", "-o", "y")
    for _ in range(2):
        done = milan(*line, "-l", "relu6", cwd=place)
        assert done.returncode == 0, done.stderr
    assert "cache: made before" in done.stderr
    run = milan_onnx.load_run(place / "y" / "first")
    assert run.manifest["options"]["exemplars"] == 3
    assert [layer.layer for layer in run.layers] == ["relu6"]


def test_everything_wrong_is_named_at_once_and_nothing_is_done(milan: Command, place: Path) -> None:
    path = job(
        place,
        """
outs = "x"
[defaults]
imges = "photos"
report = "yes"
[[model]]
path = "models/first.onnx"
exemplars = "many"
strategy = "guess"
[[model]]
name = "../up"
layers = 3
[[model]]
path = "none/*.onnx"
batch-size = [1, 2, {}]
""",
    )
    done = milan("describe", "--job", path, cwd=place)
    assert done.returncode == BAD_DATA
    (last,) = done.stderr.splitlines()
    for words in (
        "outs is no key of a job",
        "[defaults]: imges is no option of describe",
        "model 1: report is 'yes', not true or false",
        "model 1: Invalid value for '--exemplars'",
        "model 2 has no path",
        "model 2: name is '../up'",
        "model 2: layers is no list of names",
        "model 3: no file fits none/*.onnx",
        "model 3: batch-size has a value of the wrong kind",
    ):
        assert words in last
    assert sorted(p.name for p in place.iterdir()) == ["b", "job.toml", "models", "photos"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[model]", "is not TOML"),
        ("", "it has no [[model]]"),
        ("model = 3", "it has no [[model]]"),
        ("defaults = 1\n[[model]]\npath='m'", "[defaults] is not a table"),
        (
            "[[model]]\npath='models/first.onnx'\n[[model]]\npath='models/first.onnx'",
            "2 models have the run",
        ),
        ("[defaults]\nout='x'\n[[model]]\npath='m'", "out is of the whole job"),
        ("[[model]]\npath='m'\njob='x.toml'", "job is no option"),
        ("[[model]]\npath='m'\nresize='big'", "model 1: --resize big is not a size"),
        ("[[model]]\npath='m'\nquantile=2.0", "model 1: the value of --quantile is out of range"),
        ("[[model]]\npath='m'\ncache='x'", "cache is no option"),
    ],
)
def test_a_file_that_is_no_job_is_one_sentence(
    milan: Command, place: Path, text: str, words: str
) -> None:
    done = milan("describe", "--job", job(place, text), cwd=place)
    assert done.returncode == BAD_DATA
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_model_or_a_job_is_needed(milan: Command, place: Path) -> None:
    none = milan("describe", cwd=place)
    assert (none.returncode, "no model is given" in none.stderr) == (USAGE, True)
    both = milan("describe", "models/first.onnx", "--job", "j.toml", cwd=place)
    assert (both.returncode, "--job names the models" in both.stderr) == (USAGE, True)
    gone = milan("describe", "--job", "j.toml", cwd=place)
    assert (gone.returncode, "cannot read the job file" in gone.stderr) == (BAD_DATA, True)


def test_an_interrupt_says_how_many_are_done(place: Path) -> None:
    text = '[defaults]\nbundle="b"\nreport=false\nlayers="relu1"\n'
    text += '[[model]]\npath="models/first.onnx"\nsynthetic = 20\n'
    text += '[[model]]\npath="models/second.onnx"\nsynthetic = 5000\n'
    line = [sys.executable, "-m", "milan_onnx", "describe", "--job", str(job(place, text))]
    process = subprocess.Popen(
        line,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list((place / "runs").glob(".second*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted: 1 of 2 models are done"
    assert sorted(p.name for p in (place / "runs").iterdir()) == ["first"]
