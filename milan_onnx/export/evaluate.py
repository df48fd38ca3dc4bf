"""How well a captioner does on virtual units of photos it has not seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from milan_onnx.export.captioner import Captioner, Memory
from milan_onnx.export.language_model import LanguageModel
from milan_onnx.export.training import (
    Encoding,
    captioner_loss,
    gather,
    language_model_loss,
    prepare_all,
)
from milan_onnx.export.virtual_units import VirtualUnit


@dataclass(frozen=True)
class SearchPlan:
    """Settings of the search used to evaluate; the paper's, but for repeated words."""

    beam: int = 50
    """Hypotheses a unit."""

    length: int = 15
    """Longest description in tokens."""

    weight: float = 0.2
    """λ of log p(d|E) - λ log p(d)."""

    repeats: bool = False
    """Whether a description may hold a word twice (paper: yes)."""


@dataclass(frozen=True)
class Scores:
    """Figures on held-out virtual units."""

    units: int
    """How many."""

    cross_entropy: float
    """Nats a token of the true phrase."""

    shuffled_cross_entropy: float
    """The same with the phrases of other units: what chance gives."""

    lm_cross_entropy: float
    """The language model's, on the same phrases."""

    top1: float
    """Share whose first description is accepted."""

    top5: float
    """Share with an accepted one among the first five."""

    shuffled_top1: float
    """``top1`` with the descriptions of other units."""

    shuffled_top5: float
    """``top5`` with the descriptions of other units."""

    top1_by_kind: Mapping[str, float]
    """``top1`` of each kind of concept."""

    units_by_kind: Mapping[str, int]
    """Units of each kind."""


def describe(
    captioner: Captioner,
    lm: LanguageModel,
    batch: Tensor,
    encoding: Encoding,
    plan: SearchPlan,
) -> list[list[str]]:
    """Descriptions of each unit, best first (paper, section 3.3: beam search, then PMI)."""
    tokens, scores = beam_search(captioner, batch, encoding, plan)
    scores = scores - plan.weight * lm_scores(lm, tokens.flatten(0, 1), encoding).view_as(scores)
    order = scores.argsort(dim=1, descending=True, stable=True)
    ranked = tokens.gather(1, order.unsqueeze(2).expand_as(tokens)).tolist()
    return [[encoding.decode(row) for row in unit] for unit in ranked]


@torch.no_grad()
def beam_search(
    captioner: Captioner, batch: Tensor, encoding: Encoding, plan: SearchPlan
) -> tuple[Tensor, Tensor]:
    """Tokens (U,B,T) and log p(d|E) (U,B). Finished beams go on with stop, at no cost."""
    captioner.eval()
    units, beam, spec = batch.shape[0], plan.beam, encoding.spec
    memory, h, c = captioner.begin(batch)
    memory = Memory(*(part.repeat_interleave(beam, 0) for part in memory))
    h, c = h.repeat_interleave(beam, 0), c.repeat_interleave(beam, 0)
    scores = torch.full((units, beam), -torch.inf)
    scores[:, 0] = 0.0
    tokens = torch.full((units, beam, 1), spec.start)
    frozen = torch.full((spec.size,), -torch.inf)
    frozen[spec.stop] = 0.0
    base = (torch.arange(units) * beam).unsqueeze(1)
    for _ in range(plan.length):
        last = tokens[:, :, -1].flatten()
        log_probs, h, c, _ = captioner.step(last, memory, h, c)
        log_probs[:, [spec.start, spec.pad, spec.unk]] = -torch.inf
        if not plan.repeats:
            log_probs.scatter_(1, tokens.flatten(0, 1), -torch.inf)
        log_probs = torch.where((last == spec.stop).unsqueeze(1), frozen, log_probs)
        total = (scores.flatten().unsqueeze(1) + log_probs).view(units, -1)
        scores, flat = total.topk(beam, dim=1)
        parent, token = flat // spec.size, flat % spec.size
        tokens = torch.cat(
            [tokens.gather(1, parent.unsqueeze(2).expand_as(tokens)), token.unsqueeze(2)], dim=2
        )
        rows = (base + parent).flatten()
        h, c = h[rows], c[rows]
        if bool((token == spec.stop).all()):
            break
    return tokens[:, :, 1:], scores


@torch.no_grad()
def lm_scores(lm: LanguageModel, tokens: Tensor, encoding: Encoding) -> Tensor:
    """log p(d) of rows of tokens (N,T), up to and including the stop token: (N,)."""
    lm.eval()
    start = torch.full((tokens.shape[0], 1), encoding.spec.start)
    log_probs = lm(torch.cat([start, tokens[:, :-1]], dim=1))
    picked = log_probs.gather(2, tokens.unsqueeze(2)).squeeze(2)
    ended = (tokens == encoding.spec.stop).long().cumsum(1)
    inside = (ended == 0) | ((ended == 1) & (tokens == encoding.spec.stop))
    total: Tensor = (picked * inside).sum(1)
    return total


def evaluate(
    captioner: Captioner,
    lm: LanguageModel,
    features: NDArray[np.float16],
    units: Sequence[VirtualUnit],
    encoding: Encoding,
    plan: SearchPlan | None = None,
) -> tuple[Scores, list[list[str]]]:
    """All figures, and the descriptions they come from."""
    found: list[list[str]] = []
    for begin in range(0, len(units), 32):
        batch = gather(features, units[begin : begin + 32])
        found += describe(captioner, lm, batch, encoding, plan or SearchPlan())
    accepted = [unit.accepted for unit in units]
    others = [*accepted[1:], accepted[0]]
    kinds: dict[str, list[bool]] = defaultdict(list)
    for unit, ranked in zip(units, found, strict=True):
        kinds[unit.kind].append(ranked[0] in unit.accepted)
    with torch.no_grad():
        lm_loss = float(language_model_loss(lm, [unit.phrase for unit in units], encoding))
    table = prepare_all(captioner, features)
    scores = Scores(
        len(units),
        captioner_loss(captioner, table, units, encoding),
        captioner_loss(captioner, table, units, encoding, shuffle=True),
        lm_loss,
        _accuracy(found, accepted, 1),
        _accuracy(found, accepted, 5),
        _accuracy(found, others, 1),
        _accuracy(found, others, 5),
        {kind: sum(right) / len(right) for kind, right in sorted(kinds.items())},
        {kind: len(right) for kind, right in sorted(kinds.items())},
    )
    return scores, found


def _accuracy(
    found: Sequence[Sequence[str]], accepted: Sequence[frozenset[str]], top: int
) -> float:
    right = [
        not names.isdisjoint(ranked[:top]) for ranked, names in zip(found, accepted, strict=True)
    ]
    return sum(right) / len(right)
