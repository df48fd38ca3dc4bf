"""Confidences of a bundle, calibrated on described units of a network that it was not trained on.

A description is right where its similarity with the nearest phrase of its unit reaches
`milan_onnx.applications.evaluate.calibration.RIGHT`. Logistic regression on what the search knows
of it (`milan_onnx.runtime.confidence`) gives the probability; the penalty on its weights is chosen
by cross-validation over layers, and so is the error that is told. An input whose weight would turn
round what it means (an agreement that counts against a description) is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.annotations import DescribedUnits, annotated_features
from milan_onnx.applications.evaluate.calibration import RIGHT, calibration, confident_half
from milan_onnx.applications.evaluate.captions import hypotheses
from milan_onnx.applications.similarity import Similarity, demand_similarity
from milan_onnx.bundle import Bundle, Calibration, load_bundle, write_manifest
from milan_onnx.errors import BadInput
from milan_onnx.progress import Reporter, Silent
from milan_onnx.runtime import Describer, choose_device, choose_threads
from milan_onnx.runtime.confidence import calibration_inputs

Values = NDArray[np.float64]

RISING = (
    *("agreement", "predicted", "certainty"),
    *("log_p_given_exemplars", "pmi", "coherence"),
)
"""Inputs of which more must not lower a confidence."""
INPUTS = (*RISING, "words")
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)
STEPS = 50
FEWEST = 50
"""Units that are wanted at least: fewer tell nothing of a probability."""


@dataclass(frozen=True)
class Calibrated:
    """A bundle with confidences, and how far they can be believed."""

    bundle: Bundle
    """The bundle, its manifest written anew."""

    figures: Mapping[str, Any]
    """Of confidences that each layer got from the others: see `evaluate.calibration`; and the mean
    similarity of all units and of the more confident half."""


def calibrate(
    bundle: str | Path,
    units: str | Path,
    split: str = "val",
    *,
    images: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    reporter: Reporter | None = None,
) -> Calibrated:
    """Calibrate a bundle on the described units of a split, and write it into its manifest.

    Raises BadInput for a file of units that cannot be used or has too few units of the split,
    ExtraMissing without sentence similarity, OutputUnwritable where the bundle is read-only.
    """
    say, made = reporter or Silent(), load_bundle(bundle)
    similarity = demand_similarity(None)
    source = DescribedUnits(Path(units), images, photos=False)
    source = source.chosen(lambda unit: unit.split == split)
    if len(source.units) < FEWEST:
        raise BadInput(
            f"{units} describes {len(source.units)} units of the split {split}",
            hint=f"give one with at least {FEWEST}",
        )
    source.check_photos()
    chosen = choose_device(device), choose_threads(threads)
    say.choice("device", chosen[0])
    say.choice("threads", chosen[1])
    describer = Describer(made, chosen[0].value, chosen[1].value)
    inputs, similar, layers = _measured(describer, source, similarity, chosen[1].value, say)
    found, confidence = fit(inputs, similar >= RIGHT, layers)
    half = confident_half(confidence)
    figures = {
        **calibration(confidence, similar),
        "similarity": float(similar.mean()),
        "similarity_of_confident_half": float(similar[half].mean()),
        "weights": dict(found.weights),
    }
    manifest = replace(made.manifest, calibration=found)
    return Calibrated(write_manifest(made.path, manifest), figures)


def _measured(
    describer: Describer,
    source: DescribedUnits,
    similarity: Similarity,
    threads: int,
    say: Reporter,
) -> tuple[dict[str, Values], Values, list[str]]:
    """What is known of the first description of each unit that has one (U,), its similarity (U,),
    and the unit's layer."""
    places = range(len(source.units))
    features = annotated_features(source, places, describer.encoder(), threads, say)
    options = describer.bundle.manifest.search
    with say.stage("describe", len(features), "units") as meter:
        told = hypotheses(describer, features, options, meter)
    described = [place for place in places if told[place]]
    best = [told[place][0] for place in described]
    units = [source.units[place] for place in described]
    stop = describer.bundle.manifest.vocabulary.stop
    known = []
    for place, found in zip(described, best, strict=True):
        alike = float(describer.coherence(features[place][None])[0])
        # One exemplar is like no other: then it is an input of none.
        known.append(calibration_inputs(found, None if np.isnan(alike) else alike, stop))
    inputs = {
        name: np.array([unit[name] for unit in known], np.float64)
        for name in INPUTS
        if all(unit[name] is not None for unit in known)
    }
    phrases = [unit.phrases for unit in units]
    layers = [f"{unit.network} {unit.layer}" for unit in units]
    return inputs, similarity.nearest([[found.description] for found in best], phrases), layers


def fit(
    inputs: Mapping[str, Values], right: NDArray[np.bool_], groups: Sequence[str]
) -> tuple[Calibration, Values]:
    """The calibration, and confidences (U,) that units of each group got from the others.

    ``inputs``: each (U,); ``right`` (U,); ``groups`` (U,): units that stand or fall together.
    """
    names = [name for name in INPUTS if name in inputs]
    table = np.stack([inputs[name] for name in names], axis=1)
    truth, group = right.astype(np.float64), np.unique(groups, return_inverse=True)[1]
    rising = np.array([name in RISING for name in names])
    tried = [_crossed(table, truth, group, rising, penalty) for penalty in PENALTIES]
    losses = [_loss(confidence, truth) for confidence in tried]
    best = int(np.argmin(losses))
    weights, bias = _regress(table, truth, rising, PENALTIES[best])
    kept = {name: float(w) for name, w in zip(names, weights, strict=True) if w}
    return Calibration(kept, float(bias)), tried[best]


def _crossed(
    table: Values,
    truth: Values,
    group: NDArray[np.int64],
    rising: NDArray[np.bool_],
    penalty: float,
) -> Values:
    """Confidences of each group by the regression on the others."""
    confidence = np.zeros(len(truth))
    for held in np.unique(group):
        mine = group == held
        weights, bias = _regress(table[~mine], truth[~mine], rising, penalty)
        confidence[mine] = _sigmoid(table[mine] @ weights + bias)
    return confidence


def _regress(
    table: Values, truth: Values, rising: NDArray[np.bool_], penalty: float
) -> tuple[Values, float]:
    """Weights (I,) and bias; without inputs that count against though more must not."""
    mean, spread = table.mean(0), np.maximum(table.std(0), 1e-9)
    standard, used = (table - mean) / spread, np.ones(table.shape[1], np.bool_)
    while True:
        weights = np.zeros(len(used))
        weights[used], bias = _newton(standard[:, used], truth, penalty)
        turned = used & rising & (weights < 0)
        if not turned.any():
            break
        used &= ~turned
    weights = weights / spread
    return weights, float(bias - weights @ mean)


def _newton(table: Values, truth: Values, penalty: float) -> tuple[Values, float]:
    """Logistic regression with a penalty on squared weights, by Newton's steps."""
    design = np.concatenate([table, np.ones((len(table), 1))], axis=1)
    ridge = np.diag([*[penalty] * table.shape[1], 1e-9])
    found = np.zeros(design.shape[1])
    for _ in range(STEPS):
        odds = _sigmoid(design @ found)
        slope = design.T @ (odds - truth) + ridge @ found
        curve = (design * (odds * (1 - odds))[:, None]).T @ design + ridge
        step = np.linalg.solve(curve, slope)
        found = found - step
        if np.abs(step).max() < 1e-10:
            break
    return found[:-1], float(found[-1])


def _sigmoid(values: Values) -> Values:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -500, 500))))


def _loss(confidence: Values, truth: Values) -> float:
    """Mean negative log-likelihood."""
    likely = np.clip(np.where(truth > 0, confidence, 1 - confidence), 1e-9, 1)
    return float(-np.log(likely).mean())
