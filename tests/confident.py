"""Runs whose hypotheses have confidences: made by the real stages, the probabilities given.

What computes a confidence is a bundle's; here each unit's best hypothesis gets a known one, so that
what is done with it can be tested with a toy captioner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from milan_onnx.describing import DescribeOptions
from milan_onnx.describing.encoding import Ids, encode_exemplars
from milan_onnx.describing.finishing import complete, found_run
from milan_onnx.describing.job import Job, prepare
from milan_onnx.describing.kept import NOWHERE, Kept
from milan_onnx.describing.labelling import Described, label_units, searching
from milan_onnx.describing.recalling import job_facts
from milan_onnx.describing.scanning import Scanned, scan_layers
from milan_onnx.describing.validating import Scored, score_layers
from milan_onnx.labels import UnitLabel
from milan_onnx.progress import Meter, Reporter, Silent
from milan_onnx.run import Run
from milan_onnx.runtime import Describer, Features, Hypothesis

STEPS = 12


def confidence_of(unit: int) -> float:
    """The confidence of the unit-th described unit: 0, 0.08333, ... 0.91667, and again."""
    return unit % STEPS / STEPS


class Confident:
    """The stages of this process, with confidences given to what the search finds."""

    def scan(self, job: Job, kept: Kept) -> Scanned:
        return scan_layers(job, kept)

    def labels(
        self, job: Job, scanned: Scanned, on_label: Callable[[UnitLabel], None], kept: Kept
    ) -> list[UnitLabel]:
        describer = Describer(job.bundle, job.device.value, job.threads)
        encoder = describer.encoder()
        search = searching(job, describer)

        def sure(units: Features, meter: Meter) -> Iterator[Sequence[Hypothesis]]:
            for number, found in enumerate(search(units, meter)):
                own = confidence_of(number)
                yield [replace(h, confidence=own / (1 + rank)) for rank, h in enumerate(found)]

        def describe(told: Callable[[UnitLabel], None]) -> list[list[Described]]:
            features = encode_exemplars(job, scanned.layers, encoder, kept)
            return label_units(job, scanned.layers, features, told, kept, sure)

        def score(scored: Sequence[Scored], table: Ids) -> None:
            stores = scanned.layers, scanned.held_out
            score_layers(job, describer, encoder, *stores, scored, table, kept)

        return complete(job, scanned, on_label, describe, score)


def confident_run(
    model: Path, bundle: Path, options: DescribeOptions, say: Reporter | None = None
) -> Run:
    """The run of a model's relu6 on the built-in images; unit u has `confidence_of` (u)."""
    job = prepare(model, ["relu6"], None, bundle, options, say or Silent())
    return found_run(job, job_facts(job), Confident(), None, lambda label: None, NOWHERE)
