"""Runs of photos that lie elsewhere: the same bytes as of a folder, and opened again by others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import milan_onnx
from milan_onnx.errors import ProbeError
from milan_onnx.reporting import write_run_report
from tests.conftest import Command
from tests.probe.helpers import make_parquet, make_tar
from tests.toy import toy_photos

# At a size that no other test has, so that few of them take long.
COUNT = 24
OPTIONS = ("--layer", "relu1", "--exemplars", 4, "--no-validity", "--no-cache", "-q")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos in a folder, in a parquet file, and in shards."""
    folder = tmp_path_factory.mktemp("place")
    photos = toy_photos(folder / "photos", COUNT)
    files = {path.name: path.read_bytes() for path in sorted(photos.iterdir())}
    make_parquet(folder / "p.parquet", files, rows=7)
    names = list(files)
    for shard in range(2):
        make_tar(folder / f"s-{shard}.tar", {n: files[n] for n in names[12 * shard :][:12]})
    return folder


def found(run: Path) -> dict[str, bytes]:
    files = [run / "labels.jsonl", run / "report.html", *sorted((run / "exemplars").rglob("*.*"))]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def of_folder(place: Path, subject_path: Path, bundle_path: Path) -> Path:
    describe(subject_path, place / "photos", bundle_path, place / "run")
    return place / "run"


def describe(model: Path, images: str | Path, bundle: Path, out: Path) -> None:
    options = milan_onnx.DescribeOptions(exemplars=4, validity=False)
    milan_onnx.describe(model, "relu1", images, out, bundle=bundle, options=options)


def test_object_storage_and_parquet_give_the_run_of_the_folder(
    milan: Command, place: Path, of_folder: Path, subject_path: Path, bundle_path: Path, s3: object
) -> None:
    for path in (place / "photos").iterdir():
        s3.pipe_file(f"bucket/run/{path.name}", path.read_bytes())
    expected = found(of_folder)
    here = json.loads((of_folder / "manifest.json").read_text())["probe"]
    line = ("describe", subject_path, "--bundle", bundle_path, *OPTIONS, "-i", "s3://bucket/run/")
    done = milan(*line, "--out", place / "run-s3")
    assert done.returncode == 0, done.stderr
    describe(subject_path, place / "p.parquet", bundle_path, place / "run-parquet")
    sources = {"run-s3": "s3://bucket/run/", "run-parquet": str(place / "p.parquet")}
    for name, source in sources.items():
        out = place / name
        same = {file: data for file, data in found(out).items() if file != "report.html"}
        assert same == {file: expected[file] for file in same}
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["environment"]["images"] == source
        assert manifest["probe"] | {"name": ""} == here | {"name": ""}
        write_run_report(place / "again.html", milan_onnx.load_run(out))
        assert (place / "again.html").read_bytes() == (out / "report.html").read_bytes()
    moved = milan("report", of_folder, "-i", "s3://bucket/run", "--out", place / "m.html", "-q")
    assert moved.returncode == 0, moved.stderr
    assert (place / "m.html").read_bytes() == expected["report.html"]


def test_a_job_file_keeps_an_address_and_shards_have_reports(
    milan: Command, place: Path, subject_path: Path, bundle_path: Path, s3: object
) -> None:
    for number in range(2):
        data = (place / f"s-{number}.tar").read_bytes()
        s3.pipe_file(f"bucket/shards/s-{number}.tar", data)
    job = place / "job.toml"
    job.write_text(f"""
[defaults]
bundle = "{bundle_path}"
layers = "relu1"
exemplars = 4
validity = false

[[model]]
name = "there"
path = "{subject_path}"
images = "s3://bucket/shards/s-{{0..1}}.tar"

[[model]]
name = "here"
path = "{subject_path}"
images = "s-{{0..1}}.tar"
""")
    done = milan("describe", "--job", job, "--no-cache", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    runs = place / "runs"
    names = [path.name for path in sorted(runs.iterdir()) if path.is_dir()]
    assert names == ["here", "there"]
    labels = [(runs / name / "labels.jsonl").read_bytes() for name in names]
    assert labels[0] == labels[1]
    (place / "s-1.tar").unlink()
    opened = milan_onnx.open_probe("s3://bucket/shards/s-{0..1}.tar")
    write_run_report(place / "open.html", milan_onnx.load_run(runs / "here"), probe=opened)
    assert (place / "open.html").read_bytes() == (runs / "here" / "report.html").read_bytes()
    with pytest.raises(ProbeError, match=r"s-1\.tar do not exist"):
        write_run_report(place / "gone.html", milan_onnx.load_run(runs / "here"))


def test_what_cannot_be_read_is_one_sentence(
    milan: Command, s3: object, subject_path: Path, bundle_path: Path, tmp_path: Path
) -> None:
    line = ("describe", subject_path, "--bundle", bundle_path, *OPTIONS)
    done = milan(*line, "-i", "s3://nobucket/photos/", cwd=tmp_path)
    assert done.returncode == 5
    assert "the probe images s3://nobucket/photos/ do not exist" in done.stderr
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
