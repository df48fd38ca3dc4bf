"""Devices, threads, and the one installed ONNX Runtime."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from milan_onnx.errors import DeviceUnavailable, RuntimeConflict, UsageError
from milan_onnx.runtime import device as devices
from milan_onnx.runtime import in_order


def installed(monkeypatch: pytest.MonkeyPatch, names: dict[str, str]) -> None:
    def version(name: str) -> str:
        if name in names:
            return names[name]
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_two_runtimes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"})
    with pytest.raises(RuntimeConflict, match="both installed") as caught:
        devices.onnxruntime()
    assert caught.value.exit_code == 4
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in caught.value.hint


def test_no_runtime_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, {})

    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(devices.importlib, "import_module", missing)
    with pytest.raises(RuntimeConflict, match="not installed") as caught:
        devices.onnxruntime()
    assert "milan-onnx[cpu]" in caught.value.hint


def test_unknown_devices_are_refused() -> None:
    for text in ("tpu", "cpu:1", "cuda:x", ""):
        with pytest.raises(UsageError):
            devices.choose_device(text)


def test_a_named_device_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        devices.onnxruntime(), "get_available_providers", lambda: ["CPUExecutionProvider"]
    )
    with pytest.raises(DeviceUnavailable, match="no CUDA execution provider"):
        devices.choose_device("cuda:1")
    assert str(devices.choose_device("auto").value) == "cpu"


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_cgroup_quota(tmp_path: Path, files: dict[str, str], cpus: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert devices._cgroup_cpus(tmp_path) == cpus


def test_results_come_in_order_and_errors_pass() -> None:
    def work(item: int) -> int:
        if item == 7:
            raise ValueError("seven")
        return item * item

    assert list(in_order(work, range(6), 3)) == [(i, i * i) for i in range(6)]
    with pytest.raises(ValueError, match="seven"):
        list(in_order(work, range(20), 2))
