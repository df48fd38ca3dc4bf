"""The captioner p(d|E): an LSTM with additive attention over a unit's exemplars.

Paper, section 3.2 and appendix: the state starts from the mean exemplar; each step attends to the
exemplars with the last state, gates what it finds, and feeds it to an LSTM cell with the last word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from milan_onnx.export.backbones import ClassHead


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

    classes: int = 0
    """Class probabilities of the region that are added to its features; 0 for none (paper)."""

    dropout: float = 0.5
    """Share of the state dropped before the output layer while training."""

    feature_dropout: float = 0.0
    """Share of the prepared features dropped while training, the same for a whole batch."""

    @property
    def inner(self) -> int:
        """Length of an exemplar's features inside the captioner."""
        return self.projection or self.features


class FeatureInput(nn.Module):
    """Optional preparation of features: standardise, add class probabilities, project.

    The last channels of the features are those that the backbone's classifier was trained on, so
    applying it to the masked average tells what the region is of.
    """

    CLIP = 6.0
    CLASS_SCALE = 8.0

    mean: Tensor
    scale: Tensor
    class_weight: Tensor
    class_bias: Tensor

    def __init__(self, config: CaptionerConfig, head_channels: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.features))
        self.register_buffer("scale", torch.ones(config.features))
        self.register_buffer("class_weight", torch.zeros(config.classes, head_channels))
        self.register_buffer("class_bias", torch.zeros(config.classes))
        self.project = nn.Linear(config.features + config.classes, config.projection)
        self.norm = nn.LayerNorm(config.projection)

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Fix what features are standardised with: float32 (F,) each."""
        self.mean.copy_(mean)
        self.scale.copy_(1.0 / std.clamp_min(1e-4))

    def set_classifier(self, head: ClassHead) -> None:
        """Use the backbone's classifier for the class probabilities."""
        self.class_weight.copy_(head.weight)
        self.class_bias.copy_(head.bias)

    def prepared(self, features: Tensor) -> Tensor:
        """Standardised features and class probabilities: (..., F) to (..., F + classes)."""
        standard = ((features - self.mean) * self.scale).clamp(-self.CLIP, self.CLIP)
        if not self.config.classes:
            return standard
        last = features[..., -self.class_weight.shape[1] :]
        odds = functional.linear(last, self.class_weight, self.class_bias).softmax(-1)
        return torch.cat([standard, odds.sqrt() * self.CLASS_SCALE], dim=-1)

    def inner(self, prepared: Tensor) -> Tensor:
        """What the captioner attends to: (..., F + classes) to (..., projection)."""
        weight = self.project.weight
        if self.training and self.config.feature_dropout:
            # One mask for the batch, on the weights: dropping each input would cost more than
            # the projection itself.
            shape, device = weight.shape[1], weight.device
            kept = torch.rand(shape, device=device) >= self.config.feature_dropout
            weight = weight * (kept / (1.0 - self.config.feature_dropout))
        return torch.relu(self.norm(functional.linear(prepared, weight, self.project.bias)))

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

    def __init__(self, config: CaptionerConfig, head_channels: int = 0) -> None:
        super().__init__()
        self.config = config
        self.inputs = FeatureInput(config, head_channels) if config.projection else None
        self.init_h = nn.Linear(config.inner, config.hidden)
        self.init_c = nn.Linear(config.inner, config.hidden)
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
        mean = values.mean(1)
        memory = Memory(values, self.attend.key_to_hidden(values))
        return memory, torch.tanh(self.init_h(mean)), torch.tanh(self.init_c(mean))

    def step(
        self, token: Tensor, memory: Memory, h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Append ``token`` int64 (N,): log-probabilities (N,V), states (N,H), attention (N,K)."""
        weights = self.attend(h, memory.keys)
        context = torch.bmm(weights.unsqueeze(1), memory.values).squeeze(1)
        gated = torch.sigmoid(self.feature_gate(h)) * context
        h, c = self.lstm(torch.cat([self.embedding(token), gated], dim=1), (h, c))
        return self.output(self.dropout(h)).log_softmax(-1), h, c, weights

    def forward(self, inner: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing: log-probabilities (N,T,V) and attention (N,T,K).

        ``inner`` is float32 (N,K,F), features as the encoder gives them; ``tokens`` int64 (N,T)
        begins with the start token.
        """
        memory, h, c = self.begin(inner)
        return self.teach(memory, h, c, tokens)

    def teach(self, memory: Memory, h: Tensor, c: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """As ``forward``, from a memory and first states."""
        log_probs, attention = [], []
        for position in range(tokens.shape[1]):
            log_prob, h, c, weights = self.step(tokens[:, position], memory, h, c)
            log_probs.append(log_prob)
            attention.append(weights)
        return torch.stack(log_probs, 1), torch.stack(attention, 1)
