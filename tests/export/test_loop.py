"""The training loop: stopped anywhere it ends with the same weights; the best are the best."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from milan_onnx.errors import MilanError, UsageError  # noqa: E402
from milan_onnx.export.loop import LoopPlan, Training, train  # noqa: E402

PLAN = LoopPlan(steps=60, batch=8, rate=1e-2, validate_every=7)


def said(text: str) -> None:
    """Nobody listens."""


class Stopped(Exception):
    """As a kill would."""


def make(stop_at: int = 0, seed: int = 0) -> Training:
    """A small network with dropout on batches drawn by two generators."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))
    rng, steps = np.random.default_rng(seed), 0
    held = torch.from_numpy(np.random.default_rng(9).standard_normal((32, 4))).float()

    def loss(done: float) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == stop_at:
            raise Stopped
        x = torch.from_numpy(rng.standard_normal((8, 4))).float()
        return (model(x + 0.1 * torch.randn_like(x)) - x.sum(1, keepdim=True)).square().mean()

    def validate() -> float:
        model.eval()
        with torch.no_grad():
            return float((model(held) - held.sum(1, keepdim=True)).square().mean())

    return Training("toy", model, loss, validate, rng, "recipe")


def weights(what: Training) -> list[np.ndarray]:
    return [value.numpy().copy() for value in what.model.state_dict().values()]


@pytest.mark.parametrize("stop_at", [1, 6, 7, 8, 30, 59, 60])
def test_a_stopped_loop_ends_with_the_same_weights(stop_at: int, tmp_path: Path) -> None:
    whole = make()
    best = train(whole, PLAN, tmp_path / "whole.pt", said)
    with pytest.raises(Stopped):
        train(make(stop_at), PLAN, tmp_path / "cut.pt", said)
    assert not (tmp_path / "cut.pt").exists()
    torch.manual_seed(123)  # whatever came before
    resumed = make()
    assert train(resumed, PLAN, tmp_path / "cut.pt", said) == best
    for a, b in zip(weights(whole), weights(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not (tmp_path / "cut.resume").exists()


def test_best_weights_are_restored_and_not_the_last(tmp_path: Path) -> None:
    """The original keeps references to the live weights and so restores nothing."""
    what, seen = make(), []
    scores = iter([3.0, 1.0, 2.0, 5.0, 4.0, 6.0, 7.0, 8.0, 9.0])

    def validate() -> float:
        seen.append(weights(what))
        return next(scores)

    judged = replace(what, validate=validate)
    assert train(judged, PLAN, tmp_path / "x.pt", said) == 1.0
    saved = torch.load(tmp_path / "x.pt", weights_only=True)["state"].values()
    for kept, written, best, last in zip(weights(what), saved, seen[1], seen[-1], strict=True):
        np.testing.assert_array_equal(kept, best)
        np.testing.assert_array_equal(written.numpy(), best)
        assert not np.array_equal(kept, last)


def test_patience_ends_the_loop(tmp_path: Path) -> None:
    scores, calls = iter([1.0, 2.0, 0.5, 3.0, 4.0, 5.0, 0.1]), []

    def validate() -> float:
        calls.append(1)
        return next(scores)

    judged = replace(make(), validate=validate)
    plan = replace(PLAN, patience=3)
    assert train(judged, plan, tmp_path / "x.pt", said) == 0.5
    assert len(calls) == 6


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    first = make()
    best = train(first, PLAN, tmp_path / "x.pt", said)
    again = make(stop_at=1, seed=5)
    assert train(again, PLAN, tmp_path / "x.pt", said) == best
    for a, b in zip(weights(first), weights(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_recipe_is_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(make(20), PLAN, tmp_path / "x.pt", said)
    other = replace(make(), recipe="other")
    with pytest.raises(UsageError, match="another recipe"):
        train(other, PLAN, tmp_path / "x.pt", said)
    (tmp_path / "x.resume").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="cannot be read"):
        train(make(), PLAN, tmp_path / "x.pt", said)


def test_a_loss_that_is_no_number_is_named(tmp_path: Path) -> None:
    broken = replace(make(), validate=lambda: float("nan"))
    with pytest.raises(MilanError, match="toy: the loss is"):
        train(broken, PLAN, tmp_path / "x.pt", said)
    assert not (tmp_path / "x.pt").exists()


CHILD = """
import sys
from pathlib import Path
from tests.export.test_loop import PLAN, make, said
from dataclasses import replace
import time
what = make()
slow = replace(what, loss=lambda done: (time.sleep(0.01), what.loss(done))[1])
from milan_onnx.export.loop import train
train(slow, PLAN, Path(sys.argv[1]), said)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_process_goes_on(tmp_path: Path) -> None:
    whole = make()
    train(whole, PLAN, tmp_path / "whole.pt", said)
    out, root = tmp_path / "killed.pt", Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(out)], cwd=root)
    deadline = time.monotonic() + 60
    while not (tmp_path / "killed.resume").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    resumed = make()
    train(resumed, PLAN, out, said)
    for a, b in zip(weights(whole), weights(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
