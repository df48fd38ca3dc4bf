"""The language model p(d): an LSTM over descriptions (paper, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

States = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class LanguageModelConfig:
    """Sizes of a language model; the defaults are the paper's."""

    vocabulary: int
    """V: number of tokens."""

    embedding: int = 128
    """Length of a word vector."""

    hidden: int = 512
    """Length of a layer's state."""

    layers: int = 2
    """LSTM layers."""

    dropout: float = 0.5
    """Share dropped between layers and before the output while training."""


class LanguageModel(nn.Module):
    """p(d), a word at a time; states begin as zeros."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.embedding)
        sizes = [config.embedding, *[config.hidden] * config.layers]
        self.cells = nn.ModuleList(nn.LSTMCell(a, b) for a, b in pairwise(sizes))
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden, config.vocabulary)

    def begin(self, rows: int) -> States:
        """Zero states, a pair (rows,H) a layer."""
        zeros = self.output.weight.new_zeros(rows, self.config.hidden)
        return [(zeros, zeros) for _ in self.cells]

    def step(self, token: Tensor, states: States) -> tuple[Tensor, States]:
        """Append ``token`` int64 (N,): log-probabilities (N,V) and states."""
        x, after = self.embedding(token), []
        for index, (cell, state) in enumerate(zip(self.cells, states, strict=True)):
            h, c = cell(x if index == 0 else self.dropout(x), state)
            after.append((h, c))
            x = h
        return self.output(self.dropout(x)).log_softmax(-1), after

    def forward(self, tokens: Tensor) -> Tensor:
        """Log-probabilities (N,T,V) of the token after each of int64 (N,T)."""
        states, log_probs = self.begin(int(tokens.shape[0])), []
        for position in range(tokens.shape[1]):
            log_prob, states = self.step(tokens[:, position], states)
            log_probs.append(log_prob)
        return torch.stack(log_probs, 1)
