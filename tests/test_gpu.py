"""The same job on a CUDA device; skips where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import milan_onnx
from milan_onnx.errors import DeviceUnavailable
from milan_onnx.runtime import choose_device

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def device() -> str:
    try:
        return str(choose_device("cuda").value)
    except DeviceUnavailable as error:
        pytest.skip(f"no CUDA device: {error.message}")


def test_activations_left_on_the_gpu_give_the_same_exemplars(
    device: str, subject_path: Path, bundle_path: Path
) -> None:
    host, gpu = (
        milan_onnx.describe(
            subject_path,
            ["relu1", "relu6"],
            bundle=bundle_path,
            options=milan_onnx.DescribeOptions(synthetic=90, device=device, reduce=where),
        )
        for where in ("host", "device")
    )
    for one, other in zip(host.layers, gpu.layers, strict=True):
        np.testing.assert_array_equal(other.thresholds, one.thresholds)
        np.testing.assert_array_equal(other.activations, one.activations)


def test_cuda_finds_what_the_cpu_finds(device: str, subject_path: Path, bundle_path: Path) -> None:
    runs = [
        milan_onnx.describe(
            subject_path,
            ["relu1", "relu6"],
            bundle=bundle_path,
            options=milan_onnx.DescribeOptions(synthetic=90, device=name),
        )
        for name in ("cpu", device)
    ]
    cpu, cuda = runs
    assert cuda.manifest["environment"]["device"].startswith("cuda")
    for one, other in zip(cpu.layers, cuda.layers, strict=True):
        np.testing.assert_allclose(other.activations, one.activations, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(other.thresholds, one.thresholds, rtol=1e-3, atol=1e-3)
    same = [a.description == b.description for a, b in zip(cpu.labels, cuda.labels, strict=True)]
    assert np.mean(same) >= 0.9
