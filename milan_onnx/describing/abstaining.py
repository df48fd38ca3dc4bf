"""Which labels abstain: those of low confidence or, where a captioner has none, of no validity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from milan_onnx.choice import Choice
from milan_onnx.describing.options import DescribeOptions
from milan_onnx.labels import ABSTAIN_BELOW, UnitLabel, has_confidence
from milan_onnx.progress import Reporter


def abstain_limit(options: DescribeOptions) -> float:
    """The confidence below which a label abstains."""
    return ABSTAIN_BELOW if options.abstain_below is None else options.abstain_below


def say_limit(options: DescribeOptions, say: Reporter) -> None:
    """Say the limit; whether there are confidences is known once units are described."""
    why = "--abstain-below"
    if options.abstain_below is None:
        why = "fewer than one in four such labels is right; where there is no confidence, validity "
        why += "decides; --abstain-below sets another"
    say.choice("abstain", Choice(f"below a confidence of {100 * abstain_limit(options):g} %", why))


def rule(options: DescribeOptions, labels: Sequence[UnitLabel]) -> dict[str, Any] | None:
    """The rule by which labels abstain, for the manifest; None: none could."""
    if has_confidence(labels):
        return {"rule": "confidence", "below": abstain_limit(options)}
    if any(label.validity is not None for label in labels):
        return {"rule": "validity", "level": options.validity_level}
    return None
