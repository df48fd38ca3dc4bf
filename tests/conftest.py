"""Fixtures that several folders use, and how tests share the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import hypothesis
import pytest

from milan_onnx.machine import processors
from tests.toy import toy_bundle, toy_subject
from tests.turns import turn

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"

# A run taken from a cache would prove nothing; tests of the cache name a folder of their own.
os.environ["MILAN_ONNX_CACHE"] = "off"
# PyTorch on one thread, here and in what tests start: several tests run at once (`make test`).
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests of ONNX Runtime itself report no more than the package does.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Of hundreds of processes that tests start, not each shall compile the package for itself.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# How long an example takes says nothing where several tests run at once.
hypothesis.settings.register_profile("milan", deadline=None)
hypothesis.settings.load_profile("milan")

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Workers of ``-n auto``: a processor each; beyond eight they would only fill the memory."""
    return min(8, processors())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Where several workers run tests, one that is marked `alone` has the machine for itself."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    with turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture(scope="session")
def milan() -> Command:
    """Run the installed command: ``milan("layers", path, cwd=...)``."""
    program = Path(sys.executable).parent / "milan-onnx"

    def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(program), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)

    return run


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle with random weights."""
    return toy_bundle(tmp_path_factory.mktemp("toy") / "bundle").path


@pytest.fixture(scope="session")
def subject_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier: conv1 - relu1 - conv2 - relu6 - pool - logits."""
    return toy_subject(tmp_path_factory.mktemp("subject") / "model.onnx")


@pytest.fixture(scope="session")
def shared_images() -> Path:
    """The photos of ../shared/data, where they are."""
    folder = SHARED / "data" / "images"
    if not folder.is_dir():
        pytest.skip("../shared/data/images is not here")
    return folder
