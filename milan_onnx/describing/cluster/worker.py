"""One worker of a cluster: scans parts of the photos, then describes and tests parts of the units.

Everything that comes and goes is plain data, so a worker that is lost can be replaced by another.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from milan_onnx.describing.encoding import (
    Floats,
    Ids,
    Uses,
    encode_regions,
    exemplar_regions,
)
from milan_onnx.describing.job import prepare
from milan_onnx.describing.kept import NOWHERE, Count
from milan_onnx.describing.options import DescribeOptions
from milan_onnx.describing.part import Part
from milan_onnx.describing.recalling import job_facts
from milan_onnx.describing.scanning import Opened, count_photos, new_scan, open_model
from milan_onnx.describing.validating import Scores, held_out_regions, score_regions
from milan_onnx.exemplars import HeldOut, LayerExemplars, Scan
from milan_onnx.exemplars.state import Arrays
from milan_onnx.progress import Silent
from milan_onnx.runtime import Describer, Encoder, Hypothesis


@dataclass(frozen=True)
class Found:
    """What the scan found, for all workers: nodes hold it once."""

    layers: tuple[LayerExemplars, ...]
    """The exemplars of each layer."""

    held_out: tuple[HeldOut, ...]
    """Their held-out photos; empty: none were held out."""


@dataclass(frozen=True)
class Labels:
    """Labels that are to be tested."""

    units: tuple[Ids, ...]
    """The units of each layer that have one (n,)."""

    phrases: Ids
    """Token ids of each one's own label and of others' (n of all layers, 1 + OTHERS, length)."""


class Worker:
    """A process with the job made ready. Methods take and give plain data."""

    def __init__(self, arguments: Mapping[str, Any], options: DescribeOptions) -> None:
        """``arguments``: of the job (`job.arguments`)."""
        # A worker may be made anew anywhere, so all that it has comes from what it is given.
        self._job = prepare(**arguments, options=options, say=Silent())
        self._opened: Opened | None = None
        self._describer: Describer | None = None
        self._encoder: Encoder | None = None

    def facts(self) -> tuple[str, dict[str, Any]]:
        """The node's name, and the facts of the job as they are there."""
        return socket.gethostname(), job_facts(self._job)

    def scan(self, begin: int, end: int) -> tuple[Arrays, dict[str, Any]]:
        """The statistics of the photos at these places, and how the model ran."""
        if self._opened is None:
            self._describer = self._encoder = None
            self._opened = open_model(self._job)
        part = Part(begin, begin, new_scan(self._job))
        count_photos(self._job, self._opened, range(begin, end), part, NOWHERE)
        part.scan.settle()
        return part.state(), asdict(self._opened.ran)

    def encode(self, found: Found, begin: int, end: int) -> list[tuple[Uses, Floats]]:
        """Features of exemplars in these of their photos."""
        regions, (_, encoder) = exemplar_regions(self._job, found.layers), self._captioner()
        photos, count = slice(begin, end), Count(NOWHERE, "encode", lambda: None)

        def as_they_are(uses: Uses, features: Floats) -> tuple[Uses, Floats]:
            return uses, features

        return list(
            encode_regions(self._job, regions, encoder, "encode", as_they_are, count, photos)
        )

    def describe(self, features: Floats) -> list[list[Hypothesis]]:
        """The hypotheses of units with features (U, K, F)."""
        describer, _ = self._captioner()
        candidates = self._job.options.candidates
        return list(describer.describe(features, self._job.search, candidates=candidates))

    def score(
        self, found: Found, labels: Labels, begin: int, end: int
    ) -> list[tuple[Uses, Scores]]:
        """Scores of labels in these of the held-out photos."""
        describer, encoder = self._captioner()
        regions = held_out_regions(self._job, found.layers, found.held_out, labels.units)
        photos, count = slice(begin, end), Count(NOWHERE, "validate", lambda: None)
        parts = score_regions(self._job, describer, encoder, regions, labels.phrases, count, photos)
        return list(parts)

    def _captioner(self) -> tuple[Describer, Encoder]:
        if self._describer is None or self._encoder is None:
            self._opened = None  # the memory of its session is better used now
            job = self._job
            self._describer = Describer(job.bundle, job.device.value, job.threads)
            self._encoder = self._describer.encoder()
        return self._describer, self._encoder


def merge_states(settings: tuple[Any, ...], first: Arrays, second: Arrays) -> Arrays:
    """The state of two parts that follow one another; ``settings``: what `Scan` takes."""
    part = Part.of(first, Scan(*settings))
    part.merge(Part.of(second, Scan(*settings)))
    part.scan.settle()
    return part.state()
