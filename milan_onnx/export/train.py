"""Train a bundle: ``python -m milan_onnx.export.train --data DATA --work DIR --out BUNDLE``.

Stages, each of which leaves files in the work folder and can be run alone:

    features    encoder.onnx, and the features of all regions (minutes, once)
    drawings    features of drawn images: patterns, plain colours, shapes, digits, words
    units       exemplars of units of trained networks, and their features
    captioner   captioner.pt: p(d|E), trained on virtual units
    refine      the same, trained on with units as mixed as those of real networks
    lm          lm.pt: p(d), trained on the same phrases and on people's
    export      the bundle, with the figures of quality.json in its card where that is there

How good it is, the product itself says: ``benchmarks/quality.py`` writes quality.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from milan_onnx import bundle
from milan_onnx.bundle import SearchDefaults
from milan_onnx.errors import ExtraMissing, MilanError
from milan_onnx.export import onnx_export, phrases
from milan_onnx.export.backbones import Backbone, build_backbone
from milan_onnx.export.captioner import Captioner, CaptionerConfig
from milan_onnx.export.card import model_card
from milan_onnx.export.drawings import drawn_features
from milan_onnx.export.features import (
    BACKGROUND,
    BLOB,
    CLASS,
    DRAWN,
    Encode,
    FeaturePlan,
    FeatureSet,
    collect_features,
)
from milan_onnx.export.language_model import LanguageModel, LanguageModelConfig
from milan_onnx.export.real_units import (
    Evidence,
    RealUnit,
    balanced,
    class_odds,
    name_units,
)
from milan_onnx.export.training import (
    Encoding,
    LoopPlan,
    train_captioner,
    train_language_model,
)
from milan_onnx.export.units import (
    NETWORKS,
    LayerUnits,
    ScanPlan,
    UnitSamples,
    find_exemplars,
    unit_features,
)
from milan_onnx.export.virtual_units import (
    ROLES,
    Concept,
    Mix,
    SampleNames,
    UnitPlan,
    UnitSampler,
    VirtualUnit,
    build_concepts,
    name_samples,
)
from milan_onnx.regions import NameTable, Region, read_regions

# Exemplars of real units share less than those of virtual ones and are often of one kind of photo:
# here up to 7 of 15 are odd, more are of one source, and colours and pairs are drawn more often.
MIXED = Mix(name=0.30, general=0.22, coloured=0.14, colour=0.16, pair=0.09)
# The paper's, but that a word may not come twice, and that λ is 0.3 (paper: 0.2): on val and on
# layers that do not judge the bundle it says more at no loss (docs/training-log.md).
SEARCH = SearchDefaults(50, 15, 0.3, no_repeat=1)
STAGES = ("features", "drawings", "units", "captioner", "refine", "lm", "export")


@dataclass(frozen=True)
class Size:
    """Dimensions of a training run."""

    projection: int
    """Features are projected to this length."""

    hidden: int
    """Captioner's LSTM."""

    attention: int
    """Captioner's attention."""

    embedding: int
    """Word vectors of both networks."""

    lm_hidden: int
    """Language model's LSTM."""

    captioner: LoopPlan
    """Captioner's loop."""

    refine: LoopPlan
    """Captioner's second loop."""

    lm: LoopPlan
    """Language model's loop."""

    units: UnitPlan
    """Virtual units."""

    held_out: int
    """Virtual units that tell which weights are best."""

    fewest: int = 3
    """Photos that must show a concept."""

    views: int = 2
    """Views of each photo."""

    drawings: int = 2400
    """Drawn images."""

    networks: tuple[str, ...] = NETWORKS
    """Networks whose units are training samples."""

    scan: ScanPlan = field(default_factory=ScanPlan)
    """Which of their units."""

    classes: bool = True
    """Whether the captioner sees the backbone's class probabilities."""

    roles: frozenset[int] = ROLES
    """Samples that virtual units are made of (see `milan_onnx.export.features`)."""


SIZES = {
    "default": Size(
        projection=448,
        hidden=320,
        attention=160,
        embedding=128,
        lm_hidden=192,
        captioner=LoopPlan(steps=3000, batch=96),
        refine=LoopPlan(steps=3000, batch=96, rate=1e-3, noise=0.3),
        lm=LoopPlan(steps=1500),
        units=UnitPlan(),
        held_out=512,
    ),
    "toy": Size(
        projection=24,
        hidden=24,
        attention=16,
        embedding=12,
        lm_hidden=16,
        captioner=LoopPlan(steps=30, batch=16, rate=1e-2, validate_every=10),
        refine=LoopPlan(steps=10, batch=16, rate=1e-3, validate_every=10),
        lm=LoopPlan(steps=20, batch=16, rate=1e-2, validate_every=10),
        units=UnitPlan(exemplars=5, most_distractors=1),
        held_out=24,
        fewest=1,
        views=1,
        drawings=24,
        networks=("efficientnet-lite0",),
        scan=ScanPlan(exemplars=5, units=8, every=7),
    ),
}


SIZES["short"] = replace(
    SIZES["default"],
    captioner=LoopPlan(steps=700, batch=96),
    refine=LoopPlan(steps=120, batch=96, rate=6e-4, noise=0.4),
    lm=LoopPlan(steps=400),
    held_out=200,
)


def _without_kinds(size: Size, **shares: float) -> Size:
    mix = replace(size.units.mix, **shares)
    return replace(size, units=replace(size.units, mix=mix))


# Each idea of the recipe, and the recipe without it: for benchmarks/ablation.py.
WITHOUT: dict[str, Callable[[Size], Size]] = {
    "real-units": lambda size: replace(size, units=replace(size.units, real=0.0)),
    "class-probabilities": lambda size: replace(size, classes=False),
    "class-maps": lambda size: replace(size, roles=size.roles - {CLASS, BACKGROUND}),
    "coarse-masks": lambda size: replace(size, roles=size.roles - {BLOB}),
    "drawings": lambda size: replace(size, roles=size.roles - {DRAWN}),
    "general-names": lambda size: _without_kinds(size, general=0.0),
    "siblings": lambda size: replace(size, units=replace(size.units, siblings=0.0)),
    "pixels": lambda size: _without_kinds(size, pixels=0.0, colour=0.0, coloured=0.0),
    "distractors": lambda size: replace(size, units=replace(size.units, clean=1.0)),
    "fewer-exemplars": lambda size: replace(
        size, captioner=replace(size.captioner, fewer_exemplars=0.0)
    ),
    "noise": lambda size: replace(size, captioner=replace(size.captioner, noise=0.0)),
    "refine": lambda size: replace(size, refine=replace(size.refine, steps=0)),
}


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    data: Path
    """Folder with images/ and regions.jsonl.gz."""

    work: Path
    """Folder for what stages leave."""

    out: Path
    """Folder of the bundle."""

    seed: int = 0
    """Seed of everything drawn."""

    size: Size = SIZES["default"]
    """Dimensions."""

    workers: int = 2
    """Processes that compute features."""

    name: str = "milan-lite0"
    """Name of the bundle."""

    version: str = "1"
    """Version of the bundle."""


def say(text: str) -> None:
    """A progress line."""
    print(text, file=sys.stderr, flush=True)


class Run:
    """One training run: its stages and what they share."""

    def __init__(self, options: Options) -> None:
        self.options = options
        options.work.mkdir(parents=True, exist_ok=True)

    @cached_property
    def backbone(self) -> Backbone:
        """The encoder and its classifier, rounded as the bundle will have them."""
        backbone = build_backbone()
        onnx_export.round_weights(backbone.encoder)
        return backbone

    @cached_property
    def regions(self) -> list[Region]:
        """All labelled regions."""
        return read_regions(self.options.data)

    @cached_property
    def regular(self) -> FeatureSet:
        """What the stage ``features`` left."""
        return FeatureSet.load(self.options.work / "features")

    @cached_property
    def unit_samples(self) -> UnitSamples | None:
        """What the stage ``units`` left, where real units are wanted."""
        wanted = self.options.size.units.real > 0
        return UnitSamples.load(self.options.work / "units") if wanted else None

    @cached_property
    def features(self) -> FeatureSet:
        """All samples: of regions, then of real units."""
        drawn = self.options.work / "drawings"
        parts = [self.regular, *([FeatureSet.load(drawn)] if drawn.is_dir() else [])]
        if self.unit_samples is not None:
            parts.append(self.unit_samples.features)
        return FeatureSet.join(parts)

    @cached_property
    def real(self) -> list[RealUnit]:
        """Real units that have a name."""
        samples = self.unit_samples
        if samples is None:
            return []
        first, table = len(self.features.role) - len(samples.keys), NameTable.read()
        assert self.backbone.head is not None
        odds = class_odds(self.features.features, first, self.backbone.head)
        evidence = Evidence(self.features, self.known, odds, table)
        return name_units(evidence, samples.keys, first, samples.layers, table)

    @cached_property
    def known(self) -> SampleNames:
        """Names of all samples."""
        return name_samples(self.features, self.regions, NameTable.read())

    @cached_property
    def concepts(self) -> list[Concept]:
        """Concepts of the photos to train on."""
        size = self.options.size
        return build_concepts(self.features, self.known, True, size.roles, size.fewest)

    @cached_property
    def encoding(self) -> Encoding:
        """The vocabulary: every word that a virtual unit's phrase can hold."""
        texts = [text for concept in self.concepts for text in concept.wording]
        texts += [text for unit in self.real for said in unit.wording for text in said]
        words = phrases.vocabulary_of([*texts, "and"])
        return Encoding(words, onnx_export.vocabulary_spec(words))

    @property
    def mixed(self) -> UnitPlan:
        """Units of the stage ``refine``."""
        plan = self.options.size.units
        most = max(1, plan.exemplars // 2)
        return replace(
            plan,
            most_distractors=most,
            clean=0.25,
            mix=MIXED,
            drawings=5.0,
            real=0.5 * plan.real,
            drawn_pairs=0.4,
            one_source=0.4,
        )

    def sampler(self, seed: int, plan: UnitPlan | None = None) -> UnitSampler:
        """Virtual units of the photos to train on."""
        rng = np.random.default_rng((self.options.seed, seed))
        plan = plan or self.options.size.units
        odds = balanced(self.real) if self.real else None
        return UnitSampler(self.concepts, self.known, plan, rng, self.real, odds)

    def held_out(self, count: int, seed: int, plan: UnitPlan | None = None) -> list[VirtualUnit]:
        """Virtual units of held-out photos whose phrases the vocabulary covers."""
        size = self.options.size
        concepts = build_concepts(self.features, self.known, False, size.roles, size.fewest)
        rng = np.random.default_rng((self.options.seed, seed))
        sampler = UnitSampler(concepts, self.known, plan or self.options.size.units, rng)
        words = set(self.encoding.words)
        units: list[VirtualUnit] = []
        while len(units) < count:
            unit = sampler.draw()
            if words.issuperset(phrases.tokenise(unit.phrase)):
                units.append(unit)
        return units

    def captioner(self) -> Captioner:
        """A captioner of the run's size, untrained."""
        head, size = self.backbone.head, self.options.size
        assert head is not None
        config = CaptionerConfig(
            features=self.features.features.shape[1],
            vocabulary=self.encoding.spec.size,
            embedding=size.embedding,
            hidden=size.hidden,
            attention=size.attention,
            projection=size.projection,
            classes=head.weight.shape[0] if size.classes else 0,
            dropout=0.3,
            feature_dropout=0.15,
        )
        model = Captioner(config, head.weight.shape[1])
        assert model.inputs is not None
        model.inputs.set_statistics(*self._statistics())
        if size.classes:
            model.inputs.set_classifier(head)
        return model

    def _statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        rows = np.flatnonzero(self.known.train)[::4]
        values = self.features.features[rows].astype(np.float32)
        return torch.from_numpy(values.mean(0)), torch.from_numpy(values.std(0))

    def language_model(self) -> LanguageModel:
        """A language model of the run's size, untrained."""
        size = self.options.size
        return LanguageModel(
            LanguageModelConfig(self.encoding.spec.size, size.embedding, size.lm_hidden, 1, 0.3)
        )

    def trained(self) -> tuple[Captioner, LanguageModel]:
        """Both networks with the weights that the stages left, rounded as the bundle's."""
        pair = self.captioner(), self.language_model()
        for model, name in zip(pair, ("captioner", "lm"), strict=True):
            state = torch.load(self.options.work / f"{name}.pt", weights_only=True)
            model.load_state_dict(state)
            onnx_export.round_weights(model.eval())
        return pair

    # --- stages ------------------------------------------------------------------------------

    def do_features(self) -> None:
        """Export the encoder and compute the features of all regions with it."""
        say(f"features: {len(self.regions)} regions")
        model = onnx_export.encoder_model(self.backbone.encoder)
        path = self.options.work / bundle.ENCODER
        path.write_bytes(model.SerializeToString(deterministic=True))
        count = max(1, self.options.workers)
        plans = [
            FeaturePlan(
                views=self.options.size.views, seed=self.options.seed, shard=i, shards=count
            )
            for i in range(count)
        ]
        jobs = [(self.options.data, path, plan) for plan in plans]
        if count == 1:
            parts = [_features_of(jobs[0])]
        else:
            with multiprocessing.get_context("spawn").Pool(count) as pool:
                parts = pool.map(_features_of, jobs, chunksize=1)
        joined = FeatureSet.join(parts)
        joined.save(self.options.work / "features")
        say(f"features: {len(joined.role)} samples of {len(set(joined.image.tolist()))} photos")

    def do_drawings(self) -> None:
        """Draw what photos show too seldom, and compute its features."""
        if not self.options.size.drawings:
            return
        encode = _session(self.options.work / bundle.ENCODER, os.cpu_count() or 1)
        photos = len({region.image for region in self.regions})
        count, seed = self.options.size.drawings, self.options.seed
        drawn_features(count, seed, encode, photos, say).save(self.options.work / "drawings")

    def do_units(self) -> None:
        """Find what excites units of trained networks among the photos to train on."""
        if not self.options.size.units.real:
            return
        names, count = self.options.size.networks, max(1, self.options.workers)
        with multiprocessing.get_context("spawn").Pool(count) as pool:
            found = pool.map(_units_of, [(self.options, name) for name in names], chunksize=1)
            layers = [layer for part in found for layer in part]
            jobs = [(self.options, layers, (shard, count)) for shard in range(count)]
            parts = pool.map(_unit_features_of, jobs, chunksize=1)
        samples = UnitSamples(
            FeatureSet.join([part[0] for part in parts]),
            np.concatenate([part[1] for part in parts]),
            tuple((layer.layer, layer.units) for layer in layers),
        )
        samples.save(self.options.work / "units")
        say(f"units: {sum(len(u) for _, u in samples.layers)} units, {len(samples.keys)} samples")

    def do_captioner(self) -> None:
        """Train the captioner."""
        torch.manual_seed(self.options.seed)
        model, size = self.captioner(), self.options.size
        say(f"captioner: {len(self.concepts)} concepts, {len(self.real)} real units, "
            f"{self.encoding.spec.size} tokens")  # fmt: skip
        train_captioner(
            model,
            self.features.features,
            self.sampler(1),
            self.held_out(size.held_out, 2),
            self.encoding,
            size.captioner,
            self.options.work / "captioner.pt",
            say,
        )

    def do_refine(self) -> None:
        """Train the captioner on with more mixed units."""
        if not self.options.size.refine.steps:
            return
        torch.manual_seed(self.options.seed + 2)
        model, size, path = self.captioner(), self.options.size, self.options.work / "captioner.pt"
        model.load_state_dict(torch.load(path, weights_only=True))
        train_captioner(
            model,
            self.features.features,
            self.sampler(5, self.mixed),
            self.held_out(size.held_out, 6, self.mixed),
            self.encoding,
            size.refine,
            path,
            say,
        )

    def do_lm(self) -> None:
        """Train the language model."""
        torch.manual_seed(self.options.seed + 1)
        human = phrases.human_phrases(self.options.data, self.encoding.words)
        say(f"lm: {len(human)} human phrases fit the vocabulary")
        train_language_model(
            self.language_model(),
            self.sampler(3, self.mixed),
            human,
            self.encoding,
            self.options.size.lm,
            self.options.work / "lm.pt",
            say,
        )

    def do_export(self) -> None:
        """Write the bundle."""
        captioner, lm = self.trained()
        facts, figures = self._facts(captioner, lm), self.options.work / "quality.json"
        measured = json.loads(figures.read_text("utf-8")) if figures.is_file() else {}
        info = onnx_export.BundleInfo(
            self.options.name,
            self.options.version,
            "research use; see MODEL_CARD.md",
            model_card(facts, measured),
            self.options.size.units.exemplars,
            SEARCH,
            {**facts, "size": _plain(self.options.size)},
        )
        encoder = onnx.load(self.options.work / bundle.ENCODER)
        made = onnx_export.write_bundle(
            self.options.out, self.backbone, captioner, lm, self.encoding.words, info, encoder
        )
        total = sum(entry.bytes for entry in made.manifest.files.values())
        say(f"export: {self.options.out}, {total / 1e6:.1f} MB, {made.sha256[:12]}")

    def _facts(self, captioner: Captioner, lm: LanguageModel) -> dict[str, Any]:
        c = captioner.config
        train = [region for region in self.regions if region.split == "train"]
        return {
            "name": self.options.name,
            "version": self.options.version,
            "seed": self.options.seed,
            "real_units": len(self.real),
            "steps": self.options.size.captioner.steps,
            "words": len(self.encoding.words),
            "regions": len(train),
            "photos": len({region.image for region in train}),
            "captioner": f"features and class probabilities projected to {c.projection}, "
            f"state {c.hidden}, attention {c.attention}",
            "lm": f"{lm.config.layers} layer, state {lm.config.hidden}",
        }


def _plain(size: Size) -> dict[str, Any]:
    """The dimensions as JSON can hold them."""
    return {**asdict(size), "roles": sorted(size.roles)}


def _session(path: Path, threads: int) -> Encode:
    """The encoder's maps of frames, by ONNX Runtime."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ExtraMissing("ONNX Runtime is not installed", hint="install `cpu`") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def encode(images: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        maps: Sequence[NDArray[np.float32]] = session.run(None, {"images": images})
        return maps

    return encode


def _quiet(text: str) -> None:
    """Says nothing: of several processes one tells how far they are."""


def _features_of(job: tuple[Path, Path, FeaturePlan]) -> FeatureSet:
    """Features of one shard of the photos, in a process of its own."""
    data, encoder, plan = job
    encode = _session(encoder, max(1, (os.cpu_count() or 1) // plan.shards))
    tell = say if plan.shard == 0 else _quiet
    return collect_features(data, read_regions(data), encode, build_backbone().head, plan, tell)


def _units_of(job: tuple[Options, str]) -> list[LayerUnits]:
    """Exemplars of one network's units, in a process of its own."""
    options, name = job
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // options.workers))
    plan = replace(options.size.scan, seed=options.seed)
    return find_exemplars(options.data, read_regions(options.data), name, plan, say)


def _unit_features_of(
    job: tuple[Options, Sequence[LayerUnits], tuple[int, int]],
) -> tuple[FeatureSet, NDArray[np.int64]]:
    """Features of the exemplars in one share of the photos, in a process of its own."""
    options, layers, shard = job
    encode = _session(options.work / bundle.ENCODER, max(1, (os.cpu_count() or 1) // shard[1]))
    regions, head, tell = (
        read_regions(options.data),
        build_backbone().head,
        say if shard[0] == 0 else _quiet,
    )
    assert head is not None
    return unit_features(options.data, regions, layers, encode, head, shard, tell)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m milan_onnx.export.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--data", type=Path, required=True, help="images/ and regions.jsonl.gz")
    made.add_argument("--work", type=Path, required=True, help="folder for what stages leave")
    made.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    made.add_argument("--seed", type=int, default=0, help="seed of everything drawn (default 0)")
    made.add_argument("--size", choices=sorted(SIZES), default="default", help="dimensions")
    made.add_argument("--without", choices=sorted(WITHOUT), help="leave an idea out (ablation)")
    made.add_argument("--steps", type=int, help="captioner's steps, instead of the size's")
    made.add_argument("--workers", type=int, default=2, help="processes for features (default 2)")
    made.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default 2)")
    made.add_argument("--name", default="milan-lite0", help="name of the bundle")
    made.add_argument("--version", default="1", help="version of the bundle")
    made.add_argument(
        "--stages", nargs="+", choices=STAGES, default=STAGES, help="stages to run (default all)"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; returns the exit code."""
    given = parser().parse_args(arguments)
    size = SIZES[given.size]
    if given.without:
        size = WITHOUT[given.without](size)
    if given.steps:
        size = replace(size, captioner=replace(size.captioner, steps=given.steps))
    torch.set_num_threads(given.threads)
    run = Run(
        Options(
            given.data,
            given.work,
            given.out,
            given.seed,
            size,
            given.workers,
            given.name,
            given.version,
        )
    )
    try:
        for stage in (stage for stage in STAGES if stage in given.stages):
            started = perf_counter()
            getattr(run, f"do_{stage}")()
            say(f"{stage}: done in {perf_counter() - started:.0f} s")
    except MilanError as error:
        say(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
