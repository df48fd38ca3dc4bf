"""The label record, its files, and the HTML report."""

from milan_onnx.labels.record import (
    FLAGS,
    SCHEMA_VERSION,
    Candidate,
    Exemplar,
    UnitLabel,
    Validity,
    from_json,
    in_order,
    read_jsonl,
    to_json,
    values,
    write_csv,
    write_jsonl,
)
from milan_onnx.labels.report import ReportRun, ReportSize, default_budget, write_report
from milan_onnx.labels.summary import LayerSummary, LayerValidity, summarize, validity_text
from milan_onnx.labels.tables import FORMATS, check_formats, write_labels

__all__ = [
    "FLAGS",
    "FORMATS",
    "SCHEMA_VERSION",
    "Candidate",
    "Exemplar",
    "LayerSummary",
    "LayerValidity",
    "ReportRun",
    "ReportSize",
    "UnitLabel",
    "Validity",
    "check_formats",
    "default_budget",
    "from_json",
    "in_order",
    "read_jsonl",
    "summarize",
    "to_json",
    "validity_text",
    "values",
    "write_csv",
    "write_jsonl",
    "write_labels",
    "write_report",
]
