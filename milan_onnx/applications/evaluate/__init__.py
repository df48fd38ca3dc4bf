"""Judging a bundle, or the labels of a run, against what is known of the units.

docs/evaluate.md has the definitions.
"""

from __future__ import annotations

from milan_onnx.applications.evaluate.again import RunOptions
from milan_onnx.applications.evaluate.bundles import VirtualOptions, evaluate_virtual
from milan_onnx.applications.evaluate.described_bundles import UnitsOptions, evaluate_units
from milan_onnx.applications.evaluate.result import Evaluation
from milan_onnx.applications.evaluate.runs import evaluate_run

__all__ = [
    "Evaluation",
    "RunOptions",
    "UnitsOptions",
    "VirtualOptions",
    "evaluate_run",
    "evaluate_units",
    "evaluate_virtual",
]
