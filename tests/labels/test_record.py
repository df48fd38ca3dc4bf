"""The label record: round trips, canonical bytes, damaged lines, the published schema."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_onnx.errors import RunError
from milan_onnx.labels import (
    FLAGS,
    Candidate,
    Exemplar,
    UnitLabel,
    Validity,
    from_json,
    in_order,
    read_jsonl,
    to_json,
    write_csv,
    write_jsonl,
)
from tests.labels.samples import MODEL, dead_label, sample_label

SCHEMA = Path(__file__).parents[2] / "docs" / "label.schema.json"

numbers = st.floats(allow_nan=True, allow_infinity=True)
indices = st.integers(0, 2**40)
confidences = st.none() | st.floats(0, 1)
candidates = st.builds(Candidate, st.text(), numbers, numbers, numbers, confidences)
# Undecodable file names reach Python as lone surrogates.
names = st.text(st.characters(exclude_categories=()))
exemplars = st.builds(Exemplar, indices, names, numbers)
figures = st.none() | numbers
validities = st.builds(Validity, figures, figures, figures, figures, indices)
labels = st.builds(
    UnitLabel,
    model=st.just(MODEL),
    layer=st.text(min_size=1),
    unit=indices,
    description=st.none() | st.text(),
    pmi=st.none() | numbers,
    log_p_given_exemplars=st.none() | numbers,
    log_p=st.none() | numbers,
    candidates=st.lists(candidates, max_size=3).map(tuple),
    exemplars=st.lists(exemplars, max_size=3).map(tuple),
    threshold=numbers,
    flags=st.sets(st.sampled_from(FLAGS)).map(lambda flags: tuple(sorted(flags))),
    validity=st.none() | validities,
    confidence=confidences,
)


@given(labels)
@settings(max_examples=100, deadline=None)
def test_a_line_reads_back_to_the_same_line(label: UnitLabel) -> None:
    line = to_json(label)
    read = from_json(line)
    assert to_json(read) == line
    assert (read.layer, read.unit, read.description) == (label.layer, label.unit, label.description)
    assert [e.name for e in read.exemplars] == [e.name for e in label.exemplars]


@given(labels)
@settings(max_examples=200, deadline=None)
def test_a_line_is_one_ascii_line_without_negative_zero(label: UnitLabel) -> None:
    line = to_json(label)
    assert line.isascii()
    assert len(line.splitlines()) == 1

    def check(text: str) -> float:
        value = float(text)
        assert math.isfinite(value)
        assert value != 0 or math.copysign(1, value) == 1
        return value

    json.loads(line, parse_float=check)


@given(labels)
@settings(max_examples=100, deadline=None)
def test_lines_obey_the_published_schema(label: UnitLabel) -> None:
    schema = json.loads(SCHEMA.read_text())
    assert violations(json.loads(to_json(label)), schema, schema) == []


def test_the_schema_refuses_what_is_not_a_label() -> None:
    schema = json.loads(SCHEMA.read_text())
    good = json.loads(to_json(sample_label(0, images=(1, 2))))
    for key in good:
        bad = {k: v for k, v in good.items() if k != key}
        assert violations(bad, schema, schema)
    assert violations(good | {"unit": "1"}, schema, schema)
    assert violations(good | {"flags": ["odd"]}, schema, schema)
    assert violations(good | {"confidence": 1.2}, schema, schema)


def test_the_schema_describes_every_key_of_a_line() -> None:
    schema = json.loads(SCHEMA.read_text())
    tested = replace(sample_label(0, images=(1,)), validity=Validity(0.5, 0.4, 0.1, 0.2, 36))
    line = json.loads(to_json(tested))
    assert set(schema["properties"]) == set(schema["required"]) == set(line)
    for name, value in (
        ("candidate", line["candidates"][0]),
        ("exemplar", line["exemplars"][0]),
        ("validity", line["validity"]),
    ):
        part = schema["$defs"][name]
        assert set(part["properties"]) == set(part["required"]) == set(value)
    assert all("description" in p for p in schema["properties"].values())


def test_numbers_are_rounded_as_documented() -> None:
    label = replace(
        sample_label(3),
        pmi=-0.00001,
        log_p=float("nan"),
        threshold=np.float32(1234567.0),
        exemplars=(Exemplar(0, "a", 0.123456789), Exemplar(1, "b", math.inf)),
    )
    value = json.loads(to_json(label))
    assert (value["pmi"], value["log_p"], value["threshold"]) == (0.0, None, 1234570.0)
    assert [e["activation"] for e in value["exemplars"]] == [0.123457, None]
    assert '"pmi":0.0' in to_json(label)


def test_validity_reads_back_and_lines_of_before_have_none() -> None:
    tested = replace(sample_label(0), validity=Validity(0.123456, None, -0.00001, 1.0, 36))
    line = to_json(tested)
    assert from_json(line).validity == Validity(0.1235, None, 0.0, 1.0, 36)
    before = {k: v for k, v in json.loads(line).items() if k != "validity"}
    assert from_json(json.dumps(before)).validity is None
    with pytest.raises(RunError, match="auprc is not a number"):
        from_json(line.replace('"auprc":null', '"auprc":"x"'))
    with pytest.raises(RunError, match="is not a label"):
        from_json(json.dumps(before | {"validity": 3}))


def test_equal_labels_give_equal_bytes_whatever_their_number_types() -> None:
    label = sample_label(7, images=(4,))
    other = replace(label, unit=np.int64(7), threshold=np.float32(2.5))
    assert to_json(label) == to_json(other)


def test_files_are_sorted_by_the_given_layers_and_the_unit(tmp_path: Path) -> None:
    unsorted = [
        sample_label(2, "a"),
        sample_label(1, "b"),
        sample_label(0, "a"),
        dead_label(0, "c"),
    ]
    path = tmp_path / "labels.jsonl"
    write_jsonl(path, unsorted, ("b", "a"))
    read = read_jsonl(path)
    assert [(r.layer, r.unit) for r in read] == [("b", 1), ("a", 0), ("a", 2), ("c", 0)]
    assert read == in_order(unsorted, ("b", "a"))
    first = path.read_bytes()
    write_jsonl(path, read)
    assert path.read_bytes() == first


def test_an_empty_file_has_no_labels(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "labels.jsonl", [])
    assert read_jsonl(tmp_path / "labels.jsonl") == []


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda line: line[:40], "is not JSON"),
        (lambda line: "[]", "is not a JSON object"),
        (lambda line: "[" * 100_000, "is not JSON"),
        (lambda line: "", "is not JSON"),
        (lambda line: line.replace('"unit":1', '"unit":-1'), "unit is not an index"),
        (lambda line: line.replace('"unit":1', '"unot":1'), "has no unit"),
        (lambda line: line.replace('"schema_version":1', '"schema_version":0'), "version 0"),
        (lambda line: line.replace('"threshold":2.5', '"threshold":"x"'), "threshold is not"),
        (lambda line: line.replace('"flags":[]', '"flags":{}'), "flags is not a list"),
        (lambda line: line.replace('"candidates":[', '"candidates":[3,'), "is not a label"),
        (lambda line: line.replace('"unit":1', '"unit":0'), "the same unit as line 1"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, damage: Any, says: str) -> None:
    path = tmp_path / "labels.jsonl"
    lines = [to_json(sample_label(0)), damage(to_json(sample_label(1))), to_json(sample_label(2))]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match="line 2") as caught:
        read_jsonl(path)
    assert says in str(caught.value)


def test_a_newer_schema_says_to_upgrade() -> None:
    line = to_json(sample_label(0)).replace('"schema_version":1', '"schema_version":2')
    with pytest.raises(RunError, match="upgrade"):
        from_json(line, number=9)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_bytes(to_json(sample_label(0)).encode() + b"\n\xff\xfe\n")
    with pytest.raises(RunError, match="line 2 is not UTF-8"):
        read_jsonl(path)
    with pytest.raises(RunError, match="cannot read"):
        read_jsonl(tmp_path / "none.jsonl")


def without_confidence(value: dict[str, Any]) -> dict[str, Any]:
    return {key: inner for key, inner in value.items() if key != "confidence"}


def test_lines_of_versions_without_confidence_are_read() -> None:
    value = json.loads(to_json(sample_label(0)))
    older = without_confidence(value)
    older["candidates"] = [without_confidence(one) for one in value["candidates"]]
    assert from_json(json.dumps(older)) == sample_label(0)


@pytest.mark.parametrize("bad", [-0.1, 1.5, "0.5", float("nan")])
def test_a_confidence_that_is_no_probability_is_damage(bad: object) -> None:
    value = json.loads(to_json(sample_label(0)))
    with pytest.raises(RunError, match="its confidence is not"):
        from_json(json.dumps(value | {"confidence": bad}))


def test_unknown_keys_are_ignored() -> None:
    value = json.loads(to_json(sample_label(0))) | {"later": 1, "flags": ["odd"]}
    assert from_json(json.dumps(value)).flags == ("odd",)


def test_the_table_has_a_row_a_unit_and_no_formulas(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    formula = replace(sample_label(1), description='=HYPERLINK("x"), "quoted"')
    tested = replace(
        sample_label(0), validity=Validity(0.5, 0.4, 0.1, 0.2, 36), confidence=0.712345
    )
    write_csv(path, [dead_label(2), formula, tested])
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["unit"] for row in rows] == ["0", "1", "2"]
    assert (rows[0]["confidence"], rows[0]["pmi"]) == ("0.7123", "-1.5")
    assert rows[1]["confidence"] == ""
    assert (rows[0]["correlation"], rows[0]["shuffled_auprc"]) == ("0.5", "0.2")
    assert (rows[1]["correlation"], rows[1]["shuffled_auprc"]) == ("", "")
    assert rows[1]["description"].startswith("'=HYPERLINK")
    assert (rows[2]["description"], rows[2]["pmi"], rows[2]["flags"]) == ("", "", "dead")


TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


def violations(value: Any, schema: Any, root: Any, where: str = "$") -> list[str]:
    """What a value breaks of the few JSON Schema keywords that our schema uses."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    found = []
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not isinstance(value, tuple(t for kind in kinds for t in TYPES[kind])):
        return [f"{where}: {value!r} is not {kinds}"]
    if "const" in schema and value != schema["const"]:
        found.append(f"{where}: not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where}: not one of {schema['enum']}")
    if isinstance(value, int | float):  # limits are of numbers only
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        found += [] if low <= value <= high else [f"{where}: out of range"]
    if schema.get("uniqueItems") and len(set(value)) != len(value):
        found.append(f"{where}: repeats")
    if isinstance(value, dict):
        found += [f"{where}: no {key}" for key in schema.get("required", ()) if key not in value]
        for key, part in schema.get("properties", {}).items():
            if key in value:
                found += violations(value[key], part, root, f"{where}.{key}")
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            found += violations(item, schema["items"], root, f"{where}[{number}]")
    return found
