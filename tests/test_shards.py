"""Shards merge to the same bytes as one process makes, however the photos are cut."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Command
from tests.test_resume import contents
from tests.toy import toy_bundle, toy_subject

PHOTOS = 70


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a bundle and photos, some of them broken."""
    folder = tmp_path_factory.mktemp("place")
    toy_subject(folder / "m.onnx")
    toy_bundle(folder / "b")
    (folder / "photos").mkdir()
    for number in range(PHOTOS):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 44, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number:02}.png")
    for number in (0, 13, 69):
        broken = b"\xff\xd8\xff" + bytes(200)
        (folder / "photos" / f"{number:02}-broken.jpg").write_bytes(broken)
    return folder


LINE = ("describe", "m.onnx", "-l", "relu1", "-l", "relu6", "--bundle", "b", "-i", "photos")
LINE = (*LINE, "--exemplars", "4", "--quiet")


@pytest.fixture(scope="module")
def whole(milan: Command, place: Path) -> Path:
    done = milan(*LINE, "--no-report", "--out", "whole", cwd=place)
    assert done.returncode == 0, done.stderr
    return place / "whole"


def facts(run: Path) -> dict[str, object]:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["environment"] = {"job": manifest["environment"]["job"]}
    del manifest["probe"]["name"]  # the folder as it was given
    return dict(manifest)


@pytest.mark.parametrize(
    ("count", "options"), [(1, ()), (2, ()), (5, ()), (7, ("--tail-memory", "0"))]
)
def test_shards_make_the_same_bytes(
    milan: Command,
    place: Path,
    whole: Path,
    tmp_path: Path,
    count: int,
    options: tuple[str, ...],
) -> None:
    if options:
        whole = tmp_path / "whole"
        assert milan(*LINE, *options, "--no-report", "-o", whole, cwd=place).returncode == 0
    for number in range(1, count + 1):
        shard = ("--shard", f"{number}/{count}", "--out", tmp_path / f"s{number}")
        size = ("--batch-size", str(number))
        done = milan(*LINE, *options, *shard, *size, cwd=place)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{tmp_path}/s{number}\n"
    shards = [tmp_path / f"s{number}" for number in range(count, 0, -1)]
    done = milan("merge", *shards, "--no-report", "--out", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "run") == contents(whole)
    assert facts(tmp_path / "run") == facts(whole)
    again = milan("merge", *shards, "--no-report", "--out", tmp_path / "run", cwd=tmp_path)
    assert again.returncode == 0 and "nothing to do" in again.stderr
    if count == 2:
        done = milan("merge", *shards, "--no-report", cwd=tmp_path)
        assert contents(tmp_path / "m-run") == contents(whole), done.stderr


@pytest.fixture(scope="module")
def shards(milan: Command, place: Path) -> Path:
    """Two shards of three, one of two, one of another job."""
    made = {"1": "1/3", "2": "2/3", "half": "1/2"}
    for name, shard in made.items():
        done = milan(*LINE, "--shard", shard, "--out", f"part-{name}", cwd=place)
        assert done.returncode == 0, done.stderr
    other = (*LINE, "--quantile", "0.9", "--shard", "3/3", "--out", "part-other")
    assert milan(*other, cwd=place).returncode == 0
    third = (*LINE, "--shard", "3/3", "--out", "part-3")
    assert milan(*third, cwd=place).returncode == 0
    shutil.copytree(place / "part-3", place / "part-damaged")
    state = place / "part-damaged" / "scan.npz"
    state.write_bytes(state.read_bytes()[:1000])
    return place


CASES = {
    "one is missing": (("part-1", "part-2"), 5, "shards are missing: 3/3"),
    "one twice": (("part-1", "part-1", "part-2"), 5, "are both shard 1 of 3"),
    "of other sizes": (("part-1", "part-half"), 5, "is one of 3 shards"),
    "of another job": (("part-1", "part-2", "part-other"), 5, "another quantile"),
    "damaged": (("part-1", "part-2", "part-damaged"), 5, "scan.npz is damaged"),
    "no shard": (("part-1", "photos"), 5, "photos is not a shard"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_named(milan: Command, shards: Path, case: str) -> None:
    given, code, words = CASES[case]
    done = milan("merge", *given, "--out", "none", cwd=shards)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr
    assert not list(shards.glob("*none*"))


@pytest.mark.parametrize("text", ["2", "0/3", "4/3", "a/b", "1/0", "-1/3"])
def test_shards_that_cannot_be_are_refused(milan: Command, place: Path, text: str) -> None:
    done = milan(*LINE, f"--shard={text}", "--out", "none", cwd=place)
    assert done.returncode == 2 and "hard" in done.stderr.splitlines()[-1]


def test_a_finished_shard_is_not_scanned_again(milan: Command, shards: Path) -> None:
    before = (shards / "part-1" / "scan.npz").stat().st_mtime_ns
    line = [word for word in LINE if word != "--quiet"]
    done = milan(*line, "--shard", "1/3", "--out", "part-1", cwd=shards)
    assert done.returncode == 0 and "nothing to do" in done.stderr
    assert (shards / "part-1" / "scan.npz").stat().st_mtime_ns == before


def test_a_shard_without_a_usable_photo_is_one_too(
    milan: Command, place: Path, tmp_path: Path
) -> None:
    """Seventy-three parts of seventy-three photos: some have only a broken one."""
    shutil.copytree(place, tmp_path / "p", ignore=shutil.ignore_patterns("part-*", "whole"))
    for photo in sorted((tmp_path / "p" / "photos").iterdir())[8:]:
        photo.unlink()
    line = (*LINE, "--no-report", "--no-validity")
    assert milan(*line, "--out", "whole", cwd=tmp_path / "p").returncode == 0
    for number in range(1, 9):
        done = milan(*line, "--shard", f"{number}/8", "--out", f"s{number}", cwd=tmp_path / "p")
        assert done.returncode == 0, done.stderr
    parts = [f"s{number}" for number in range(1, 9)]
    done = milan("merge", *parts, "--no-report", "--out", "run", cwd=tmp_path / "p")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "p" / "run") == contents(tmp_path / "p" / "whole")
