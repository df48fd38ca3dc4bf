"""The original's decoding: a beam of whole rows, then the language model over each caption."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.original.networks import Decoder


@dataclass(frozen=True)
class Decoded:
    """Captions of U units."""

    tokens: Tensor
    """The best caption of each (U, length), stop tokens after its end."""

    score: Tensor
    """log p(d|E) - λ log p(d), with the original's extra term (U,)."""

    beam_tokens: Tensor
    """All hypotheses (U, beam, length), by log p(d|E)."""

    beam_score: Tensor
    """log p(d|E) of them (U, beam)."""


@torch.no_grad()
def rerank(
    decoder: Decoder,
    features: Tensor,
    stop: int,
    *,
    beam: int,
    length: int,
    weight: float,
    carry_features: bool = True,
) -> Decoded:
    """Describe units from features (U, K, F); ``carry_features`` as of `beam_search`."""
    tokens, score = beam_search(
        decoder, features, stop, beam=beam, length=length, carry_features=carry_features
    )
    units, _, steps = tokens.shape
    prior = log_prior(decoder, tokens.reshape(units * beam, steps), stop).view(units, beam)
    pmi = score - weight * prior
    best = pmi.argmax(dim=1)
    rows = torch.arange(units)
    return Decoded(tokens[rows, best], pmi[rows, best], tokens, score)


def beam_search(
    decoder: Decoder,
    features: Tensor,
    stop: int,
    *,
    beam: int,
    length: int,
    carry_features: bool = True,
) -> tuple[Tensor, Tensor]:
    """The ``beam`` best captions (U, beam, length) and their log p(d|E), as AllenNLP's search does.

    A caption that has stopped may only stop again, at no cost; its row is computed all the same.
    ``carry_features``: copy every row's features after each step, as the original does; without it
    the same comes out sooner.
    """
    units = len(features)
    h, c = decoder.start(features)
    log_prob, h, c = decoder.step(torch.full((units,), stop - 1), features, h, c)
    score, last = log_prob.topk(beam, dim=1)
    state = [value.repeat_interleave(beam, dim=0) for value in (features, h, c)]
    predictions, pointers = [last], []
    stay = torch.full((units * beam, log_prob.shape[1]), float("-inf"))
    stay[:, stop] = 0
    for _ in range(length - 1):
        flat = last.reshape(units * beam)
        if (flat == stop).all():
            break
        log_prob, *state[1:] = decoder.step(flat, *state)
        cleaned = torch.where((flat == stop)[:, None], stay, log_prob)
        top, token = cleaned.topk(beam, dim=1)
        total = (top + score.reshape(-1, 1)).view(units, beam * beam)
        score, chosen = total.topk(beam, dim=1)
        last = token.view(units, beam * beam).gather(1, chosen)
        parent = torch.div(chosen, beam, rounding_mode="trunc")
        predictions.append(last)
        pointers.append(parent)
        # The features are part of the state that follows the beam, though they never change.
        moved = state if carry_features else state[1:]
        state[-len(moved) :] = [_follow(value, parent) for value in moved]
    return _followed_back(predictions, pointers), score


def _follow(state: Tensor, parent: Tensor) -> Tensor:
    """States (U * beam, ...) of the parents (U, beam) of the next step's rows."""
    units, beam = parent.shape
    apart = state.view(units, beam, *state.shape[1:])
    index = parent.view(units, beam, *[1] * (state.dim() - 1)).expand_as(apart)
    return apart.gather(1, index).view_as(state)


def _followed_back(predictions: list[Tensor], pointers: list[Tensor]) -> Tensor:
    """Token sequences (U, beam, steps) from each step's tokens and parents."""
    tokens = [predictions[-1]]
    parent = pointers[-1] if pointers else None
    for step in range(len(predictions) - 2, -1, -1):
        assert parent is not None
        tokens.append(predictions[step].gather(1, parent))
        if step:
            parent = pointers[step - 1].gather(1, parent)
    return torch.stack(tokens[::-1], dim=2)


def log_prior(decoder: Decoder, tokens: Tensor, stop: int) -> Tensor:
    """log p(d) of captions (S, length), with the original's mask: one place behind the stop."""
    start = torch.full((len(tokens), 1), stop - 1)
    inputs = torch.cat((start, tokens), dim=1)
    log_prob = decoder.lm(inputs[:, :-1])
    terms = log_prob.gather(2, inputs[:, 1:, None])[:, :, 0]
    mask = torch.ones_like(terms)
    for row, place in (inputs == stop).nonzero():
        mask[row, place + 1 :] = 0
    return (terms * mask).sum(1)


def ended(tokens: list[int], stop: int) -> tuple[int, ...]:
    """A caption up to its first stop token."""
    return tuple(tokens[: tokens.index(stop) + 1] if stop in tokens else tokens)
