"""Which units a classifier needs: accuracy as units are ablated, by what their descriptions are.

MILAN section 4: units are ranked by a criterion of their description and ablated in steps, most of
it first; a criterion that tells what matters loses more accuracy than units drawn at random. The
part of the model before the first ablated layer runs once (`milan_onnx.applications.ablating`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.applications.ablating import Classifier, PassedImages, Unit, by_layer
from milan_onnx.applications.importance.result import RANDOM, Curve, Importance
from milan_onnx.applications.labelled import LabelledImages, open_labelled
from milan_onnx.applications.reopened import (
    check_manifest,
    choose_places,
    run_layer,
    run_places,
    run_preprocessing,
    run_subject,
)
from milan_onnx.errors import UsageError
from milan_onnx.labels import UnitLabel
from milan_onnx.progress import Reporter
from milan_onnx.run import Run
from milan_onnx.subject import Layer

__all__ = ["Curve", "Importance", "ImportanceOptions", "measure_importance"]

Values = NDArray[np.float64]


@dataclass(frozen=True)
class ImportanceOptions:
    """How importance is measured."""

    images: str | Path
    """Labelled images: class folders or CSV."""

    model: Path | None = None
    """The run's model, where it has moved."""

    classes: Path | None = None
    """Names of the outputs, in order."""

    layers: tuple[str, ...] = ()
    """Layers whose units are ablated; none: all of the run."""

    criteria: tuple[str, ...] = ()
    """Criteria to rank by; none: all that tell units apart."""

    share: float = 0.18
    """Share of the units that is ablated at most (paper: 0.18)."""

    steps: int = 9
    """Steps up to it (paper: 9)."""

    seeds: int = 5
    """Draws of random units (paper: 5)."""

    each_unit: bool = False
    """Ablate each unit alone too."""

    limit: int | None = None
    """Use only so many of the images, evenly spaced."""

    output: str | None = None
    """Output that holds the classes; None: the only one."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    threads: int | None = None
    """Batches at once; None: the processors this process may use. Changes no result."""

    def check(self) -> None:
        """Refuse what makes no sense, before any work. Raises UsageError."""
        wrong = {
            "share": not 0 < self.share <= 1,
            "steps": self.steps < 1,
            "seeds": self.seeds < 1,
            "limit": self.limit is not None and self.limit < 1,
        }
        for name, bad in wrong.items():
            if bad:
                raise UsageError(f"the value of --{name} is out of range", hint="see --help")


def measure_importance(
    run: Run,
    criteria: Mapping[str, Values],
    options: ImportanceOptions,
    say: Reporter,
) -> Importance:
    """Ablation curves of a run's model on labelled images.

    ``criteria``: by name, a value for each of the run's labels (in their order); units of larger
    values are ablated first, equal ones in an order drawn once for all. Raises UsageError for
    unknown criteria or layers, RunError where the model is not the run's, ProbeError for images
    that do not fit it.
    """
    options.check()
    check_manifest(run)
    tensors = [p.tensor for p in choose_places(run_places(run), options.layers)]
    chosen = [index for index, label in enumerate(run.labels) if label.layer in tensors]
    rankings = _rankings([run.labels[i] for i in chosen], _wanted(criteria, chosen, options))
    subject = run_subject(run, options.model)
    where = (options.output, options.device, options.threads)
    classifier = Classifier.open(subject, run_preprocessing(run), say, *where)
    images = open_labelled(options.images, classifier.classes, options.classes, limit=options.limit)
    say.choice("labelled images", images.chosen)
    layers = [run_layer(run, subject, tensor) for tensor in tensors]
    passed = classifier.cut(layers).passed(images)
    units = [(run.labels[i].layer, run.labels[i].unit) for i in chosen]
    ablated = _counts(len(units), options)
    draws = [_shuffled(units, seed) for seed in range(options.seeds)]
    with say.stage("ablate", (len(draws) + len(rankings)) * options.steps + 1, "steps") as meter:
        asking = _Asking(passed, images, ablated, meter)
        curves = [asking.curve(RANDOM, draws)]
        found = [asking.curve(name, [order]) for name, order in rankings.items()]
    curves += sorted(found, key=lambda curve: (curve.mean, curve.name))
    loss = _alone(classifier, layers, images, units, say) if options.each_unit else None
    return Importance(
        layers=tuple(tensors),
        units=len(units),
        images=len(passed.ids),
        ablated=tuple(ablated),
        curves=tuple(curves),
        classes=asking.whole.classes,
        loss=loss,
    )


def _wanted(
    criteria: Mapping[str, Values], chosen: Sequence[int], options: ImportanceOptions
) -> dict[str, Values]:
    """The criteria asked for, on the chosen units; without a wish those that tell them apart."""
    unknown = [name for name in options.criteria if name not in criteria]
    if unknown:
        known = ", ".join(criteria)
        raise UsageError(f"there is no criterion {unknown[0]}", hint=f"there are {known}")
    found = {name: values[list(chosen)] for name, values in criteria.items()}
    if options.criteria:
        return {name: found[name] for name in options.criteria}
    return {name: values for name, values in found.items() if len(np.unique(values)) > 1}


def _rankings(labels: Sequence[UnitLabel], criteria: Mapping[str, Values]) -> dict[str, list[Unit]]:
    """Units by each criterion, largest first. Many are equal (how many nouns a description has):
    by number they would come layer by layer, so their order is drawn."""
    units = [(label.layer, label.unit) for label in labels]
    tie = np.random.default_rng(len(units)).permutation(len(units))
    return {
        name: [units[i] for i in np.lexsort((tie, -values)).tolist()]
        for name, values in criteria.items()
    }


def _shuffled(units: Sequence[Unit], seed: int) -> list[Unit]:
    order = np.random.default_rng(seed).permutation(len(units))
    return [units[index] for index in order.tolist()]


def _counts(units: int, options: ImportanceOptions) -> list[int]:
    """Units ablated at each step, the first without any."""
    shares = np.linspace(0, options.share, options.steps + 1)
    return [round(share * units) for share in shares.tolist()]


@dataclass(frozen=True)
class _Whole:
    """The model with nothing ablated."""

    accuracy: float
    classes: dict[str, float]


class _Asking:
    """Curves of one set of images behind one cut."""

    def __init__(
        self, passed: PassedImages, images: LabelledImages, ablated: Sequence[int], meter: Any
    ) -> None:
        self._passed, self._ablated, self._meter = passed, ablated, meter
        self._names = images.names
        right = passed.right()
        self.whole = _Whole(float(right.mean()), self._by_class(right.astype(np.float64)))
        meter(1)

    def curve(self, name: str, orders: Sequence[Sequence[Unit]]) -> Curve:
        """Accuracy as units are ablated in some orders, their mean."""
        rows, last = [], []
        for order in orders:
            rights = [self._right(order[:count]) for count in self._ablated[1:]]
            rows.append([self.whole.accuracy, *(float(right.mean()) for right in rights)])
            last.append(rights[-1])
        return Curve(
            name=name,
            accuracy=tuple(np.mean(rows, axis=0).tolist()),
            low=tuple(np.min(rows, axis=0).tolist()),
            high=tuple(np.max(rows, axis=0).tolist()),
            classes=self._by_class(np.mean(last, axis=0)),
        )

    def _right(self, units: Sequence[Unit]) -> NDArray[np.bool_]:
        self._meter(1)
        return self._passed.right(by_layer(units))

    def _by_class(self, right: Values) -> dict[str, float]:
        labels = self._passed.labels
        return {
            self._names[c]: float(right[labels == c].mean()) for c in np.unique(labels).tolist()
        }


def _alone(
    classifier: Classifier,
    layers: Sequence[Layer],
    images: LabelledImages,
    units: Sequence[Unit],
    say: Reporter,
) -> dict[Unit, float]:
    """Accuracy lost by each unit alone. Each layer has a cut of its own: the later, the less runs
    again."""
    found: dict[Unit, float] = {}
    for layer in layers:
        own = [unit for unit in units if unit[0] == layer.tensor]
        passed = classifier.cut([layer]).passed(images)
        whole = passed.accuracy()
        with say.stage(f"units of {layer.tensor}", len(own), "units") as meter:
            for unit in own:
                found[unit] = whole - passed.accuracy(by_layer([unit]))
                meter(1)
    return found
