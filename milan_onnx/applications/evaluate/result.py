"""What an evaluation found: rows of figures, differences, and how they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from milan_onnx.applications.evaluate.intervals import Figure

FORMAT = "milan-onnx-evaluation"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Row:
    """One way to describe, and how well it does."""

    name: str
    """``ours``, or a baseline."""

    figures: Mapping[str, Figure]
    """Figures by column."""


@dataclass(frozen=True)
class Evaluation:
    """All figures."""

    columns: Mapping[str, str]
    """What each column is called, in order."""

    rows: tuple[Row, ...]
    """Ours, and the baselines."""

    differences: Mapping[str, Mapping[str, Figure]]
    """Paired differences, such as ``ours - no PMI``, by column."""

    groups: Mapping[str, Mapping[str, Any]]
    """Figures of parts of the units, such as by source."""

    settings: Mapping[str, Any]
    """What was judged on what, and how: hashes, seed, options."""

    counts: Mapping[str, int]
    """How many units, concepts and photos, and how many were left out."""

    notes: tuple[str, ...] = ()
    """What a reader must know."""

    units: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    """What was said of each unit, and what counts as right."""

    calibration: Mapping[str, Any] | None = None
    """How far the confidence of labels can be believed, where they have one."""

    def row(self, name: str) -> Row:
        """A row by name."""
        return next(row for row in self.rows if row.name == name)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
