"""Which units of a run are of a group: by label, by candidates, by the scores of phrases."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from urllib.parse import quote

from milan_onnx.applications.audit.importances import Importances
from milan_onnx.applications.audit.policy import Look, Rule
from milan_onnx.applications.audit.result import Evidence, Hit
from milan_onnx.applications.lexicon import Group, Lexicon
from milan_onnx.applications.standing import Standing
from milan_onnx.errors import BadInput
from milan_onnx.labels import UnitLabel
from milan_onnx.reporting import display_names
from milan_onnx.run import REPORT, Run

KEPT = "/-_.!~*'()"
"""What the report's links do not escape."""


class Looker:
    """Finds the units of groups in one run."""

    def __init__(
        self,
        run: Run,
        lexicon: Lexicon,
        standings: Mapping[str, Standing],
        importances: Importances | None,
    ) -> None:
        self._run = run
        self._lexicon = lexicon
        self._standings = standings
        self._importances = importances
        self._names = display_names(run)

    def hits(self, rule: Rule, layers: Collection[str]) -> tuple[Hit, ...]:
        """The units of some layers that are of the rule's groups, in the run's order.

        Raises BadInput where the importances lack one of them.
        """
        found = []
        for line, label in enumerate(self._run.labels, 1):
            if label.layer in layers and (evidence := tuple(self._evidence(rule, label))):
                found.append(self._hit(label, evidence, line))
        return tuple(found)

    def _evidence(self, rule: Rule, label: UnitLabel) -> Iterator[Evidence]:
        for look in rule.look:
            if look != "phrases" and not _valid(rule, label):
                continue
            for name in rule.groups:
                if look == "phrases":
                    yield from self._scored(rule, name, label)
                else:
                    texts = _texts(look, label, rule.look)
                    yield from _said(look, self._lexicon[name], texts)

    def _scored(self, rule: Rule, name: str, label: UnitLabel) -> Iterator[Evidence]:
        place = self._standings[name].of(label)
        if place is not None and place.chance <= rule.false_alarms:
            chance = float(f"{place.chance:.3g}")
            yield Evidence("phrases", name, place.term, place.phrase, chance)

    def _hit(self, label: UnitLabel, evidence: tuple[Evidence, ...], line: int) -> Hit:
        layer = quote(self._names[label.layer], safe=KEPT)
        return Hit(
            layer=label.layer,
            unit=label.unit,
            description=label.description,
            validity=label.validity.correlation if label.validity else None,
            confidence=label.confidence,
            importance=self._importance(label),
            evidence=evidence,
            line=line,
            link=f"{REPORT}#{layer}/{label.unit}",
        )

    def _importance(self, label: UnitLabel) -> float | None:
        if self._importances is None:
            return None
        value = self._importances.get((label.layer, label.unit))
        if value is None:
            raise BadInput(
                f"the importances lack unit {label.unit} of {label.layer}",
                hint="give --importance a row for each unit of the run",
            )
        return value


def _valid(rule: Rule, label: UnitLabel) -> bool:
    """Whether what is said of the unit may count."""
    if rule.min_validity is None:
        return True
    correlation = label.validity.correlation if label.validity else None
    return correlation is not None and correlation >= rule.min_validity


def _texts(look: Look, label: UnitLabel, looks: Sequence[Look]) -> list[str]:
    if look == "label":
        return [label.description] if label.description else []
    told = {label.description} if "label" in looks else set()
    return [c.description for c in label.candidates if c.description not in told]


def _said(look: Look, group: Group, texts: Sequence[str]) -> Iterator[Evidence]:
    """The first text that names the group."""
    for text in texts:
        if terms := group.named(text):
            yield Evidence(look, group.name, terms[0], text)
            return
