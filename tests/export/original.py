"""Stand-ins for the paper's checkpoints, and its decoding written plainly, for parity tests.

The modules are those of `benchmarks.original`, so their state dicts are the original's own;
decoding follows the equations of the paper (section 3) a hypothesis at a time, without any sharing
of work.
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

from benchmarks.original.networks import Decoder

WORDS = (",", "and", "a", "of", "red", "dogs", "cats", "-", "areas", ".", "n't", "blue")


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
