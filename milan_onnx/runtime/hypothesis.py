"""A description that the search found, with all that is known of how good it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hypothesis:
    """One description of a unit, with its scores in nats."""

    description: str
    """The words."""

    pmi: float
    """log p(d|E) - λ log p(d)."""

    log_p_given_exemplars: float
    """log p(d|E)."""

    log_p: float
    """log p(d)."""

    tokens: tuple[int, ...] = ()
    """Its token ids, the stop token included where it came to an end."""

    agreement: float | None = None
    """How much the unit's other hypotheses say the same, -1..1 (`runtime.consensus`); None but for
    the search ``consensus``."""

    confidence: float | None = None
    """Probability that a person would call it right (`runtime.confidence`); None where the bundle
    has no calibration, or the search does not find what it needs."""
