"""The label record, its files, and the HTML report."""

from milan_onnx.labels.confidence import ABSTAIN_BELOW, abstains, has_confidence, percent_text
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
from milan_onnx.labels.summary import (
    LayerSummary,
    LayerValidity,
    abstained_share,
    confidence_text,
    summarize,
    validity_text,
)
from milan_onnx.labels.tables import FORMATS, check_formats, write_labels

__all__ = [
    "ABSTAIN_BELOW",
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
    "abstained_share",
    "abstains",
    "check_formats",
    "confidence_text",
    "default_budget",
    "from_json",
    "has_confidence",
    "in_order",
    "percent_text",
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
