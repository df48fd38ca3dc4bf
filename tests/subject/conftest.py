"""Exports are made once a session; sessions run single-threaded to be repeatable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from milan_onnx.subject import TappedModel


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Any, Path]]:
    """A function from (network, exporter, batch) to (module, file)."""
    pytest.importorskip("torch")
    from subject_networks import build, export

    folder = tmp_path_factory.mktemp("exports")
    networks: dict[str, Any] = {}

    def give(name: str, exporter: Any, batch: int | None = None) -> tuple[Any, Path]:
        if name not in networks:
            networks[name] = build(name)
        net, side = networks[name]
        path = folder / f"{name}-{exporter}-{batch}.onnx"
        if not path.exists():
            export(net, side, path, exporter, batch=batch)
        return net, path

    return give


@pytest.fixture(scope="session")
def run() -> Callable[..., list[NDArray[Any]]]:
    """A function that runs a tapped model, or model bytes with feeds."""
    ort = pytest.importorskip("onnxruntime")

    def give(model: TappedModel | bytes, feed: Any) -> list[NDArray[Any]]:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        if isinstance(model, TappedModel):
            if model.external_folder:
                key = "session.model_external_initializers_file_folder_path"
                options.add_session_config_entry(key, str(model.external_folder))
            data, feed = model.model_bytes, {model.input_name: feed}
        else:
            data = model
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return list(session.run(None, feed))

    return give


@pytest.fixture(scope="session")
def frames() -> Callable[..., NDArray[np.uint8]]:
    """A function from (count, side or (height, width)) to random frames."""

    def give(count: int, size: int | tuple[int, int]) -> NDArray[np.uint8]:
        height, width = (size, size) if isinstance(size, int) else size
        generator = np.random.default_rng(0)
        return generator.integers(0, 256, (count, height, width, 3), dtype=np.uint8)

    return give
