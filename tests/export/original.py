"""Stand-ins for the paper's checkpoints, and its decoding written plainly, for parity tests.

The modules have the original's names and layers, so their state dicts are its own; decoding follows
the equations of the paper (section 3) a hypothesis at a time, without any sharing of work.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from milan_onnx.export.backbones import import_torchvision_models

WORDS = (",", "and", "a", "of", "red", "dogs", "cats", "-", "areas", ".", "n't", "blue")
FEATURES = {"alexnet": 1152, "resnet18": 1024, "resnet50": 3904, "resnet101": 3904}


class Attention(nn.Module):
    def __init__(self, hidden: int, features: int, attention: int) -> None:
        super().__init__()
        self.query_to_hidden = nn.Linear(hidden, attention)
        self.key_to_hidden = nn.Linear(features, attention)
        self.output = nn.Sequential(nn.Linear(attention, 1), nn.Softmax(dim=1))

    def forward(self, h: Tensor, values: Tensor) -> Tensor:
        energy = torch.tanh(self.query_to_hidden(h)[:, None] + self.key_to_hidden(values))
        return (self.output(energy) * values).sum(1)


class LM(nn.Module):
    def __init__(self, vocabulary: int, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.output = nn.Sequential(nn.Linear(hidden, vocabulary), nn.LogSoftmax(dim=-1))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(self.lstm(self.embedding(tokens))[0])


class Decoder(nn.Module):
    """The original's decoder with its encoder and language model inside."""

    def __init__(self, config: str, vocabulary: int, sizes: dict[str, int]) -> None:
        super().__init__()
        features, hidden, embedding = FEATURES[config], sizes["hidden"], sizes["embedding"]
        self.encoder = nn.Module()
        self.encoder.encoder = nn.Module()
        self.encoder.encoder.model = getattr(import_torchvision_models(), config)(weights=None)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.encoder.register_buffer("mean", mean.view(1, 3, 1, 1))
        self.encoder.register_buffer("std", std.view(1, 3, 1, 1))
        self.lm = LM(vocabulary, sizes["lm_embedding"], sizes["lm_hidden"], sizes["lm_layers"])
        self.init_h = nn.Sequential(nn.Linear(features, hidden), nn.Tanh())
        self.init_c = nn.Sequential(nn.Linear(features, hidden), nn.Tanh())
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.attend = Attention(hidden, features, sizes.get("attention") or min(hidden, features))
        self.feature_gate = nn.Sequential(nn.Linear(hidden, features), nn.Sigmoid())
        self.lstm = nn.LSTMCell(embedding + features, hidden)
        self.output = nn.Sequential(nn.Dropout(0.5), nn.Linear(hidden, vocabulary))

    def start(self, values: Tensor) -> tuple[Tensor, Tensor]:
        return self.init_h(values.mean(1)), self.init_c(values.mean(1))

    def step(self, token: Tensor, values: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        gated = self.feature_gate(h) * self.attend(h, values)
        h, c = self.lstm(torch.cat([self.embedding(token), gated], dim=1), (h, c))
        return self.output(h).log_softmax(-1), h, c


def features_of(decoder: Decoder, config: str, images: Tensor, masks: Tensor) -> Tensor:
    """The paper's features: float32 images (N,3,S,S) in 0..1, masks (N,1,S,S): (N,F)."""
    x = (images - decoder.encoder.mean) / decoder.encoder.std
    model, maps = decoder.encoder.encoder.model, []
    if config == "alexnet":
        for index, layer in enumerate(model.features):
            x = layer(x.clone())
            if index in (1, 4, 7, 9, 11):  # the ReLUs, which overwrite the convolutions
                maps.append(x)
    else:
        maps.append(model.conv1(x))
        x = model.maxpool(torch.relu(model.bn1(maps[0])))
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = getattr(model, name)(x)
            maps.append(x)
    parts = []
    for level in maps:
        size = level.shape[-2:]
        weight = functional.interpolate(masks, size=size, mode="bilinear", align_corners=False)
        total = weight.sum((2, 3), keepdim=True)
        weight = torch.where(total > 0, weight / total.clamp_min(1e-12), weight)
        parts.append((level * weight).sum((2, 3)))
    return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class Standin:
    """A checkpoint that was written, and what wrote it."""

    path: Path
    """The file."""

    decoder: Decoder
    """Its modules."""

    words: tuple[str, ...]
    """Its vocabulary."""


SIZES = {"embedding": 7, "hidden": 12, "lm_embedding": 6, "lm_hidden": 9, "lm_layers": 2}


@dataclass
class Recipe:
    """What a stand-in is like."""

    config: str = "resnet18"
    words: tuple[str, ...] = WORDS
    lm_words: tuple[str, ...] | None = None
    module: str = "thinc.config"
    seed: int = 0
    beam_size: int = 16
    sizes: dict[str, int] = field(default_factory=lambda: dict(SIZES))
    change: Any = None
    """Called with the dict before it is saved."""


def write_standin(folder: Path, recipe: Recipe) -> Standin:
    """Save a checkpoint as the original does; spaCy's settings are objects of ``recipe.module``."""
    torch.manual_seed(recipe.seed + 1)
    decoder = Decoder(recipe.config, len(recipe.words) + 4, recipe.sizes).eval()
    for parameter in [*decoder.lm.parameters(), *decoder.output.parameters()]:
        nn.init.normal_(parameter, std=0.7)  # so that descriptions differ
    path = folder / f"milan-{recipe.config}.pth"
    with settings_class(recipe.module) as config:
        saved = _saved(decoder, recipe, config({"nlp": {"lang": "en"}}))
        if recipe.change:
            saved = recipe.change(saved) or saved
        torch.save(saved, path)
    return Standin(path, decoder, recipe.words)


@contextmanager
def settings_class(module: str) -> Iterator[type[dict]]:
    """A dict class with some state, importable as ``module.Config`` while the block runs."""
    made = ModuleType(module)

    class Config(dict):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.is_interpolated = True

    Config.__module__, Config.__qualname__ = module, "Config"
    made.Config = Config  # type: ignore[attr-defined]
    names = [module.rpartition(".")[0], module]
    old = {name: sys.modules.get(name) for name in names}
    sys.modules.update({names[0]: ModuleType(names[0]), module: made})
    try:
        yield Config
    finally:
        for name, value in old.items():
            if value is None:
                del sys.modules[name]
            else:
                sys.modules[name] = value


def _saved(decoder: Decoder, recipe: Recipe, nlp: Any) -> dict[str, Any]:
    def indexer(words: tuple[str, ...]) -> dict[str, Any]:
        tokenize = {"nlp": (nlp, b"\x00pipeline\xff"), "lemmatize": False, "lowercase": True}
        return {
            "properties": {
                "vocab": {"properties": {"tokens": words}, "children": {}},
                "tokenize": {"properties": tokenize, "children": {}},
                **dict.fromkeys(("start", "stop", "pad", "unk"), True),
                "length": None,
            },
            "children": {},
        }

    sizes = recipe.sizes
    lm = {
        "indexer": indexer(recipe.lm_words or recipe.words),
        "embedding_size": sizes["lm_embedding"],
        "hidden_size": sizes["lm_hidden"],
        "layers": sizes["lm_layers"],
        "dropout": 0.5,
    }
    properties = {
        "indexer": indexer(recipe.words),
        "encoder": {"properties": {"config": recipe.config, "pretrained": True}, "children": {}},
        "lm": {"properties": lm, "children": {}},
        "embedding_size": sizes["embedding"],
        "hidden_size": sizes["hidden"],
        "attention_hidden_size": sizes.get("attention"),
        "dropout": 0.5,
        "length": 15,
        "strategy": "rerank",
        "temperature": 0.2,
        "beam_size": recipe.beam_size,
    }
    return {
        "properties": properties,
        "children": {"encoder": "PyramidConvEncoder"},
        "state_dict": OrderedDict(decoder.state_dict()),
    }


# --- decoding, plainly ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """A description of one unit."""

    tokens: tuple[int, ...]
    """Its tokens, the stop token included."""

    given: float
    """log p(d|E)."""


@torch.inference_mode()
def plain_beam(decoder: Decoder, values: Tensor, size: int, length: int, stop: int) -> list[Found]:
    """Beam search on log p(d|E) for one unit's features (K,F), best first."""
    start = stop - 1
    h, c = decoder.start(values[None])
    beams = [(0.0, (), h, c)]
    for _ in range(length):
        grown = []
        for score, tokens, h, c in beams:
            if tokens and tokens[-1] == stop:
                grown.append((score, tokens, h, c))
                continue
            last = torch.tensor([tokens[-1] if tokens else start])
            log_prob, after_h, after_c = decoder.step(last, values[None], h, c)
            values_of = log_prob[0].double().tolist()
            grown += [
                (score + value, (*tokens, token), after_h, after_c)
                for token, value in enumerate(values_of)
            ]
        grown.sort(key=lambda beam: (-round(beam[0], 6), beam[1]))
        beams = grown[:size]
    return [Found(tokens, score) for score, tokens, _, _ in beams]


@torch.inference_mode()
def plain_prior(decoder: Decoder, tokens: tuple[int, ...], stop: int, extra: bool = False) -> float:
    """log p(d); ``extra``: with the term that the original's mask lets through."""
    asked = [*tokens, stop] if extra else [*tokens]
    given = torch.tensor([[stop - 1, *asked[:-1]]])
    log_prob = decoder.lm(given)[0].double()
    return float(sum(log_prob[i, token] for i, token in enumerate(asked)))


def shuffled_words(words: tuple[str, ...], seed: int = 0) -> tuple[str, ...]:
    """The same words in another order."""
    return tuple(np.random.default_rng(seed).permutation(words).tolist())
