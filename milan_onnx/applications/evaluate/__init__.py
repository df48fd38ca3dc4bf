"""Judging a bundle, or the labels of a run, against what is known of the units.

docs/evaluate.md has the definitions.
"""

from __future__ import annotations

from milan_onnx.applications.evaluate.bundles import VirtualOptions, evaluate_virtual
from milan_onnx.applications.evaluate.result import Evaluation

__all__ = ["Evaluation", "VirtualOptions", "evaluate_virtual"]
