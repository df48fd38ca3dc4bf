"""What the captioner and the language model are trained on, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from milan_onnx.bundle import VocabularySpec
from milan_onnx.export.captioner import Captioner
from milan_onnx.export.language_model import LanguageModel
from milan_onnx.export.loop import LoopPlan, Say, Training, train
from milan_onnx.export.phrases import tokenise
from milan_onnx.export.virtual_units import UnitSampler, VirtualUnit


@dataclass(frozen=True)
class Encoding:
    """Words to token ids."""

    words: tuple[str, ...]
    """The vocabulary without special tokens."""

    spec: VocabularySpec
    """Ids of the special tokens."""

    def encode(self, phrases: Sequence[str], length: int | None = None) -> tuple[Tensor, Tensor]:
        """Inputs (N,T), which begin with start, and targets (N,T), which end with stop.

        At most ``length`` tokens, the stop token included: longer ones lose words.
        """
        ids = {word: index for index, word in enumerate(self.words)}
        most = None if length is None else length - 1
        rows = [[ids.get(word, self.spec.unk) for word in tokenise(p)[:most]] for p in phrases]
        width = max(len(row) for row in rows) + 1
        inputs = torch.full((len(rows), width), self.spec.pad)
        targets = torch.full((len(rows), width), self.spec.pad)
        for index, row in enumerate(rows):
            inputs[index, : len(row) + 1] = torch.tensor([self.spec.start, *row])
            targets[index, : len(row) + 1] = torch.tensor([*row, self.spec.stop])
        return inputs, targets

    def decode(self, tokens: Sequence[int]) -> str:
        """Text up to the stop token, without special tokens."""
        cut = list(tokens).index(self.spec.stop) if self.spec.stop in tokens else len(tokens)
        return " ".join(self.words[t] for t in tokens[:cut] if t < len(self.words))


def gather(features: NDArray[np.float16], units: Sequence[VirtualUnit]) -> Tensor:
    """Features of units: float32 (U,K,F)."""
    return torch.from_numpy(features[np.stack([unit.rows for unit in units])]).float()


def cross_entropy(log_probs: Tensor, targets: Tensor, pad: int) -> Tensor:
    """Mean over tokens of -log p(target), padding left out."""
    return functional.nll_loss(log_probs.flatten(0, 1), targets.flatten(), ignore_index=pad)


def train_captioner(
    model: Captioner,
    features: NDArray[np.float16],
    sampler: UnitSampler,
    held_out: Sequence[VirtualUnit],
    encoding: Encoding,
    plan: LoopPlan,
    out: Path,
    recipe: str,
    say: Say,
) -> float:
    """Train on virtual units; leaves the best weights in the model, returns their val loss.

    ``out`` and ``recipe``: see `milan_onnx.export.loop`.
    """

    table, device = prepare_all(model, features), device_of(model)

    def loss() -> Tensor:
        units = [sampler.draw() for _ in range(plan.batch)]
        inputs, targets = encoding.encode([unit.phrase for unit in units])
        kept = _fewer(gather(table, units), sampler.rng, plan).to(device)
        inner = _disturbed(model, kept, plan)
        log_probs, _ = model.teach(*model.begin_inner(inner), inputs.to(device))
        return cross_entropy(log_probs, targets.to(device), encoding.spec.pad)

    def validate() -> float:
        return captioner_loss(model, table, held_out, encoding)

    what = Training(out.stem, model, loss, validate, sampler.rng, recipe)
    return train(what, plan, out, say)


def device_of(model: nn.Module) -> torch.device:
    """Where a network's weights are."""
    return next(model.parameters()).device


@torch.no_grad()
def prepare_all(model: Captioner, features: NDArray[np.float16]) -> NDArray[np.float16]:
    """Prepared features of all samples: they stay the same while the captioner learns."""
    if model.inputs is None:
        return features
    device = device_of(model)
    parts = [
        model.inputs.prepared(torch.from_numpy(features[begin : begin + 4096]).float().to(device))
        for begin in range(0, len(features), 4096)
    ]
    return np.concatenate([part.half().cpu().numpy() for part in parts])


def _fewer(batch: Tensor, rng: np.random.Generator, plan: LoopPlan) -> Tensor:
    """Often keep only some exemplars: other K work too then, and a step costs less."""
    count = batch.shape[1]
    if count < 6 or rng.random() >= plan.fewer_exemplars:
        return batch
    chosen = rng.permutation(count)[: int(rng.integers(1, 2 * count // 3 + 1))]
    return batch[:, torch.from_numpy(chosen)]


def _disturbed(model: Captioner, prepared: Tensor, plan: LoopPlan) -> Tensor:
    """What the captioner attends to, with noise; (U,K,inner)."""
    if model.inputs is None:
        return prepared
    inner = model.inputs.inner(prepared)
    return torch.relu(inner + plan.noise * torch.randn_like(inner))


@torch.no_grad()
def captioner_loss(
    model: Captioner,
    table: NDArray[np.float16],
    units: Sequence[VirtualUnit],
    encoding: Encoding,
    shuffle: bool = False,
) -> float:
    """Cross-entropy a token on given units; with ``shuffle``, with the phrases of others.

    ``table`` holds the prepared features of all samples.
    """
    model.eval()
    total, count = 0.0, 0
    phrases = [unit.phrase for unit in units]
    phrases = [*phrases[1:], phrases[0]] if shuffle else phrases
    for begin in range(0, len(units), 128):
        inputs, targets = encoding.encode(phrases[begin : begin + 128])
        batch = gather(table, units[begin : begin + 128]).to(device_of(model))
        inner = model.inputs.inner(batch) if model.inputs is not None else batch
        log_probs, _ = model.teach(*model.begin_inner(inner), inputs.to(inner.device))
        tokens = int((targets != encoding.spec.pad).sum())
        loss = cross_entropy(log_probs, targets.to(inner.device), encoding.spec.pad)
        total += float(loss) * tokens
        count += tokens
    return total / count


def train_language_model(
    model: LanguageModel,
    sampler: UnitSampler,
    human: Sequence[str],
    encoding: Encoding,
    plan: LoopPlan,
    out: Path,
    recipe: str,
    say: Say,
    human_share: float = 0.25,
) -> float:
    """Train on the captioner's phrases and people's; returns the loss on held-out text."""
    rng = sampler.rng
    held = list(human[::20]) + [sampler.phrase() for _ in range(500)]
    seen = [text for index, text in enumerate(human) if index % 20]

    def text() -> str:
        if seen and rng.random() < human_share:
            return seen[int(rng.integers(len(seen)))]
        return sampler.phrase()

    def loss() -> Tensor:
        return language_model_loss(model, [text() for _ in range(plan.batch)], encoding)

    def validate() -> float:
        model.eval()
        with torch.no_grad():
            return float(language_model_loss(model, held, encoding))

    return train(Training(out.stem, model, loss, validate, rng, recipe), plan, out, say)


def language_model_loss(model: LanguageModel, phrases: Sequence[str], encoding: Encoding) -> Tensor:
    """Cross-entropy a token of phrases."""
    inputs, targets = (part.to(device_of(model)) for part in encoding.encode(phrases))
    return cross_entropy(model(inputs), targets, encoding.spec.pad)
