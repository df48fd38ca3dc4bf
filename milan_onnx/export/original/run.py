"""Training on MILANNOTATIONS: the paper's captioner and language model, from its own data.

features    encoder.onnx, and the features of all units' exemplars (cached, resumes)
captioner   captioner.pt: p(d|E)
lm          lm.pt: p(d)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import torch

from milan_onnx import bundle
from milan_onnx.annotations import (
    FeatureCache,
    Milannotations,
    Split,
    encoder_name,
    networks_of,
    split_units,
)
from milan_onnx.bundle import SearchDefaults
from milan_onnx.errors import BadInput, UsageError
from milan_onnx.export import onnx_export
from milan_onnx.export.backbones import RESNETS, Backbone, build_backbone
from milan_onnx.export.captioner import Captioner, CaptionerConfig
from milan_onnx.export.language_model import LanguageModel, LanguageModelConfig
from milan_onnx.export.loop import LoopPlan, train
from milan_onnx.export.original.training import (
    Sentences,
    captioner_training,
    language_model_training,
    vocabulary,
)
from milan_onnx.export.training import Encoding
from milan_onnx.files import sha256_bytes, write_bytes
from milan_onnx.progress import Lines
from milan_onnx.runtime import Device, Encoder, choose_device, choose_threads

SPLIT = "split.json"
CARD = """# {name} {version}

A captioner of MILAN (Hernandez et al., ICLR 2022) trained by milan-onnx on MILANNOTATIONS
({group}: {units} units, {held_out} held out; the split is in the training's work folder).

- Encoder: {backbone}. Captioner: state {hidden}, attention {attention}. Vocabulary: {words} words.
- Held-out loss a token: captioner {captioner:.3f}, language model {lm:.3f}. Seed {seed}.

Licence and terms are those of MILANNOTATIONS and of the encoder's weights.
"""


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
class AnnotatedRecipe:
    """A recipe of the kind "milannotations"."""

    name: str
    """Name of the bundle."""

    version: str
    """Version of its weights."""

    group: str
    """Networks to learn from: a group of the paper, or ARCH/DATASET."""

    backbone: str
    """Encoder: resnet18, resnet50, resnet101 or alexnet."""

    captioner: LoopPlan
    """Captioner's loop."""

    lm: LoopPlan
    """Language model's loop."""

    search: SearchDefaults = field(default_factory=SearchDefaults)
    """How the bundle searches unless told otherwise."""

    weights: Path | None = None
    """torchvision's state dict of the encoder (.pth); without it the encoder is random."""

    imagenet: Path | None = None
    """ImageNet's validation folder, where the annotations come without images."""

    held_out: float = 0.05
    """Share of the units held out, which tell when the weights are best."""

    exemplars: int = 15
    """K."""

    length: int = 15
    """Longest sentence in tokens, the stop token included."""

    embedding: int = 128
    """Length of the captioner's word vectors."""

    hidden: int = 512
    """Length of its state."""

    attention: int = 512
    """Length of its attention's hidden layer."""

    dropout: float = 0.5
    """Share of its state dropped before the output."""

    penalty: float = 1.0
    """Weight of the attention's penalty (paper's code: 1)."""

    lm_sizes: LmSizes = field(default_factory=LmSizes)
    """Sizes of the language model."""


@dataclass(frozen=True)
class AnnotatedOptions:
    """What the command line asks for."""

    recipe: AnnotatedRecipe
    """What is trained, and how."""

    data: Path
    """Folder of ARCH/DATASET folders."""

    work: Path
    """Folder for what stages leave."""

    say: Callable[[str], None]
    """Takes progress lines."""

    seed: int = 0
    """Seed of everything drawn."""

    device: str = "cpu"
    """cpu, cuda or cuda:N."""


class AnnotatedRun:
    """One training run: its stages and what they share."""

    stages = ("features", "captioner", "lm")

    def __init__(self, options: AnnotatedOptions) -> None:
        self.options, self.recipe = options, options.recipe
        if self.recipe.backbone not in (*RESNETS, "alexnet"):
            raise UsageError(f"no backbone of the paper is named {self.recipe.backbone!r}")
        options.work.mkdir(parents=True, exist_ok=True)

    @cached_property
    def backbone(self) -> Backbone:
        """The encoder. It is random, and said to be, where no weights are given."""
        path = self.recipe.weights
        if path is None:
            self.options.say("the encoder is random: the recipe names no `weights`")
            torch.manual_seed(self.options.seed)
            return build_backbone(self.recipe.backbone)
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
            return build_backbone(self.recipe.backbone, state)
        except Exception as error:  # torch raises many kinds for a file of another kind
            reason = str(error).split("\n")[0]
            raise BadInput(
                f"{path} holds no weights of {self.recipe.backbone}: {reason}"
            ) from error

    @cached_property
    def data(self) -> Milannotations:
        """The annotations."""
        networks = networks_of(self.recipe.group)
        return Milannotations(self.options.data, networks, self.recipe.imagenet)

    @cached_property
    def split(self) -> Split:
        """The split, written down when it is first made."""
        path = self.options.work / SPLIT
        if path.is_file():
            return Split.from_json(path.read_text("utf-8"))
        made = split_units(self.data.units, self.recipe.held_out, self.options.seed)
        write_bytes(path, made.to_json().encode())
        return made

    @cached_property
    def cache(self) -> FeatureCache:
        """Features on disk. Raises UsageError where the encoder is not exported yet."""
        path, spec = self.options.work / bundle.ENCODER, self.backbone.encoder.spec()
        if not path.is_file():
            raise UsageError(
                f"{self.options.work} holds no {path.name}", hint="run the stage `features` first"
            )
        encoder = Encoder.load(path, spec, self._device())
        folder, name = self.options.work / "features", encoder_name(path, spec)
        return FeatureCache(folder, self.data, encoder, name, exemplars=self.recipe.exemplars)

    def _device(self) -> Device:
        """Where ONNX Runtime encodes: a GPU only where PyTorch has one too."""
        chosen = choose_device("cpu" if self.options.device == "cpu" else "auto")
        self.options.say(f"encoder's device: {chosen}")
        return chosen.value

    @cached_property
    def encoding(self) -> Encoding:
        """The vocabulary of the units to train on."""
        words = vocabulary(self.data.units, self.split)
        return Encoding(words, onnx_export.vocabulary_spec(words))

    @cached_property
    def sentences(self) -> tuple[Sentences, Sentences]:
        """Those to train on and those held out."""
        units = self.data.units
        return Sentences.of(units, self.split.train), Sentences.of(units, self.split.val)

    @property
    def fingerprint(self) -> str:
        """Settings that weights depend on, in short."""
        settings = asdict(self.recipe)
        for name in ("name", "version", "search"):
            del settings[name]
        text = json.dumps([settings, self.options.seed], sort_keys=True, default=str)
        return sha256_bytes(text.encode())[:16]

    def captioner(self) -> Captioner:
        """A captioner of the recipe's sizes, untrained."""
        recipe, features = self.recipe, self.backbone.encoder.spec().features
        return Captioner(
            CaptionerConfig(
                features,
                self.encoding.spec.size,
                recipe.embedding,
                recipe.hidden,
                recipe.attention,
                dropout=recipe.dropout,
            )
        )

    def language_model(self) -> LanguageModel:
        """A language model of the recipe's sizes, untrained."""
        sizes = self.recipe.lm_sizes
        return LanguageModel(
            LanguageModelConfig(
                self.encoding.spec.size, sizes.embedding, sizes.hidden, sizes.layers, sizes.dropout
            )
        )

    def do(self, stage: str) -> None:
        """Run one of the stages."""
        getattr(self, f"do_{stage}")()

    def do_features(self) -> None:
        """Export the encoder and fill the cache."""
        model = onnx_export.encoder_model(self.backbone.encoder)
        path = self.options.work / bundle.ENCODER
        write_bytes(path, model.SerializeToString(deterministic=True))
        self.options.say(f"features: {len(self.data.units)} units of {self.recipe.group}")
        self.cache.fill(choose_threads(None).value, Lines(self.options.say))

    def do_captioner(self) -> None:
        """Train p(d|E)."""
        torch.manual_seed(self.options.seed)
        model = self.captioner().to(self.options.device)
        what = captioner_training(
            model,
            self.cache.filled(),
            *self.sentences,
            self.encoding,
            np.random.default_rng((self.options.seed, 1)),
            batch=self.recipe.captioner.batch,
            penalty=self.recipe.penalty,
            length=self.recipe.length,
            recipe=self.fingerprint,
        )
        train(what, self.recipe.captioner, self.options.work / "captioner.pt", self.options.say)

    def do_lm(self) -> None:
        """Train p(d)."""
        torch.manual_seed(self.options.seed + 1)
        model = self.language_model().to(self.options.device)
        what = language_model_training(
            model,
            *self.sentences,
            self.encoding,
            np.random.default_rng((self.options.seed, 2)),
            batch=self.recipe.lm.batch,
            length=self.recipe.length,
            recipe=self.fingerprint,
        )
        train(what, self.recipe.lm, self.options.work / "lm.pt", self.options.say)

    def export(self, out: Path) -> bundle.Bundle:
        """Write the bundle to a folder."""
        models, losses = (self.captioner(), self.language_model()), []
        for model, name in zip(models, ("captioner", "lm"), strict=True):
            saved = torch.load(self.options.work / f"{name}.pt", weights_only=True)
            model.load_state_dict(saved["state"])
            losses.append(saved["val"])
        info = onnx_export.BundleInfo(
            self.recipe.name,
            self.recipe.version,
            "that of MILANNOTATIONS; see MODEL_CARD.md",
            self._card(*losses),
            self.recipe.exemplars,
            self.recipe.search,
            {"recipe": json.loads(json.dumps(asdict(self.recipe), default=str))},
            style="sentences",
            rounded=False,
        )
        encoder = onnx.load(self.options.work / bundle.ENCODER)
        words = self.encoding.words
        return onnx_export.write_bundle(out, self.backbone, *models, words, info, encoder)

    def _card(self, captioner: float, lm: float) -> str:
        facts = {**asdict(self.recipe), "captioner": captioner, "lm": lm}
        facts |= {"units": len(self.data.units), "held_out": len(self.split.val)}
        facts |= {"words": len(self.encoding.words), "seed": self.options.seed}
        return CARD.format(**facts)
