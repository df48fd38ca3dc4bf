"""Training on region-labelled photos: the stages, each of which leaves files in the work folder.

    features    encoder.onnx, and the features of all regions (minutes, once)
    drawings    features of drawn images: patterns, plain colours, shapes, digits, words
    units       exemplars of units of trained networks, and their features
    captioner   captioner.pt: p(d|E), trained on virtual units
    refine      refined.pt: the same, trained on with units as mixed as those of real networks
    lm          lm.pt: p(d), trained on the same phrases and on people's

How good it is, the product itself says: ``benchmarks/quality.py`` writes quality.json.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from milan_onnx import bundle
from milan_onnx.bundle import SearchDefaults
from milan_onnx.errors import ExtraMissing
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
    EDGE,
    EXACT,
    PIXELS,
    Encode,
    FeaturePlan,
    FeatureSet,
    collect_features,
)
from milan_onnx.export.language_model import LanguageModel, LanguageModelConfig
from milan_onnx.export.loop import LoopPlan, Say
from milan_onnx.export.real_units import (
    Evidence,
    RealUnit,
    balanced,
    class_odds,
    name_units,
)
from milan_onnx.export.training import (
    Encoding,
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
    Concept,
    SampleNames,
    UnitPlan,
    UnitSampler,
    VirtualUnit,
    build_concepts,
    name_samples,
)
from milan_onnx.files import sha256_bytes
from milan_onnx.machine import send_nothing
from milan_onnx.regions import NameTable, Region, read_regions

STAGES = ("features", "drawings", "units", "captioner", "refine", "lm")


SAMPLES = {
    "exact masks": EXACT,
    "coarse masks": BLOB,
    "class maps": CLASS,
    "backgrounds": BACKGROUND,
    "pixels": PIXELS,
    "outlines": EDGE,
    "drawings": DRAWN,
}
"""Kinds of samples by the name that recipes use."""


@dataclass(frozen=True)
class RegionRecipe:
    """A recipe of the kind "regions"."""

    name: str
    """Name of the bundle."""

    version: str
    """Version of its weights."""

    search: SearchDefaults
    """How the bundle searches unless told otherwise."""

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

    mixed: UnitPlan
    """Virtual units of the second loop, and of the language model."""

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

    samples: tuple[str, ...] = tuple(SAMPLES)
    """Kinds of samples that virtual units are made of: names of SAMPLES."""

    @property
    def roles(self) -> frozenset[int]:
        """The same by number (see `milan_onnx.export.features`)."""
        return frozenset(SAMPLES[name] for name in self.samples)


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    recipe: RegionRecipe
    """What is trained, and how."""

    data: Path
    """Folder with images/ and regions.jsonl.gz."""

    work: Path
    """Folder for what stages leave."""

    seed: int = 0
    """Seed of everything drawn."""

    workers: int = 2
    """Processes that compute features."""

    device: str = "cpu"
    """Where the networks are trained: cpu, cuda or cuda:N."""

    quiet: bool = False
    """Whether the processes that compute features say nothing."""


def say(text: str) -> None:
    """A progress line."""
    print(text, file=sys.stderr, flush=True)


class RegionRun:
    """One training run: its stages and what they share."""

    stages = STAGES

    def __init__(self, options: Options, tell: Say = say) -> None:
        """``tell`` takes progress lines."""
        self.options, self.recipe, self.say = options, options.recipe, tell
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
        wanted = self.recipe.units.real > 0
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
        recipe = self.recipe
        return build_concepts(self.features, self.known, True, recipe.roles, recipe.fewest)

    @cached_property
    def encoding(self) -> Encoding:
        """The vocabulary: every word that a virtual unit's phrase can hold."""
        texts = [text for concept in self.concepts for text in concept.wording]
        texts += [text for unit in self.real for said in unit.wording for text in said]
        words = phrases.vocabulary_of([*texts, "and"])
        return Encoding(words, onnx_export.vocabulary_spec(words))

    @property
    def fingerprint(self) -> str:
        """All that the weights depend on but the data, in short."""
        return fingerprint(self.recipe, self.options.seed)

    def sampler(self, seed: int, plan: UnitPlan | None = None) -> UnitSampler:
        """Virtual units of the photos to train on."""
        rng = np.random.default_rng((self.options.seed, seed))
        plan = plan or self.recipe.units
        odds = balanced(self.real) if self.real else None
        return UnitSampler(self.concepts, self.known, plan, rng, self.real, odds)

    def held_out(self, count: int, seed: int, plan: UnitPlan | None = None) -> list[VirtualUnit]:
        """Virtual units of held-out photos whose phrases the vocabulary covers."""
        recipe = self.recipe
        concepts = build_concepts(self.features, self.known, False, recipe.roles, recipe.fewest)
        rng = np.random.default_rng((self.options.seed, seed))
        sampler = UnitSampler(concepts, self.known, plan or self.recipe.units, rng)
        words = set(self.encoding.words)
        units: list[VirtualUnit] = []
        while len(units) < count:
            unit = sampler.draw()
            if words.issuperset(phrases.tokenise(unit.phrase)):
                units.append(unit)
        return units

    def captioner(self) -> Captioner:
        """A captioner of the run's size, untrained."""
        head, recipe = self.backbone.head, self.recipe
        assert head is not None
        config = CaptionerConfig(
            features=self.features.features.shape[1],
            vocabulary=self.encoding.spec.size,
            embedding=recipe.embedding,
            hidden=recipe.hidden,
            attention=recipe.attention,
            projection=recipe.projection,
            classes=head.weight.shape[0] if recipe.classes else 0,
            dropout=0.3,
            feature_dropout=0.15,
        )
        model = Captioner(config, head.weight.shape[1])
        assert model.inputs is not None
        model.inputs.set_statistics(*self._statistics())
        if recipe.classes:
            model.inputs.set_classifier(head)
        return model

    def _statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        rows = np.flatnonzero(self.known.train)[::4]
        values = self.features.features[rows].astype(np.float32)
        return torch.from_numpy(values.mean(0)), torch.from_numpy(values.std(0))

    def language_model(self) -> LanguageModel:
        """A language model of the run's size, untrained."""
        recipe = self.recipe
        return LanguageModel(
            LanguageModelConfig(self.encoding.spec.size, recipe.embedding, recipe.lm_hidden, 1, 0.3)
        )

    def trained(self) -> tuple[Captioner, LanguageModel]:
        """Both networks with the weights that the stages left, rounded as the bundle's."""
        pair = self.captioner(), self.language_model()
        captioner = "refined" if self.recipe.refine.steps else "captioner"
        for model, name in zip(pair, (captioner, "lm"), strict=True):
            saved = torch.load(self.options.work / f"{name}.pt", weights_only=True)
            model.load_state_dict(saved["state"])
            onnx_export.round_weights(model.eval())
        return pair

    # --- stages ------------------------------------------------------------------------------

    def do_features(self) -> None:
        """Export the encoder and compute the features of all regions with it."""
        self.say(f"features: {len(self.regions)} regions")
        model = onnx_export.encoder_model(self.backbone.encoder)
        path = self.options.work / bundle.ENCODER
        path.write_bytes(model.SerializeToString(deterministic=True))
        count = max(1, self.options.workers)
        plans = [
            FeaturePlan(views=self.recipe.views, seed=self.options.seed, shard=i, shards=count)
            for i in range(count)
        ]
        jobs = [(self.options, path, plan) for plan in plans]
        if count == 1:
            parts = [_features_of(jobs[0])]
        else:
            with multiprocessing.get_context("spawn").Pool(count) as pool:
                parts = pool.map(_features_of, jobs, chunksize=1)
        joined = FeatureSet.join(parts)
        joined.save(self.options.work / "features")
        self.say(
            f"features: {len(joined.role)} samples of {len(set(joined.image.tolist()))} photos"
        )

    def do_drawings(self) -> None:
        """Draw what photos show too seldom, and compute its features."""
        if not self.recipe.drawings:
            return
        encode = _session(self.options.work / bundle.ENCODER, os.cpu_count() or 1)
        photos = len({region.image for region in self.regions})
        count, seed = self.recipe.drawings, self.options.seed
        drawn_features(count, seed, encode, photos, self.say).save(self.options.work / "drawings")

    def do_units(self) -> None:
        """Find what excites units of trained networks among the photos to train on."""
        if not self.recipe.units.real:
            return
        names, count = self.recipe.networks, max(1, self.options.workers)
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
        self.say(
            f"units: {sum(len(u) for _, u in samples.layers)} units, {len(samples.keys)} samples"
        )

    def do_captioner(self) -> None:
        """Train the captioner."""
        torch.manual_seed(self.options.seed)
        model, recipe = self.captioner().to(self.options.device), self.recipe
        self.say(f"captioner: {len(self.concepts)} concepts, {len(self.real)} real units, "
            f"{self.encoding.spec.size} tokens")  # fmt: skip
        train_captioner(
            model,
            self.features.features,
            self.sampler(1),
            self.held_out(recipe.held_out, 2),
            self.encoding,
            recipe.captioner,
            self.options.work / "captioner.pt",
            self.fingerprint,
            self.say,
        )

    def do_refine(self) -> None:
        """Train the captioner on with more mixed units."""
        if not self.recipe.refine.steps:
            return
        torch.manual_seed(self.options.seed + 2)
        model, recipe, work = self.captioner(), self.recipe, self.options.work
        model.load_state_dict(torch.load(work / "captioner.pt", weights_only=True)["state"])
        model.to(self.options.device)
        train_captioner(
            model,
            self.features.features,
            self.sampler(5, self.recipe.mixed),
            self.held_out(recipe.held_out, 6, self.recipe.mixed),
            self.encoding,
            recipe.refine,
            work / "refined.pt",
            self.fingerprint,
            self.say,
        )

    def do_lm(self) -> None:
        """Train the language model."""
        torch.manual_seed(self.options.seed + 1)
        human = phrases.human_phrases(self.options.data, self.encoding.words)
        self.say(f"lm: {len(human)} human phrases fit the vocabulary")
        train_language_model(
            self.language_model().to(self.options.device),
            self.sampler(3, self.recipe.mixed),
            human,
            self.encoding,
            self.recipe.lm,
            self.options.work / "lm.pt",
            self.fingerprint,
            self.say,
        )

    def do(self, stage: str) -> None:
        """Run one of the stages."""
        getattr(self, f"do_{stage}")()

    def export(self, out: Path) -> bundle.Bundle:
        """Write the bundle to a folder, with the figures of quality.json in its card."""
        captioner, lm = self.trained()
        facts, figures = self._facts(captioner, lm), self.options.work / "quality.json"
        measured = json.loads(figures.read_text("utf-8")) if figures.is_file() else {}
        info = onnx_export.BundleInfo(
            self.recipe.name,
            self.recipe.version,
            "research use; see MODEL_CARD.md",
            model_card(facts, measured),
            self.recipe.units.exemplars,
            self.recipe.search,
            {**facts, "recipe": asdict(self.recipe)},
        )
        encoder = onnx.load(self.options.work / bundle.ENCODER)
        words = self.encoding.words
        return onnx_export.write_bundle(out, self.backbone, captioner, lm, words, info, encoder)

    def _facts(self, captioner: Captioner, lm: LanguageModel) -> dict[str, Any]:
        c = captioner.config
        train = [region for region in self.regions if region.split == "train"]
        return {
            "name": self.recipe.name,
            "version": self.recipe.version,
            "seed": self.options.seed,
            "real_units": len(self.real),
            "steps": self.recipe.captioner.steps,
            "words": len(self.encoding.words),
            "regions": len(train),
            "photos": len({region.image for region in train}),
            "captioner": f"features and class probabilities projected to {c.projection}, "
            f"state {c.hidden}, attention {c.attention}",
            "lm": f"{lm.config.layers} layer, state {lm.config.hidden}",
        }


def fingerprint(recipe: RegionRecipe, seed: int) -> str:
    """Settings that weights depend on, in short: how a bundle is called or searches is none."""
    settings = asdict(recipe)
    for name in ("name", "version", "search"):
        del settings[name]
    text = json.dumps([settings, seed], sort_keys=True)
    return sha256_bytes(text.encode())[:16]


def _session(path: Path, threads: int) -> Encode:
    """The encoder's maps of frames, by ONNX Runtime."""
    send_nothing()
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
    """Says nothing."""


def _teller(options: Options, shard: int) -> Say:
    """Of several processes one tells how far they are."""
    return say if shard == 0 and not options.quiet else _quiet


def _features_of(job: tuple[Options, Path, FeaturePlan]) -> FeatureSet:
    """Features of one shard of the photos, in a process of its own."""
    options, encoder, plan = job
    data = options.data
    encode = _session(encoder, max(1, (os.cpu_count() or 1) // plan.shards))
    tell = _teller(options, plan.shard)
    return collect_features(data, read_regions(data), encode, build_backbone().head, plan, tell)


def _units_of(job: tuple[Options, str]) -> list[LayerUnits]:
    """Exemplars of one network's units, in a process of its own."""
    options, name = job
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // options.workers))
    plan = replace(options.recipe.scan, seed=options.seed)
    return find_exemplars(options.data, read_regions(options.data), name, plan, _teller(options, 0))


def _unit_features_of(
    job: tuple[Options, Sequence[LayerUnits], tuple[int, int]],
) -> tuple[FeatureSet, NDArray[np.int64]]:
    """Features of the exemplars in one share of the photos, in a process of its own."""
    options, layers, shard = job
    encode = _session(options.work / bundle.ENCODER, max(1, (os.cpu_count() or 1) // shard[1]))
    regions, head, tell = (
        read_regions(options.data),
        build_backbone().head,
        _teller(options, shard[0]),
    )
    assert head is not None
    return unit_features(options.data, regions, layers, encode, head, shard, tell)
