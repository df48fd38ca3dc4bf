"""Wheel and source distribution hold every file of the package, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.deploy.conftest import Built, build

ALWAYS = {".gitignore", "LICENSE", "NOTICE", "PKG-INFO", "README.md", "pyproject.toml"}


def sources(*places: str) -> set[str]:
    """Files of the repository at some places, those that are not committed yet among them."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no clone, so that what belongs in the package is not known")
    line = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *places]
    said = subprocess.run(line, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {path for path in said.splitlines() if (ROOT / path).exists()}


def contents(wheel: Path) -> dict[str, int]:
    """Files of a wheel and their checksums."""
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist()}


def test_the_wheel_is_the_package(built: Built) -> None:
    held = contents(built.wheel)
    about = {path for path in held if ".dist-info/" in path}
    assert set(held) - about == sources("milan_onnx")
    assert any(path.endswith("models/default/encoder.onnx") for path in held)
    files = {path.split(".dist-info/")[1] for path in about}
    licences = {"licenses/LICENSE", "licenses/NOTICE"}
    assert files == {"METADATA", "WHEEL", "RECORD", "entry_points.txt"} | licences


def test_the_source_distribution_is_what_its_list_names(built: Built) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert not [name for name in named if not (ROOT / name).exists()]
    with tarfile.open(built.sdist) as archive:
        held = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert held == sources(*named) | ALWAYS


def test_the_source_distribution_builds_the_same_wheel(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    build(source, tmp_path / "dist", "-t", "wheel")
    assert contents(tmp_path / "dist" / built.wheel.name) == contents(built.wheel)
