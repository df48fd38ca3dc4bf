"""Which units to edit: by words of their descriptions, by phrases scored for them, or by number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milan_onnx.applications.ablating import Unit
from milan_onnx.applications.lexicon import Group
from milan_onnx.applications.phrases import Scoring
from milan_onnx.applications.reopened import Place, choose_places, run_places
from milan_onnx.applications.standing import standings_of
from milan_onnx.errors import BadInput, PhraseUnknown, UsageError
from milan_onnx.labels import UnitLabel
from milan_onnx.progress import Reporter
from milan_onnx.run import Run


@dataclass(frozen=True)
class Selected:
    """A unit to edit."""

    label: UnitLabel
    """What is said of it."""

    why: str
    """What selected it, such as: its description says 'letter'."""

    @property
    def key(self) -> Unit:
        """Layer and unit."""
        return self.label.layer, self.label.unit

    def to_json(self) -> dict[str, Any]:
        """For manifests and results."""
        return {
            "layer": self.label.layer,
            "unit": self.label.unit,
            "description": self.label.description,
            "why": self.why,
            "exemplars": [exemplar.name for exemplar in self.label.exemplars],
        }


def by_words(labels: Iterable[UnitLabel], words: Sequence[str], most: int) -> list[Selected]:
    """Units of whose first ``most`` descriptions one names a word, plural and spelling folded."""
    group = Group("match", tuple(words))
    found = []
    for label in labels:
        texts = [label.description, *(c.description for c in label.candidates[1:most])]
        hits = [(text, group.named(text)) for text in texts if text]
        said = next(((text, named) for text, named in hits if named), None)
        if said:
            best = said[0] == label.description
            where = "its description" if best else f"its candidate {said[0]!r}"
            found.append(Selected(label, f"{where} says {said[1][0]!r}"))
    return found


def by_phrases(
    run: Run, phrases: Sequence[str], level: float, scoring: Scoring, say: Reporter
) -> list[Selected]:
    """Units whose exemplars raise the odds of some phrases as in at most a share ``level`` of units
    that have nothing to do with them (`standings_of`).

    Raises PhraseUnknown where the captioner knows none of the phrases, and the errors of
    `milan_onnx.applications.phrases.score_phrases`.
    """
    group = Group("phrase", tuple(phrases))
    standing = standings_of(run, [group], {}, scoring, say)[group.name]
    if not standing.known:
        raise PhraseUnknown(
            f"the captioner can say none of {', '.join(phrases)}", hint="say it in other words"
        )
    for phrase in standing.unknown:
        say.note(f"the captioner cannot say {phrase!r}: it is left out")
    found = []
    for label in run.labels:
        place = standing.of(label)
        if place is not None and place.chance <= level:
            why = f"{place.phrase!r} stands out (by chance {place.chance:.2g})"
            found.append(Selected(label, why))
    return found


def by_number(run: Run, wanted: Sequence[str]) -> list[Selected]:
    """Units of specs ``LAYER:1,2,7-9``, or of files that hold a line of LAYER,UNIT each.

    Raises UsageError or BadInput for what is no such thing, or no unit of the run.
    """
    labels = {(label.layer, label.unit): label for label in run.labels}
    places = run_places(run)
    found = []
    for spec in wanted:
        for tensor, unit in _units_of(spec, places):
            if (tensor, unit) not in labels:
                raise UsageError(f"the run has no unit {unit} of {tensor}", hint="check --units")
            found.append(Selected(labels[tensor, unit], "--units"))
    return found


def _units_of(spec: str, places: Sequence[Place]) -> list[Unit]:
    if Path(spec).is_file():
        return _units_in(Path(spec), places)
    name, _, numbers = spec.rpartition(":")
    try:
        units = [unit for part in numbers.split(",") for unit in _span(part)]
    except ValueError as error:
        raise UsageError(
            f"--units {spec} is neither a file nor LAYER:NUMBERS", hint="such as conv5:3,17-20"
        ) from error
    return [(choose_places(places, [name])[0].tensor, unit) for unit in units]


def _span(part: str) -> range:
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)


def _units_in(path: Path, places: Sequence[Place]) -> list[Unit]:
    found = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        name, _, unit = line.strip().rpartition(",")
        if number == 1 and unit.strip().lower() == "unit":
            continue
        if not unit.strip().isdecimal():
            raise BadInput(f"line {number} of {path} is not LAYER,UNIT", hint="mend it")
        found.append((choose_places(places, [name.strip()])[0].tensor, int(unit)))
    return found


def merged(run: Run, parts: Sequence[Sequence[Selected]], layers: Sequence[str]) -> list[Selected]:
    """Each unit once, in the order of the run's layers and units, of some layers or all.

    Raises UsageError where nothing is left, or nothing of a layer would be.
    """
    tensors = [place.tensor for place in choose_places(run_places(run), layers)]
    first: dict[Unit, Selected] = {}
    for selected in (item for part in parts for item in part if item.key[0] in tensors):
        first.setdefault(selected.key, selected)
    chosen = sorted(first.values(), key=lambda item: (tensors.index(item.key[0]), item.key[1]))
    if not chosen:
        raise UsageError(
            "no unit is selected", hint="see what the run's descriptions say, or try --phrase"
        )
    for place in run_places(run):
        if sum(item.key[0] == place.tensor for item in chosen) == place.units:
            raise UsageError(
                f"all {place.units} units of {place.tensor} are selected",
                hint="select fewer: a layer without units leaves nothing to predict from",
            )
    return chosen
