"""Train a bundle: ``python -m milan_onnx.export.train --data DATA --work DIR --out BUNDLE``.

Stages, each of which leaves files in the work folder and can be run alone:

    features    encoder.onnx, and the features of all regions (minutes, once)
    captioner   captioner.pt: p(d|E), trained on virtual units
    refine      the same, trained on with units as mixed as those of real networks
    lm          lm.pt: p(d), trained on the same phrases and on people's
    evaluate    scores.json and examples.txt: figures on units of held-out photos
    export      the bundle
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
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
from milan_onnx.export import evaluate as evaluation
from milan_onnx.export import onnx_export, phrases
from milan_onnx.export.backbones import Backbone, build_backbone
from milan_onnx.export.captioner import Captioner, CaptionerConfig
from milan_onnx.export.card import model_card
from milan_onnx.export.features import FeaturePlan, FeatureSet, collect_features
from milan_onnx.export.language_model import LanguageModel, LanguageModelConfig
from milan_onnx.export.training import (
    Encoding,
    LoopPlan,
    train_captioner,
    train_language_model,
)
from milan_onnx.export.virtual_units import (
    Concept,
    Mix,
    SampleNames,
    UnitPlan,
    UnitSampler,
    VirtualUnit,
    build_concepts,
    name_samples,
)
from milan_onnx.files import write_json
from milan_onnx.regions import NameTable, Region, read_regions

# Exemplars of real units share less than those of virtual ones: here up to 9 of 15 are odd, and
# general names are drawn more often than special ones.
MIXED = Mix(name=0.24, general=0.34, coloured=0.10, pair=0.02)
STAGES = ("features", "captioner", "refine", "lm", "evaluate", "export")


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
    """Virtual units to evaluate on."""

    fewest: int = 3
    """Photos that must show a concept."""

    views: int = 2
    """Views of each photo."""


SIZES = {
    "default": Size(
        projection=448,
        hidden=320,
        attention=160,
        embedding=128,
        lm_hidden=192,
        captioner=LoopPlan(steps=4000, batch=96),
        refine=LoopPlan(steps=500, batch=96, rate=6e-4, noise=0.4),
        lm=LoopPlan(steps=1200),
        units=UnitPlan(),
        held_out=1000,
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
    ),
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
    def features(self) -> FeatureSet:
        """What the stage ``features`` left."""
        return FeatureSet.load(self.options.work / "features")

    @cached_property
    def known(self) -> SampleNames:
        """Names of all samples."""
        return name_samples(self.features, self.regions, NameTable.read())

    @cached_property
    def concepts(self) -> list[Concept]:
        """Concepts of the photos to train on."""
        return build_concepts(self.features, self.known, True, self.options.size.fewest)

    @cached_property
    def encoding(self) -> Encoding:
        """The vocabulary: every word that a virtual unit's phrase can hold."""
        texts = [text for concept in self.concepts for text in concept.wording]
        words = phrases.vocabulary_of([*texts, "and"])
        return Encoding(words, onnx_export.vocabulary_spec(words))

    @property
    def mixed(self) -> UnitPlan:
        """Units of the stage ``refine``."""
        plan = self.options.size.units
        most = max(1, 3 * plan.exemplars // 5)
        return replace(plan, most_distractors=most, clean=0.15, mix=MIXED)

    def sampler(self, seed: int, plan: UnitPlan | None = None) -> UnitSampler:
        """Virtual units of the photos to train on."""
        rng = np.random.default_rng((self.options.seed, seed))
        return UnitSampler(self.concepts, self.known, plan or self.options.size.units, rng)

    def held_out(self, count: int, seed: int, plan: UnitPlan | None = None) -> list[VirtualUnit]:
        """Virtual units of held-out photos whose phrases the vocabulary covers."""
        concepts = build_concepts(self.features, self.known, False, self.options.size.fewest)
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
            classes=head.weight.shape[0],
            dropout=0.3,
            feature_dropout=0.15,
        )
        model = Captioner(config, head.weight.shape[1])
        assert model.inputs is not None
        model.inputs.set_statistics(*self._statistics())
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

    def do_captioner(self) -> None:
        """Train the captioner."""
        torch.manual_seed(self.options.seed)
        model, size = self.captioner(), self.options.size
        say(f"captioner: {len(self.concepts)} concepts, {self.encoding.spec.size} tokens")
        train_captioner(
            model,
            self.features.features,
            self.sampler(1),
            self.held_out(min(512, size.held_out), 2),
            self.encoding,
            size.captioner,
            self.options.work / "captioner.pt",
            say,
        )

    def do_refine(self) -> None:
        """Train the captioner on with more mixed units."""
        torch.manual_seed(self.options.seed + 2)
        model, size, path = self.captioner(), self.options.size, self.options.work / "captioner.pt"
        model.load_state_dict(torch.load(path, weights_only=True))
        train_captioner(
            model,
            self.features.features,
            self.sampler(5, self.mixed),
            self.held_out(min(512, size.held_out), 6, self.mixed),
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
            self.sampler(3),
            human,
            self.encoding,
            self.options.size.lm,
            self.options.work / "lm.pt",
            say,
        )

    def do_evaluate(self) -> None:
        """Describe held-out units and write the figures."""
        captioner, lm = self.trained()
        units = self.held_out(self.options.size.held_out, 4)
        scores, found = evaluation.evaluate(
            captioner, lm, self.features.features, units, self.encoding
        )
        write_json(self.options.work / "scores.json", asdict(scores))
        lines = [
            f"{u.kind}\t{u.phrase}\t{' | '.join(f[:5])}" for u, f in zip(units, found, strict=True)
        ]
        (self.options.work / "examples.txt").write_text("\n".join(lines) + "\n", "utf-8")
        say(f"evaluate: top-1 {scores.top1:.3f} (shuffled {scores.shuffled_top1:.3f}), "
            f"top-5 {scores.top5:.3f}, cross-entropy {scores.cross_entropy:.3f}")  # fmt: skip

    def do_export(self) -> None:
        """Write the bundle."""
        captioner, lm = self.trained()
        scores = evaluation.Scores(
            **json.loads((self.options.work / "scores.json").read_text("utf-8"))
        )
        facts, search = self._facts(captioner, lm), evaluation.SearchPlan()
        info = onnx_export.BundleInfo(
            self.options.name,
            self.options.version,
            "research use; see MODEL_CARD.md",
            model_card(facts, scores),
            self.options.size.units.exemplars,
            SearchDefaults(search.beam, search.length, search.weight, no_repeat=1),
            {**facts, "scores": asdict(scores), "size": asdict(self.options.size)},
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
            "beam": evaluation.SearchPlan().beam,
            "words": len(self.encoding.words),
            "regions": len(train),
            "photos": len({region.image for region in train}),
            "captioner": f"features and class probabilities projected to {c.projection}, "
            f"state {c.hidden}, attention {c.attention}",
            "lm": f"{lm.config.layers} layer, state {lm.config.hidden}",
        }


def _features_of(job: tuple[Path, Path, FeaturePlan]) -> FeatureSet:
    """Features of one shard of the photos, in a process of its own."""
    data, encoder, plan = job
    try:
        import onnxruntime
    except ImportError as error:
        raise ExtraMissing("ONNX Runtime is not installed", hint="install `cpu`") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, (os.cpu_count() or 1) // plan.shards)
    session = onnxruntime.InferenceSession(
        str(encoder), options, providers=["CPUExecutionProvider"]
    )

    def encode(images: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        maps: Sequence[NDArray[np.float32]] = session.run(None, {"images": images})
        return maps

    quiet: Callable[[str], None] = say if plan.shard == 0 else lambda text: None
    head = build_backbone().head
    return collect_features(data, read_regions(data), encode, head, plan, quiet)


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
