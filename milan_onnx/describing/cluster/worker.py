"""One worker of a cluster: scans parts of the photos, then describes and tests parts of the units.

Everything that comes and goes is plain data, so a worker that is lost can be replaced by another.
"""

from __future__ import annotations

import socket
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.describing.encoding import Ids, encode_exemplars
from milan_onnx.describing.job import Job, prepare
from milan_onnx.describing.kept import NOWHERE
from milan_onnx.describing.options import DescribeOptions
from milan_onnx.describing.part import Part
from milan_onnx.describing.recalling import job_facts
from milan_onnx.describing.scanning import Opened, count_photos, new_scan, open_model
from milan_onnx.describing.validating import Scored, score_layers
from milan_onnx.exemplars import HeldOut, LayerExemplars, Scan
from milan_onnx.exemplars.state import Arrays
from milan_onnx.progress import Silent
from milan_onnx.runtime import Describer, Encoder, Hypothesis


@dataclass(frozen=True)
class Call:
    """What the job was called with: a worker prepares the same job of it."""

    model: str
    """Its file, which every node must have at this path."""

    layers: tuple[str, ...]
    """Its layers."""

    images: str | None
    """The photos: a path that every node has, or a URL."""

    bundle: str | None
    """The captioner; None: the built-in one."""

    options: DescribeOptions
    """The settings."""


@dataclass(frozen=True)
class Units:
    """Some units of one layer, with what is to be described or tested of them."""

    layer: LayerExemplars
    """The layer with no other units."""

    held_out: HeldOut | None = None
    """Their held-out photos, where labels are to be tested."""

    others: Ids | None = None
    """For each, whose labels it is held against (`Scored.others`)."""

    phrases: Ids | None = None
    """Token ids of its own label and of theirs (units, 1 + OTHERS, length)."""


class Worker:
    """A process with the job made ready. Methods take and give plain data."""

    def __init__(self, call: Call) -> None:
        # A worker may be made anew anywhere, so all that it has comes from the call.
        job = prepare(call.model, call.layers, call.images, call.bundle, call.options, Silent())
        self._job = job
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

    def describe(self, units: Units) -> list[list[Hypothesis]]:
        """The hypotheses of units."""
        describer, encoder = self._captioner()
        features = encode_exemplars(self._job, [units.layer], encoder, NOWHERE)[0]
        options = self._job.options
        found = describer.describe(features, self._job.search, candidates=options.candidates)
        return list(found)

    def score(self, units: Units) -> NDArray[np.float64]:
        """Scores of labels on held-out photos: (units, 1 + OTHERS, S)."""
        if units.held_out is None or units.others is None or units.phrases is None:
            raise ValueError("units without held-out photos cannot be scored")
        describer, encoder = self._captioner()
        rows = np.arange(len(units.others))
        shape = (len(rows), units.phrases.shape[1], units.held_out.ids.shape[1])
        scored = Scored(rows, units.others, np.zeros(shape))
        layers, held_out, table = [units.layer], [units.held_out], units.phrases
        score_layers(self._job, describer, encoder, layers, held_out, [scored], table, NOWHERE)
        return scored.scores

    def _captioner(self) -> tuple[Describer, Encoder]:
        if self._describer is None or self._encoder is None:
            self._opened = None  # the memory of its session is better used now
            job = self._job
            self._describer = Describer(job.bundle, job.device.value, job.threads)
            self._encoder = self._describer.encoder()
        return self._describer, self._encoder


@dataclass(frozen=True)
class Blueprint:
    """Of what empty statistics are made."""

    scan: tuple[Any, ...]
    """What `Scan` takes."""

    def new(self) -> Scan:
        """Empty statistics."""
        return Scan(*self.scan)


def merge_states(blueprint: Blueprint, first: Arrays, second: Arrays) -> Arrays:
    """The state of two parts that follow one another."""
    part = Part.of(first, blueprint.new())
    part.merge(Part.of(second, blueprint.new()))
    part.scan.settle()
    return part.state()


def some_units(layer: LayerExemplars, units: Ids) -> LayerExemplars:
    """A layer with these units and no others."""
    arrays = ("ids", "activations", "maps", "thresholds", "bottomed", "maximum", "fingerprint")
    some: dict[str, Any] = {name: np.asarray(getattr(layer, name)[units]) for name in arrays}
    return replace(layer, **some)


def some_held_out(held_out: HeldOut, units: Ids) -> HeldOut:
    """The held-out photos of these units and no others."""
    return replace(
        held_out,
        ids=held_out.ids[units],
        activations=held_out.activations[units],
        top_maps=held_out.top_maps[units],
        sample_maps=np.ascontiguousarray(held_out.sample_maps[:, units]),
    )


def call_of(job: Job, images: str | Path | None, bundle: str | Path | None, threads: int) -> Call:
    """What a worker needs to prepare the same job with so many threads."""
    return Call(
        model=str(job.subject.path.absolute()),
        layers=tuple(f"tensor:{layer.tensor}" for layer in job.layers),
        images=None if images is None else str(images),
        bundle=None if bundle is None else str(bundle),
        options=replace(job.options, threads=threads),
    )
