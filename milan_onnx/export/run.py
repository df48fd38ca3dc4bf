"""A training run: its stages, each of which leaves files in the work folder.

    features    encoder.onnx, and the features of all units' exemplars (cached, resumes)
    vectors     vectors.npy: word vectors that the search compares hypotheses by
    captioner   captioner.pt: p(d|E), and the phrase vector that it predicts; captioner-2.pt ...
                where several are averaged
    lm          lm.pt: p(d), of the same phrases

Described units are what it learns from (MILAN, section 3.2): a file of them, or MILANNOTATIONS.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from milan_onnx import bundle
from milan_onnx.annotations import (
    AnnotatedUnit,
    AnnotatedUnits,
    DescribedUnits,
    FeatureCache,
    Milannotations,
    Split,
    encoder_name,
    networks_of,
    split_units,
)
from milan_onnx.bundle import EncoderSpec, Part, SearchDefaults
from milan_onnx.errors import BadInput, UsageError
from milan_onnx.export import onnx_export
from milan_onnx.export.backbones import Backbone, build_backbone
from milan_onnx.export.captioner import Captioner, CaptionerConfig
from milan_onnx.export.card import model_card
from milan_onnx.export.components import principal_components
from milan_onnx.export.drawings import DrawnUnits
from milan_onnx.export.language_model import LanguageModel, LanguageModelConfig
from milan_onnx.export.loop import LoopPlan, load, train
from milan_onnx.export.sources import (
    ClassPlan,
    ClassUnits,
    MirroredUnits,
    VirtualUnits,
    class_odds,
)
from milan_onnx.export.training import (
    Encoding,
    Examples,
    captioner_training,
    language_model_training,
    prepare_all,
    vocabulary,
)
from milan_onnx.export.word_vectors import (
    VectorPlan,
    distinct_words,
    phrase_vectors,
    train_vectors,
)
from milan_onnx.files import sha256_bytes, write_bytes
from milan_onnx.progress import Reporter
from milan_onnx.runtime import Encoder, choose_device

SPLIT, ODDS, VECTORS, QUALITY = "split.json", "classes.npy", "vectors.npy", "quality.json"
SAMPLED = 16_000
"""Exemplars that features are standardised and reduced by."""
Table = NDArray[np.float16]


@dataclass(frozen=True)
class LmSizes:
    """Sizes of the language model; the paper's by default."""

    embedding: int = 128
    """Length of a word vector."""

    hidden: int = 512
    """Length of a layer's state."""

    layers: int = 2
    """LSTM layers."""

    dropout: float = 0.5
    """Share dropped between layers and before the output."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the captioner; the paper's by default."""

    embedding: int = 128
    """Length of a word vector."""

    hidden: int = 512
    """Length of the state."""

    attention: int = 512
    """Length of the attention's hidden layer."""

    projection: int = 0
    """Length that features are projected to; 0: they are not."""

    reduced: Mapping[str, int] = field(default_factory=dict)
    """Principal components that each part of the features is reduced to; parts that are not named
    stay as they are."""

    spread: bool = False
    """Whether first states are made of the exemplars' spread too."""

    dropout: float = 0.5
    """Share of the state dropped before the output."""

    feature_dropout: float = 0.0
    """Share of the projected features dropped."""

    noise: float = 0.0
    """Standard deviation of what is added to prepared features."""


@dataclass(frozen=True)
class Recipe:
    """How a bundle is trained."""

    name: str
    """Name of the bundle."""

    version: str
    """Version of its weights."""

    annotations: Literal["units", "milannotations"]
    """What DATA holds: units.jsonl.gz with its photos, or ARCH/DATASET folders."""

    backbone: str
    """Encoder: efficientnet-lite0, resnet18, resnet50, resnet101 or alexnet."""

    captioner: LoopPlan
    """Captioner's loop."""

    lm: LoopPlan
    """Language model's loop."""

    license: str = "that of the annotations; see MODEL_CARD.md"
    """Licence of the weights."""

    search: SearchDefaults = field(default_factory=SearchDefaults)
    """How the bundle searches unless told otherwise."""

    style: Literal["words", "sentences"] = "words"
    """How text is put together."""

    parts: tuple[Part, ...] = ("mean",)
    """What an exemplar's features are made of (`milan_onnx.bundle`)."""

    group: str = "base"
    """Networks of MILANNOTATIONS: a group of the paper, or ARCH/DATASET."""

    weights: Path | None = None
    """torchvision's state dict of the encoder (.pth); without it such an encoder is random."""

    imagenet: Path | None = None
    """ImageNet's validation folder, where the annotations come without images."""

    held_out: float = 0.05
    """Share of the units to train on that only tell when the weights are best."""

    part: float = 1.0
    """Share of the described units that is used, for learning curves."""

    shares: Mapping[str, float] = field(default_factory=lambda: {"annotated": 1.0})
    """How often described units (``annotated``) are drawn, and those of further sources:
    ``mirrored``, ``labels``, ``classes``, ``drawings`` (`milan_onnx.export.sources`)."""

    shares_at_end: Mapping[str, float] = field(default_factory=dict)
    """The same at the end (none: they stay), which `shares` pass to while training (see
    `milan_onnx.export.training.SHIFT`): what others teach first, described units say last."""

    labels: int = 3000
    """Virtual units of labelled photos."""

    classes: ClassPlan = field(default_factory=ClassPlan)
    """Units of the encoder's classifier."""

    drawings: int = 600
    """Units of drawn images."""

    also: float = 0.7
    """How often an annotator's second phrase is drawn, against the first."""

    fewest: int = 1
    """Times that a word must come to be in the vocabulary."""

    exemplars: int = 15
    """K."""

    length: int = 15
    """Longest phrase in tokens, the stop token included."""

    members: int = 1
    """Captioners that learn the same by seeds of their own, and are averaged."""

    sizes: Sizes = field(default_factory=Sizes)
    """Sizes of a captioner."""

    lm_sizes: LmSizes = field(default_factory=LmSizes)
    """Sizes of the language model."""

    vectors: VectorPlan | None = None
    """How word vectors are made; None: there are none."""

    rounded: bool = True
    """Whether weights are rounded to float16."""

    @property
    def last_shares(self) -> Mapping[str, float]:
        """Shares of the sources when training ends."""
        return self.shares_at_end or self.shares


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    recipe: Recipe
    """What is trained, and how."""

    data: Path
    """Folder of the annotations."""

    work: Path
    """Folder for what stages leave."""

    say: Reporter
    """Takes progress."""

    seed: int = 0
    """Seed of everything drawn."""

    workers: int = 2
    """Batches of photos that are encoded at once."""

    device: str = "cpu"
    """Where the networks are trained: cpu, cuda or cuda:N."""


class TrainingRun:
    """Its stages and what they share."""

    stages = ("features", "vectors", "captioner", "lm")

    def __init__(self, options: Options) -> None:
        """Raises UsageError where the recipe has no captioner to train, or nothing to predict."""
        self.options, self.recipe = options, options.recipe
        if self.recipe.members < 1:
            raise UsageError(
                f"members cannot be {self.recipe.members}", hint="give 1, or more to average"
            )
        if self.recipe.captioner.phrase_vector > 0 and self.recipe.vectors is None:
            raise UsageError(
                "captioner.phrase_vector wants word vectors", hint="add [vectors], or leave it out"
            )
        self.say: Callable[[str], None] = options.say.note
        options.work.mkdir(parents=True, exist_ok=True)

    def do(self, stage: str) -> None:
        """Run one of the stages."""
        getattr(self, f"do_{stage}")()

    # --- what is learned from --------------------------------------------------------------------

    @cached_property
    def annotated(self) -> AnnotatedUnits:
        """The described units."""
        data = self.options.data
        if self.recipe.annotations == "milannotations":
            return Milannotations(data, networks_of(self.recipe.group), self.recipe.imagenet)
        path = data / "units.jsonl.gz"
        if not path.is_file():
            raise BadInput(f"{data} holds no {path.name}", hint="give the folder that holds it")
        found = DescribedUnits(path).chosen(lambda unit: unit.split == "train")
        if not found.units:
            raise BadInput(f"{path} describes no unit to train on", hint="their split is train")
        return found

    @cached_property
    def sources(self) -> dict[str, AnnotatedUnits]:
        """Everything that is learned from, by its name in the recipe; described units first."""
        made: dict[str, Callable[[], AnnotatedUnits]] = {
            "annotated": lambda: self.annotated,
            "mirrored": lambda: MirroredUnits(self.annotated),
            "labels": self._labels,
            "classes": self._classes,
            "drawings": lambda: DrawnUnits(self.recipe.drawings, self.recipe.exemplars, self._seed),
        }
        shares = self.recipe.shares
        for name in shares:
            if name not in made:
                raise UsageError(
                    f"no source is named {name!r}", hint=f"known are {', '.join(made)}"
                )
        for name in shares:
            if shares[name] > 0 and name not in self.recipe.last_shares:
                raise UsageError(
                    f"shares_at_end lacks {name}", hint="name all sources of shares there"
                )
        if shares.get("annotated", 0) <= 0:
            raise UsageError(
                "shares.annotated is 0: nothing tells when the weights are best",
                hint="give described units a share, however small",
            )
        found = {name: make() for name, make in made.items() if shares.get(name, 0) > 0}
        for name, source in found.items():
            if not source.units:
                raise BadInput(f"the source {name} has no unit to train on", hint="leave it out")
        return found

    @property
    def _seed(self) -> int:
        return self.options.seed

    def _labels(self) -> AnnotatedUnits:
        recipe, size = self.recipe, self.spec.image_size
        return VirtualUnits(self.options.data, recipe.labels, recipe.exemplars, self._seed, size)

    def _classes(self) -> AnnotatedUnits:
        """Units of the classifier, whose probabilities are computed once."""
        source, head = self.annotated, self.backbone.head
        if not isinstance(source, DescribedUnits) or head is None:
            raise UsageError(
                "the source classes wants photos and an encoder with a classifier",
                hint="leave shares.classes out",
            )
        path = self.options.work / ODDS
        if not path.is_file():
            odds = class_odds(source, self.encoder, head, self.options.workers, self.options.say)
            onnx_export.write_array(path, odds.astype(np.float16))
        odds = np.load(path).astype(np.float32)
        return ClassUnits(source, odds, self.recipe.classes, self._seed)

    @cached_property
    def split(self) -> Split:
        """The described units to train on and those held out, written down when first made."""
        path = self.options.work / SPLIT
        if path.is_file():
            return Split.from_json(path.read_text("utf-8"))
        made = split_units(self.annotated.units, self.recipe.held_out, self._seed)
        used = made.train[: max(1, round(self.recipe.part * len(made.train)))]
        if self.recipe.part < 1:
            order = np.random.default_rng((self._seed, 3)).permutation(len(made.train))
            used = tuple(made.train[i] for i in sorted(order[: len(used)].tolist()))
        made = Split(used, made.val)
        write_bytes(path, made.to_json().encode())
        return made

    # --- encoder and features --------------------------------------------------------------------

    @cached_property
    def backbone(self) -> Backbone:
        """The encoder, rounded as the bundle will have it. A ResNet or AlexNet is random, and said
        to be, where the recipe gives no weights."""
        backbone = self._backbone()
        if self.recipe.rounded:
            onnx_export.round_weights(backbone.encoder)
        return backbone

    def _backbone(self) -> Backbone:
        name, path = self.recipe.backbone, self.recipe.weights
        if path is None:
            if name != "efficientnet-lite0":
                self.say("the encoder is random: the recipe names no `weights`")
                torch.manual_seed(self._seed)
            return build_backbone(name)
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
            return build_backbone(name, state)
        except Exception as error:  # torch raises many kinds for a file of another kind
            reason = str(error).split("\n")[0]
            raise BadInput(f"{path} holds no weights of {name}: {reason}") from error

    @cached_property
    def spec(self) -> EncoderSpec:
        """What the bundle says of the encoder."""
        return self.backbone.encoder.spec(parts=self.recipe.parts)

    @cached_property
    def encoder(self) -> Encoder:
        """The exported encoder, in the runtime. Raises UsageError where it is not exported yet."""
        path = self.options.work / bundle.ENCODER
        if not path.is_file():
            raise UsageError(
                f"{self.options.work} holds no {path.name}", hint="run the stage `features` first"
            )
        # A GPU only where PyTorch has one too.
        device = choose_device("cpu" if self.options.device == "cpu" else "auto")
        self.options.say.choice("encoder's device", device)
        return Encoder.load(path, self.spec, device.value)

    def cache(self, name: str) -> FeatureCache:
        """Features of a source on disk."""
        folder = self.options.work / "features" / name
        called = encoder_name(self.options.work / bundle.ENCODER, self.spec)
        return FeatureCache(
            folder, self.sources[name], self.encoder, called, exemplars=self.recipe.exemplars
        )

    # --- examples --------------------------------------------------------------------------------

    @cached_property
    def examples(self) -> tuple[Examples, Examples]:
        """Phrases to train on and those of held-out units; units count on over the sources."""
        held_out, used = set(self.split.val), set(self.split.train)
        parts, number, val = [], 0, []
        for name, source in self.sources.items():
            keys = used if name in ("annotated", "mirrored") else None
            parts.append(self._examples(source.units, number, keys))
            if name == "annotated":
                val.append(self._examples(source.units, number, held_out))
            number += len(source.units)
        first = [self.recipe.shares[name] for name in self.sources]
        last = [self.recipe.last_shares[name] for name in self.sources]
        return Examples.joined(parts, first, last), Examples.joined(val, [1.0], [1.0])

    def _examples(
        self, units: Sequence[AnnotatedUnit], first: int, keys: set[str] | None
    ) -> Examples:
        """Phrases of some units: surer annotations and first phrases are drawn more often."""
        rows, texts, weights = [], [], []
        for row, unit in enumerate(units, first):
            for said in unit.annotations if keys is None or unit.key in keys else ():
                weight = 1.0 if said.coherence is None else 0.4 + 0.3 * said.coherence
                for place, text in enumerate(said.phrases):
                    rows.append(row)
                    texts.append(text)
                    weights.append(weight * (self.recipe.also if place else 1.0))
        each = np.array(weights)
        return Examples(np.array(rows, np.int64), tuple(texts), each, each)

    @cached_property
    def encoding(self) -> Encoding:
        """The vocabulary of the phrases to train on."""
        words = vocabulary(self.examples[0].text, self.recipe.fewest)
        return Encoding(words, onnx_export.vocabulary_spec(words))

    @property
    def fingerprint(self) -> str:
        """Settings that weights depend on, in short."""
        settings = asdict(self.recipe)
        for name in ("name", "version", "search", "license"):
            del settings[name]
        text = json.dumps([settings, self._seed], sort_keys=True, default=str)
        return sha256_bytes(text.encode())[:16]

    # --- networks --------------------------------------------------------------------------------

    def captioner(self) -> Captioner:
        """A captioner of the recipe's sizes, untrained."""
        sizes = self.recipe.sizes
        config = CaptionerConfig(
            self.spec.features,
            self.encoding.spec.size,
            sizes.embedding,
            sizes.hidden,
            sizes.attention,
            sizes.projection,
            parts=self._reduced(),
            spread=sizes.spread,
            phrase_vector=self._predicted(),
            dropout=sizes.dropout,
            feature_dropout=sizes.feature_dropout,
            noise=sizes.noise,
        )
        return Captioner(config)

    def _predicted(self) -> int:
        """Length of the phrase vectors that the captioner predicts; 0: none."""
        plan = self.recipe.vectors
        return plan.length if plan is not None and self.recipe.captioner.phrase_vector > 0 else 0

    def _widths(self) -> dict[str, int]:
        """Length of each part of the features."""
        channels = sum(level.channels for level in self.spec.levels)
        return {
            part: len(bundle.GEOMETRY) if part == "geometry" else channels
            for part in self.recipe.parts
        }

    def _reduced(self) -> tuple[tuple[int, int], ...]:
        """Length of each part, and how many principal components of it; none: it stays whole."""
        wanted, widths = self.recipe.sizes.reduced, self._widths()
        for part, length in wanted.items():
            if part not in bundle.PARTS or not 0 <= length <= widths.get(part, length):
                known = ", ".join(f"{name} {width}" for name, width in widths.items())
                raise UsageError(
                    f"sizes.reduced.{part} cannot be {length}", hint=f"parts and lengths: {known}"
                )
        if wanted and not self.recipe.sizes.projection:
            raise UsageError("sizes.reduced wants a sizes.projection", hint="set both or neither")
        if not wanted:
            return ()
        return tuple((width, wanted.get(part, width)) for part, width in widths.items())

    def language_model(self) -> LanguageModel:
        """A language model of the recipe's sizes, untrained."""
        sizes, words = self.recipe.lm_sizes, self.encoding.spec.size
        return LanguageModel(
            LanguageModelConfig(words, sizes.embedding, sizes.hidden, sizes.layers, sizes.dropout)
        )

    def _prepare(self, model: Captioner) -> tuple[Table, NDArray[np.int64]]:
        """Prepared features of all sources' units, and how many exemplars each has."""
        tables = {name: self.cache(name).filled() for name in self.sources}
        if model.inputs is not None:
            self._standardise(model, tables["annotated"])
        prepared = [prepare_all(model, table) for table in tables.values()]
        counts = [
            min(unit.exemplars, self.recipe.exemplars)
            for source in self.sources.values()
            for unit in source.units
        ]
        table = prepared[0] if len(prepared) == 1 else np.concatenate(prepared)
        return table, np.array(counts, np.int64)

    def _standardise(self, model: Captioner, table: Table) -> None:
        """Fix what features are standardised and reduced by, from described units."""
        assert model.inputs is not None
        rows = np.unique(self.examples[0].unit[self.examples[0].unit < len(table)])
        rng = np.random.default_rng((self._seed, 4))
        places = rng.choice(len(rows) * table.shape[1], SAMPLED, replace=True)
        sample = table[rows[places // table.shape[1]], places % table.shape[1]].astype(np.float32)
        mean, std = sample.mean(0), sample.std(0)
        model.inputs.set_statistics(torch.from_numpy(mean), torch.from_numpy(std))
        if self.recipe.sizes.reduced:
            standard = model.inputs.standardised(torch.from_numpy(sample))
            found = principal_components(standard, self._widths(), self.recipe.sizes.reduced)
            model.inputs.components.copy_(found)

    # --- stages ----------------------------------------------------------------------------------

    def do_features(self) -> None:
        """Export the encoder, and compute the features of all units with it."""
        self.say(f"{len(self.annotated.units)} described units")  # bad ones are told before work
        path = self.options.work / bundle.ENCODER
        if not path.is_file():
            model = onnx_export.encoder_model(self.backbone.encoder)
            write_bytes(path, model.SerializeToString(deterministic=True))
        for name, source in self.sources.items():
            self.say(f"features: {len(source.units)} units of {name}")
            self.cache(name).fill(self.options.workers, self.options.say)

    def do_captioner(self) -> None:
        """Train p(d|E)."""
        prepared = self.captioner()
        table, counts = self._prepare(prepared)
        train_on, held_out = self.examples
        self.say(f"captioner: {len(train_on)} phrases, {self.encoding.spec.size} tokens")
        vectors = self._phrase_vectors() if prepared.phrase_vector is not None else None
        for member, out in enumerate(self._members()):
            torch.manual_seed(self._seed + 1000 * member)
            model = self.captioner()
            for name, value in prepared.named_buffers():
                model.get_buffer(name).copy_(value)
            what = captioner_training(
                model.to(self.options.device),
                table,
                counts,
                train_on,
                held_out,
                self.encoding,
                np.random.default_rng((self._seed, 1, member)),
                self.recipe.captioner,
                length=self.recipe.length,
                recipe=self.fingerprint,
                phrase_vectors=vectors,
            )
            train(replace(what, name=out.stem), self.recipe.captioner, out, self.say)

    def _members(self) -> list[Path]:
        """Weights of each captioner."""
        others = range(2, self.recipe.members + 1)
        names = ["captioner", *(f"captioner-{number}" for number in others)]
        return [self.options.work / f"{name}.pt" for name in names]

    def _phrase_vectors(self) -> torch.Tensor:
        """Phrase vectors of all phrases to train on."""
        words = torch.from_numpy(np.load(self.options.work / VECTORS)).float()
        return phrase_vectors(words, distinct_words(self.examples[0].text, self.encoding))

    def do_lm(self) -> None:
        """Train p(d)."""
        torch.manual_seed(self._seed + 1)
        what = language_model_training(
            self.language_model().to(self.options.device),
            *self.examples,
            self.encoding,
            np.random.default_rng((self._seed, 2)),
            self.recipe.lm,
            length=self.recipe.length,
            recipe=self.fingerprint,
        )
        train(what, self.recipe.lm, self.options.work / "lm.pt", self.say)

    def do_vectors(self) -> None:
        """Make the word vectors."""
        plan, out = self.recipe.vectors, self.options.work / VECTORS
        if plan is None:
            return
        if out.is_file():
            self.say(f"vectors: {out} is there, nothing to do")
            return
        made = train_vectors(self.examples[0].text, self.encoding, plan, self._seed, self.say)
        onnx_export.write_array(out, made)

    # --- bundle ----------------------------------------------------------------------------------

    def trained(self) -> tuple[list[Captioner], LanguageModel, dict[str, float]]:
        """The networks with the weights that the stages left, and their held-out losses, of the
        captioners the mean."""
        paths, lm = self._members(), self.language_model()
        captioners = [self.captioner() for _ in paths]
        recipe = self.fingerprint
        losses = [load(model, path, recipe) for model, path in zip(captioners, paths, strict=True)]
        prior = load(lm, self.options.work / "lm.pt", recipe)
        return captioners, lm, {"captioner": float(np.mean(losses)), "lm": prior}

    def export(self, out: Path) -> bundle.Bundle:
        """Write the bundle to a folder, with the figures of quality.json in its card."""
        captioners, lm, losses = self.trained()
        figures, vectors = self.options.work / QUALITY, self.options.work / VECTORS
        measured = json.loads(figures.read_text("utf-8")) if figures.is_file() else {}
        info = onnx_export.BundleInfo(
            self.recipe.name,
            self.recipe.version,
            self.recipe.license,
            model_card(self._facts(losses), measured),
            self.recipe.exemplars,
            self.recipe.search,
            {
                "recipe": json.loads(json.dumps(asdict(self.recipe), default=str)),
                "seed": self._seed,
            },
            style=self.recipe.style,
            rounded=self.recipe.rounded,
            parts=self.recipe.parts,
            vectors=np.load(vectors) if self.recipe.vectors is not None else None,
        )
        encoder = onnx.load(self.options.work / bundle.ENCODER)
        words = self.encoding.words
        return onnx_export.write_bundle(out, self.backbone, captioners, lm, words, info, encoder)

    def _facts(self, losses: Mapping[str, float]) -> dict[str, object]:
        counts = {name: len(source.units) for name, source in self.sources.items()}
        return {
            **asdict(self.recipe),
            "losses": losses,
            "units": counts,
            "held_out": len(self.split.val),
            "words": len(self.encoding.words),
            "seed": self._seed,
        }
