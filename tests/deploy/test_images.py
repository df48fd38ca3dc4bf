"""The Dockerfile is clean, fits the project, and what it installs is fit for an image."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

TARGETS = ("cpu", "gpu")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def images() -> ModuleType:
    """ci/image_files.py."""
    spec = importlib.util.spec_from_file_location("image_files", ROOT / "ci" / "image_files.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_file_is_clean() -> None:
    checker = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if checker is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([checker, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_extras_are_the_projects_and_hold_no_training(images: ModuleType, target: str) -> None:
    extras = images.extras_of(target).split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    assert {target, "serve"} <= set(extras) and "export" not in extras


def test_all_that_is_copied_is_sent_to_the_engine_and_no_more(images: ModuleType) -> None:
    copied = set()
    for stage in images.read_stages().values():
        for word, text in stage.instructions:
            if word == "COPY" and not text.startswith("--from="):
                copied |= set(text.split()[:-1])
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in sent if line.startswith("!")} == copied
    assert "*" in sent and all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_pythons_own_and_one_environment(images: ModuleType, target: str) -> None:
    """Nothing is installed where it runs, and it runs as a user who may write little."""
    stages = images.read_stages()
    last = stages[target]
    runtime = stages[last.base]
    assert "python:3" in runtime.base and "-slim" in runtime.base
    copies = [text for word, text in last.instructions if word == "COPY"]
    assert copies == [f"--from=install-{target} /opt/milan /opt/milan"]
    assert not any(tool in " ".join(runtime.runs()) for tool in ("apt", "pip", "curl"))
    given = dict(runtime.instructions)
    user, group = given["USER"].split(":")
    assert int(user) > 0 and int(group) > 0
    assert json.loads(given["ENTRYPOINT"]) == ["milan-onnx"]
    assert list(stages)[-1] == "cpu"  # what `docker build` makes when no target is named


def needed(images: ModuleType, target: str) -> Iterator[Distribution]:
    """What the extras of a target ask for, and what that asks for, as installed here."""
    extras = [
        PROJECT["optional-dependencies"][name] for name in images.extras_of(target).split(",")
    ]
    waiting = [Requirement(line) for part in (PROJECT["dependencies"], *extras) for line in part]
    seen = set()
    while waiting:
        wanted = waiting.pop()
        key = (wanted.name.lower(), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        found = distribution(wanted.name)
        yield found
        for line in found.requires or ():
            below = Requirement(line)
            asked = [{"extra": extra} for extra in (*wanted.extras, "")]
            if below.marker is None or any(below.marker.evaluate(extra) for extra in asked):
                waiting.append(below)


def test_what_the_cpu_image_installs_holds_no_torch(images: ModuleType) -> None:
    try:
        found = {one.metadata["Name"].lower(): one for one in needed(images, "cpu")}
    except PackageNotFoundError as error:
        pytest.skip(f"{error} is not installed, so that what it asks for is not known")
    assert {"onnxruntime", "fastapi", "numpy"} <= set(found)
    files = [f"site-packages/{path}" for one in found.values() for path in one.files or ()]
    assert len(files) > 1000
    assert images.unwanted(list(found), files) == []


def test_what_no_image_may_hold_is_seen(images: ModuleType) -> None:
    files = ["bin/gcc-12", "bin/pip3", "lib/python3.12/site-packages/torch/nn/__init__.py"]
    fine = ["bin/milan-onnx", "lib/python3.12/site-packages/onnx/torch_like.py", "bin/python3.12"]
    assert images.unwanted(["torch", "numpy"], [*files, *fine]) == ["torch", *files]


# --- what it runs --------------------------------------------------------------------------------


def health_command(images: ModuleType, port: int) -> list[str]:
    """The image's own check of its health, on another port."""
    text = dict(images.read_stages()["runtime"].instructions)["HEALTHCHECK"]
    _, program, code = json.loads(text.partition(" CMD ")[2])[-3:]
    assert "8080" in code
    return [sys.executable, program, code.replace("8080", str(port))]


def healthy(images: ModuleType, port: int) -> bool:
    proxy = os.environ | {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    line = health_command(images, port)
    return subprocess.run(line, env=proxy, capture_output=True, timeout=30).returncode == 0


def test_the_images_own_line_serves_and_is_healthy(
    images: ModuleType, tmp_path: Path, bundle_path: Path
) -> None:
    """Its command as it is, but for store and port, and for a smaller bundle."""
    pytest.importorskip("uvicorn", reason="wants the extra serve")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = json.loads(dict(images.read_stages()["runtime"].instructions)["CMD"])
    own = {"8080": str(port), "/data": str(tmp_path / "data"), "0.0.0.0": "127.0.0.1"}
    program = Path(sys.executable).parent / "milan-onnx"
    command = [program, *(own.get(word, word) for word in line), "--bundle", bundle_path]
    assert not healthy(images, port)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            end = time.monotonic() + 60
            while status(port, "/readyz") != 200:
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.05)
            assert healthy(images, port)
        finally:
            process.terminate()
            said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said


def status(port: int, path: str) -> int:
    """The status of an answer; 0 where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()
