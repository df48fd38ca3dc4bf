"""What an analysis found: figures of layers and runs, words that set them apart, examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from milan_onnx.applications.analyze.apart import WordScore

FORMAT = "milan-onnx-analysis"
FORMAT_VERSION = 1
NO_KIND = "no kind"
"""The main kind of descriptions in which the lexicon knows nothing."""
ALL_LAYERS = "all layers"


@dataclass(frozen=True)
class Figures:
    """Figures of the units of one layer, or of all layers of a run."""

    run: str
    """The run."""

    layer: str | None
    """What the layer is called; None for all of them."""

    units: int
    """Units with a label."""

    described: int
    """Units with a description; what follows is of these."""

    distinct: int
    """Different descriptions."""

    confidence: float | None
    """Mean confidence of the labels; None where none has one."""

    abstained: float | None
    """Share of judged labels that abstain; None where none was judged."""

    correlation: float | None
    """Mean correlation of the labels on held-out photos; None where none was tested."""

    length: float | None
    """Mean words of a description; None without any."""

    complexity: float | None
    """Mean words that are no head; None without any."""

    kinds: Mapping[str, int]
    """Units whose description names a kind; a unit may count for several."""

    mains: Mapping[str, int]
    """Units by main kind, each once; `NO_KIND` for the rest."""

    speech: Mapping[str, int]
    """Words by part of speech."""

    lengths: Mapping[int, int]
    """Units by words of their description."""

    complexities: Mapping[int, int]
    """Units by complexity of their description."""

    @property
    def name(self) -> str:
        """What people call the row."""
        return ALL_LAYERS if self.layer is None else self.layer

    @property
    def covered(self) -> float | None:
        """Share of descriptions with a main kind; None without any description."""
        return 1 - self.mains[NO_KIND] / self.described if self.described else None


@dataclass(frozen=True)
class Apart:
    """Words that one group of units says more, and less, than another."""

    run: str
    """The run."""

    layer: str | None
    """The layer whose units are held against the run's other layers; None: the run against the
    other runs."""

    units: int
    """Described units of the group."""

    others: int
    """Described units that they are held against."""

    more: tuple[WordScore, ...]
    """Words that the group says more, most so first."""

    less: tuple[WordScore, ...]
    """Words that the group says less, most so first."""


@dataclass(frozen=True)
class Analysis:
    """All figures."""

    settings: Mapping[str, Any]
    """What was analysed, and how: runs, hashes, options."""

    kinds: tuple[str, ...]
    """All kinds, in the lexicon's order."""

    mains: tuple[str, ...]
    """All main kinds, `NO_KIND` last."""

    rows: tuple[Figures, ...]
    """Each run's layers in order; after several, all of them."""

    apart: tuple[Apart, ...]
    """Runs against each other, then the layers of each run."""

    examples: Mapping[str, Sequence[tuple[str, int]]]
    """By main kind, the most frequent descriptions and how many units have them."""

    unknown: Sequence[tuple[str, int]]
    """Nouns of descriptions without a kind, and how many such units have them."""

    notes: tuple[str, ...] = ()
    """What a reader must know."""

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs, in the order given."""
        return tuple(dict.fromkeys(row.run for row in self.rows))

    @property
    def coverage(self) -> str:
        """One sentence: how many descriptions have a kind, and what words the others have."""
        layers = [row for row in self.rows if row.layer is not None]
        described = sum(row.described for row in layers)
        without = sum(row.mains[NO_KIND] for row in layers)
        if not described:
            return "no unit has a description"
        words = ", ".join(word for word, _ in self.unknown[:5])
        rest = f"; the others say {words}" if words else ""
        return f"{described - without} of {described} described units have a kind{rest}"

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
