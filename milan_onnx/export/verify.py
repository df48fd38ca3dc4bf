"""A bundle's graphs against the PyTorch modules that they were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from milan_onnx import bundle
from milan_onnx.bundle import Bundle
from milan_onnx.errors import ExtraMissing, MilanError
from milan_onnx.export.backbones import Backbone
from milan_onnx.export.captioner import Captioner
from milan_onnx.export.language_model import LanguageModel
from milan_onnx.machine import send_nothing

TOLERANCE = 1e-3
"""Largest difference that rounding explains: of log-probabilities, and of maps relative to their
largest value."""
UNITS, TOKENS = 3, 5
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Agreement:
    """Largest differences between graphs and modules."""

    encoder: float
    """Of feature maps, relative to the largest value of the level."""

    captioner: float
    """Of log p(word|words before, E), nats."""

    language_model: float
    """Of log p(word|words before), nats."""

    def __str__(self) -> str:
        return (
            f"encoder {self.encoder:.1e} (relative), captioner {self.captioner:.1e}, "
            f"language model {self.language_model:.1e} nats"
        )


@torch.inference_mode()
def verify(
    made: Bundle,
    backbone: Backbone,
    captioners: Sequence[Captioner],
    lm: LanguageModel,
    images: NDArray[np.uint8] | None = None,
    seed: int = 0,
) -> Agreement:
    """Run both on random inputs, or on given images uint8 (N,S,S,3), word by word.

    Raises MilanError where they differ by more than TOLERANCE.
    """
    rng = np.random.default_rng(seed)
    side, spec = made.manifest.encoder.image_size, made.manifest
    if images is None:
        images = rng.integers(0, 256, (UNITS, side, side, 3), dtype=np.uint8)
    maps = backbone.encoder(torch.from_numpy(images))
    tokens = rng.integers(0, spec.vocabulary.start, (UNITS, TOKENS))
    features = _features(maps, rng, UNITS, spec.captioner.exemplars)
    found = Agreement(
        _encoder(made, images, maps),
        _captioner(made, captioners, features, tokens),
        _language_model(made, lm, tokens),
    )
    worst = max(found.encoder, found.captioner, found.language_model)
    if not worst <= TOLERANCE:
        raise MilanError(
            f"the exported graphs do not do what PyTorch does: {found}",
            hint="this is a defect of the export; please report it with the checkpoint's hash",
        )
    return found


def _features(maps: Sequence[Tensor], rng: np.random.Generator, units: int, k: int) -> Tensor:
    """Features of the size that the encoder's have, of real places of real maps: (units, k, F)."""
    parts = []
    for level in maps:
        flat = level.flatten(2).transpose(1, 2).flatten(0, 1)
        rows = rng.integers(0, len(flat), (units * k, 4))
        parts.append(flat[torch.from_numpy(rows)].mean(1))
    return torch.cat(parts, dim=1).reshape(units, k, -1)


def _encoder(made: Bundle, images: NDArray[np.uint8], maps: Sequence[Tensor]) -> float:
    names = [level.name for level in made.manifest.encoder.levels]
    run = _session(made.file(bundle.ENCODER))
    found = run.run(names, {made.manifest.encoder.input: images})
    return max(
        float(np.abs(got - level.numpy()).max() / max(1e-6, float(level.abs().max())))
        for got, level in zip(found, maps, strict=True)
    )


def _captioner(
    made: Bundle, captioners: Sequence[Captioner], features: Tensor, tokens: NDArray[np.int64]
) -> float:
    spec, vocabulary = made.manifest.captioner, made.manifest.vocabulary
    names = [tensor.name for tensor in (*spec.contexts, *spec.states)]
    start = _session(made.file(bundle.CAPTIONER_INIT)).run(names, {"features": features.numpy()})
    contexts = dict(zip(names[: len(spec.contexts)], start, strict=False))
    constant = {
        **contexts,
        "unit": np.arange(len(features)),
        "top": np.array([1], np.int64),
    }
    states = [tensor.name for tensor in spec.states]
    first = start[len(spec.contexts) :]
    path = made.file(bundle.CAPTIONER_STEP)
    got = _forced(path, states, first, constant, tokens, vocabulary.start, vocabulary.size)
    each = [captioner(features, _inputs(tokens, vocabulary.start))[0] for captioner in captioners]
    expected = torch.stack(each).mean(0).log_softmax(-1)
    return float(np.abs(got - expected.numpy()).max())


def _language_model(made: Bundle, lm: LanguageModel, tokens: NDArray[np.int64]) -> float:
    vocabulary = made.manifest.vocabulary
    spec = made.manifest.language_model.states
    zeros = [np.zeros((len(tokens), *state.shape), np.float32) for state in spec]
    path, names = made.file(bundle.LM_STEP), [state.name for state in spec]
    got = _forced(path, names, zeros, {}, tokens, vocabulary.start, vocabulary.size)
    return float(np.abs(got - lm(_inputs(tokens, vocabulary.start)).numpy()).max())


def _forced(
    path: Path,
    names: Sequence[str],
    states: Sequence[NDArray[Any]],
    constant: Arrays,
    tokens: NDArray[np.int64],
    start: int,
    size: int,
) -> NDArray[np.float32]:
    """Log-probabilities (N, T, V) of every token after each of ``start`` and tokens (N, T - 1)."""
    run, rows = _session(path), np.arange(len(tokens))
    targets = {
        "parent": rows,
        "target_row": rows.repeat(size),
        "target_token": np.tile(np.arange(size), len(rows)),
    }
    found = []
    for token in _inputs(tokens, start).numpy().T:
        given = {f"{name}_in": state for name, state in zip(names, states, strict=True)}
        inputs = {**constant, **targets, **given, "token": np.ascontiguousarray(token)}
        log_prob, *states = run.run(["target_log_prob", *names], inputs)
        found.append(log_prob.reshape(len(rows), size))
    return np.stack(found, axis=1)


def _inputs(tokens: NDArray[np.int64], start: int) -> Tensor:
    begin = np.full((len(tokens), 1), start)
    return torch.from_numpy(np.concatenate([begin, tokens[:, :-1]], axis=1))


def _session(path: Path) -> Any:
    send_nothing()
    try:
        import onnxruntime
    except ImportError as error:
        raise ExtraMissing("ONNX Runtime is not installed", hint="install `cpu`") from error
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
