"""What the captioner and the language model learn from: phrases with the units they are said of.

The paper's training (section 3.2 and appendix): cross-entropy of the descriptions; the language
model learns from the same ones. Its penalty, where an exemplar's attention does not sum to one over
the words, is there for its own recipe.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from milan_onnx.bundle import VocabularySpec
from milan_onnx.errors import UsageError
from milan_onnx.export.captioner import Captioner, Memory
from milan_onnx.export.language_model import LanguageModel
from milan_onnx.export.loop import LoopPlan, Training

Table = NDArray[np.float16]
Ids = NDArray[np.int64]
Score = Callable[[Ids, "Examples"], tuple[Tensor, Tensor]]

VALIDATED = 256
"""Examples scored at once."""
GROUPS = 6
"""Batches drawn for each that is taken, so that it can hold phrases of like length."""
SHIFT = 0.2, 0.7
"""Shares of the training between which first weights of examples pass to last ones."""
FEW = 0.05
"""Share of the batches, of those with fewer exemplars, that have one to three."""


def tokenise(text: str) -> list[str]:
    """Lowercase words; punctuation stands alone, hyphens and apostrophes belong to words."""
    return re.findall(r"[\w'-]+|[^\w\s'-]", text.lower())


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


@dataclass(frozen=True)
class Examples:
    """Phrases, whose they are and how often they are drawn: one row a phrase."""

    unit: Ids
    """Row of the unit in the table of features (n,)."""

    text: tuple[str, ...]
    """The phrases."""

    weight: NDArray[np.float64]
    """How often each is drawn, against the others, when training begins (n,)."""

    weight_at_end: NDArray[np.float64]
    """The same when it ends (n,)."""

    def __len__(self) -> int:
        return len(self.text)

    @staticmethod
    def joined(
        parts: Sequence[Examples], first: Sequence[float], last: Sequence[float]
    ) -> Examples:
        """Several, of which each is drawn for its share of the whole, at first and at last.

        Raises UsageError where all are empty.
        """
        rows = zip(parts, first, last, strict=True)
        full = [row for row in rows if len(row[0])]
        if not full:
            raise UsageError(
                "no unit is left to train on, or none is held out",
                hint="give more units, or other `held_out` and `part`",
            )
        return Examples(
            np.concatenate([part.unit for part, _, _ in full]),
            tuple(text for part, _, _ in full for text in part.text),
            np.concatenate([part.weight * (a / part.weight.sum()) for part, a, _ in full]),
            np.concatenate([part.weight * (b / part.weight.sum()) for part, _, b in full]),
        )


class Sampler:
    """Draws batches of examples."""

    def __init__(self, examples: Examples, rng: np.random.Generator, plan: LoopPlan) -> None:
        self.examples, self._rng, self._plan = examples, rng, plan
        weights = examples.weight, examples.weight_at_end
        self._bounds = [np.cumsum(weight / weight.sum()) for weight in weights]
        self._length = np.array([len(tokenise(text)) for text in examples.text])

    def draw(self, done: float) -> Ids:
        """Rows (batch,) of phrases of like length: padding would cost as much as words.

        ``done``: share of the training that is over.
        """
        groups = GROUPS if self._plan.alike else 1
        shifted = min(1.0, max(0.0, (done - SHIFT[0]) / (SHIFT[1] - SHIFT[0])))
        first, last = self._bounds
        bounds = (1 - shifted) * first + shifted * last
        found = np.searchsorted(bounds, self._rng.random(groups * self._plan.batch))
        found = np.minimum(found, len(bounds) - 1)
        order = np.argsort(self._length[found] + self._rng.random(len(found)))
        begin = int(self._rng.integers(groups)) * self._plan.batch
        return found[order[begin : begin + self._plan.batch]]

    def exemplars(self, most: int) -> int:
        """How many exemplars a batch has: often fewer, since other K are to work too."""
        if most < 6 or self._rng.random() >= self._plan.fewer_exemplars:
            return most
        if self._rng.random() < FEW:
            return int(self._rng.integers(1, 4))
        return int(self._rng.integers(min(6, most), most + 1))

    def places(self, counts: Ids, wanted: int) -> Ids:
        """Which exemplars (batch, wanted) of units that have ``counts`` (batch,), in any order;
        all of a unit's before one comes again."""
        keys = self._rng.random((len(counts), int(counts.max())))
        keys[np.arange(keys.shape[1]) >= counts[:, None]] = np.inf
        turn = np.arange(wanted) % counts[:, None]
        return np.take_along_axis(np.argsort(keys, axis=1), turn, axis=1)


def vocabulary(texts: Sequence[str], fewest: int = 1) -> tuple[str, ...]:
    """Words that come ``fewest`` times, the most frequent first, ties as first seen (the paper).

    The original counts held-out sentences too.
    """
    counts = Counter(word for text in texts for word in tokenise(text))
    return tuple(word for word, count in counts.most_common() if count >= fewest)


def cross_entropy(log_probs: Tensor, targets: Tensor, pad: int, smoothing: float = 0.0) -> Tensor:
    """Mean over tokens of -log p(target), padding left out; smoothed by the mean over all words."""
    flat, wanted = log_probs.flatten(0, 1), targets.flatten()
    loss = functional.nll_loss(flat, wanted, ignore_index=pad)
    if not smoothing:
        return loss
    even = -flat[wanted != pad].mean()
    return (1 - smoothing) * loss + smoothing * even


def captioner_training(
    model: Captioner,
    table: Table,
    counts: Ids,
    train: Examples,
    val: Examples,
    encoding: Encoding,
    rng: np.random.Generator,
    plan: LoopPlan,
    *,
    length: int,
    recipe: str,
    phrase_vectors: Tensor | None = None,
) -> Training:
    """What trains p(d|E).

    ``table``: float16 (units, K, ...) of prepared features (`prepare_all`), in memory or mapped;
    ``counts`` (units,): how many exemplars each unit has; ``phrase_vectors``
    (n, D): of the phrases to train on, where the captioner is to predict them.
    """
    device, pad, sampler = device_of(model), encoding.spec.pad, Sampler(train, rng, plan)

    def begun(rows: NDArray[np.float16]) -> tuple[Memory, Tensor, Tensor]:
        values = torch.from_numpy(np.ascontiguousarray(rows)).float().to(device)
        inner = model.inputs.inner(values) if model.inputs is not None else values
        return model.begin_inner(inner)

    def score(chosen: Ids, source: Examples) -> tuple[Tensor, Tensor]:
        inputs, targets = encoding.encode([source.text[i] for i in chosen.tolist()], length)
        log_probs, _ = model.teach(*begun(table[source.unit[chosen]]), inputs.to(device))
        return log_probs, targets.to(device)

    def loss(done: float) -> Tensor:
        chosen = sampler.draw(done)
        units = train.unit[chosen]
        inputs, targets = encoding.encode([train.text[i] for i in chosen.tolist()], length)
        places = sampler.places(counts[units], sampler.exemplars(table.shape[1]))
        memory, h, c = begun(table[units[:, None], places])
        log_probs, attention = model.teach(memory, h, c, inputs.to(device))
        value = cross_entropy(log_probs, targets.to(device), pad, plan.smoothing)
        if plan.penalty:
            value = value + plan.penalty * (1.0 - attention.sum(1)).square().mean()
        if model.phrase_vector is not None and phrase_vectors is not None:
            predicted = model.phrase_vector(torch.cat([h, c], dim=1))
            wanted = phrase_vectors[torch.from_numpy(chosen)].to(device)
            # Squared, not by angle: where phrases cannot be foreseen, the prediction is short.
            missed = (predicted - wanted).square().sum(1)
            value = value + plan.phrase_vector * missed.mean()
        return value

    return Training("captioner", model, loss, _validation(model, score, val, pad), rng, recipe)


def language_model_training(
    model: LanguageModel,
    train: Examples,
    val: Examples,
    encoding: Encoding,
    rng: np.random.Generator,
    plan: LoopPlan,
    *,
    length: int,
    recipe: str,
) -> Training:
    """What trains p(d), on the same phrases and no held-out unit's."""
    device, pad, sampler = device_of(model), encoding.spec.pad, Sampler(train, rng, plan)

    def score(chosen: Ids, source: Examples) -> tuple[Tensor, Tensor]:
        inputs, targets = encoding.encode([source.text[i] for i in chosen.tolist()], length)
        return model(inputs.to(device)), targets.to(device)

    def loss(done: float) -> Tensor:
        log_probs, targets = score(sampler.draw(1.0), train)  # p(d) of what is said at last
        return cross_entropy(log_probs, targets, pad, plan.smoothing)

    return Training("lm", model, loss, _validation(model, score, val, pad), rng, recipe)


def device_of(model: nn.Module) -> torch.device:
    """Where a network's weights are."""
    return next(model.parameters()).device


@torch.no_grad()
def prepare_all(model: Captioner, features: Table) -> Table:
    """Prepared features (units, K, ...): they stay the same while the captioner learns."""
    if model.inputs is None:
        return features
    device = device_of(model)
    parts = [
        model.inputs.prepared(torch.from_numpy(features[begin : begin + 256]).float().to(device))
        for begin in range(0, len(features), 256)
    ]
    return np.concatenate([part.half().cpu().numpy() for part in parts])


def _validation(model: nn.Module, score: Score, val: Examples, pad: int) -> Callable[[], float]:
    """Mean loss a token over all held-out phrases."""

    @torch.no_grad()
    def validate() -> float:
        model.eval()
        total, count = 0.0, 0
        for begin in range(0, len(val), VALIDATED):
            chosen = np.arange(begin, min(begin + VALIDATED, len(val)))
            log_probs, targets = score(chosen, val)
            tokens = int((targets != pad).sum())
            total += float(cross_entropy(log_probs, targets, pad)) * tokens
            count += tokens
        return total / max(1, count)

    return validate
