"""Labels as files of other programs: csv for spreadsheets, parquet for data frames.

The jsonl of a run is the record; these are made of it and hold the same rounded numbers. Csv leaves
out candidates and exemplars, parquet has every key of docs/label.schema.json as a typed column.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from milan_onnx.errors import ExtraMissing, UsageError
from milan_onnx.files import write_bytes
from milan_onnx.labels.record import (
    SCHEMA_VERSION,
    UnitLabel,
    in_order,
    values,
    write_csv,
    write_jsonl,
)

FORMATS = ("csv", "jsonl", "parquet")


def check_formats(formats: Iterable[str]) -> None:
    """Raise UsageError for an unknown format, ExtraMissing where its package is not installed."""
    for name in formats:
        if name not in FORMATS:
            raise UsageError(f"labels have no format {name}", hint=f"use {', '.join(FORMATS)}")
        if name == "parquet":
            _pyarrow("pyarrow")


def write_labels(
    path: Path, labels: Iterable[UnitLabel], layers: Sequence[str], format_name: str
) -> None:
    """Write labels in one of `FORMATS`, in the order of `in_order`; atomically.

    Raises as `check_formats` does, and OutputUnwritable.
    """
    check_formats([format_name])
    if format_name == "parquet":
        write_bytes(path, _parquet(in_order(labels, layers)))
    else:
        writer = write_csv if format_name == "csv" else write_jsonl
        writer(path, labels, layers)


def _parquet(labels: Sequence[UnitLabel]) -> bytes:
    arrow, parquet = _pyarrow("pyarrow"), _pyarrow("pyarrow.parquet")
    rows = [whole_text(values(label)) for label in labels]
    buffer = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(rows, schema=_schema(arrow)), buffer)
    return buffer.getvalue()


def _schema(arrow: Any) -> Any:
    text, number, whole = arrow.string(), arrow.float64(), arrow.int64()
    names = ("confidence", "pmi", "log_p_given_exemplars", "log_p")
    scores = [(name, number) for name in names]
    candidate = arrow.struct([("description", text), *scores])
    exemplar = arrow.struct([("image", whole), ("name", text), ("activation", number)])
    figures = ("correlation", "auprc", "shuffled_correlation", "shuffled_auprc")
    validity = arrow.struct([*((name, number) for name in figures), ("images", whole)])
    return arrow.schema(
        [
            ("model", text),
            ("layer", text),
            ("unit", whole),
            ("description", text),
            *scores,
            ("threshold", number),
            ("flags", arrow.list_(text)),
            ("validity", validity),
            ("candidates", arrow.list_(candidate)),
            ("exemplars", arrow.list_(exemplar)),
        ],
        metadata={"milan_onnx.schema_version": str(SCHEMA_VERSION)},
    )


def whole_text(value: Any) -> Any:
    """The same with every text as UTF-8 can hold it: names on a disk may not be."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {key: whole_text(inner) for key, inner in value.items()}
    return [whole_text(inner) for inner in value] if isinstance(value, list) else value


def _pyarrow(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ExtraMissing(
            "parquet needs pyarrow, which is not installed",
            hint="pip install 'milan-onnx[cpu,parquet]'",
        ) from error
