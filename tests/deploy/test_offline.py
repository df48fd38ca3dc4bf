"""The wheel goes into an empty environment without a network, and describes a model there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.deploy.conftest import Built
from tests.toy import toy_subject

PIP = (sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "--quiet")
ASKS = "import socket; socket.create_connection(('pypi.org', 443), timeout=3)"


@pytest.fixture(scope="module")
def wheelhouse(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels, as docs/deploy.md says to make it where there is a network."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    if not download(folder, f"{built.wheel}[cpu]"):
        if not download(folder / "other", "--no-deps", "click"):
            pytest.skip("no package registry can be reached")
        pytest.fail("the wheels that the extra cpu asks for cannot be had")
    return folder


def download(folder: Path, *what: str) -> bool:
    line = [*PIP, "download", "--only-binary", ":all:", "--dest", str(folder), *what]
    return subprocess.run(line, stdout=sys.stderr, timeout=300).returncode == 0


@pytest.fixture(scope="module")
def offline() -> list[str]:
    """What a command begins with that shall find no network."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare, which takes a command off the network")
    isolated = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*isolated, "true"], capture_output=True).returncode:
        pytest.skip("this user may not take a command off the network")
    return isolated


def test_an_empty_environment_without_a_network_describes(
    wheelhouse: Path, offline: list[str], tmp_path: Path
) -> None:
    bare = {
        "PATH": os.defpath,
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "PIP_CONFIG_FILE": os.devnull,
    }
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"

    def run(*line: object) -> subprocess.CompletedProcess[str]:
        command = [*offline, *map(str, line)]
        return subprocess.run(command, env=bare, capture_output=True, text=True, timeout=300)

    assert "gaierror" in run(python, "-c", ASKS).stderr
    started = time.monotonic()
    source = ["--no-index", "--find-links", wheelhouse]
    done = run(*PIP, "--python", python, "install", *source, "milan-onnx[cpu]")
    assert done.returncode == 0, done.stderr
    files = [path for path in environment.rglob("*") if path.is_file()]
    took, size = time.monotonic() - started, sum(path.stat().st_size for path in files)
    print(f"installed in {took:.1f} s, {size / 1e6:.0f} MB")
    assert "ModuleNotFoundError" in run(python, "-c", "import torch").stderr

    model, out = toy_subject(tmp_path / "m.onnx", size=64), tmp_path / "run"
    options = ["-l", "relu6", "--synthetic", "60", "--no-cache", "-o", out]
    done = run(environment / "bin" / "milan-onnx", "describe", model, *options)
    assert done.returncode == 0, done.stderr
    labels = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]
    assert len(labels) == 12 and any(label["description"] for label in labels)
    assert (out / "report.html").stat().st_size > 10_000
    # Nobody was told, and nothing was kept to be told later.
    assert {path.name for path in tmp_path.iterdir()} == {"venv", "m.onnx", "run"}
