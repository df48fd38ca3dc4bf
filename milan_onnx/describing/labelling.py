"""The last stage: a description for each unit, in the order of layers and units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from milan_onnx.describing.encoding import describable
from milan_onnx.describing.job import Job
from milan_onnx.exemplars import LayerExemplars
from milan_onnx.labels import Candidate, Exemplar, UnitLabel
from milan_onnx.runtime import Describer, Hypothesis

Floats = NDArray[np.float32]


def label_units(
    job: Job,
    describer: Describer,
    layers: Sequence[LayerExemplars],
    features: Sequence[Floats],
    on_label: Callable[[UnitLabel], None],
) -> list[UnitLabel]:
    """Labels of all units; ``features`` (describable units, K, F) of each layer."""
    labels = []
    total = sum(len(units) for units in features)
    with job.say.stage("describe", total, "units") as meter:
        for layer, units in zip(layers, features, strict=True):
            wanted = set(describable(layer))
            texts = describer.describe(
                units, job.search, candidates=job.options.candidates, progress=meter
            )
            for unit in range(layer.units):
                hypotheses = next(texts) if unit in wanted else []
                labels.append(_label(job, layer, unit, hypotheses))
                on_label(labels[-1])
    return labels


def _label(
    job: Job, layer: LayerExemplars, unit: int, hypotheses: Sequence[Hypothesis]
) -> UnitLabel:
    best = hypotheses[0] if hypotheses else None
    pairs = zip(layer.ids[unit].tolist(), layer.activations[unit].tolist(), strict=True)
    return UnitLabel(
        model=job.subject.sha256,
        layer=layer.layer,
        unit=unit,
        description=best.description if best else None,
        pmi=best.pmi if best else None,
        log_p_given_exemplars=best.log_p_given_exemplars if best else None,
        log_p=best.log_p if best else None,
        candidates=tuple(Candidate(**asdict(hypothesis)) for hypothesis in hypotheses),
        exemplars=tuple(Exemplar(i, job.probe.names[i], value) for i, value in pairs),
        threshold=float(layer.thresholds[unit]),
        flags=layer.flags(unit),
    )
