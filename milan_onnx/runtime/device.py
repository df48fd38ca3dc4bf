"""Where inference runs: which ONNX Runtime is installed, which device, how many threads.

Both ONNX Runtime wheels unpack into one Python module, so exactly one may be installed; and asked
for a provider that it lacks, ONNX Runtime warns and runs on the CPU. Here both are errors.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import math
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from milan_onnx.choice import Choice
from milan_onnx.errors import DeviceUnavailable, RuntimeConflict, UsageError
from milan_onnx.machine import processors, send_nothing

DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-training",
)
CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"


@dataclass(frozen=True)
class Device:
    """An execution provider and its number."""

    name: str
    """``cpu`` or ``cuda``."""

    index: int = 0
    """Which of several GPUs."""

    def __str__(self) -> str:
        return self.name if self.name == "cpu" else f"{self.name}:{self.index}"

    @property
    def provider(self) -> str:
        """ONNX Runtime's name for it."""
        return CPU_PROVIDER if self.name == "cpu" else CUDA_PROVIDER

    def providers(self) -> list[Any]:
        """The ``providers`` argument of a session."""
        if self.name == "cpu":
            return [CPU_PROVIDER]
        options: dict[str, Any] = {
            "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE costs seconds for each shape
            "use_tf32": 0,  # 10-bit mantissas would change exemplars from card to card
            "arena_extend_strategy": "kSameAsRequested",
        }
        if self.index:
            options["device_id"] = self.index
        return [(CUDA_PROVIDER, options), CPU_PROVIDER]


def installed_runtimes() -> dict[str, str]:
    """Name and version of every installed distribution that owns the module ``onnxruntime``."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def onnxruntime() -> ModuleType:
    """The one installed ONNX Runtime. Raises RuntimeConflict when there is none, or several."""
    found = installed_runtimes()
    if len(found) > 1:
        names = " and ".join(sorted(found))
        raise RuntimeConflict(
            f"{names} are both installed and overwrite each other's files",
            hint=f"run `pip uninstall -y {' '.join(sorted(found))}`, then install one of "
            "milan-onnx[cpu], milan-onnx[gpu], milan-onnx[gpu-cu12]",
        )
    send_nothing()
    try:
        module = importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise RuntimeConflict(
            "ONNX Runtime is not installed",
            hint='run `pip install "milan-onnx[cpu]"` (or [gpu], [gpu-cu12] for CUDA)',
        ) from error
    except ImportError as error:
        raise RuntimeConflict(
            f"the installed ONNX Runtime does not load: {error}",
            hint="install it again, for this Python and this machine",
        ) from error
    if not hasattr(module, "InferenceSession"):
        raise RuntimeConflict(
            "the installed ONNX Runtime is incomplete",
            hint="run `pip uninstall -y onnxruntime onnxruntime-gpu` and install one again",
        )
    return module


def parse_device(text: str) -> Device:
    """``cpu``, ``cuda`` or ``cuda:N``. Raises UsageError for anything else."""
    name, _, index = text.partition(":")
    if name == "cpu" and not index:
        return Device("cpu")
    if name == "cuda" and (not index or index.isdigit()):
        return Device("cuda", int(index or 0))
    raise UsageError(f"unknown device {text!r}", hint="use auto, cpu, cuda or cuda:N")


def choose_device(requested: str = "auto") -> Choice[Device]:
    """The device to run on, and why.

    Raises DeviceUnavailable when a named device cannot run, UsageError for an unknown name.
    """
    if requested != "auto":
        device = parse_device(requested)
        problem = _problem(device)
        if problem:
            raise DeviceUnavailable(
                f"device {device} is not available: {problem}",
                hint="run `milan-onnx doctor`, or use --device cpu",
            )
        return Choice(device, f"--device {requested}")
    cuda = Device("cuda")
    if CUDA_PROVIDER not in onnxruntime().get_available_providers():
        return Choice(Device("cpu"), "the installed ONNX Runtime has no CUDA")
    problem = _problem(cuda)
    if problem:
        return Choice(Device("cpu"), f"CUDA does not start: {problem}")
    return Choice(cuda, "a CUDA device is there")


def choose_threads(requested: int | None = None) -> Choice[int]:
    """Threads for one session: what the affinity mask and the cgroup's quota allow."""
    if requested is not None:
        if requested < 1:
            raise UsageError(
                f"--threads {requested} is not a number of threads", hint="use 1 or more"
            )
        return Choice(requested, f"--threads {requested}")
    allowed = processors()
    quota = _cgroup_cpus()
    if quota is not None and quota < allowed:
        return Choice(quota, f"the container may use {quota} of {allowed} processors")
    return Choice(allowed, f"this process may use {allowed} processors")


def preload_cuda() -> None:
    """Let ONNX Runtime find the CUDA libraries of installed wheels, before the first session."""
    module = onnxruntime()
    preload = getattr(module, "preload_dlls", None)
    if preload is not None:
        preload()


def _problem(device: Device) -> str:
    """Why a device cannot run, '' when it can: the proof is a session, not a list of names."""
    ort = onnxruntime()
    if device.name == "cpu":
        return ""
    if CUDA_PROVIDER not in ort.get_available_providers():
        owner = ", ".join(installed_runtimes())
        return f"the installed {owner} has no CUDA execution provider"
    preload_cuda()
    try:
        session = ort.InferenceSession(_tiny_model(), _quiet(ort), providers=device.providers())
    except Exception as error:  # ONNX Runtime's own exceptions have no common base
        return str(error).splitlines()[0]
    if session.get_providers()[0] != CUDA_PROVIDER:
        return "its libraries do not load (CUDA or cuDNN missing, or too old a driver)"
    return ""


def _quiet(ort: ModuleType) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return options


def _tiny_model() -> bytes:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "probe", [value], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _cgroup_cpus(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Whole processors of the CFS quota, which the affinity mask does not show."""
    try:
        version2 = root / "cpu.max"
        if version2.is_file():
            quota, period = version2.read_text().split()
        else:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
    except (OSError, ValueError):
        return None
    if quota in ("max", "-1"):
        return None
    return max(1, math.ceil(int(quota) / int(period)))
