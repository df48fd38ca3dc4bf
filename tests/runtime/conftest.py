"""The toy bundle, and its graphs in sessions."""

from __future__ import annotations

import pytest

from milan_onnx.bundle import Bundle
from milan_onnx.runtime import Describer, Device
from tests.toy import toy_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return toy_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def describer(bundle: Bundle) -> Describer:
    return Describer(bundle, Device("cpu"))
