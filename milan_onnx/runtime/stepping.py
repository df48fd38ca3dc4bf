"""The step graphs of a bundle: one token further for ragged rows (see `milan_onnx.bundle`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from milan_onnx.bundle import PHRASE_VECTOR, CaptionerSpec, LanguageModelSpec
from milan_onnx.runtime.session import Array, Session

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
States = Sequence[Floats]

NOTHING = np.empty(0, np.int64)


class Start(NamedTuple):
    """What the captioner knows of U units before any token."""

    contexts: Sequence[Floats]
    """What every step reads, each (U, ...)."""

    states: States
    """First states, each (U, ...)."""

    phrase_vector: Floats | None
    """The phrase vector expected of each unit's description (U, D); None: none is predicted."""


@dataclass(frozen=True)
class CaptionerStep:
    """What one step of the captioner gives for R rows."""

    log_prob: Floats
    """The largest log-probabilities of the next token (R, top), descending."""

    next_token: Ids
    """The tokens they belong to (R, top)."""

    target_log_prob: Floats
    """Log-probabilities of the asked-for tokens (M,)."""

    states: States
    """States after the row's token, each (R, ...)."""


class Captioner:
    """log p(d|E), a token at a time."""

    def __init__(self, spec: CaptionerSpec, init: Session, step: Session) -> None:
        self._spec = spec
        self._init = init
        self._step = step

    def start(self, features: Floats) -> Start:
        """Of units from features float32 (U, K, F)."""
        names = [t.name for t in (*self._spec.contexts, *self._spec.states)]
        if self._spec.phrase_vector:
            names.append(PHRASE_VECTOR)
        # A single unit would be reduced in another order, with other last bits than among others.
        alone = len(features) == 1
        values = self._init.run({"features": features.repeat(2, 0) if alone else features}, names)
        if alone:
            values = [value[:1] for value in values]
        count = len(self._spec.contexts)
        predicted = values.pop() if self._spec.phrase_vector else None
        return Start(values[:count], values[count:], predicted)

    def step(
        self,
        contexts: Sequence[Floats],
        unit: Ids,
        states: States,
        parent: Ids,
        token: Ids,
        top: int,
        target_row: Ids = NOTHING,
        target_token: Ids = NOTHING,
    ) -> CaptionerStep:
        """Append ``token`` (R,) to parents (P,) that have ``states`` and describe ``unit``."""
        inputs: dict[str, Array] = {}
        inputs |= {t.name: v for t, v in zip(self._spec.contexts, contexts, strict=True)}
        inputs |= {f"{t.name}_in": v for t, v in zip(self._spec.states, states, strict=True)}
        inputs |= {"unit": unit, "parent": parent, "token": token, "top": np.array([top], np.int64)}
        inputs |= {"target_row": target_row, "target_token": target_token}
        names = ["log_prob", "next_token", "target_log_prob", *(t.name for t in self._spec.states)]
        log_prob, next_token, target, *after = self._step.run(inputs, names)
        return CaptionerStep(log_prob, next_token, target, after)


class LanguageModel:
    """log p(d), a token at a time."""

    def __init__(self, spec: LanguageModelSpec, step: Session) -> None:
        self._spec = spec
        self._step = step

    def start(self) -> States:
        """The states of one parent row before any token: zeros."""
        return [np.zeros((1, *t.shape), np.float32) for t in self._spec.states]

    def step(
        self, states: States, parent: Ids, token: Ids, target_row: Ids, target_token: Ids
    ) -> tuple[Floats, States]:
        """Log-probabilities of the targets (M,) and the states after the rows' tokens."""
        inputs: dict[str, Array] = {"parent": parent, "token": token}
        inputs |= {f"{t.name}_in": v for t, v in zip(self._spec.states, states, strict=True)}
        inputs |= {"target_row": target_row, "target_token": target_token}
        names = ["target_log_prob", *(t.name for t in self._spec.states)]
        target, *after = self._step.run(inputs, names)
        return target, after


def continued(tokens: Ids, column: int) -> NDArray[np.bool_]:
    """Which token sequences (S, length), -1 after the end, go on after a column: (S,)."""
    if column + 1 == tokens.shape[1]:
        return np.zeros(len(tokens), bool)
    return np.asarray(tokens[:, column + 1] >= 0, dtype=np.bool_)
