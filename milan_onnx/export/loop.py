"""One loop for all networks: validates, keeps the best weights, and can be stopped at any moment.

Everything that the next step depends on is saved together: weights, optimiser, schedule, random
generators, and the best weights so far. A loop that was killed goes on from the last save and
passes through the same steps, so it ends with the same weights as one that was not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from milan_onnx.errors import MilanError, UsageError

Say = Callable[[str], None]


@dataclass(frozen=True)
class LoopPlan:
    """How one network is trained."""

    steps: int
    """Optimiser steps, at most."""

    batch: int = 128
    """Examples a step."""

    rate: float = 2e-3
    """Highest learning rate of the one-cycle schedule."""

    decay: float = 1e-2
    """AdamW's weight decay."""

    validate_every: int = 100
    """Steps between validations; the loop is saved after each."""

    patience: int = 0
    """Validations without a better one after which the loop ends; 0: never before ``steps``."""

    fewer_exemplars: float = 0.75
    """Share of the batches with fewer exemplars than K."""

    alike: bool = True
    """Whether a batch holds phrases of like length."""

    smoothing: float = 0.0
    """How much of a target's probability is spread over all words."""

    penalty: float = 0.0
    """Weight of the attention's penalty (paper's code: 1)."""

    phrase_vector: float = 0.0
    """Weight of a second task of the captioner: to predict the vector of the phrase."""


@dataclass(frozen=True)
class Training:
    """What a loop trains."""

    name: str
    """What progress lines begin with."""

    model: nn.Module
    """Its parameters are trained."""

    loss: Callable[[float], Tensor]
    """Loss of the next batch, of the share of the steps that is done; draws from ``rng`` and
    PyTorch's generator only."""

    validate: Callable[[], float]
    """Loss on held-out examples, lower is better; draws nothing."""

    rng: np.random.Generator
    """What the batches are drawn with."""

    recipe: str
    """Names all settings that the weights depend on: what was saved under others is not used."""


def train(what: Training, plan: LoopPlan, out: Path, say: Say) -> float:
    """Train to the end of the plan; returns the best validation loss.

    The best weights are left in the model and written to ``out`` when the loop ends, and not
    before. Where ``out`` is there already, it is loaded and nothing is done. Raises UsageError when
    what was saved belongs to another recipe, MilanError when the loss is no number any more.
    """
    if out.is_file():
        say(f"{what.name}: {out} is there, nothing to do")
        return load(what.model, out, what.recipe)
    loop = _Loop(what, plan, out.with_suffix(".resume"))
    loop.restore(say)
    started, first = perf_counter(), loop.step
    while loop.step < plan.steps and not loop.is_patient_no_more():
        loop.advance()
        if loop.step % plan.validate_every == 0 or loop.step == plan.steps:
            text = loop.check()
            rate = (loop.step - first) / (perf_counter() - started)
            left = (plan.steps - loop.step) / rate
            say(f"{text}, {rate:.2f} steps/s, {left:.0f} s left")
    what.model.load_state_dict(loop.best_state)
    what.model.eval()
    _save({"state": loop.best_state, "val": loop.best, "recipe": what.recipe}, out)
    loop.path.unlink(missing_ok=True)
    return loop.best


def load(model: nn.Module, path: Path, recipe: str) -> float:
    """Take over the weights that a loop left, to be used; returns their validation loss.

    Raises FileNotFoundError, or UsageError as `train`.
    """
    saved = _load(path, recipe)
    model.load_state_dict(saved["state"])
    model.eval()
    return float(saved["val"])


class _Loop:
    """A loop between two steps."""

    def __init__(self, what: Training, plan: LoopPlan, path: Path) -> None:
        self.what, self.plan, self.path = what, plan, path
        parameters = [p for p in what.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(parameters, lr=plan.rate, weight_decay=plan.decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, plan.rate, total_steps=max(1, plan.steps), pct_start=0.15
        )
        self.device = next(what.model.parameters()).device
        self.scaler = torch.amp.GradScaler(enabled=self.device.type == "cuda")
        self.step, self.bad = 0, 0
        self.best = float("inf")
        self.best_state = copy.deepcopy(what.model.state_dict())
        self.recent: list[float] = []

    def advance(self) -> None:
        """One optimiser step."""
        self.what.model.train()
        self.step += 1
        with self._precision():
            loss = self.what.loss((self.step - 1) / self.plan.steps)
        self.optimiser.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.what.model.parameters(), 1.0)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.schedule.step()
        self.recent.append(loss.item())

    def _precision(self) -> AbstractContextManager[Any]:
        """float16 where that is quicker; on a CPU it is not."""
        if self.device.type != "cuda":
            return nullcontext()
        return torch.autocast("cuda", dtype=torch.float16)

    def check(self) -> str:
        """Validate, keep the weights if they are the best, save; returns a progress line."""
        held = self.what.validate()
        train = sum(self.recent) / max(1, len(self.recent))
        if not (np.isfinite(held) and np.isfinite(train)):
            raise MilanError(
                f"{self.what.name}: the loss is {train} (validation {held}) at step {self.step}",
                hint="lower the learning rate",
            )
        self.recent.clear()
        self.bad += 1
        if held < self.best:
            # A state dict refers to the live weights: without the copy, "best" would be last.
            self.best, self.bad = held, 0
            self.best_state = copy.deepcopy(self.what.model.state_dict())
        _save(self.saved(), self.path)
        steps = f"step {self.step}/{self.plan.steps}"
        return f"{self.what.name}: {steps}, train {train:.3f}, val {held:.3f}"

    def is_patient_no_more(self) -> bool:
        """Whether too many validations in a row were no better."""
        return bool(self.plan.patience) and self.bad >= self.plan.patience

    def saved(self) -> dict[str, Any]:
        """All that the next step depends on."""
        cuda = torch.cuda.get_rng_state() if self.device.type == "cuda" else None
        return {
            "recipe": self.what.recipe,
            "step": self.step,
            "bad": self.bad,
            "best": self.best,
            "best_state": self.best_state,
            "model": self.what.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "torch": torch.get_rng_state(),
            "cuda": cuda,
            "numpy": self.what.rng.bit_generator.state,
        }

    def restore(self, say: Say) -> None:
        """Go on where a loop of the same plan was stopped, if one was."""
        if not self.path.is_file():
            return
        saved = _load(self.path, self.what.recipe)
        self.step, self.bad, self.best = saved["step"], saved["bad"], saved["best"]
        self.best_state = saved["best_state"]
        self.what.model.load_state_dict(saved["model"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.schedule.load_state_dict(saved["schedule"])
        self.scaler.load_state_dict(saved["scaler"])
        torch.set_rng_state(saved["torch"])
        if saved["cuda"] is not None:
            torch.cuda.set_rng_state(saved["cuda"])
        self.what.rng.bit_generator.state = saved["numpy"]
        say(f"{self.what.name}: goes on from step {self.step}, saved in {self.path}")


def _load(path: Path, recipe: str) -> Mapping[str, Any]:
    try:
        saved: Mapping[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        found = saved["recipe"]
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = str(error).split("\n")[0]
        raise UsageError(f"{path} cannot be read: {reason}", hint="remove it") from error
    if found != recipe:
        raise UsageError(
            f"{path} was made by another recipe or seed", hint="remove it, or give another --work"
        )
    return saved


def _save(value: object, path: Path) -> None:
    """Write whole or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    torch.save(value, temporary)
    temporary.replace(path)
