"""Which labels abstain: those of low confidence or, where a captioner has none, of no validity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from milan_onnx.bundle import Bundle, SearchDefaults
from milan_onnx.choice import Choice
from milan_onnx.describing.options import DescribeOptions
from milan_onnx.labels import ABSTAIN_BELOW, UnitLabel, has_confidence
from milan_onnx.progress import Reporter
from milan_onnx.runtime.confidence import why_none


def abstain_limit(options: DescribeOptions) -> float:
    """The confidence below which a label abstains."""
    return ABSTAIN_BELOW if options.abstain_below is None else options.abstain_below


def say_rule(
    bundle: Bundle,
    search: SearchDefaults,
    options: DescribeOptions,
    exemplars: int,
    held_out: bool,
    say: Reporter,
) -> None:
    """Say by which rule labels of so many exemplars will abstain; ``held_out``: whether validity
    is tested."""
    given = options.abstain_below is not None
    none = why_none(bundle.manifest.calibration, search, exemplars)
    if not none:
        text = f"labels below a confidence of {100 * abstain_limit(options):g} %"
        why = "fewer than one in four of them is right; --abstain-below sets another limit"
        say.choice("abstain", Choice(text, "--abstain-below" if given else why))
        return
    text = "labels no better on held-out photos than those of other units"
    why = f"{none}: --abstain-below changes nothing" if given else none
    say.choice("abstain", Choice(text if held_out else "no label", why))


def rule(options: DescribeOptions, labels: Sequence[UnitLabel]) -> dict[str, Any] | None:
    """The rule by which labels abstain, for the manifest; None: none could."""
    if has_confidence(labels):
        return {"rule": "confidence", "below": abstain_limit(options)}
    if any(label.validity is not None for label in labels):
        return {"rule": "validity", "level": options.validity_level}
    return None
