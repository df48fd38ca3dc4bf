"""The label record, its files, and the HTML report."""

from milan_onnx.labels.record import (
    FLAGS,
    SCHEMA_VERSION,
    Candidate,
    Exemplar,
    UnitLabel,
    from_json,
    in_order,
    read_jsonl,
    to_json,
    write_csv,
    write_jsonl,
)
from milan_onnx.labels.report import ReportRun, ReportSize, default_budget, write_report
from milan_onnx.labels.summary import LayerSummary, summarize

__all__ = [
    "FLAGS",
    "SCHEMA_VERSION",
    "Candidate",
    "Exemplar",
    "LayerSummary",
    "ReportRun",
    "ReportSize",
    "UnitLabel",
    "default_budget",
    "from_json",
    "in_order",
    "read_jsonl",
    "summarize",
    "to_json",
    "write_csv",
    "write_jsonl",
    "write_report",
]
