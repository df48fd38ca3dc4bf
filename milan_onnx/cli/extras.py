"""Commands that want an extra: imported when they run, and named when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from milan_onnx.errors import ExtraMissing

EXPORT = ("torch", "torchvision", "tokenizers", "onnxscript")
"""Packages of the extra `export` that its modules import."""


def export_wing(name: str) -> ModuleType:
    """A module of ``milan_onnx.export``. Raises ExtraMissing where its packages are not there."""
    try:
        return importlib.import_module(f"milan_onnx.export.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in EXPORT:
            raise
        raise ExtraMissing(
            f"this command needs {error.name}, which is not installed",
            hint="pip install 'milan-onnx[cpu,export]'",
        ) from error
