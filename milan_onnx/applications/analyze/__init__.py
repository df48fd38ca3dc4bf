"""What kinds of thing the units of a network respond to, taken from the descriptions of runs.

docs/analyze.md has the definitions.
"""

from __future__ import annotations

from milan_onnx.applications.analyze.criteria import criteria
from milan_onnx.applications.analyze.page import Section, write_page
from milan_onnx.applications.analyze.result import Analysis
from milan_onnx.applications.analyze.runs import AnalyzeOptions, analyze_runs
from milan_onnx.applications.analyze.tables import write_tables

__all__ = [
    "Analysis",
    "AnalyzeOptions",
    "Section",
    "analyze_runs",
    "criteria",
    "write_page",
    "write_tables",
]
