"""The original's networks, layer by layer: a checkpoint's state dict is theirs.

The encoder is a torchvision network whose maps are averaged under masks; the decoder attends to the
exemplars' features and is an LSTM; the language model is another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from milan_onnx.export.backbones import import_torchvision_models
from milan_onnx.export.original.checkpoint import read_checkpoint

FEATURES = {"alexnet": 1152, "resnet18": 1024, "resnet50": 3904, "resnet101": 3904}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Attention(nn.Module):
    """Additive attention; the keys are projected anew in every call."""

    def __init__(self, hidden: int, features: int, attention: int) -> None:
        super().__init__()
        self.query_to_hidden = nn.Linear(hidden, attention)
        self.key_to_hidden = nn.Linear(features, attention)
        self.output = nn.Sequential(nn.Linear(attention, 1), nn.Softmax(dim=1))

    def forward(self, h: Tensor, values: Tensor) -> Tensor:
        energy = torch.tanh(self.query_to_hidden(h)[:, None] + self.key_to_hidden(values))
        return (self.output(energy) * values).sum(1)


class LM(nn.Module):
    """log p(d), for whole captions."""

    def __init__(self, vocabulary: int, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.output = nn.Sequential(nn.Linear(hidden, vocabulary), nn.LogSoftmax(dim=-1))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(self.lstm(self.embedding(tokens))[0])


class Decoder(nn.Module):
    """The original's decoder with its encoder and language model inside."""

    def __init__(self, config: str, vocabulary: int, sizes: dict[str, int]) -> None:
        super().__init__()
        features, hidden, embedding = FEATURES[config], sizes["hidden"], sizes["embedding"]
        self.encoder = nn.Module()
        self.encoder.encoder = nn.Module()
        self.encoder.encoder.model = getattr(import_torchvision_models(), config)(weights=None)
        self.encoder.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.encoder.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        self.lm = LM(vocabulary, sizes["lm_embedding"], sizes["lm_hidden"], sizes["lm_layers"])
        self.init_h = nn.Sequential(nn.Linear(features, hidden), nn.Tanh())
        self.init_c = nn.Sequential(nn.Linear(features, hidden), nn.Tanh())
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.attend = Attention(hidden, features, sizes.get("attention") or min(hidden, features))
        self.feature_gate = nn.Sequential(nn.Linear(hidden, features), nn.Sigmoid())
        self.lstm = nn.LSTMCell(embedding + features, hidden)
        self.output = nn.Sequential(nn.Dropout(0.5), nn.Linear(hidden, vocabulary))

    def start(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """First h and c from features (N,K,F)."""
        return self.init_h(values.mean(1)), self.init_c(values.mean(1))

    def step(self, token: Tensor, values: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        """log p of the next token (N,V), h and c of rows: tokens (N,), features (N,K,F)."""
        gated = self.feature_gate(h) * self.attend(h, values)
        h, c = self.lstm(torch.cat([self.embedding(token), gated], dim=1), (h, c))
        return self.output(h).log_softmax(-1), h, c


def load_decoder(path: Path) -> Decoder:
    """The decoder of a checkpoint that the original saved."""
    saved = read_checkpoint(path)
    sizes: dict[str, Any] = {
        "hidden": saved.hidden,
        "embedding": saved.embedding,
        "attention": saved.attention,
        "lm_hidden": saved.lm_hidden,
        "lm_embedding": saved.lm_embedding,
        "lm_layers": saved.lm_layers,
    }
    decoder = Decoder(saved.encoder, saved.vocabulary, sizes)
    missing, unexpected = decoder.load_state_dict(dict(saved.state), strict=False)
    unused = ("num_batches_tracked", "model.fc.weight", "model.fc.bias")
    wrong = [name for name in missing if not name.endswith(unused) and ".classifier." not in name]
    if wrong or unexpected:
        raise RuntimeError(f"{path} does not fit: {wrong} missing, {unexpected} unexpected")
    return decoder.eval()


def features_of(decoder: Decoder, config: str, images: Tensor, masks: Tensor) -> Tensor:
    """The paper's features: float32 images (N,3,S,S) in 0..1, masks (N,1,S,S): (N,F)."""
    x = (images - decoder.encoder.mean) / decoder.encoder.std
    model, maps = decoder.encoder.encoder.model, []
    if config == "alexnet":
        for index, layer in enumerate(model.features):
            x = layer(x.clone())
            if index in (1, 4, 7, 9, 11):  # the ReLUs, which overwrite the convolutions
                maps.append(x)
    else:
        maps.append(model.conv1(x))
        x = model.maxpool(torch.relu(model.bn1(maps[0])))
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = getattr(model, name)(x)
            maps.append(x)
    parts = []
    for level in maps:
        size = level.shape[-2:]
        weight = functional.interpolate(masks, size=size, mode="bilinear", align_corners=False)
        total = weight.sum((2, 3), keepdim=True)
        weight = torch.where(total > 0, weight / total.clamp_min(1e-12), weight)
        parts.append((level * weight).sum((2, 3)))
    return torch.cat(parts, dim=1)
