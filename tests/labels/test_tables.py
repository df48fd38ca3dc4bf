"""Labels as csv and parquet."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from milan_onnx.errors import ExtraMissing, UsageError
from milan_onnx.labels import Exemplar, UnitLabel, Validity, check_formats, to_json, write_labels
from tests.conftest import Command
from tests.labels.samples import dead_label, sample_label


def labels() -> list[UnitLabel]:
    tested = replace(
        sample_label(0, images=(7, 3)),
        validity=Validity(0.51234567, None, -0.1, 0.25, 36),
        flags=("abstained", "sparse"),
        confidence=0.12345,
    )
    return [sample_label(1, images=(5,)), dead_label(2), tested]


def test_parquet_holds_every_key_of_the_record(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "labels.parquet"
    write_labels(path, labels(), [], "parquet")
    table = parquet.read_table(path)
    assert table.schema.metadata[b"milan_onnx.schema_version"] == b"1"
    assert str(table.schema.field("candidates").type).startswith("list<")
    rows = table.to_pylist()
    assert [row["unit"] for row in rows] == [0, 1, 2]
    for row, label in zip(rows, sorted(labels(), key=lambda label: label.unit), strict=True):
        assert row | {"schema_version": 1} == json.loads(to_json(label))


def test_parquet_is_the_same_bytes_again(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for name in ("one", "two"):
        write_labels(tmp_path / name, labels(), [], "parquet")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_names_that_are_no_text_are_written(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    odd = replace(sample_label(0), exemplars=(Exemplar(0, "a\udcff.png", 1.0),))
    write_labels(tmp_path / "x", [odd], [], "parquet")
    (row,) = parquet.read_table(tmp_path / "x").to_pylist()
    assert row["exemplars"][0]["name"] == "a\\udcff.png"


def test_without_pyarrow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExtraMissing, match=r"pyarrow.*milan-onnx\[cpu,parquet\]"):
        check_formats(["parquet"])
    check_formats(["csv", "jsonl"])
    with pytest.raises(UsageError, match="no format xml"):
        check_formats(["xml"])


def test_a_run_is_written_in_all_formats(
    milan: Command, subject_path: Path, bundle_path: Path, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    line = ("describe", subject_path, "-l", "relu1", "--bundle", bundle_path, "--synthetic", 20)
    line = (*line, "--no-report", "--format", "csv", "--format", "parquet", "-o", "run")
    done = milan(*line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    assert len((run / "labels.csv").read_text().splitlines()) == 9
    assert parquet.read_table(run / "labels.parquet").num_rows == 8
    for name in ("csv", "jsonl", "parquet"):
        again = milan("labels", run, "-f", name, "-o", tmp_path / f"x.{name}")
        assert again.stdout.strip() == str(tmp_path / f"x.{name}")
        assert (tmp_path / f"x.{name}").read_bytes() == (run / f"labels.{name}").read_bytes()
    assert milan("labels", run, "-f", "xml").returncode == 2
    none = milan("labels", tmp_path / "none")
    assert (none.returncode, "is not a run" in none.stderr) == (5, True)
