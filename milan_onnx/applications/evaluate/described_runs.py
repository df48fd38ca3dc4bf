"""``evaluate RUN --truth units.jsonl.gz``: judge a run by what annotators said of its units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milan_onnx.annotations import AnnotatedUnit, DescribedUnits, encoder_name
from milan_onnx.annotations.problems import Problem, in_order
from milan_onnx.applications.evaluate import baselines
from milan_onnx.applications.evaluate.again import (
    NOT_DESCRIBED,
    RunOptions,
    SearchedAgain,
    candidates,
)
from milan_onnx.applications.evaluate.answers import Descriptions
from milan_onnx.applications.evaluate.calibration import RIGHT
from milan_onnx.applications.evaluate.described import (
    DescribedCase,
    Judged,
    depths,
    judge_described,
    undescribed,
)
from milan_onnx.applications.evaluate.intervals import RESAMPLES
from milan_onnx.applications.evaluate.judging import NEAREST
from milan_onnx.applications.evaluate.nearest import known_units, nearest_phrases
from milan_onnx.applications.evaluate.result import Evaluation
from milan_onnx.applications.evaluate.truth import report
from milan_onnx.applications.reopened import Place, check_manifest, choose_places, run_places
from milan_onnx.applications.similarity import Similarity, demand_similarity
from milan_onnx.bundle import ENCODER
from milan_onnx.choice import Choice
from milan_onnx.errors import BundleError, RunError, UsageError
from milan_onnx.files import sha256_file
from milan_onnx.labels import UnitLabel
from milan_onnx.progress import Reporter
from milan_onnx.run import Run

TRAIN = "train"


@dataclass(frozen=True)
class _Case:
    """A run with what was said of its units."""

    run: Run
    truth: DescribedUnits
    network: str
    units: Sequence[AnnotatedUnit]
    """Those of the network that the run has, in the order of its labels."""
    labels: Sequence[UnitLabel]
    """Their labels."""
    options: RunOptions
    say: Reporter


def evaluate_described_run(run: Run, path: Path, options: RunOptions, say: Reporter) -> Evaluation:
    """Judge the labels of a run by a file of described units.

    Raises BadInput naming every bad line, ExtraMissing without sentence similarity, UsageError
    where it is not clear which network of the file the run is of.
    """
    options.refuse(NOT_DESCRIBED, "other kinds of truth")
    similarity = demand_similarity(options.similarity)
    case = _case(run, path, options, say)
    found, left_out = _descriptions(case, similarity)
    judged = judge_described(
        DescribedCase(
            case.units,
            found,
            [label.confidence for label in case.labels],
            depths([u for u in case.truth.units if u.network == case.network]),
            similarity,
            options.least_coherence,
            options.seed,
        )
    )
    return Evaluation(
        columns=judged.columns,
        rows=judged.rows,
        differences=judged.differences,
        groups=judged.groups,
        settings=_settings(case),
        counts=_counts(case, found["ours"]),
        notes=(*notes_of(judged, options.least_coherence), *left_out),
        units=judged.units,
        calibration=judged.calibration,
    )


def _case(run: Run, path: Path, options: RunOptions, say: Reporter) -> _Case:
    """Read the units and find the labels that they judge."""
    check_manifest(run)
    places = run_places(run)
    truth = DescribedUnits(path, options.photos, photos=False)
    network = _network(truth.units, places, options.network)
    say.choice("network", network)
    own = [unit for unit in truth.units if unit.network == network.value]
    if not options.layers:
        report(path, in_order(_unknown(own, places)), options.skip_bad, say)
    chosen = choose_places(places, options.layers)
    by_key = {key: unit for unit in own if (key := _key(unit, chosen)) is not None}
    labels = [label for label in run.labels if (label.layer, label.unit) in by_key]
    if not labels:
        raise UsageError(
            f"{path} says nothing of the layers asked for", hint="give another --layer"
        )
    units = [by_key[label.layer, label.unit] for label in labels]
    return _Case(run, truth, network.value, units, labels, options, say)


def _place(unit: AnnotatedUnit, places: Sequence[Place]) -> Place | None:
    """The layer of a unit, by its tensor or else its name."""
    for name in (unit.tensor, unit.layer):
        found = [place for place in places if name in place.names]
        if len(found) == 1:
            return found[0]
    return None


def _key(unit: AnnotatedUnit, places: Sequence[Place]) -> tuple[str, int] | None:
    """The unit in the run; None where the run has it not."""
    place = _place(unit, places)
    return (place.tensor, unit.unit) if place and unit.unit < place.units else None


def _unknown(units: Sequence[AnnotatedUnit], places: Sequence[Place]) -> list[Problem]:
    problems = []
    for unit in units:
        place = _place(unit, places)
        if place is None:
            problems.append(Problem(unit.line, f"the run has no layer {unit.layer!r}"))
        elif unit.unit >= place.units:
            what = f"layer {unit.layer} has no unit {unit.unit}, only 0 to {place.units - 1}"
            problems.append(Problem(unit.line, what))
    return problems


def _network(
    units: Sequence[AnnotatedUnit], places: Sequence[Place], given: str | None
) -> Choice[str]:
    """The network of the file that the run is of.

    The one all of whose units the run has; where there is none, the one of which it has some.
    """
    total: dict[str, int] = {}
    shared: dict[str, int] = {}
    for unit in units:
        total[unit.network] = total.get(unit.network, 0) + 1
        shared[unit.network] = shared.get(unit.network, 0) + (_key(unit, places) is not None)
    if given is not None:
        if given not in total:
            raise UsageError(f"no network is called {given}", hint=f"there are {_listed(total)}")
        return Choice(given, "--network")
    whole = [name for name in total if shared[name] == total[name]]
    some = [name for name in total if shared[name]]
    if len(found := whole or some) == 1:
        return Choice(found[0], f"the run has {shared[found[0]]} of its {total[found[0]]} units")
    counts = ", ".join(f"{shared[name]} of {total[name]} of {name}" for name in sorted(total))
    what = "units of several networks" if found else "no unit of any network"
    raise UsageError(f"the run has {what} of the file ({counts})", hint="say which with --network")


def _listed(networks: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count} units)" for name, count in sorted(networks.items()))


def _descriptions(case: _Case, similarity: Similarity) -> tuple[dict[str, Descriptions], list[str]]:
    """Ours and the baselines' descriptions, and what had to be left out."""
    found: dict[str, Descriptions] = {"ours": [candidates(label) for label in case.labels]}
    again = SearchedAgain(case.run, case.labels, case.options, case.say)
    try:
        found |= again.search()
    except (RunError, BundleError) as error:
        if case.options.images is not None or case.options.bundle is not None:
            raise
        return found, [f"no PMI, greedy and {NEAREST} are left out: {error}"]
    if not case.options.nearest:
        return found, []
    nearest, left_out = _nearest(case, again, similarity)
    return found | nearest, left_out


def _nearest(
    case: _Case, again: SearchedAgain, similarity: Similarity
) -> tuple[dict[str, Descriptions], list[str]]:
    """What units that look alike are called, of other networks that the file has to learn from."""
    options = case.options

    def wanted(unit: AnnotatedUnit) -> bool:
        return unit.split == TRAIN and unit.network != case.network

    if not any(map(wanted, case.truth.units)):
        return {}, [f"{NEAREST} is left out: the file has no split {TRAIN} of other networks"]
    source = case.truth.chosen(wanted)
    if missing := source.missing():
        return {}, [f"{NEAREST} is left out: {len(missing)} photos are not there ({missing[0]})"]
    name = encoder_name(again.describer.bundle.file(ENCODER), again.encoder.spec)
    everything = range(len(source.units))
    known = known_units(
        source, everything, again.encoder, name, options.features, again.workers, case.say
    )
    return {NEAREST: again.back(nearest_phrases(known, again.features, similarity))}, []


def _settings(case: _Case) -> dict[str, Any]:
    manifest = case.run.manifest
    return {
        "kind": "units",
        "run": str(case.run.path or ""),
        "network": case.network,
        "layers": list(dict.fromkeys(label.layer for label in case.labels)),
        "truth": str(case.truth.path),
        "truth_sha256": sha256_file(case.truth.path),
        "data_sha256": manifest["probe"]["sha256"],
        "model": dict(manifest["model"]),
        "bundle": dict(manifest["bundle"]),
        "search": dict(manifest["search"]),
        "least_coherence": case.options.least_coherence,
        "right_from": RIGHT,
        "seed": case.options.seed,
        "resamples": RESAMPLES,
        "rotations": baselines.ROTATIONS,
    }


def _counts(case: _Case, ours: Descriptions) -> dict[str, int]:
    of_network = sum(unit.network == case.network for unit in case.truth.units)
    least = case.options.least_coherence
    return {
        "units": len(case.units),
        "units_coherent": sum((unit.coherence or 0) >= least for unit in case.units),
        "units_not_in_the_run": of_network - len(case.units),
        "units_of_other_networks": len(case.truth.units) - of_network,
        "units_without_description": undescribed(ours),
    }


def notes_of(judged: Judged, least: float) -> list[str]:
    """What a reader of the table must know."""
    coherent = sum((unit["coherence"] or 0) >= least for unit in judged.units)
    notes = [
        f"{coherent} of {len(judged.units)} units are judged: those of mean coherence {least:g} or "
        "more"
    ]
    if judged.calibration is not None:
        error = judged.calibration["expected_calibration_error"]
        notes.append(
            f"confidence: expected calibration error {error:.3f} (right: similarity >= {RIGHT})"
        )
    return [*notes, "intervals: 95 %, bootstrap over units"]
