"""Proves an installation: units whose meaning is known, described and judged.

The planted model goes through the whole pipeline (scan, encode, search) on the built-in images;
a description is right where it says one of the phrases that are true of its unit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milan_onnx.choice import Choice
from milan_onnx.describing import DescribeOptions, describe
from milan_onnx.planted import LAYERS, PLANTED, PlantedUnit, save_planted_model
from milan_onnx.progress import Reporter, Silent
from milan_onnx.wording import right

LEAST_RIGHT = 0.9
"""Share of units that must be described rightly."""

MOST_SHUFFLED = 0.1
"""Share that labels of other units must stay below."""


@dataclass(frozen=True)
class Verdict:
    """What was said of a planted unit, and whether it is true."""

    planted: PlantedUnit
    """The unit, with what it detects and what counts as right."""

    description: str | None
    """What was said; None where the unit had nothing to describe."""

    right: bool
    """Whether that says one of the accepted phrases."""


@dataclass(frozen=True)
class SelfTest:
    """The verdicts on all planted units."""

    verdicts: tuple[Verdict, ...]
    """One a unit, by layer and channel."""

    manifest: Mapping[str, Any]
    """Of the run: bundle, device, versions."""

    @property
    def share_right(self) -> float:
        """Units described rightly, 0..1."""
        return sum(verdict.right for verdict in self.verdicts) / len(self.verdicts)

    @property
    def share_shuffled(self) -> float:
        """The same if each unit had the label of another: the mean over all other units, 0..1."""
        hits = [
            _says(other.description, verdict.planted)
            for verdict in self.verdicts
            for other in self.verdicts
            if other is not verdict
        ]
        return sum(hits) / len(hits)

    @property
    def passed(self) -> bool:
        """Whether enough is right, and labels tell units apart."""
        return self.share_right >= LEAST_RIGHT and self.share_shuffled < MOST_SHUFFLED


def selftest(
    bundle: str | Path | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
    images: int = 1000,
    reporter: Reporter | None = None,
) -> SelfTest:
    """Describe the planted units with a bundle (None: the built-in one) and judge the descriptions.

    ``images``: of the built-in probe set.
    Raises the errors of `milan_onnx.describe`; a failed test is no error, but told by ``passed``.
    """
    say = reporter or Silent()
    # What is right is known here, so no photos are held out to find it out.
    options = DescribeOptions(
        device=device, threads=threads, synthetic=images, report=False, validity=False
    )
    say.choice("model", Choice(f"{len(PLANTED)} planted units", "built in code, meaning known"))
    with tempfile.TemporaryDirectory(prefix="milan-onnx-selftest-") as folder:
        model = Path(folder) / "planted.onnx"
        save_planted_model(model)
        layers = [f"tensor:{name}" for name in LAYERS]
        run = describe(model, layers, bundle=bundle, options=options, reporter=say)
    pairs = zip(PLANTED, run.labels, strict=True)
    return SelfTest(tuple(_verdict(p, label.description) for p, label in pairs), run.manifest)


def _verdict(planted: PlantedUnit, description: str | None) -> Verdict:
    return Verdict(planted, description, _says(description, planted))


def _says(description: str | None, planted: PlantedUnit) -> bool:
    return description is not None and right(description, planted.accepted)
