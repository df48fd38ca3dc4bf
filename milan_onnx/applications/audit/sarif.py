"""An audit as SARIF 2.1.0, the format of code scanning: a result for each unit of a broken rule.

A unit is a place in a network, which is a logical location; for viewers that only show files its
physical location is its line in the run's labels.jsonl.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from milan_onnx import __version__
from milan_onnx.applications.audit.result import Audit, Hit, Verdict
from milan_onnx.applications.audit.wording import evidence_text, hit_text, limits_text, outcome_text
from milan_onnx.errors import GateNotMet
from milan_onnx.files import sha256_bytes
from milan_onnx.labels.record import rounded_score
from milan_onnx.run import LABELS

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)


def sarif(audit: Audit) -> dict[str, Any]:
    """The log, as JSON values. Equal audits give equal logs: it holds no times."""
    results = [
        result for place, verdict in enumerate(audit.verdicts) if verdict.broken
        for result in _results(audit, verdict, place)
    ]  # fmt: skip
    driver = {
        "name": "milan-onnx",
        "semanticVersion": __version__,
        "rules": [_rule(verdict) for verdict in audit.verdicts],
    }
    invocation = {
        "executionSuccessful": True,
        "exitCode": GateNotMet.exit_code if audit.broken else 0,
    }
    run = {
        "tool": {"driver": driver},
        "invocations": [invocation],
        "columnKind": "unicodeCodePoints",
        "properties": {
            "model": dict(audit.model),
            "policy": dict(audit.policy),
            "notes": list(audit.notes),
        },
        "results": results,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(verdict: Verdict) -> dict[str, Any]:
    rule = verdict.rule
    about = f"units of {', '.join(rule.groups)}: " if rule.groups else ""
    return {
        "id": rule.name,
        "shortDescription": {"text": rule.name},
        "fullDescription": {"text": about + limits_text(verdict)},
        "defaultConfiguration": {"level": rule.severity},
    }


def _results(audit: Audit, verdict: Verdict, place: int) -> list[dict[str, Any]]:
    """A result a hit; one for the network as a whole where no unit can be named."""
    common = {"ruleId": verdict.rule.name, "ruleIndex": place, "level": verdict.rule.severity}
    if not verdict.hits:
        location = {"logicalLocations": [_network(audit)]}
        message = {"text": f"{verdict.rule.name}: {outcome_text(verdict)}"}
        return [{**common, "message": message, "locations": [location]}]
    return [_result(audit, verdict, hit, common) for hit in verdict.hits]


def _result(audit: Audit, verdict: Verdict, hit: Hit, common: dict[str, Any]) -> dict[str, Any]:
    name = f"{audit.model['name']}/{hit.layer}/{hit.unit}"
    unit = {"name": str(hit.unit), "fullyQualifiedName": name, "kind": "unit"}
    layer = {
        "name": hit.layer,
        "fullyQualifiedName": f"{audit.model['name']}/{hit.layer}",
        "kind": "layer",
    }
    file = {"uri": _uri(Path(audit.folder) / LABELS)}
    physical = {"artifactLocation": file, "region": {"startLine": hit.line}}
    told = f"{verdict.rule.name}: {hit_text(hit)} ({outcome_text(verdict)})"
    key = "\n".join((audit.model["sha256"], verdict.rule.name, hit.layer, str(hit.unit)))
    return {
        **common,
        "message": {"text": told},
        "locations": [
            {"physicalLocation": physical, "logicalLocations": [unit, layer, _network(audit)]}
        ],
        "partialFingerprints": {"milanUnit/v1": sha256_bytes(key.encode("utf-8", "replace"))},
        "properties": {
            "confidence": rounded_score(hit.confidence),
            "description": hit.description,
            "evidence": [evidence_text(evidence) for evidence in hit.evidence],
            "importance": hit.importance,
            "report": hit.link,
            "validity": hit.validity,
        },
    }


def _network(audit: Audit) -> dict[str, str]:
    return {
        "name": audit.model["name"],
        "fullyQualifiedName": audit.model["name"],
        "kind": "network",
    }


def _uri(path: Path) -> str:
    """A path as a URI: relative as it was given, else a file's."""
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
