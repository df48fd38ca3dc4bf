"""Confidence from the search to what people see: who abstains, and what is shown first."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import milan_onnx
from milan_onnx.applications.analyze import criteria
from milan_onnx.applications.audit import audit_run
from milan_onnx.applications.audit.junit import junit
from milan_onnx.applications.audit.markdown import markdown as audit_markdown
from milan_onnx.applications.audit.sarif import sarif
from milan_onnx.applications.diff import DiffOptions, diff_runs
from milan_onnx.applications.diff.tables import confidence_text, layer_sentence, most_telling
from milan_onnx.bundle import Calibration
from milan_onnx.cli.table import LabelTable
from milan_onnx.describing import DescribeOptions
from milan_onnx.errors import UsageError
from milan_onnx.labels import (
    ABSTAIN_BELOW,
    UnitLabel,
    abstains,
    percent_text,
    summarize,
    validity_text,
)
from milan_onnx.labels import (
    confidence_text as layer_confidence_text,
)
from milan_onnx.metadata import labels_from_metadata, write_labelled
from milan_onnx.progress import Quiet, Silent
from milan_onnx.reporting import run_markdown
from milan_onnx.run import Run, load_run, save_run
from milan_onnx.subject import load
from tests.confident import confidence_of, confident_run
from tests.conftest import Command
from tests.labels.samples import dead_label, sample_label
from tests.toy import toy_bundle

TESTED = DescribeOptions(synthetic=130, exemplars=5, validity=True, beam_size=4)
UNTESTED = replace(TESTED, synthetic=60, validity=False)
USAGE = 2


class Heard(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)

    def choice(self, what: str, choice: object) -> None:
        self.told.append(f"{what}: {choice}")


@pytest.fixture(scope="module")
def heard() -> Heard:
    return Heard()


@pytest.fixture(scope="module")
def tested(subject_path: Path, bundle_path: Path, heard: Heard) -> Run:
    """A run with confidences and validity."""
    return confident_run(subject_path, bundle_path, TESTED, heard)


def abstained(run: Run) -> list[int]:
    return [label.unit for label in run.labels if "abstained" in label.flags]


# --- who abstains -----------------------------------------------------------------------------


def test_a_label_abstains_by_its_confidence_and_not_by_its_validity(tested: Run) -> None:
    assert [label.confidence for label in tested.labels] == list(map(confidence_of, range(12)))
    assert abstained(tested) == [u for u in range(12) if confidence_of(u) < ABSTAIN_BELOW]
    # Toy labels are no better than others': by the other rule more would abstain.
    own = [label.validity.correlation for label in tested.labels if label.validity]
    assert len(own) == 12 and sum((value or 0) <= 0 for value in own) > len(abstained(tested))
    assert tested.manifest["abstaining"] == {"rule": "confidence", "below": ABSTAIN_BELOW}
    (layer,) = tested.manifest["layers"]
    assert layer["abstained"] == 0.25
    assert layer["confidence"] == pytest.approx(
        np.mean([confidence_of(u) for u in range(12)]), abs=1e-4
    )
    assert layer["validity"] is not None


@pytest.mark.parametrize("limit", [0.0, 0.5, 1.0])
def test_the_limit_can_be_set(subject_path: Path, bundle_path: Path, limit: float) -> None:
    run = confident_run(subject_path, bundle_path, replace(UNTESTED, abstain_below=limit))
    assert abstained(run) == [u for u in range(12) if confidence_of(u) < limit]
    assert run.manifest["abstaining"] == {"rule": "confidence", "below": limit}


def test_without_confidences_validity_decides_where_it_was_measured(
    subject_path: Path, bundle_path: Path
) -> None:
    rules = []
    for options in (TESTED, UNTESTED):
        run = milan_onnx.describe(subject_path, "relu6", bundle=bundle_path, options=options)
        assert {label.confidence for label in run.labels} == {None}
        rules.append((run.manifest["abstaining"], bool(abstained(run))))
    assert rules == [({"rule": "validity", "level": 0.2}, True), (None, False)]


def test_what_is_written_decides_not_what_was_computed() -> None:
    assert not abstains(0.24999, 0.25)  # written 0.25
    assert abstains(0.2499, 0.25)


def test_candidates_have_confidences_of_their_own(tested: Run) -> None:
    for label in tested.labels:
        halves = [confidence_of(label.unit) / (1 + rank) for rank in range(len(label.candidates))]
        assert [c.confidence for c in label.candidates] == halves


# --- the option -------------------------------------------------------------------------------


def test_the_limit_is_said_with_its_reason_and_recorded(
    milan: Command, subject_path: Path, tmp_path: Path
) -> None:
    bundle = toy_bundle(tmp_path / "bundle", calibration=Calibration({"pmi": 0.5}, 0.5)).path
    line = ("describe", subject_path, "-l", "relu6", "--bundle", bundle, "--synthetic", 20)
    line = (*line, "--no-report", "-o", tmp_path / "run")
    done = milan(*line)
    assert "abstain: labels below a confidence of 25 % (fewer than one in four" in done.stderr
    done = milan(*line, "--overwrite", "--abstain-below", 0.4)
    assert done.returncode == 0, done.stderr
    assert "abstain: labels below a confidence of 40 % (--abstain-below)" in done.stderr
    run = load_run(tmp_path / "run")
    assert run.manifest["options"]["abstain_below"] == 0.4
    assert run.manifest["abstaining"] == {"rule": "confidence", "below": 0.4}
    odd = milan(*line, "--overwrite", "--abstain-below", 40)
    assert (odd.returncode, odd.stderr.count("--abstain-below")) == (USAGE, 1)


NEEDY = Calibration({"agreement": 2.0}, 0.0)


@pytest.mark.parametrize(
    ("calibration", "options", "rule"),
    [
        (None, {}, "no label (the bundle has no calibration)"),
        (None, {"validity": True}, "labels no better on held-out photos"),
        (None, {"abstain_below": 0.4}, "calibration: --abstain-below changes nothing)"),
        (NEEDY, {"strategy": "consensus"}, "labels below a confidence of 25 %"),
        (NEEDY, {"strategy": "rerank"}, "no label (the bundle's calibration needs the search"),
        (Calibration({"coherence": 2.0}, 0.0), {"exemplars": 1}, "needs two exemplars a unit"),
    ],
)
def test_the_rule_is_said_that_will_run(
    subject_path: Path,
    tmp_path: Path,
    calibration: Calibration | None,
    options: dict[str, Any],
    rule: str,
) -> None:
    bundle = toy_bundle(tmp_path, vectors=4, calibration=calibration).path
    heard, wanted = Heard(), DescribeOptions(synthetic=60, **options)
    run = milan_onnx.describe(subject_path, "relu6", bundle=bundle, options=wanted, reporter=heard)
    (told,) = [text for text in heard.told if text.startswith("abstain: ")]
    assert rule in told
    ran = run.manifest["abstaining"]
    assert (ran and ran["rule"]) == (
        "confidence" if "below a confidence" in rule else "validity" if "held-out" in rule else None
    )


def test_the_help_says_the_default_that_holds(milan: Command) -> None:
    told = " ".join(milan("describe", "--help").stdout.split())
    assert f"abstains; by default {ABSTAIN_BELOW}." in told


@pytest.mark.parametrize("limit", [-0.1, 1.1, float("nan")])
def test_a_limit_that_is_no_probability_is_refused(limit: float) -> None:
    with pytest.raises(UsageError, match="--abstain-below"):
        DescribeOptions(abstain_below=limit).check()


# --- what is shown first ----------------------------------------------------------------------


@given(st.floats(0, 1))
def test_a_percentage_is_whole_and_never_more_than_the_confidence(value: float) -> None:
    text = percent_text(value)
    shown = int(text.removesuffix(" %"))
    assert -1e-9 <= round(value, 4) - shown / 100 < 0.01
    assert (text == "100 %") == (round(value, 4) == 1)
    assert percent_text(None) == "–"


def table(capsys: pytest.CaptureFixture[str], labels: list[UnitLabel]) -> list[list[str]]:
    with LabelTable(Quiet()) as printed:
        for label in labels:
            printed(label)
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_the_table_shows_confidence_where_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    sure = replace(sample_label(1), confidence=0.7394)
    rows = table(capsys, [dead_label(0), sure, dead_label(2)])
    assert rows[0] == ["layer", "unit", "confidence", "validity", "description", "flags"]
    assert [row[2] for row in rows[1:]] == ["", "73 %", ""]
    rows = table(capsys, [dead_label(0), sample_label(1)])
    assert [row[2] for row in rows] == ["pmi", "", "-1.50"]
    rows = table(capsys, [dead_label(0)])
    assert [row[1] for row in rows] == ["unit", "0"]


def test_units_that_wait_for_a_description_keep_their_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed = LabelTable(Quiet())
    printed(dead_label(0))
    assert capsys.readouterr().out == ""
    printed(sample_label(1))
    assert [row.split("\t")[1] for row in capsys.readouterr().out.splitlines()] == [
        "unit",
        "0",
        "1",
    ]


def test_the_summaries_of_a_run_show_it(tested: Run, heard: Heard) -> None:
    found = summarize(tested.layers[0].layer, tested.labels)
    assert layer_confidence_text(found) == "45 % on average, 25 % abstained"
    assert "abstained" not in validity_text(found)
    (told,) = [text for text in heard.told if text.startswith("confidence of ")]
    assert "45 % on average, 25 % abstained, " in told
    assert any(text.startswith("validity of ") for text in heard.told)
    page = run_markdown(tested)
    assert "| distinct | confidence | validity |" in page and "| 45 % on average," in page
    assert "Abstains: a label below a confidence of 25 %" in page
    older = {k: v for k, v in tested.manifest.items() if k != "abstaining"}
    bare = [replace(label, confidence=None) for label in tested.labels]
    before = run_markdown(replace(tested, manifest=older, labels=tuple(bare)))
    assert "confidence" not in before and "than those of other units" in before


def test_a_labelled_model_holds_it(subject_path: Path, tested: Run, tmp_path: Path) -> None:
    write_labelled(tmp_path / "labelled.onnx", load(subject_path), tested)
    (held,) = labels_from_metadata(tmp_path / "labelled.onnx").layers.values()
    assert [unit["confidence"] for unit in held] == [round(confidence_of(u), 4) for u in range(12)]


# --- what is done with labels -----------------------------------------------------------------


def said(run: Run, text: str) -> Run:
    """The same run, all of whose units are called so."""
    return replace(run, labels=tuple(replace(label, description=text) for label in run.labels))


def test_an_audit_shows_the_surest_units_first(tested: Run, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    rule = 'name = "faces"\ngroups = ["faces"]\nlook = ["label"]\nmax_units = 0\n'
    policy.write_text(f"version = 1\n[[rule]]\n{rule}")
    found = audit_run(said(tested, "human faces"), policy)
    hits = found.to_json()["rules"][0]["hits"]
    assert [hit["unit"] for hit in hits] == list(range(12))  # files keep the run's order
    assert hits[3]["confidence"] == 0.25
    page = audit_markdown(found)
    rows = [line.split("|") for line in page.splitlines() if "human faces" in line]
    assert [int(row[2]) for row in rows] == list(range(11, -1, -1))
    assert "| confidence |" in page and "| 91 % |" in page
    first, *_ = [line for line in junit(found).decode().splitlines() if "unit " in line]
    assert "unit 11 of" in first and "(confidence 91 %)" in first
    results = sarif(found)["runs"][0]["results"]
    assert results[3]["properties"]["confidence"] == 0.25


def test_an_audit_counts_what_abstains_without_validity(
    subject_path: Path, bundle_path: Path, tmp_path: Path
) -> None:
    run = confident_run(subject_path, bundle_path, UNTESTED)
    policy = tmp_path / "policy.toml"
    policy.write_text('version = 1\n[[rule]]\nname = "sure"\nmax_abstained = 0.2\n')
    (verdict,) = audit_run(run, policy).verdicts
    assert (verdict.broken, verdict.limits[0].found) == (True, 0.25)


def test_a_diff_tells_of_sure_changes_first(tested: Run, tmp_path: Path) -> None:
    for name, text in (("a", "dogs"), ("b", "cars")):
        (tmp_path / name).mkdir()
        save_run(tmp_path / name, said(tested, text))
    found = diff_runs(tmp_path / "a", tmp_path / "b", DiffOptions(similarity=False))
    assert found.trusted.described == 9
    units = [unit for _, unit in most_telling(found)]
    assert [unit.before.unit for unit in units if unit.before][:9] == list(range(11, 2, -1))
    assert confidence_text(units[0]) == "91 %"
    lesser = replace(units[0], after=replace(units[0].after, confidence=0.5))
    assert confidence_text(lesser) == "91 % → 50 %" and lesser.confidence == 0.5
    assert "confidence 45 % → 45 %" in layer_sentence(found.layers[0])
    told = found.to_json()["layers"][0]["units"][3]["before"]
    assert told["confidence"] == 0.25


def test_units_can_be_ranked_by_it(tested: Run) -> None:
    found = criteria(tested.labels, word_difference=False)
    assert found["confidence"].tolist() == list(map(confidence_of, range(12)))
    bare = [replace(label, confidence=None) for label in tested.labels]
    assert "confidence" not in criteria(bare, word_difference=False)


def test_every_file_of_labels_has_it(milan: Command, tested: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    save_run(tmp_path / "run", tested)
    assert milan("labels", tmp_path / "run").returncode == 0
    header, *rows = (tmp_path / "run" / "labels.csv").read_text().splitlines()
    column = header.split(",").index("confidence")
    assert [float(row.split(",")[column]) for row in rows][:3] == [0.0, 0.0833, 0.1667]
    lines = (tmp_path / "run" / "labels.jsonl").read_text().splitlines()
    assert json.loads(lines[6])["confidence"] == 0.5
