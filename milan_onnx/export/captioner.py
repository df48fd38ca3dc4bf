"""The captioner p(d|E): an LSTM with additive attention over a unit's exemplars.

Paper, section 3.2 and appendix: the state starts from the mean exemplar; each step attends to the
exemplars with the last state, gates what it finds, and feeds it to an LSTM cell with the last word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class CaptionerConfig:
    """Sizes of a captioner. The defaults, without a projection, are the paper's."""

    features: int
    """F: length of an exemplar's features as the encoder gives them."""

    vocabulary: int
    """V: number of tokens."""

    embedding: int = 128
    """Length of a word vector."""

    hidden: int = 512
    """Length of the LSTM's state."""

    attention: int = 512
    """Length of the attention's hidden layer."""

    projection: int = 0
    """Length that features are projected to before the captioner sees them; 0 for none (paper)."""

    parts: tuple[tuple[int, int], ...] = ()
    """Length of each part of the features, and to how many fixed components it is brought first;
    none: features stay as they are."""

    spread: bool = False
    """Whether first states are made of the exemplars' standard deviation beside their mean."""

    phrase_vector: int = 0
    """Length of the phrase vectors that are predicted from the first states; 0: none are."""

    dropout: float = 0.5
    """Share of the state dropped before the output layer while training."""

    feature_dropout: float = 0.0
    """Share of the projected features dropped while training."""

    noise: float = 0.0
    """Standard deviation of what is added to prepared features while training."""

    @property
    def reduced(self) -> int:
        """Length of the features that are projected."""
        return sum(wanted for _, wanted in self.parts) if self.parts else self.features

    @property
    def inner(self) -> int:
        """Length of an exemplar's features inside the captioner."""
        return self.projection or self.features


class FeatureInput(nn.Module):
    """Optional preparation of features: standardise, reduce, project."""

    CLIP = 6.0

    mean: Tensor
    scale: Tensor
    components: Tensor

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.features))
        self.register_buffer("scale", torch.ones(config.features))
        reduced = config.reduced if config.parts else 0
        self.register_buffer("components", torch.zeros(config.features, reduced))
        self.project = nn.Linear(config.reduced, config.projection)
        self.norm = nn.LayerNorm(config.projection)
        self.dropout = nn.Dropout(config.feature_dropout)

    def set_statistics(self, mean: Tensor, std: Tensor, components: Tensor | None = None) -> None:
        """Fix what features are standardised with, float32 (F,) each, and reduced by (F, R)."""
        self.mean.copy_(mean)
        self.scale.copy_(1.0 / std.clamp_min(1e-4))
        if components is not None:
            self.components.copy_(components)

    def standardised(self, features: Tensor) -> Tensor:
        """(..., F), clipped."""
        return ((features - self.mean) * self.scale).clamp(-self.CLIP, self.CLIP)

    def prepared(self, features: Tensor) -> Tensor:
        """What does not change while the captioner learns: (..., F) to (..., R)."""
        standard = self.standardised(features)
        return standard @ self.components if self.config.parts else standard

    def inner(self, prepared: Tensor) -> Tensor:
        """What the captioner attends to: prepared features to (..., projection)."""
        if self.training and self.config.noise:
            prepared = prepared + self.config.noise * torch.randn_like(prepared)
        values: Tensor = self.dropout(torch.relu(self.norm(self.project(prepared))))
        return values

    def forward(self, features: Tensor) -> Tensor:
        """Float32 (..., F) to (..., projection)."""
        return self.inner(self.prepared(features))


class Attention(nn.Module):
    """Additive attention: w_o · tanh(W_q h + W_k v_k)."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.query_to_hidden = nn.Linear(config.hidden, config.attention)
        self.key_to_hidden = nn.Linear(config.inner, config.attention)
        self.output = nn.Linear(config.attention, 1)

    def forward(self, state: Tensor, keys: Tensor) -> Tensor:
        """Weights (N,K) from states (N,H) and projected keys (N,K,A)."""
        energy = torch.tanh(self.query_to_hidden(state).unsqueeze(1) + keys)
        weights: Tensor = self.output(energy).squeeze(-1).softmax(-1)
        return weights


class Memory(NamedTuple):
    """What each step reads of a unit."""

    values: Tensor
    """(U,K,inner) exemplar features as the captioner sees them."""

    keys: Tensor
    """(U,K,A) the same, projected for the attention."""


class Captioner(nn.Module):
    """p(d|E), a word at a time."""

    TINY = 1e-8
    """Keeps the gradient of the exemplars' spread finite where there is none."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.config = config
        self.inputs = FeatureInput(config) if config.projection else None
        whole = config.inner * (2 if config.spread else 1)
        self.init_h = nn.Linear(whole, config.hidden)
        self.init_c = nn.Linear(whole, config.hidden)
        predicted = config.phrase_vector
        self.phrase_vector = nn.Linear(2 * config.hidden, predicted) if predicted else None
        self.embedding = nn.Embedding(config.vocabulary, config.embedding)
        self.attend = Attention(config)
        self.feature_gate = nn.Linear(config.hidden, config.inner)
        self.lstm = nn.LSTMCell(config.embedding + config.inner, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden, config.vocabulary)

    def begin(self, features: Tensor) -> tuple[Memory, Tensor, Tensor]:
        """Memory and first states (U,H) of units from features float32 (U,K,F)."""
        return self.begin_inner(self.inputs(features) if self.inputs is not None else features)

    def begin_inner(self, values: Tensor) -> tuple[Memory, Tensor, Tensor]:
        """As ``begin``, from features (U,K,inner) that were prepared before."""
        whole = values.mean(1)
        if self.config.spread:
            apart = (values - whole.unsqueeze(1)).square().mean(1).add(self.TINY).sqrt()
            whole = torch.cat([whole, apart], dim=-1)
        memory = Memory(values, self.attend.key_to_hidden(values))
        return memory, torch.tanh(self.init_h(whole)), torch.tanh(self.init_c(whole))

    def step(
        self, token: Tensor, memory: Memory, h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Append ``token`` int64 (N,): states (N,H) and the attention (N,K) that they came by."""
        weights = self.attend(h, memory.keys)
        context = torch.bmm(weights.unsqueeze(1), memory.values).squeeze(1)
        gated = torch.sigmoid(self.feature_gate(h)) * context
        h, c = self.lstm(torch.cat([self.embedding(token), gated], dim=1), (h, c))
        return h, c, weights

    def log_probs(self, h: Tensor) -> Tensor:
        """Log-probabilities (..., V) of the token after states (..., H)."""
        found: Tensor = self.output(self.dropout(h)).log_softmax(-1)
        return found

    def forward(self, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing: log-probabilities (N,T,V) and attention (N,T,K).

        ``features`` is float32 (N,K,F) as the encoder gives them; ``tokens`` int64 (N,T) begins
        with the start token.
        """
        memory, h, c = self.begin(features)
        return self.teach(memory, h, c, tokens)

    def teach(self, memory: Memory, h: Tensor, c: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """As ``forward``, from a memory and first states."""
        states, attention = [], []
        for position in range(tokens.shape[1]):
            h, c, weights = self.step(tokens[:, position], memory, h, c)
            states.append(h)
            attention.append(weights)
        return self.log_probs(torch.stack(states, 1)), torch.stack(attention, 1)
