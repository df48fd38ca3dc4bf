"""An audit as JUnit XML: a test case a rule, so that a CI server shows rules as it shows tests."""

from __future__ import annotations

from xml.etree import ElementTree

from milan_onnx.applications.audit.result import Audit, Verdict, surest_first
from milan_onnx.applications.audit.wording import hit_text, outcome_text
from milan_onnx.progress import printable

SUITE = "milan-onnx audit"


def junit(audit: Audit) -> bytes:
    """The XML, UTF-8. Equal audits give equal bytes: it holds no times."""
    counts = {
        "name": SUITE,
        "tests": str(len(audit.verdicts)),
        "failures": str(len(audit.broken)),
        "errors": "0",
    }
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", counts | {"skipped": "0"})
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _facts(audit).items():
        ElementTree.SubElement(properties, "property", name=name, value=_plain(value))
    for verdict in audit.verdicts:
        _case(suite, verdict, audit)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _facts(audit: Audit) -> dict[str, str]:
    return {
        "model": audit.model["name"],
        "model sha256": audit.model["sha256"],
        "policy": audit.policy["source"],
        "policy sha256": audit.policy["sha256"],
    }


def _case(suite: ElementTree.Element, verdict: Verdict, audit: Audit) -> None:
    rule = verdict.rule
    case = ElementTree.SubElement(
        suite, "testcase", name=_plain(rule.name), classname=_plain(audit.model["name"])
    )
    if verdict in audit.broken:
        failure = ElementTree.SubElement(
            case, "failure", message=_plain(outcome_text(verdict)), type=rule.severity
        )
        failure.text = _lines(verdict)
    else:
        level = f"{rule.severity}: " if verdict.broken else ""
        out = ElementTree.SubElement(case, "system-out")
        out.text = "\n".join([level + _plain(outcome_text(verdict)), _lines(verdict)]).strip()


def _lines(verdict: Verdict) -> str:
    return "\n".join(_plain(hit_text(hit)) for hit in surest_first(verdict.hits))


def _plain(text: str) -> str:
    """Text that XML may hold: no control characters, no lone surrogates."""
    return printable(text).encode("utf-8", "backslashreplace").decode("utf-8")
