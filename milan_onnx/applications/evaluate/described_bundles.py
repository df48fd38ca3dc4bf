"""``evaluate --units units.jsonl.gz``: judge a bundle on described units, without their network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from milan_onnx.annotations import AnnotatedUnit, DescribedUnits, annotated_features, encoder_name
from milan_onnx.annotations.features import photo_uses
from milan_onnx.applications.evaluate import baselines
from milan_onnx.applications.evaluate.answers import Descriptions
from milan_onnx.applications.evaluate.calibration import RIGHT
from milan_onnx.applications.evaluate.captions import hypotheses
from milan_onnx.applications.evaluate.described import (
    COHERENT,
    DescribedCase,
    depths,
    judge_described,
    undescribed,
)
from milan_onnx.applications.evaluate.described_runs import TRAIN, notes_of
from milan_onnx.applications.evaluate.intervals import RESAMPLES
from milan_onnx.applications.evaluate.judging import NEAREST
from milan_onnx.applications.evaluate.nearest import known_units, nearest_phrases
from milan_onnx.applications.evaluate.result import Evaluation
from milan_onnx.applications.similarity import Similarity, demand_similarity
from milan_onnx.bundle import ENCODER, Bundle, load_bundle
from milan_onnx.choice import Choice
from milan_onnx.errors import UsageError
from milan_onnx.files import sha256_file
from milan_onnx.progress import Reporter, Silent
from milan_onnx.runtime import Describer, choose_device, choose_threads


@dataclass(frozen=True)
class UnitsOptions:
    """How a bundle is judged on described units."""

    network: str | None = None
    """Judge the units of this network; None: of all networks of the split."""

    images: Path | None = None
    """Folder that paths of photos start from; None: the file's."""

    least_coherence: float = COHERENT
    """Mean coherence from which on a unit is judged."""

    nearest: bool = True
    """Describe by the nearest described units too, where the file has a split to learn from."""

    features: Path | None = None
    """Folder that keeps the features of the described units that are looked among."""

    seed: int = 0
    """Seed of shuffling and bootstrap."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    threads: int | None = None
    """Batches in flight; None: the processors this process may use. Changes no result."""

    similarity: bool | None = None
    """Sentence similarity; False is refused, since nothing else is judged."""


@dataclass(frozen=True)
class _Case:
    """Units with a bundle that describes them."""

    source: DescribedUnits
    """All units of the file that are judged or looked among."""
    judged: Sequence[int]
    known: Sequence[int]
    depth: Mapping[str, str]
    """Of the judged networks' layers (`depths`)."""
    bundle: Bundle
    options: UnitsOptions
    say: Reporter


def evaluate_units(
    units: str | Path,
    split: str | None = None,
    *,
    bundle: str | Path | None = None,
    options: UnitsOptions | None = None,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Judge a bundle on the exemplars of described units.

    ``units``: the file (`milan_onnx.annotations.described`). ``split``: None where it has but one.
    Raises the errors of `milan_onnx.errors`: BadInput naming every bad line and photo, ExtraMissing
    without sentence similarity, UsageError for a split or network that is not there.
    """
    options, say = options or UnitsOptions(), reporter or Silent()
    if options.seed < 0:
        raise UsageError("the value of --seed is out of range", hint="see --help")
    similarity = demand_similarity(options.similarity)
    case = _case(Path(units), split, load_bundle(bundle), options, say)
    own = [case.source.units[place] for place in case.judged]
    found, confidence = _descriptions(case, similarity)
    described = DescribedCase(
        own,
        found,
        confidence,
        case.depth,
        similarity,
        options.least_coherence,
        options.seed,
    )
    judged = judge_described(described)
    return Evaluation(
        columns=judged.columns,
        rows=judged.rows,
        differences=judged.differences,
        groups=judged.groups,
        settings=_settings(case, own),
        counts=_counts(case, own, found["ours"]),
        notes=(*notes_of(judged, options.least_coherence), *_left_out(case)),
        units=judged.units,
        calibration=judged.calibration,
    )


def _case(
    path: Path, split: str | None, bundle: Bundle, options: UnitsOptions, say: Reporter
) -> _Case:
    """Read the units, those to judge and those to look among."""
    whole = DescribedUnits(path, options.images, photos=False)
    everything = whole.units
    split = _split(everything, split, say)
    judged = {unit.key for unit in everything if _chosen(unit, split, options.network)}
    if not judged:
        counts = Counter(unit.network for unit in everything if unit.split == split)
        known = ", ".join(f"{name} ({count} units)" for name, count in sorted(counts.items()))
        raise UsageError(
            f"split {split} has no network called {options.network}", hint=f"there are {known}"
        )
    networks = {unit.network for unit in everything if unit.key in judged}

    def learnt(unit: AnnotatedUnit) -> bool:
        return options.nearest and unit.split == TRAIN and unit.network not in networks

    source = whole.chosen(lambda unit: unit.key in judged or learnt(unit))
    source.check_photos()
    places = range(len(source.units))
    return _Case(
        source,
        [place for place in places if source.units[place].key in judged],
        [place for place in places if source.units[place].key not in judged],
        depths([unit for unit in everything if unit.network in networks]),
        bundle,
        options,
        say,
    )


def _chosen(unit: AnnotatedUnit, split: str, network: str | None) -> bool:
    return unit.split == split and network in (None, unit.network)


def _split(units: Sequence[AnnotatedUnit], split: str | None, say: Reporter) -> str:
    counts = Counter(unit.split for unit in units)
    known = ", ".join(f"{name} ({count} units)" for name, count in sorted(counts.items()))
    if split is None and len(counts) == 1:
        split = next(iter(counts))
        say.choice("split", Choice(split, "the only one there is"))
    if split is None:
        raise UsageError("the described units have several splits", hint=f"--split one of {known}")
    if split not in counts:
        raise UsageError(f"no described unit is of split {split}", hint=f"there are {known}")
    return split


def _descriptions(
    case: _Case, similarity: Similarity
) -> tuple[dict[str, Descriptions], list[float | None]]:
    """Ours and the baselines' descriptions, and how sure we are of ours."""
    options, say = case.options, case.say
    device, threads = choose_device(options.device), choose_threads(options.threads)
    say.choice("device", device)
    say.choice("threads", threads)
    describer = Describer(case.bundle, device.value, threads.value)
    workers = threads.value if device.value.name == "cpu" else 1  # a GPU is filled by one
    encoder = describer.encoder()
    features = annotated_features(case.source, case.judged, encoder, workers, say)
    ways = baselines.searches(case.bundle.manifest.search)
    with say.stage("describe", len(ways) * len(features), "searches") as meter:
        best = {name: hypotheses(describer, features, way, meter) for name, way in ways.items()}
    found: dict[str, Descriptions] = {
        name: [[hypothesis.description for hypothesis in unit] for unit in units]
        for name, units in best.items()
    }
    if case.known:
        name, folder = encoder_name(case.bundle.file(ENCODER), encoder.spec), options.features
        known = known_units(case.source, case.known, encoder, name, folder, workers, say)
        found[NEAREST] = nearest_phrases(known, features, similarity)
    return found, [unit[0].confidence if unit else None for unit in best["ours"]]


def _left_out(case: _Case) -> list[str]:
    if case.known or not case.options.nearest:
        return []
    return [f"{NEAREST} is left out: the file has no split {TRAIN} of other networks"]


def _settings(case: _Case, own: Sequence[AnnotatedUnit]) -> dict[str, Any]:
    manifest = case.bundle.manifest
    return {
        "kind": "units",
        "data": str(case.source.path),
        "data_sha256": sha256_file(case.source.path),
        "split": own[0].split,
        "networks": sorted({unit.network for unit in own}),
        "bundle": {
            "name": manifest.name,
            "version": manifest.version,
            "sha256": case.bundle.sha256,
        },
        "search": asdict(manifest.search),
        "least_coherence": case.options.least_coherence,
        "right_from": RIGHT,
        "seed": case.options.seed,
        "resamples": RESAMPLES,
        "rotations": baselines.ROTATIONS,
    }


def _counts(case: _Case, own: Sequence[AnnotatedUnit], ours: Descriptions) -> dict[str, int]:
    least, source = case.options.least_coherence, case.source
    uses = photo_uses(source, case.judged, [unit.exemplars for unit in own])
    return {
        "units": len(own),
        "units_coherent": sum((unit.coherence or 0) >= least for unit in own),
        "units_looked_among": len(case.known),
        "photos": len(uses),
        "units_without_description": undescribed(ours),
    }
