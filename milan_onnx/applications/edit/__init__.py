"""Edit a model by what its units mean: ablate those that describe what it should not rely on.

MILAN section 6 deletes units that were labelled as text from a network that had learned to read
class names painted into its training photos. `edit_model` selects units of a run by their words,
chooses how many to ablate on the validation part of labelled images, judges on the rest beside
random units and beside the same procedure over all units, and writes the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from milan_onnx.applications.ablating import Classifier, Unit, Units, by_layer
from milan_onnx.applications.edit import choosing, judging
from milan_onnx.applications.edit.choosing import Chosen, Score
from milan_onnx.applications.edit.judging import Judged, judge
from milan_onnx.applications.edit.means import mean_activations
from milan_onnx.applications.edit.selecting import (
    Selected,
    by_number,
    by_phrases,
    by_words,
    merged,
)
from milan_onnx.applications.edit.writing import Undone, check_place, undo, write_edited
from milan_onnx.applications.labelled import LabelledImages, open_labelled
from milan_onnx.applications.phrases import Scoring
from milan_onnx.applications.reopened import (
    check_manifest,
    run_layer,
    run_preprocessing,
    run_subject,
)
from milan_onnx.errors import UsageError
from milan_onnx.files import sha256_file
from milan_onnx.progress import Reporter, Silent
from milan_onnx.run import LABELS, Run, load_run
from milan_onnx.subject import Ablation, Layer, Subject

__all__ = ["EditOptions", "Edited", "Undone", "edit_model", "undo"]

Order = Literal["sorted", "greedy", "given"]


@dataclass(frozen=True)
class EditOptions:
    """Which units, how many of them, and how that is judged."""

    match: tuple[str, ...] = ()
    """Words that descriptions of the units say."""

    look: int = 1
    """How many of a unit's descriptions are looked at, best first."""

    phrases: tuple[str, ...] = ()
    """Phrases that are scored for each unit, whatever its description says."""

    false_alarms: float = 0.01
    """Share of units without them in which phrases may stand out all the same."""

    probe: str | Path | None = None
    """The run's photos, where they have moved and phrases are scored."""

    bundle: Path | None = None
    """The run's captioner, where it has moved and phrases are scored."""

    units: tuple[str, ...] = ()
    """Units by number: ``LAYER:1,2,7-9``, or files of LAYER,UNIT."""

    layers: tuple[str, ...] = ()
    """Layers of the run to edit; none: all."""

    set_to: Literal["zero", "mean"] = "zero"
    """What units are set to: 0, or their mean activation over the run's photos."""

    images: str | Path | None = None
    """Labelled images, as class folders or CSV; None: all selected units are ablated, unjudged."""

    adversarial: str | Path | None = None
    """Labelled images on which the model is to become better."""

    classes: Path | None = None
    """Names of the outputs, in order."""

    limit: int | None = None
    """Use only so many of each set's images."""

    order: Order = "sorted"
    """How the number of units is chosen: by the effect of each alone, greedily, or as given."""

    most: int = 50
    """Most units to ablate where the number is chosen."""

    choose_on: Literal["clean", "adversarial"] = "clean"
    """Images by which units are chosen: clean ones tell how many accuracy bears, and adversarial
    ones only judge; or adversarial ones, by which it becomes best."""

    tolerance: float = 0.01
    """Accuracy on clean images that may be lost where they choose."""

    validation: float = 0.5
    """Share of the images for choosing; the rest judges."""

    baselines: bool = True
    """Judge random units, and the same procedure over all units of the layers."""

    seeds: int = 5
    """Draws of random units."""

    seed: int = 0
    """Seed of the bootstrap."""

    output: str | None = None
    """Output that holds the classes; None: the only one."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    threads: int | None = None
    """Batches at once; None: the processors this process may use. Changes no result."""

    overwrite: bool = False
    """Replace a file that is already there."""

    def check(self) -> None:
        """Refuse what makes no sense, before any work. Raises UsageError."""
        wrong = {
            "look": self.look < 1,
            "false-alarms": not 0 < self.false_alarms < 1,
            "most": self.most < 1,
            "validation": not 0 < self.validation < 1,
            "tolerance": not 0 <= self.tolerance <= 1,
            "choose-on": self.choose_on not in ("clean", "adversarial"),
            "seeds": self.seeds < 0,
            "seed": self.seed < 0,
            "limit": self.limit is not None and self.limit < 1,
            "order": self.order not in ("sorted", "greedy", "given"),
            "set-to": self.set_to not in ("zero", "mean"),
        }
        for name, bad in wrong.items():
            if bad:
                raise UsageError(f"the value of --{name} is out of range", hint="see --help")
        if not (self.match or self.phrases or self.units):
            raise UsageError(
                "it is not said which units to edit",
                hint="give --match WORD, --phrase WORDS or --units LAYER:1,2",
            )
        if self.images is None and self.adversarial is not None:
            raise UsageError(
                "--adversarial goes with --images", hint="give clean labelled images too"
            )
        if self.adversarial is None and self.choose_on == "adversarial":
            raise UsageError("there are no --adversarial images to choose on", hint="give some")
        if self.set_to == "mean" and self.images is not None:
            raise UsageError(
                "accuracy is judged with units at zero only", hint="leave --set-to mean out"
            )


@dataclass(frozen=True)
class Edited:
    """What was done to a model."""

    path: Path | None
    """The edited model; None where none was wanted, or accuracy bears the loss of no unit."""

    selected: tuple[Selected, ...]
    """Units that answer the question."""

    ablated: tuple[Selected, ...]
    """Those that are ablated in the edited model, in the order of their choice."""

    chosen: Chosen | None
    """How their number was chosen; None where all selected ones are ablated."""

    judged: tuple[Judged, ...]
    """Accuracy before and after, of clean and of adversarial images."""

    facts: Mapping[str, Any]
    """What was edited by what: hashes, options."""

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        chosen = self.chosen
        return {
            "format": "milan-onnx-edit",
            "format_version": 1,
            **self.facts,
            "selected": [item.to_json() for item in self.selected],
            "ablated": [item.to_json() for item in self.ablated],
            "validation_accuracy": list(chosen.scores) if chosen else None,
            "tried": [list(unit) for unit in chosen.order] if chosen else None,
            "judged": [asdict(found) for found in self.judged],
        }


def edit_model(
    model: Path | None,
    run: Run | str | Path,
    out: Path | None,
    *,
    options: EditOptions,
    reporter: Reporter | None = None,
) -> Edited:
    """Ablate units of a run's model that answer a question, and write the model.

    ``model``: the run's model, where it has moved. ``out``: the file (None: nothing is written).
    Raises the errors of `milan_onnx.errors`: UsageError where no unit is selected, or all of a
    layer; RunError where the model is not the run's; ProbeError for images that do not fit it.
    """
    options.check()
    say = reporter or Silent()
    run = run if isinstance(run, Run) else load_run(run)
    check_manifest(run)
    subject = run_subject(run, model)
    if out is not None:
        check_place(out, subject.path, options.overwrite)
    selected = _select(run, options, say)
    layers = _layers(run, subject, selected)
    edited = Edited(None, tuple(selected), tuple(selected), None, (), {})
    if options.images is not None:
        edited = _chosen(edited, run, subject, layers, options, say)
    facts = _facts(run, edited, options)
    written = out if edited.ablated else None
    if written is not None:
        ablations = _ablations(run, subject, layers, edited, options, say)
        write_edited(written, subject, ablations, facts, overwrite=options.overwrite)
    return replace(edited, path=written, facts=facts)


def _select(run: Run, options: EditOptions, say: Reporter) -> list[Selected]:
    parts = [by_number(run, options.units)]
    if options.match:
        parts.append(by_words(run.labels, options.match, options.look))
    if options.phrases:
        scoring = Scoring(options.probe, options.bundle, options.device, options.threads)
        parts.append(by_phrases(run, options.phrases, options.false_alarms, scoring, say))
    return merged(run, parts, options.layers)


def _layers(run: Run, subject: Subject, selected: Sequence[Selected]) -> list[Layer]:
    """The layers of the selected units."""
    tensors = dict.fromkeys(item.key[0] for item in selected)
    return [run_layer(run, subject, tensor) for tensor in tensors]


def _chosen(
    edited: Edited,
    run: Run,
    subject: Subject,
    layers: Sequence[Layer],
    options: EditOptions,
    say: Reporter,
) -> Edited:
    """The edit with its number of units chosen and judged on labelled images."""
    where = (options.output, options.device, options.threads)
    classifier = Classifier.open(subject, run_preprocessing(run), say, *where)
    sets = _image_sets(classifier, options)
    validation, sets[options.choose_on] = sets[options.choose_on].parted(options.validation)
    choose = _Chooser(classifier, layers, validation, options)
    chosen = choose([item.key for item in edited.selected])
    ways = _ways(chosen, choose, options)
    judged = tuple(
        judge(name, choose.cut.passed(images), ways, images.names, options.seed, say)
        for name, images in sets.items()
    )
    by_key = {item.key: item for item in edited.selected}
    kept = tuple(by_key[unit] for unit in chosen.units)
    return replace(edited, ablated=kept, chosen=chosen, judged=judged)


def _image_sets(classifier: Classifier, options: EditOptions) -> dict[str, LabelledImages]:
    """Clean images, and adversarial ones where they are given."""
    sources = {"clean": options.images, "adversarial": options.adversarial}
    sets = {}
    for name, source in sources.items():
        if source is not None:
            images = open_labelled(source, classifier.classes, options.classes, limit=options.limit)
            classifier.say.choice(f"{name} images", images.chosen)
            sets[name] = images
    return sets


class _Chooser:
    """Chooses units of some layers by their effect on validation images."""

    def __init__(
        self,
        classifier: Classifier,
        layers: Sequence[Layer],
        validation: LabelledImages,
        options: EditOptions,
    ) -> None:
        self._classifier, self._validation, self._options = classifier, validation, options
        self._layers = {layer.tensor: layer for layer in layers}
        self.cut = classifier.cut(layers)
        self._score: Score = self.cut.passed(validation).accuracy
        self.everything = [(x.tensor, unit) for x in layers for unit in range(x.units or 0)]

    def __call__(self, units: Sequence[Unit]) -> Chosen:
        """The order of some units, and how many of them to ablate."""
        options, say = self._options, self._classifier.say
        clean = options.choose_on == "clean"
        count = choosing.bearable(options.tolerance) if clean else choosing.best
        if options.order == "greedy":
            return choosing.greedy(units, self._score, options.most, count, say)
        if options.order == "sorted":
            units = choosing.ranked(units, choosing.alone(units, self._in_layer, say))
        return choosing.in_order(units, self._score, options.most, count, say)

    def _in_layer(self, tensor: str) -> Score:
        if len(self._layers) == 1:
            return self._score
        return self._classifier.cut([self._layers[tensor]]).passed(self._validation).accuracy


def _ways(chosen: Chosen, choose: _Chooser, options: EditOptions) -> dict[str, list[Units]]:
    """What is judged: the edit, beside as many random units and the same choice among all units."""
    if not options.baselines:
        return judging.rows(chosen, [], None)
    random = judging.random_units(choose.everything, chosen.count, options.seeds)
    return judging.rows(chosen, random, choose(choose.everything))


def _ablations(
    run: Run,
    subject: Subject,
    layers: Sequence[Layer],
    edited: Edited,
    options: EditOptions,
    say: Reporter,
) -> list[Ablation]:
    units = by_layer([item.key for item in edited.ablated])
    scoring = Scoring(options.probe, options.bundle, options.device, options.threads)
    mean = options.set_to == "mean"
    means = mean_activations(run, subject, layers, scoring, say) if mean else {}
    return [
        Ablation(
            layer,
            tuple(sorted(units[layer.tensor])),
            tuple(means[layer.tensor][unit] for unit in sorted(units[layer.tensor]))
            if means
            else None,
        )
        for layer in layers
        if layer.tensor in units
    ]


def _facts(run: Run, edited: Edited, options: EditOptions) -> dict[str, Any]:
    """For the model's metadata: what was done, why, and by which run."""
    labels = run.path / LABELS if run.path else None
    return {
        "set_to": options.set_to,
        "units": [
            {key: value for key, value in item.to_json().items() if key != "exemplars"}
            for item in edited.ablated
        ],
        "run": {
            "model_sha256": run.manifest["model"]["sha256"],
            "probe_sha256": run.manifest["probe"]["sha256"],
            "bundle_sha256": run.manifest["bundle"]["sha256"],
            "labels_sha256": sha256_file(labels) if labels else None,
        },
    }
