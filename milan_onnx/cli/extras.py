"""Commands that want an extra: imported when they run, and named when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from milan_onnx.errors import ExtraMissing

EXPORT = ("torch", "torchvision", "tokenizers", "onnxscript")
"""Packages of the extra `export` that its modules import."""
SERVE = ("fastapi", "starlette", "pydantic", "uvicorn", "prometheus_client", "python_multipart")
"""Packages of the extra `serve` that its modules import."""


def export_wing(name: str) -> ModuleType:
    """A module of ``milan_onnx.export``. Raises ExtraMissing where its packages are not there."""
    return _wing(f"milan_onnx.export.{name}", EXPORT, "cpu,export")


def serve_wing(name: str) -> ModuleType:
    """A module of ``milan_onnx.serve``. Raises ExtraMissing where its packages are not there."""
    return _wing(f"milan_onnx.serve.{name}", SERVE, "cpu,serve")


def _wing(module: str, packages: tuple[str, ...], extras: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in packages:
            raise
        raise ExtraMissing(
            f"this command needs {error.name}, which is not installed",
            hint=f"pip install 'milan-onnx[{extras}]'",
        ) from error
