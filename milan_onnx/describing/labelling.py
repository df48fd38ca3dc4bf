"""A description for each unit, in the order of layers and units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from milan_onnx.describing.encoding import describable
from milan_onnx.describing.job import Captioning
from milan_onnx.exemplars import LayerExemplars
from milan_onnx.labels import Candidate, Exemplar, UnitLabel
from milan_onnx.runtime import Describer, Features, Hypothesis


@dataclass(frozen=True)
class Described:
    """A unit's label, and what the captioner takes for its description."""

    label: UnitLabel
    """The label."""

    tokens: tuple[int, ...]
    """Token ids of its description; none where there is nothing to describe."""


def label_units(
    job: Captioning,
    describer: Describer,
    layers: Sequence[LayerExemplars],
    features: Sequence[Features],
    on_label: Callable[[UnitLabel], None],
) -> list[list[Described]]:
    """Labels of the units of each layer; ``features`` (describable units, K, F) of each layer."""
    described: list[list[Described]] = []
    total = sum(len(units) for units in features)
    with job.say.stage("describe", total, "units") as meter:
        for layer, units in zip(layers, features, strict=True):
            wanted = set(describable(layer))
            texts = describer.describe(
                units, job.search, candidates=job.options.candidates, progress=meter
            )
            described.append([])
            for unit in range(layer.units):
                hypotheses = next(texts) if unit in wanted else []
                label = _label(job, layer, unit, hypotheses)
                described[-1].append(Described(label, hypotheses[0].tokens if hypotheses else ()))
                on_label(label)
    return described


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
        flags=layer.flags(unit),
    )


def _candidate(found: Hypothesis) -> Candidate:
    return Candidate(found.description, found.pmi, found.log_p_given_exemplars, found.log_p)
