"""An audit as Markdown, for the summary of a CI job."""

from __future__ import annotations

from html import escape

from milan_onnx.applications.audit.result import Audit, Verdict, surest_first
from milan_onnx.applications.audit.wording import (
    concepts_text,
    evidence_text,
    found_texts,
    limits_text,
    state,
    summary_text,
    trust_column,
)
from milan_onnx.markdown import safe, table
from milan_onnx.progress import printable

SHOWN = 50
"""Units that are listed a rule: a job's summary has a limit."""


def markdown(audit: Audit) -> str:
    """The page."""
    verdict = "broken" if audit.broken else "kept"
    lines = [
        f"## Audit of {safe(audit.model['name'])}: policy {verdict}",
        "",
        f"{safe(summary_text(audit))}. Policy {safe(audit.policy['source'])}, "
        f"model sha256 `{audit.model['sha256'][:12]}`.",
        "",
        *table(("rule", "severity", "state", "found", "allowed", "concepts"), _rules(audit)),
    ]
    for found in audit.verdicts:
        if found.broken and found.hits:
            lines += ["", *_units(found)]
    lines += [line for note in audit.notes for line in ("", f"> {safe(note)}")]
    return "\n".join(lines) + "\n"


def _rules(audit: Audit) -> list[list[str]]:
    rows = []
    for verdict in audit.verdicts:
        strong = f"**{state(verdict)}**" if verdict.broken else state(verdict)
        cells = (found_texts(verdict), limits_text(verdict), concepts_text(verdict))
        name = safe(verdict.rule.name)
        rows.append([name, verdict.rule.severity, strong, *map(safe, cells)])
    return rows


def _units(verdict: Verdict) -> list[str]:
    column, figure = trust_column(verdict.hits)
    rows = [
        [
            safe(hit.layer),
            str(hit.unit),
            safe(hit.description or "–"),
            figure(hit),
            safe("; ".join(map(evidence_text, hit.evidence))),
        ]
        for hit in surest_first(verdict.hits)[:SHOWN]
    ]
    more = len(verdict.hits) - SHOWN
    name = escape(printable(verdict.rule.name))
    title = f"<details><summary>{name}: {len(verdict.hits)} units</summary>"
    listed = table(("layer", "unit", "label", column, "because"), rows)
    rest = ["", f"and {more} more"] if more > 0 else []
    return [title, "", *listed, *rest, "", "</details>"]
