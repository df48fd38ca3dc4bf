"""Figures of a group of units, from their labels and what their descriptions are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from milan_onnx.applications.analyze.reading import Reader, Reading
from milan_onnx.applications.analyze.result import NO_KIND, Figures
from milan_onnx.applications.analyze.speech import NOUN, PARTS
from milan_onnx.labels import UnitLabel, summarize

EXAMPLES = 8
"""Descriptions shown of each kind."""
UNKNOWN = 20
"""Nouns named that have no kind."""
DECIMALS = 4


def readings(labels: Iterable[UnitLabel], reader: Reader) -> list[Reading]:
    """What the descriptions of the described units are made of, in their order."""
    return [reader(label.description) for label in labels if label.description]


def figures(run: str, layer: str | None, labels: Sequence[UnitLabel], reader: Reader) -> Figures:
    """The figures of some units of a run."""
    summary = summarize("", [replace(label, layer="") for label in labels])
    found = readings(labels, reader)
    kinds = Counter(name for unit in found for name in unit.kinds.all)
    mains = Counter(unit.kinds.main or NO_KIND for unit in found)
    speech = Counter(tag for unit in found for tag in unit.tags)
    return Figures(
        run=run,
        layer=layer,
        units=summary.units,
        described=summary.described,
        distinct=summary.distinct,
        confidence=summary.confidence,
        abstained=summary.abstained,
        correlation=summary.validity.correlation if summary.validity else None,
        length=_mean([unit.length for unit in found]),
        complexity=_mean([unit.complexity for unit in found]),
        kinds={name: kinds[name] for name in reader.finder.names},
        mains={name: mains[name] for name in (*reader.finder.mains, NO_KIND)},
        speech={part: speech[part] for part in PARTS},
        lengths=_histogram(unit.length for unit in found),
        complexities=_histogram(unit.complexity for unit in found),
    )


def examples(
    units: Sequence[Reading], mains: Sequence[str]
) -> dict[str, tuple[tuple[str, int], ...]]:
    """By main kind, the most frequent descriptions; ties by the description."""
    said: dict[str, Counter[str]] = {name: Counter() for name in mains}
    for unit in units:
        said[unit.kinds.main or NO_KIND][unit.description] += 1
    return {name: _most(counts, EXAMPLES) for name, counts in said.items()}


def unknown(units: Sequence[Reading], reader: Reader) -> tuple[tuple[str, int], ...]:
    """Nouns of units without a kind that the lexicon does not know; the most frequent first."""
    counts: Counter[str] = Counter()
    for unit in units:
        if unit.kinds.main is None:
            tagged = zip(unit.words, unit.tags, strict=True)
            nouns = {w for w, tag in tagged if tag == NOUN and not reader.finder.known(w)}
            counts.update(unit.vocabulary.get(word, word) for word in nouns)
    return _most(counts, UNKNOWN)


def _most(counts: Mapping[str, int], most: int) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most])


def _histogram(values: Iterable[int]) -> dict[int, int]:
    return dict(sorted(Counter(values).items()))


def _mean(values: Sequence[int]) -> float | None:
    return round(sum(values) / len(values), DECIMALS) if values else None
