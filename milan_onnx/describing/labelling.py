"""A description for each unit, in the order of layers and units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milan_onnx.describing.abstaining import abstain_limit
from milan_onnx.describing.encoding import describable
from milan_onnx.describing.job import Captioning
from milan_onnx.describing.journal import Journal
from milan_onnx.describing.kept import NOWHERE, Kept
from milan_onnx.exemplars import LayerExemplars
from milan_onnx.labels import Candidate, Exemplar, UnitLabel, abstains
from milan_onnx.progress import Meter
from milan_onnx.runtime import Describer, Features, Hypothesis
from milan_onnx.runtime.search import BATCH

Floats = NDArray[np.float32]
Search = Callable[[Features, Meter], Iterator[Sequence[Hypothesis]]]
"""The hypotheses of units with features (U, K, F), in order; the meter is told of those done."""


@dataclass(frozen=True)
class Described:
    """A unit's label, and what the captioner takes for its description."""

    label: UnitLabel
    """The label."""

    tokens: tuple[int, ...]
    """Token ids of its description; none where there is nothing to describe."""


def label_units(
    job: Captioning,
    layers: Sequence[LayerExemplars],
    features: Sequence[Features],
    on_label: Callable[[UnitLabel], None],
    kept: Kept,
    search: Search,
) -> list[list[Described]]:
    """Labels of the units of each layer; ``features`` (describable units, K, F) of each layer.

    Goes on from what was kept. Raises OutputUnwritable where the work cannot be kept.
    """
    # The paper's code ranks by all units of a layer together: nothing is found before the last.
    with Journal(NOWHERE if job.search.legacy else kept) as journal:
        total = sum(len(units) for units in features)
        with job.say.stage("describe", total, "units") as meter:
            found = (_find(units, meter, journal, search) for units in features)
            pairs = zip(layers, found, strict=True)
            return [_label_layer(job, layer, texts, on_label) for layer, texts in pairs]


def searching(job: Captioning, describer: Describer) -> Search:
    """The search in this process."""
    options, candidates = job.search, job.options.candidates
    return lambda units, meter: describer.describe(
        units, options, candidates=candidates, progress=meter
    )


def _find(
    units: Features, meter: Meter, journal: Journal, search: Search
) -> Iterator[Sequence[Hypothesis]]:
    """The hypotheses of units with features (U, K, F), those of an earlier try first."""
    before = journal.take(len(units), BATCH)
    meter(len(before))
    yield from before
    for texts in search(_From(units, len(before)), meter):
        journal.put(texts)
        yield texts


def _label_layer(
    job: Captioning,
    layer: LayerExemplars,
    found: Iterator[Sequence[Hypothesis]],
    on_label: Callable[[UnitLabel], None],
) -> list[Described]:
    """Labels of all units of a layer; ``found``: the hypotheses of the describable ones."""
    wanted = set(describable(layer))
    described: list[Described] = []
    for unit in range(layer.units):
        hypotheses = next(found) if unit in wanted else []
        label = _label(job, layer, unit, hypotheses)
        described.append(Described(label, hypotheses[0].tokens if hypotheses else ()))
        on_label(label)
    return described


@dataclass(frozen=True)
class _From:
    """Features of units from one on."""

    units: Features
    """All."""

    start: int
    """The first that is left."""

    def __len__(self) -> int:
        return len(self.units) - self.start

    def __getitem__(self, part: slice, /) -> Floats:
        start, stop, _ = part.indices(len(self))
        return self.units[self.start + start : self.start + stop]


def _label(
    job: Captioning, layer: LayerExemplars, unit: int, hypotheses: Sequence[Hypothesis]
) -> UnitLabel:
    best = hypotheses[0] if hypotheses else None
    pairs = zip(layer.ids[unit].tolist(), layer.activations[unit].tolist(), strict=True)
    return UnitLabel(
        model=job.model,
        layer=layer.layer,
        unit=unit,
        description=best.description if best else None,
        pmi=best.pmi if best else None,
        log_p_given_exemplars=best.log_p_given_exemplars if best else None,
        log_p=best.log_p if best else None,
        candidates=tuple(_candidate(hypothesis) for hypothesis in hypotheses),
        exemplars=tuple(Exemplar(i, job.probe.names[i], value) for i, value in pairs),
        threshold=float(layer.thresholds[unit]),
        flags=_flags(job, layer.flags(unit), best),
        confidence=best.confidence if best else None,
    )


def _flags(job: Captioning, flags: tuple[str, ...], best: Hypothesis | None) -> tuple[str, ...]:
    """A unit's flags, with ``abstained`` where the confidence of its description is too low."""
    if best is None or best.confidence is None:
        return flags
    low = abstains(best.confidence, abstain_limit(job.options))
    return tuple(sorted({*flags, "abstained"})) if low else flags


def _candidate(found: Hypothesis) -> Candidate:
    return Candidate(
        description=found.description,
        pmi=found.pmi,
        log_p_given_exemplars=found.log_p_given_exemplars,
        log_p=found.log_p,
        confidence=found.confidence,
    )
