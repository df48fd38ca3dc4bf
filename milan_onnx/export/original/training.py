"""The paper's training: captioner and language model on what people said of units.

Section 3.2 and appendix: cross-entropy of the descriptions, plus a penalty where an exemplar's
attention does not sum to one over the words; the language model learns from the same sentences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from milan_onnx.annotations import AnnotatedUnit, Split
from milan_onnx.export.captioner import Captioner
from milan_onnx.export.language_model import LanguageModel
from milan_onnx.export.loop import Training
from milan_onnx.export.phrases import tokenise
from milan_onnx.export.training import Encoding, cross_entropy

VALIDATED = 256
"""Examples scored at once."""
Score = Callable[[NDArray[np.int64], "Sentences"], tuple[Tensor, Tensor, int]]


@dataclass(frozen=True)
class Sentences:
    """Descriptions and whose they are: one row a sentence."""

    unit: NDArray[np.int64]
    """Row of the unit among all (n,)."""

    text: tuple[str, ...]
    """The sentences."""

    @staticmethod
    def of(units: Sequence[AnnotatedUnit], keys: Sequence[str]) -> Sentences:
        """All sentences of the units with these keys."""
        wanted = set(keys)
        pairs = [
            (row, text)
            for row, unit in enumerate(units)
            if unit.key in wanted
            for text in unit.descriptions
        ]
        return Sentences(
            np.array([row for row, _ in pairs], np.int64), tuple(text for _, text in pairs)
        )


def vocabulary(units: Sequence[AnnotatedUnit], split: Split) -> tuple[str, ...]:
    """Words of the sentences to train on, the most frequent first, ties as first seen.

    The original counts held-out sentences too.
    """
    seen = Sentences.of(units, split.train)
    counts = Counter(word for text in seen.text for word in tokenise(text))
    return tuple(word for word, _ in counts.most_common())


def captioner_training(
    model: Captioner,
    features: NDArray[np.float16],
    train: Sentences,
    val: Sentences,
    encoding: Encoding,
    rng: np.random.Generator,
    *,
    batch: int,
    penalty: float,
    length: int,
    recipe: str,
) -> Training:
    """What trains p(d|E); ``features`` float16 (units, K, F), memory-mapped."""
    device = next(model.parameters()).device

    def score(chosen: NDArray[np.int64], source: Sentences) -> tuple[Tensor, Tensor, int]:
        rows = np.ascontiguousarray(features[source.unit[chosen]])
        inputs, targets = encoding.encode([source.text[i] for i in chosen.tolist()], length)
        values = torch.from_numpy(rows).float().to(device)
        log_probs, attention = model(values, inputs.to(device))
        targets = targets.to(device)
        loss = cross_entropy(log_probs, targets, encoding.spec.pad)
        return loss, attention, int((targets != encoding.spec.pad).sum())

    def loss() -> Tensor:
        value, attention, _ = score(rng.integers(0, len(train.text), batch), train)
        return value + penalty * (1.0 - attention.sum(1)).square().mean()

    return Training("captioner", model, loss, _validation(model, score, val), rng, recipe)


def language_model_training(
    model: LanguageModel,
    train: Sentences,
    val: Sentences,
    encoding: Encoding,
    rng: np.random.Generator,
    *,
    batch: int,
    length: int,
    recipe: str,
) -> Training:
    """What trains p(d), on the same sentences and no held-out unit's."""
    device = next(model.parameters()).device

    def score(chosen: NDArray[np.int64], source: Sentences) -> tuple[Tensor, Tensor, int]:
        inputs, targets = encoding.encode([source.text[i] for i in chosen.tolist()], length)
        targets = targets.to(device)
        loss = cross_entropy(model(inputs.to(device)), targets, encoding.spec.pad)
        return loss, loss, int((targets != encoding.spec.pad).sum())

    def loss() -> Tensor:
        return score(rng.integers(0, len(train.text), batch), train)[0]

    return Training("lm", model, loss, _validation(model, score, val), rng, recipe)


def _validation(model: nn.Module, score: Score, val: Sentences) -> Callable[[], float]:
    """Mean loss a token over all held-out sentences."""

    @torch.no_grad()
    def validate() -> float:
        model.eval()
        total, count = 0.0, 0
        for begin in range(0, len(val.text), VALIDATED):
            chosen = np.arange(begin, min(begin + VALIDATED, len(val.text)))
            value, _, tokens = score(chosen, val)
            total, count = total + float(value) * tokens, count + tokens
        return total / max(1, count)

    return validate
