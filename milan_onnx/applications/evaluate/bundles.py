"""``evaluate --virtual``: judge a bundle on virtual units of labelled photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from milan_onnx.annotations.virtual import (
    FEWEST_PHOTOS,
    Pool,
    VirtualUnit,
    draw_units,
    make_pool,
    virtual_features,
)
from milan_onnx.applications.evaluate import baselines
from milan_onnx.applications.evaluate.answers import Answer, Descriptions, Values
from milan_onnx.applications.evaluate.captions import search
from milan_onnx.applications.evaluate.intervals import RESAMPLES
from milan_onnx.applications.evaluate.judging import Judge, columns_of, judge
from milan_onnx.applications.evaluate.result import Evaluation
from milan_onnx.applications.similarity import choose_similarity
from milan_onnx.bundle import Bundle, load_bundle
from milan_onnx.choice import Choice
from milan_onnx.errors import ProbeError, UsageError
from milan_onnx.files import sha256_bytes, sha256_file
from milan_onnx.progress import Reporter, Silent
from milan_onnx.regions import NAMES, REGIONS, NameTable, Region, read_regions
from milan_onnx.runtime import Describer, choose_device, choose_threads


@dataclass(frozen=True)
class VirtualOptions:
    """How a bundle is judged on virtual units."""

    count: int = 1000
    """Virtual units, spread evenly over the concepts."""

    exemplars: int = 15
    """Most regions of a unit (paper: 15)."""

    seed: int = 0
    """Seed of all draws: units, masks, shuffling, bootstrap."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    threads: int | None = None
    """Batches in flight; None: the processors this process may use. Changes no result."""

    similarity: bool | None = None
    """Sentence similarity: True demands it, None takes it where it is installed."""

    def check(self) -> None:
        """Refuse numbers that make no sense, before any work. Raises UsageError."""
        wrong = {
            "count": self.count < 1,
            "exemplars": not FEWEST_PHOTOS <= self.exemplars <= 1000,
            "seed": self.seed < 0,
        }
        for name, bad in wrong.items():
            if bad:
                raise UsageError(f"the value of --{name} is out of range", hint="see --help")


def evaluate_virtual(
    data: str | Path,
    split: str | None = None,
    *,
    bundle: str | Path | None = None,
    options: VirtualOptions | None = None,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Judge a bundle on virtual units drawn from a split of labelled photos.

    ``data``: a folder with ``images/`` and ``regions.jsonl.gz``. ``split``: None where it has but
    one. Raises the errors of `milan_onnx.errors`: ProbeError for photos or regions that cannot be
    used, UsageError for a split that is not there.
    """
    options, say, data = options or VirtualOptions(), reporter or Silent(), Path(data)
    options.check()
    table, captioner = NameTable.read(), load_bundle(bundle)
    regions = _of_split(data, split, say)
    pool = make_pool(regions, table, captioner.manifest.encoder.image_size)
    _need_concepts(pool, data)
    units = draw_units(pool, table, options.count, options.exemplars, options.seed)
    similarity = choose_similarity(options.similarity, say)
    searched, words = _search(data, pool, units, captioner, options, say)
    answers = [Answer(unit.names, unit.general, (unit.concept,)) for unit in units]
    concepts = [unit.concept for unit in units]
    judging = Judge(answers, concepts, words, similarity, options.seed)
    rows, differences = judge(judging, searched)
    return Evaluation(
        columns=columns_of(rows),
        rows=rows,
        differences=differences,
        groups=_groups(units, judging.values(searched["ours"])),
        settings=_settings(data, regions[0].split, pool, units, captioner, options),
        counts=_counts(regions, pool, units),
        notes=_notes(pool, units),
        units=[_unit_facts(unit, searched, index) for index, unit in enumerate(units)],
    )


def _search(
    data: Path,
    pool: Pool,
    units: Sequence[VirtualUnit],
    captioner: Bundle,
    options: VirtualOptions,
    say: Reporter,
) -> tuple[dict[str, Descriptions], int]:
    """Descriptions of the units, ours and those of other searches, and the bundle's words."""
    device, threads = choose_device(options.device), choose_threads(options.threads)
    say.choice("device", device)
    say.choice("threads", threads)
    describer = Describer(captioner, device.value, threads.value)
    workers = threads.value if device.value.name == "cpu" else 1  # a GPU is filled by one
    features = virtual_features(data, pool, units, describer.encoder(), workers, say)
    ways = baselines.searches(captioner.manifest.search)
    with say.stage("describe", len(ways) * len(units), "searches") as meter:
        found = {name: search(describer, features, way, meter) for name, way in ways.items()}
    return dict(found), describer.words


def _of_split(data: Path, split: str | None, say: Reporter) -> list[Region]:
    regions = read_regions(data)
    splits = Counter(region.split for region in regions)
    known = ", ".join(f"{name} ({count} regions)" for name, count in sorted(splits.items()))
    if split is None and len(splits) == 1:
        split = next(iter(splits))
        say.choice("split", Choice(split, "the only one there is"))
    if split is None:
        raise UsageError(f"{data} has several splits", hint=f"--split one of {known}")
    if split not in splits:
        raise UsageError(f"{data} has no split {split}", hint=f"it has {known or 'no regions'}")
    return [region for region in regions if region.split == split]


def _need_concepts(pool: Pool, data: Path) -> None:
    if not pool.concepts:
        raise ProbeError(
            f"no label in this split of {data} is shown by {FEWEST_PHOTOS} photos",
            hint="give another --split, or more labelled photos",
        )


def _groups(
    units: Sequence[VirtualUnit], columns: Mapping[str, Values]
) -> dict[str, dict[str, Any]]:
    """Means of parts of the units: each source, each number of exemplars, and their averages."""
    parts: dict[str, list[int]] = {}
    for index, unit in enumerate(units):
        parts.setdefault(f"source {unit.source}", []).append(index)
        parts.setdefault(f"exemplars {len(unit.regions):02d}", []).append(index)
    groups: dict[str, dict[str, Any]] = {
        name: {"units": len(parts[name])}
        | {c: float(v[parts[name]].mean()) for c, v in columns.items()}
        for name in sorted(parts)
    }
    sources = [facts for name, facts in groups.items() if name.startswith("source ")]
    mean = {c: sum(facts[c] for facts in sources) / len(sources) for c in columns}
    return {"mean over sources": {"units": len(units), **mean}, **groups}


def _settings(
    data: Path,
    split: str,
    pool: Pool,
    units: Sequence[VirtualUnit],
    captioner: Bundle,
    options: VirtualOptions,
) -> dict[str, Any]:
    used = {pool.shown[place].region.image for unit in units for place in unit.regions}
    digests = [f"{photo} {sha256_file(data / photo)}\n" for photo in sorted(used)]
    manifest = captioner.manifest
    return {
        "kind": "virtual",
        "data": str(data),
        "split": split,
        "data_sha256": sha256_file(data / REGIONS),
        "names_sha256": sha256_file(NAMES),
        "photos_sha256": sha256_bytes("".join(digests).encode("utf-8", "surrogateescape")),
        "bundle": {
            "name": manifest.name,
            "version": manifest.version,
            "sha256": captioner.sha256,
        },
        "search": asdict(manifest.search),
        "count": options.count,
        "exemplars": options.exemplars,
        "seed": options.seed,
        "resamples": RESAMPLES,
        "rotations": baselines.ROTATIONS,
    }


def _counts(regions: Sequence[Region], pool: Pool, units: Sequence[VirtualUnit]) -> dict[str, int]:
    return {
        "units": len(units),
        "concepts": len({unit.concept for unit in units}),
        "labels": len({region.label for region in regions}),
        "labels_that_take_part": sum(len(concept.labels) for concept in pool.concepts),
        "concepts_with_too_few_photos": len(pool.too_few),
        "labels_with_too_few_photos": sum(len(concept.labels) for concept in pool.too_few),
        "regions": len(regions),
        "regions_out_of_view": pool.out_of_view,
        "photos": len({region.image for region in regions}),
    }


def _notes(pool: Pool, units: Sequence[VirtualUnit]) -> tuple[str, ...]:
    left = sum(len(concept.labels) for concept in pool.too_few)
    notes = [
        f"{len(pool.concepts)} concepts take part; {left} labels ({len(pool.too_few)} concepts) "
        f"are left out: fewer than {FEWEST_PHOTOS} photos show them",
        f"{pool.out_of_view} regions are left out: the centre square cuts them away, or leaves "
        "less than 0.4 % of the frame",
        "intervals: 95 %, bootstrap over concepts (units of one concept stand or fall together)",
    ]
    drawn = len({unit.concept for unit in units})
    if drawn < len(pool.concepts):
        notes.append(f"only {drawn} concepts are judged: --count is less than their number")
    return tuple(notes)


def _unit_facts(
    unit: VirtualUnit, searched: Mapping[str, Descriptions], index: int
) -> dict[str, Any]:
    return {
        "concept": unit.concept,
        "source": unit.source,
        "exemplars": len(unit.regions),
        "label": list(unit.names),
        "general": list(unit.general),
        "descriptions": {name: list(texts[index]) for name, texts in searched.items()},
    }
