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
    """How much the unit's other hypotheses say the same, 0..1 (`runtime.consensus`); None but for
    the search ``consensus``."""

    predicted: float | None = None
    """Cosine of its phrase vector with the one that the captioner predicts of its unit; None but
    for the search ``consensus`` and a captioner that predicts one."""

    certainty: float | None = None
    """The same averaged over all hypotheses of its unit by their weights."""

    confidence: float | None = None
    """Probability that a person would call it right (`runtime.confidence`); None where the bundle
    has no calibration, or the search does not find what it needs."""
