"""Word vectors whose sums compare phrases as a sentence model does (all-MiniLM-L6-v2).

The search picks the hypothesis that the others agree with most, and a run has no sentence model. A
vector a word is enough for short phrases: it is learned so that the cosine of two phrases, sums of
their words, is that of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from milan_onnx.applications.sentences import SentenceModel
from milan_onnx.export.loop import Say
from milan_onnx.export.training import Encoding, tokenise

ANCHORS, NEAR, AMONG = 40, 6, 60
"""Phrases of a batch: so many, and of each so many among its nearest."""
ALIKE, WEIGHT = 0.4, 3.0
"""Pairs of a cosine above this count more: others are alike in being apart."""


@dataclass(frozen=True)
class VectorPlan:
    """How word vectors are made."""

    length: int = 64
    """Length of a vector."""

    steps: int = 1500
    """Optimiser steps."""

    rate: float = 1e-2
    """Highest learning rate of the one-cycle schedule."""


def train_vectors(
    texts: Sequence[str], encoding: Encoding, plan: VectorPlan, seed: int, say: Say
) -> NDArray[np.float16]:
    """Word vectors (V, D) of phrases; special tokens have zeros.

    Raises ExtraMissing where the sentence model is not installed.
    """
    phrases = sorted({text for text in texts if tokenise(text)})
    told = torch.from_numpy(SentenceModel().vectors(phrases)).float()
    words, unknown = distinct_words(phrases, encoding), encoding.spec.size
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 5))
    vectors = nn.Embedding(unknown + 1, plan.length, padding_idx=unknown)
    nn.init.normal_(vectors.weight, std=0.1)
    optimiser = torch.optim.Adam(vectors.parameters(), plan.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, total_steps=plan.steps)
    loss = torch.zeros(())
    for _ in range(plan.steps):
        rows = _batch(told, rng)
        loss = _loss(vectors(words[rows]), told[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    say(f"vectors: {plan.steps} steps, last squared error of a cosine {loss.item():.4f}")
    made = vectors.weight.detach()[:unknown].clone()
    made[encoding.spec.start :] = 0
    return made.numpy().astype(np.float16)


def phrase_vectors(vectors: Tensor, words: Tensor) -> Tensor:
    """Vectors (n, D) of phrases of `distinct_words`, of length 1; of word vectors (V, D)."""
    table = torch.cat([vectors, torch.zeros(1, vectors.shape[1])])
    return nn.functional.normalize(table[words].sum(1), dim=1)


def distinct_words(phrases: Sequence[str], encoding: Encoding) -> Tensor:
    """Each phrase's distinct known words (n, most), filled up with one past the last id."""
    ids = {word: index for index, word in enumerate(encoding.words)}
    rows = [[ids[w] for w in dict.fromkeys(tokenise(p)) if w in ids] for p in phrases]
    found = torch.full((len(rows), max(map(len, rows))), encoding.spec.size)
    for index, row in enumerate(rows):
        found[index, : len(row)] = torch.tensor(row, dtype=torch.long)
    return found


def _batch(told: Tensor, rng: np.random.Generator) -> Tensor:
    """Rows of some phrases and of phrases near them."""
    anchors = torch.from_numpy(rng.integers(0, len(told), ANCHORS))
    near = (told[anchors] @ told.T).topk(min(AMONG, len(told)), dim=1).indices
    which = torch.from_numpy(rng.integers(0, near.shape[1], (ANCHORS, NEAR)))
    rows: Tensor = torch.unique(torch.cat([anchors, near.gather(1, which).flatten()]))
    return rows


def _loss(words: Tensor, told: Tensor) -> Tensor:
    """Weighted squared error of the cosines of phrases with words (n, most, D)."""
    phrases = nn.functional.normalize(words.sum(1), dim=1)
    wanted = told @ told.T
    weight = torch.where(wanted > ALIKE, WEIGHT, 1.0)
    error: Tensor = (weight * (phrases @ phrases.T - wanted).square()).mean()
    return error
