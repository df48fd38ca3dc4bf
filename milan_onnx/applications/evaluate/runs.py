"""``evaluate RUN --truth FILE``: judge the labels of a run against what its units are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milan_onnx.annotations import describes_units
from milan_onnx.applications.evaluate import baselines
from milan_onnx.applications.evaluate.again import (
    ONLY_DESCRIBED,
    UNITS,
    RunOptions,
    SearchedAgain,
    candidates,
)
from milan_onnx.applications.evaluate.answers import TOP, Answer, Descriptions
from milan_onnx.applications.evaluate.described_runs import evaluate_described_run
from milan_onnx.applications.evaluate.hypernyms import hypernyms_of
from milan_onnx.applications.evaluate.intervals import RESAMPLES
from milan_onnx.applications.evaluate.judging import Judge, columns_of, judge
from milan_onnx.applications.evaluate.netdissect import LabelledPhotos, dissect
from milan_onnx.applications.evaluate.result import Evaluation, Row
from milan_onnx.applications.evaluate.text_metrics import TextMetrics
from milan_onnx.applications.evaluate.truth import Truth, read_truth
from milan_onnx.applications.reopened import (
    check_manifest,
    choose_places,
    run_places,
)
from milan_onnx.applications.similarity import choose_similarity
from milan_onnx.errors import BundleError, RunError, UsageError
from milan_onnx.files import sha256_file
from milan_onnx.labels import UnitLabel
from milan_onnx.progress import Reporter, Silent
from milan_onnx.regions import NAMES, REGIONS, NameTable, read_regions
from milan_onnx.reporting import run_geometry
from milan_onnx.run import Run, load_run

ABSTAINED = "abstained"


@dataclass(frozen=True)
class _Case:
    """A run with its truth, before it is judged."""

    run: Run
    truth: Truth
    labels: tuple[UnitLabel, ...]
    """Of the units with a truth."""
    units: int
    """How many units the judged layers have."""
    options: RunOptions
    say: Reporter


def evaluate_run(
    run: Run | str | Path,
    truth: str | Path,
    *,
    options: RunOptions | None = None,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Judge the labels of a run against a truth file (its forms: docs/evaluate.md).

    What needs the exemplars' photos again (no PMI, greedy) is left out, and that is said, where
    photos or captioner are no longer there. Raises the errors of `milan_onnx.errors`: BadInput
    naming every bad line of the truth, RunError for a damaged run or other photos than its own.
    """
    options, say, truth = options or RunOptions(), reporter or Silent(), Path(truth)
    if options.seed < 0:
        raise UsageError("the value of --seed is out of range", hint="see --help")
    run = run if isinstance(run, Run) else load_run(run)
    if options.kind == UNITS or (options.kind is None and describes_units(truth)):
        return evaluate_described_run(run, truth, options, say)
    options.refuse(ONLY_DESCRIBED, "a truth of described units")
    case = _case(run, truth, options, say)
    similarity = choose_similarity(options.similarity, say)
    found, words, left_out = _descriptions(case)
    hypernyms = hypernyms_of(NameTable.read())
    answers = [case.truth.answer((x.layer, x.unit), hypernyms) for x in case.labels]
    clusters = [f"{label.layer} {label.unit}" for label in case.labels]
    metrics = _metrics([answer.said for answer in answers], options)
    judging = Judge(answers, clusters, words, similarity, options.seed, metrics)
    rows, differences = judge(judging, found)
    rows = (*rows, *_not_abstained(judging, found["ours"], case.labels, options))
    return Evaluation(
        columns=columns_of(rows),
        rows=rows,
        differences=differences,
        groups={},
        settings=_settings(case, truth),
        counts=_counts(case),
        notes=(*_notes(case), *left_out),
        units=[_unit_facts(label, answers[i], found, i) for i, label in enumerate(case.labels)],
    )


def _metrics(phrases: Sequence[Sequence[str]], options: RunOptions) -> TextMetrics | None:
    if not options.metrics:
        return None
    return TextMetrics(options.metrics, phrases, bertscore_model=options.bertscore_model)


def _case(run: Run, path: Path, options: RunOptions, say: Reporter) -> _Case:
    """Read the truth and find the labels that it judges."""
    check_manifest(run)
    places = run_places(run)
    chosen = choose_places(places, options.layers)
    truth = read_truth(
        path,
        places,
        classes_of=chosen,  # the others name their layers
        kind=options.kind if options.kind != UNITS else None,
        skip_bad=options.skip_bad,
        say=say,
    )
    names = {place.tensor for place in chosen}
    labels = tuple(
        label
        for label in run.labels
        if label.layer in names and (label.layer, label.unit) in truth.phrases
    )
    if not labels:
        raise UsageError(
            f"{path} says nothing of the layers asked for", hint="give another --layer"
        )
    return _Case(run, truth, labels, sum(place.units for place in chosen), options, say)


def _descriptions(case: _Case) -> tuple[dict[str, Descriptions], int, list[str]]:
    """Ours and the baselines' descriptions, the bundle's words, and what had to be left out."""
    found: dict[str, Descriptions] = {"ours": [candidates(label) for label in case.labels]}
    again, left_out = SearchedAgain(case.run, case.labels, case.options, case.say), []
    try:
        found |= again.search()
    except (RunError, BundleError) as error:
        if case.options.images is not None or case.options.bundle is not None:
            raise
        left_out.append(f"the rows no PMI and greedy are left out: {error}")
    if case.options.regions is not None:
        found["NetDissect"] = _dissected(case, case.options.regions)
    return found, again.words, left_out


def _dissected(case: _Case, folder: Path) -> list[list[str]]:
    """NetDissect's labels. Raises RunError where no exemplar's photo is labelled."""
    photos = LabelledPhotos(read_regions(folder), NameTable.read(), run_geometry(case.run))
    layers = {layer.layer: layer for layer in case.run.layers}
    names = [[exemplar.name for exemplar in label.exemplars] for label in case.labels]
    if not any(photos.find(name) for unit in names for name in unit):
        raise RunError(
            f"{folder / REGIONS} labels none of the run's photos",
            hint="give the folder whose images/ the run was made of",
        )
    found = []
    with case.say.stage("dissect", len(names), "units") as meter:
        for label, own in zip(case.labels, names, strict=True):
            found.append(dissect(layers[label.layer], label.unit, own, photos))
            meter(1)
    return found


def _not_abstained(
    judging: Judge, ours: Descriptions, labels: Sequence[UnitLabel], options: RunOptions
) -> tuple[Row, ...]:
    """Our figures over the units that were not abstained from, where some were."""
    kept = [i for i, label in enumerate(labels) if ABSTAINED not in label.flags]
    if len(kept) in (0, len(labels)):
        return ()
    part = Judge(
        [judging.answers[i] for i in kept],
        [judging.clusters[i] for i in kept],
        judging.words,
        judging.similarity,
        judging.seed,
        _metrics([judging.answers[i].said for i in kept], options),
    )
    rows, _ = judge(part, {"ours": [ours[i] for i in kept]})
    return (Row(f"ours, {len(kept)} not abstained", rows[0].figures),)


def _settings(case: _Case, truth: Path) -> dict[str, Any]:
    manifest = case.run.manifest
    regions = case.options.regions
    return {
        "kind": case.truth.kind.value,
        "kind_reason": case.truth.kind.reason,
        "run": str(case.run.path or ""),
        "layers": list(dict.fromkeys(label.layer for label in case.labels)),
        "truth": str(truth),
        "truth_sha256": sha256_file(truth),
        "names_sha256": sha256_file(NAMES),
        "data_sha256": manifest["probe"]["sha256"],
        "regions_sha256": sha256_file(regions / REGIONS) if regions else None,
        "model": dict(manifest["model"]),
        "bundle": dict(manifest["bundle"]),
        "search": dict(manifest["search"]),
        "metrics": list(case.options.metrics),
        "seed": case.options.seed,
        "resamples": RESAMPLES,
        "rotations": baselines.ROTATIONS,
    }


def _counts(case: _Case) -> dict[str, int]:
    return {
        "units": len(case.labels),
        "units_without_truth": case.units - len(case.labels),
        "truths_of_other_layers": len(case.truth.phrases) - len(case.labels),
        "entries": case.truth.entries,
        "bad_entries": len(case.truth.problems),
        "units_without_description": sum(label.description is None for label in case.labels),
        "units_abstained": sum(ABSTAINED in label.flags for label in case.labels),
    }


COUNTED = {
    "units_without_truth": "units of these layers have no truth and are left out",
    "truths_of_other_layers": "units with a truth are in layers that were not asked for",
    "bad_entries": "bad entries of the truth were skipped",
    "units_without_description": "units have no description and count as wrong",
    "units_abstained": "labels are flagged abstained and count as they are",
}


def _notes(case: _Case) -> list[str]:
    counts = _counts(case)
    notes = [f"{counts['units']} units are judged, by {case.truth.entries} entries of the truth"]
    notes += [f"{counts[key]} {text}" for key, text in COUNTED.items() if counts[key]]
    kept = min((len(label.candidates) for label in case.labels if label.candidates), default=TOP)
    if kept < TOP:
        notes.append(f"some labels hold fewer than {TOP} candidates, so @{TOP} is of fewer")
    if case.options.regions is None:
        notes.append("the row NetDissect is left out: no --regions")
    return [*notes, "intervals: 95 %, bootstrap over units"]


def _unit_facts(
    label: UnitLabel, answer: Answer, found: Mapping[str, Descriptions], index: int
) -> dict[str, Any]:
    return {
        "layer": label.layer,
        "unit": label.unit,
        "flags": list(label.flags),
        "label": list(answer.label),
        "general": list(answer.general),
        "descriptions": {name: list(texts[index]) for name, texts in found.items()},
    }
