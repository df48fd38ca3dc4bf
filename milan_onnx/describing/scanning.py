"""The first stage: one pass of the photos through the tapped model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.choice import Choice
from milan_onnx.describing.job import Job, too_few, unchanged
from milan_onnx.describing.kept import Kept
from milan_onnx.describing.part import Met, Part, load_part, save_part
from milan_onnx.errors import ProbeError, RunError, SubjectError
from milan_onnx.exemplars import (
    Activations,
    HeldOut,
    LayerExemplars,
    LayerScan,
    Scan,
    ScanOptions,
)
from milan_onnx.exemplars.on_device import Reductions, look
from milan_onnx.probe import (
    Batch,
    Loader,
    describe_skips,
    nothing_usable,
)
from milan_onnx.runtime import Session, in_order
from milan_onnx.subject import TappedModel, tap

Floats = NDArray[np.float32]
Frames = NDArray[np.uint8]

STATE = "scan.npz"


@dataclass(frozen=True)
class Scanned:
    """What the pass found."""

    layers: tuple[LayerExemplars, ...]
    """The exemplars of each layer."""

    held_out: tuple[HeldOut, ...]
    """What was kept of the held-out photos in each layer; empty: none were held out."""

    met: Met
    """Which photos were used, skipped and converted."""

    ran: Ran
    """How the model ran."""


@dataclass(frozen=True)
class Ran:
    """How the model ran."""

    notes: tuple[tuple[str, ...], ...]
    """What is worth knowing of each layer."""

    batch: int
    """Photos in a batch."""


def scan_layers(job: Job, kept: Kept) -> Scanned:
    """Find the exemplars of all layers of a job; what was kept of an earlier try is gone on from.

    Raises SubjectError where the model does not run or gives NaN, ProbeError where too few photos
    can be used, OutputUnwritable where the work cannot be kept.
    """
    whole = range(len(job.inputs))
    part, ran = scan_part(job, whole, kept)
    return finish(job, part, ran, kept)


def finish(job: Job, part: Part, ran: Ran, kept: Kept) -> Scanned:
    """The exemplars that all photos make, of which ``part`` is the whole.

    Where the halves are too small for validity, and it was not asked for, photos are scanned again
    without. Raises as `scan_layers`.
    """
    met = part.met
    if not met.usable:
        raise nothing_usable(met.skipped)
    job.say.note(describe_skips(met.usable, met.skipped, met.converted))
    if met.usable < job.options.exemplars:
        raise too_few(met.usable, job.options.exemplars)
    if not _halves_fit(job, part.scan.layers[0]):
        alone = replace(job, held_out=None)
        part, ran = scan_part(alone, range(len(job.inputs)), kept.under("no-validity"))
    scans = part.scan.layers
    held_out = [scan.held_out.result() for scan in scans if scan.held_out is not None]
    return Scanned(tuple(scan.result() for scan in scans), tuple(held_out), met, ran)


def scan_part(job: Job, photos: range, kept: Kept) -> tuple[Part, Ran]:
    """Count the photos at these places of the listing; raises as `scan_layers`.

    What an earlier try kept is gone on from, unless its photos have changed.
    """
    found = resumed(job, photos, kept)
    if found is not None and found[0].done == photos.stop:
        return found
    opened = open_model(job)
    part, ran = found or (Part(photos.start, photos.start, new_scan(job)), opened.ran)
    count_photos(job, opened, photos, part, kept)
    return part, ran


def new_scan(job: Job) -> Scan:
    """The empty statistics of a job."""
    return Scan(*scan_settings(job))


def scan_settings(job: Job) -> tuple[list[str], int, ScanOptions]:
    """What `Scan` takes: layers, images, options."""
    options = job.options
    settings = ScanOptions(options.exemplars, options.quantile, options.tail_memory, job.held_out)
    return [layer.tensor for layer in job.layers], len(job.inputs), settings


def open_model(job: Job) -> Opened:
    """The tapped model in a session, with what is to be said of it. Raises SubjectError."""
    model = _Model.open(job)
    _warn_of_mixing(model, job)
    batch = job.batch
    if model.tapped.batch is not None:
        batch = Choice(model.tapped.batch, "the model's graph holds this batch and no other works")
    job.say.choice("batch", batch)
    job.say.choice("activations", job.reduce)
    if model.session.on_cpu:
        job.say.note(f"of the model the CPU runs {model.session.on_cpu}")
    notes = tuple(tuple(output.notes) for output in model.tapped.outputs)
    return Opened(model, Ran(notes, batch.value))


def count_photos(job: Job, opened: Opened, photos: range, part: Part, kept: Kept) -> None:
    """Count in a part those of ``photos`` that it has not, in their order; raises as
    `scan_layers`."""
    model, batch = opened.model, opened.ran.batch
    least = 2 if job.device.value.name == "cpu" else batch
    reductions = Reductions.on(job.device.value) if job.reduce.value == "device" else None
    loader = Loader(
        job.inputs,
        job.preprocessing.geometry,
        batch_size=batch,
        workers=job.threads,
        ids=range(part.done, photos.stop),
        lenient=True,
    )
    before = part.met.skipped, part.met.converted

    def looked(batch: Batch) -> list[Activations]:
        frames = {model.tapped.input_name: model.filled(batch.images, least)}
        return look(model.session, frames, len(batch.images), part.scan.bars(), reductions)

    def met_until(done: int) -> None:
        part.done = done
        part.met.skipped = [*before[0], *(s for s in loader.skipped if s.id < done)]
        part.met.converted = [*before[1], *(c for c in loader.converted if c.id < done)]

    with job.say.stage("scan", len(photos), "images") as meter:
        meter(part.done - photos.start)
        for batch_, activations in in_order(looked, loader, job.in_flight):
            digests = [loader.digests[i] for i in batch_.ids.tolist()]
            part.scan.add(batch_.ids, activations, digests)
            _count_met(job, part.met, batch_.ids.tolist(), digests)
            meter(len(batch_.ids))
            if kept.due:
                met_until(int(batch_.ids[-1]) + 1)
                _keep(kept, part, opened.ran)
    met_until(photos.stop)
    if kept.worth_it:
        _keep(kept, part, opened.ran)


def _count_met(job: Job, met: Met, ids: Sequence[int], digests: Sequence[str]) -> None:
    met.usable += len(ids)
    for index, digest in zip(ids, digests, strict=True):
        met.photos.add(index, job.inputs.names[index], digest)


def _keep(kept: Kept, part: Part, ran: Ran) -> None:
    if kept.folder is not None:
        with kept.saving():
            save_part(kept.folder / STATE, part, asdict(ran))


def resumed(job: Job, photos: range, kept: Kept, name: str = STATE) -> tuple[Part, Ran] | None:
    """What an earlier try kept under a name, where its photos are still the same."""
    if kept.folder is None or not (kept.folder / name).is_file():
        return None
    try:
        part, ran = load_part(kept.folder / name, new_scan(job))
        found = part, ran_as(ran)
        if part.begin != photos.start or not part.begin <= part.done <= photos.stop:
            raise RunError("it is of other photos")
    except (RunError, KeyError, TypeError) as error:
        job.say.note(f"warning: scanning from the beginning, since {error}")
        return None
    if not same_photos(job, part):
        job.say.note("warning: scanning from the beginning, since photos have changed meanwhile")
        return None
    done = part.done - part.begin
    job.say.note(f"goes on from where it was stopped: {done} of {len(photos)} photos are scanned")
    return found


def ran_as(facts: Mapping[str, Any]) -> Ran:
    """How the model ran, of what a file says. Raises KeyError or TypeError."""
    return Ran(tuple(tuple(notes) for notes in facts["notes"]), int(facts["batch"]))


def same_photos(job: Job, part: Part) -> bool:
    """Whether the photos that were counted still have the content that they had."""
    skipped = [photo.id for photo in part.met.skipped]
    return unchanged(job, range(part.begin, part.done), skipped, part.met.photos.hexdigest())


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
class Opened:
    """A model that is ready to run."""

    model: _Model
    """The tapped model in a session."""

    ran: Ran
    """How it runs."""


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
