"""Two runs held against one another: which units' descriptions changed.

docs/diff.md has the definitions.
"""

from __future__ import annotations

from milan_onnx.applications.diff.result import Count, LayerDiff, RunDiff
from milan_onnx.applications.diff.runs import DiffOptions, check_gates, diff_runs
from milan_onnx.applications.diff.units import UnitDiff

__all__ = [
    "Count",
    "DiffOptions",
    "LayerDiff",
    "RunDiff",
    "UnitDiff",
    "check_gates",
    "diff_runs",
]
