"""Fixtures that several folders use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toy import toy_bundle, toy_subject

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"

# A run taken from a cache would prove nothing; tests of the cache name a folder of their own.
os.environ["MILAN_ONNX_CACHE"] = "off"

Command = Callable[..., "subprocess.CompletedProcess[str]"]


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
