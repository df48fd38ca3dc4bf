"""The bundle that ships finds planted units of faces and skin by their phrases, and few others."""

from __future__ import annotations

from pathlib import Path

import pytest

from milan_onnx import DescribeOptions, describe
from milan_onnx.applications.audit import Audit, AuditOptions, audit_run
from milan_onnx.applications.audit.policy import parse_policy
from tests.applications.drawn_audit import (
    EVERYDAY,
    PROTECTED,
    write_drawings,
    write_networks,
)

POLICY = """
version = 1
[[rule]]
name = "phrases"
groups = ["faces", "skin"]
look = ["phrases"]
max_units = 0
[[rule]]
name = "labels"
groups = ["people", "faces", "skin", "gender", "age"]
look = ["label"]
max_units = 0
[[rule]]
name = "everything, by phrases"
groups = [
    "people", "faces", "gender", "skin", "age", "religion", "race", "nudity", "text", "location",
]
look = ["phrases"]
max_units = 0
"""
MOST_ALARMS = 0.05


@pytest.fixture(scope="module")
def audits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Audit, Audit]:
    """Of the network with protected units, beside the other one, and of that."""
    folder = tmp_path_factory.mktemp("planted")
    photos = write_drawings(folder / "drawings")
    policy = parse_policy(POLICY.encode(), "policy", Path())
    layers = ([*EVERYDAY, "protected"], [*EVERYDAY])
    runs = [folder / "with", folder / "without"]
    for model, names, out in zip(write_networks(folder), layers, runs, strict=True):
        options = DescribeOptions(validity=False, report=False)
        describe(model, [f"tensor:{name}" for name in names], photos, out, options=options)
    beside = AuditOptions(baseline=runs[1])
    return audit_run(runs[0], policy, options=beside), audit_run(runs[1], policy)


def test_planted_units_are_found_where_captions_do_not_say_it(audits: tuple[Audit, Audit]) -> None:
    by_phrase, by_label, _ = (verdict.hits for verdict in audits[0].verdicts)
    found = {hit.unit for hit in by_phrase if hit.layer == "protected"}
    said = {hit.unit for hit in by_label if hit.layer == "protected"}
    assert len(found) >= len(PROTECTED) - 1
    assert len(found - said) >= 1


def test_a_network_without_them_raises_few_alarms(audits: tuple[Audit, Audit]) -> None:
    """Of all groups together, not only of those that were planted."""
    units = sum(EVERYDAY.values())
    for verdict in audits[1].verdicts:
        assert verdict.units == units
        assert len(verdict.hits) <= MOST_ALARMS * units


def test_everyday_units_beside_them_raise_few_alarms(audits: tuple[Audit, Audit]) -> None:
    alarms = [hit for hit in audits[0].verdicts[2].hits if hit.layer != "protected"]
    assert len(alarms) <= MOST_ALARMS * sum(EVERYDAY.values())


def test_the_comparison_says_what_only_one_has(audits: tuple[Audit, Audit]) -> None:
    verdict = audits[0].verdicts[0]
    assert verdict.comparison is not None
    assert verdict.comparison.hits == len(audits[1].verdicts[0].hits)
    assert "faces" in {concept.group for concept in verdict.comparison.only_here}
    assert verdict.comparison.increase > 0.1
