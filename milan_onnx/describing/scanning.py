"""The first stage: one pass of the photos through the tapped model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milan_onnx.choice import Choice
from milan_onnx.describing.job import Job, too_few
from milan_onnx.errors import ProbeError, SubjectError
from milan_onnx.exemplars import (
    Activations,
    HeldOut,
    HeldOutOptions,
    LayerExemplars,
    LayerScan,
    Scan,
    ScanOptions,
)
from milan_onnx.exemplars.on_device import Reductions, look
from milan_onnx.probe import Batch, Loader, describe_skips
from milan_onnx.runtime import Session, in_order
from milan_onnx.subject import TappedModel, tap

Floats = NDArray[np.float32]
Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Scanned:
    """What the pass found."""

    layers: tuple[LayerExemplars, ...]
    """The exemplars of each layer."""

    held_out: tuple[HeldOut, ...]
    """What was kept of the held-out photos in each layer; empty: none were held out."""

    tapped: TappedModel
    """The model that ran."""

    loader: Loader
    """Which photos were used, skipped and converted."""

    batch: int
    """Photos in a batch."""


def scan_layers(job: Job) -> Scanned:
    """Find the exemplars of all layers of a job.

    Raises SubjectError where the model does not run or gives NaN, ProbeError where too few photos
    can be used.
    """
    model = _Model.open(job)
    _warn_of_mixing(model, job)
    batch = job.batch
    if model.tapped.batch is not None:
        batch = Choice(model.tapped.batch, "the model's graph holds this batch and no other works")
    job.say.choice("batch", batch)
    job.say.choice("activations", job.reduce)
    if model.session.on_cpu:
        job.say.note(f"of the model the CPU runs {model.session.on_cpu}")
    geometry = job.preprocessing.geometry
    loader = Loader(job.inputs, geometry, batch_size=batch.value, workers=job.threads)
    scans = _pass(job, model, loader, job.held_out)
    job.say.note(describe_skips(len(loader.digests), loader.skipped, loader.converted))
    if len(loader.digests) < job.options.exemplars:
        raise too_few(len(loader.digests), job.options.exemplars)
    if not _halves_fit(job, scans[0]):
        scans = _pass(job, model, loader, None)
    held_out = [scan.held_out.result() for scan in scans if scan.held_out is not None]
    layers = tuple(scan.result() for scan in scans)
    return Scanned(layers, tuple(held_out), model.tapped, loader, batch.value)


def _pass(
    job: Job, model: _Model, loader: Loader, held_out: HeldOutOptions | None
) -> list[LayerScan]:
    """All photos through the model, once."""
    least = 2 if job.device.value.name == "cpu" else loader.batch_size

    names = [output.layer.tensor for output in model.tapped.outputs]
    options = job.options
    settings = ScanOptions(options.exemplars, options.quantile, options.tail_memory, held_out)
    scan = Scan(names, len(job.inputs), settings, lambda i: loader.digests[i])
    reductions = Reductions.on(job.device.value) if job.reduce.value == "device" else None

    def looked(batch: Batch) -> list[Activations]:
        frames = {model.tapped.input_name: model.filled(batch.images, least)}
        return look(model.session, frames, len(batch.images), scan.bars(), reductions)

    with job.say.stage("scan", len(job.inputs), "images") as meter:
        for batch, activations in in_order(looked, loader, job.in_flight):
            scan.add(batch.ids, activations)
            meter(len(batch.ids))
    return scan.layers


def _halves_fit(job: Job, scanned: LayerScan) -> bool:
    """Whether each half has photos enough; copies of a photo are all in one.

    Raises ProbeError where they have not and --validity was asked for.
    """
    if scanned.held_out is None or job.held_out is None:
        return True
    held_out, images, exemplars = scanned.held_out.images, scanned.images, job.options.exemplars
    if images - held_out >= exemplars and held_out >= 2 * job.held_out.top:
        return True
    what = f"of {images} usable photos {held_out} are held out, which leaves too few in one half"
    if job.options.validity:
        raise ProbeError(what, hint="give more photos (copies count once), or --no-validity")
    job.say.choice("validity", Choice("off, scanning again", what))
    return False


@dataclass(frozen=True)
class _Model:
    """The tapped model in a session."""

    tapped: TappedModel
    """The graph."""

    session: Session
    """Its session."""

    @staticmethod
    def open(job: Job) -> _Model:
        """Cut and load the model, its batch free where the graph allows it."""
        free = _Model._load(job, None)
        for output in free.tapped.outputs:
            for note in output.notes:
                job.say.note(f"{output.layer.tensor}: {note}")
        if not free.tapped.freed:
            return free
        fixed = _Model._load(job, job.subject.input.batch)
        return free if _agree(free, fixed) else fixed

    @staticmethod
    def _load(job: Job, batch: int | None) -> _Model:
        tapped = tap(job.subject, job.layers, job.preprocessing, batch=batch)
        session = Session(
            tapped.model_bytes,
            job.device.value,
            what=str(job.subject.path),
            error=SubjectError,
            external_folder=tapped.external_folder,
        )
        return _Model(tapped, session)

    def run(self, frames: Frames) -> list[Floats]:
        """Each layer's activations (B,U,h,w) of frames (B,H,W,3)."""
        return self.session.run({self.tapped.input_name: frames})

    def filled(self, frames: Frames, least: int) -> Frames:
        """Frames filled up to the batch that the graph fixes, or ``least``, with the last of them
        (a lone image takes other kernels, with other last bits; a GPU wants one shape)."""
        count, wanted = len(frames), self.tapped.batch or least
        if count >= wanted:
            return frames
        return np.concatenate((frames, np.repeat(frames[-1:], wanted - count, axis=0)))


def _noise(model: _Model, count: int, seed: int) -> Frames:
    shape = (count, *model.tapped.frame, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _agree(free: _Model, fixed: _Model) -> bool:
    """Whether the graph with its batch made free gives what the batch it holds gives."""
    count = 2 * (fixed.tapped.batch or 1)
    frames = _noise(free, count, seed=0)
    try:
        together = free.run(frames)
    except SubjectError:
        return False
    apart = [fixed.run(half) for half in np.split(frames, 2)]
    return all(
        out.shape[0] == count and np.allclose(out, np.concatenate(parts), rtol=1e-3, atol=1e-4)
        for out, parts in zip(together, zip(*apart, strict=True), strict=True)
    )


def _warn_of_mixing(model: _Model, job: Job) -> None:
    """Say which layers give an image another activation in other company, or at another time.

    Batch statistics and dropout in training mode do so; then labels depend on the batch size.
    """
    count = model.tapped.batch or 2
    if count < 2:
        return
    frames = _noise(model, count, seed=1)
    others = np.concatenate((frames[:1], _noise(model, count - 1, seed=2)))
    pairs = zip(model.run(frames), model.run(others), model.tapped.outputs, strict=True)
    for one, other, output in pairs:
        if not np.allclose(one[0], other[0], rtol=1e-3, atol=1e-4, equal_nan=True):
            job.say.note(
                f"warning: {output.layer.tensor} depends on the other images of a batch, or on "
                "chance; export the model in evaluation mode"
            )
