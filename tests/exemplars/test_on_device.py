"""Activations that stay on their device give what those in memory give, asked the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import milan_onnx
from milan_onnx.errors import MilanError
from milan_onnx.exemplars import HostActivations
from milan_onnx.exemplars.on_device import DeviceActivations, Reductions
from milan_onnx.runtime.device import Device
from milan_onnx.runtime.session import Held, Session
from tests.conftest import Command

CPU = Device("cpu")
FILLED = 2
"""Images at the end of a batch that only fill it up."""


@pytest.fixture(scope="module")
def reductions() -> Reductions:
    return Reductions.on(CPU)


@pytest.fixture(scope="module")
def same() -> Session:
    shape = ["N", "U", "h", "w"]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Session(model.SerializeToString(), CPU, what="identity", error=MilanError)


def values() -> NDArray[np.float32]:
    made = np.random.default_rng(0).standard_normal((6, 5, 3, 4)).astype(np.float32)
    made[:, 1] = 0
    made[:, 2] = np.clip(made[:, 2] * 9, 0, 6)
    return np.concatenate((made, made[-1:].repeat(FILLED, axis=0)))


def held(same: Session) -> Held:
    return same.run_held({"x": values()})[0]


@pytest.mark.parametrize("at_once", [True, False])
def test_finds_the_same(same: Session, reductions: Reductions, at_once: bool) -> None:
    bars = np.array([0.3, 0, 5, -9, 99], np.float32)
    known = bars if at_once else None
    host = HostActivations(values()[:-FILLED], known)
    device = DeviceActivations(held(same), len(values()) - FILLED, reductions, known)
    assert device.shape == host.shape
    np.testing.assert_array_equal(device.maxima, host.maxima)
    for one, other in zip(device.above(bars), host.above(bars), strict=True):
        kept = other.counts > 0
        np.testing.assert_array_equal(one.units, other.units[kept])
        np.testing.assert_array_equal(one.counts, other.counts[kept])
        np.testing.assert_array_equal(one.values, other.values)


def test_fetches_the_same(same: Session, reductions: Reductions) -> None:
    host = HostActivations(values()[:-FILLED])
    device = DeviceActivations(held(same), len(values()) - FILLED, reductions)
    images, units = np.array([0, 5, 3, 3]), np.array([4, 0, 2, 1])
    np.testing.assert_array_equal(list(device.maps(images, units)), list(host.maps(images, units)))
    np.testing.assert_allclose(device.sums(images, units), host.sums(images, units), rtol=1e-6)
    some = np.array([1, 3])
    np.testing.assert_array_equal(device.lowest(some), host.lowest(some))


def test_a_run_is_the_same_wherever_activations_are_searched(
    subject_path: Path, bundle_path: Path
) -> None:
    runs = [
        milan_onnx.describe(
            subject_path,
            ["relu1", "relu6"],
            bundle=bundle_path,
            options=milan_onnx.DescribeOptions(synthetic=90, reduce=where, tail_memory=memory),
        )
        for where in ("host", "device")
        for memory in (512 << 20, 0)
    ]
    for host, device in zip(runs[:2], runs[2:], strict=True):
        assert device.labels == host.labels
        for one, other in zip(host.layers, device.layers, strict=True):
            assert one.maps.tobytes() == other.maps.tobytes()
            assert one.thresholds.tobytes() == other.thresholds.tobytes()


def test_an_unknown_place_is_refused(milan: Command, subject_path: Path) -> None:
    done = milan("describe", subject_path, "--reduce", "moon")
    assert done.returncode == 2
    assert "auto" in done.stderr
