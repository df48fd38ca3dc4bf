"""What ends a job: labels of what was scanned, and the run's folder, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from milan_onnx.cache import Cache, Key
from milan_onnx.describing.encoding import Ids, encode_exemplars
from milan_onnx.describing.folders import write_folders
from milan_onnx.describing.job import Job
from milan_onnx.describing.kept import Kept
from milan_onnx.describing.labelling import Described, label_units, searching
from milan_onnx.describing.manifest import manifest
from milan_onnx.describing.recalling import CachedJob, job_facts
from milan_onnx.describing.resuming import begin, finished
from milan_onnx.describing.scanning import Scanned, scan_layers
from milan_onnx.describing.validating import Scored, score_layers, validate
from milan_onnx.errors import UsageError
from milan_onnx.labels import (
    UnitLabel,
    confidence_text,
    summarize,
    validity_text,
    write_labels,
)
from milan_onnx.making import Making, making
from milan_onnx.metadata import LABELLED, check_place, write_labelled
from milan_onnx.progress import Reporter
from milan_onnx.reporting import write_run_report
from milan_onnx.run import MANIFEST, MILAN_FORMAT, REPORT, Run, save_run
from milan_onnx.runtime import Describer

OnLabel = Callable[[UnitLabel], None]


class Engine(Protocol):
    """What does the stages of a job, wherever."""

    def scan(self, job: Job, kept: Kept) -> Scanned:
        """What a pass over all photos finds."""

    def labels(self, job: Job, scanned: Scanned, on_label: OnLabel, kept: Kept) -> list[UnitLabel]:
        """Labels of all units, in the order of layers and units; told once they are complete."""


class Here:
    """This process."""

    def scan(self, job: Job, kept: Kept) -> Scanned:
        # The subject's session ends with the scan: its memory is better used by the encoder.
        return scan_layers(job, kept)

    def labels(self, job: Job, scanned: Scanned, on_label: OnLabel, kept: Kept) -> list[UnitLabel]:
        describer = Describer(job.bundle, job.device.value, job.threads)
        encoder = describer.encoder()

        def describe(told: OnLabel) -> list[list[Described]]:
            features = encode_exemplars(job, scanned.layers, encoder, kept)
            search = searching(job, describer)
            return label_units(job, scanned.layers, features, told, kept, search)

        def score(scored: Sequence[Scored], table: Ids) -> None:
            layers, held_out = scanned.layers, scanned.held_out
            score_layers(job, describer, encoder, layers, held_out, scored, table, kept)

        return complete(job, scanned, on_label, describe, score)


def complete(
    job: Job,
    scanned: Scanned,
    on_label: OnLabel,
    describe: Callable[[OnLabel], list[list[Described]]],
    score: Callable[[Sequence[Scored], Ids], None],
) -> list[UnitLabel]:
    """Labels of all units, told once they are complete: with photos held out, once all were put to
    the test by ``score`` (`validate`)."""
    if not scanned.held_out:
        return [unit.label for layer in describe(on_label) for unit in layer]
    labels = validate(job, scanned, describe(lambda label: None), score)
    for label in labels:
        on_label(label)
    return labels


def make_run(
    prepared: Callable[[], Job],
    engine: Engine,
    out: Path,
    overwrite: bool,
    say: Reporter,
    on_label: OnLabel,
    cache: Cache | None = None,
) -> Run:
    """Make a run in its folder, or go on with it; raises as `milan_onnx.describe`.

    The folder is this process's before the job is ``prepared``, so an unwritable place is found
    before the work and not after it.
    """
    owned = making(out, overwrite=overwrite, marker=MANIFEST)
    with owned as place, kept_is_said(place, say):
        job = prepared()
        facts = job_facts(job)
        before = None if overwrite else finished(job, facts, out)
        if before is not None:
            return _nothing_to_do(before, place, say, on_label)
        place.check_free()
        copy = _labelled(job, out)
        kept = begin(place, facts, say)
        cached = CachedJob(cache, job, facts) if cache else None
        run = found_run(job, facts, engine, cached, on_label, kept)
        with place.whole() as folder:
            _save(folder, job, run, cached)
            if copy is not None:
                write_labelled(folder / copy, job.subject, run)
    return replace(run, path=out)


def found_run(
    job: Job,
    facts: Mapping[str, Any],
    engine: Engine,
    cached: CachedJob | None,
    on_label: OnLabel,
    kept: Kept,
) -> Run:
    """The run of a job with these facts: as it was made before, or made now."""
    run = cached.run() if cached else None
    if run is not None:
        for label in run.labels:
            on_label(label)
    else:
        scanned = engine.scan(job, kept)
        later = kept.under(scanned.met.photos.hexdigest()[:16])
        labels = engine.labels(job, scanned, on_label, later)
        told = manifest(job, scanned, labels, Key(facts).sha256)
        run = Run(told, tuple(labels), scanned.layers)
        if cached:
            cached.keep(run)
    _say_layers(job, run)
    return run


@contextmanager
def kept_is_said(place: Making, say: Reporter) -> Iterator[None]:
    """Say what becomes of the work where it does not come to its end."""
    try:
        yield
    except BaseException as error:
        # What was asked for and cannot be will not be any better when it is asked for again.
        if place.holds_work and not isinstance(error, UsageError):
            say.note(f"what is done is kept in {place.place}: the same command goes on from there")
        raise


def _nothing_to_do(run: Run, place: Making, say: Reporter, on_label: OnLabel) -> Run:
    place.done = True
    say.note(f"{place.out} is finished, of the same model, photos and options: nothing to do")
    for label in run.labels:
        on_label(label)
    return run


def _labelled(job: Job, out: Path) -> Path | None:
    """Where the copy of the model goes that holds the labels, from the run's folder; None: nowhere.

    Raises UsageError where it may not be.
    """
    if not job.options.write_metadata:
        return None
    given = job.options.metadata_out
    check_place(job.subject, given or out / LABELLED)
    if given is not None and not given.absolute().parent.is_dir():
        raise UsageError(f"the folder {given.parent} is not there", hint="make it first")
    return Path(LABELLED) if given is None else given.absolute()


def _save(folder: Path, job: Job, run: Run, cached: CachedJob | None) -> None:
    """Write all that was asked for."""
    save_run(folder, run)
    names = [layer.layer for layer in run.layers]
    for name in job.options.formats:
        write_labels(folder / f"labels.{name}", run.labels, names, name)
    if job.options.milan_format:
        modules = [str(facts["module"] or facts["tensor"]) for facts in run.manifest["layers"]]
        write_folders(folder / MILAN_FORMAT, job, run.layers, modules)
    if job.options.report and cached:
        cached.report(folder / REPORT, run)
    elif job.options.report:
        write_run_report(folder / REPORT, run, job.say, probe=job.probe)


def _say_layers(job: Job, run: Run) -> None:
    """Say how sure the labels of each layer are, and how true of held-out photos."""
    for layer in run.layers:
        summary = summarize(layer.layer, run.labels)
        distinct = f"{summary.distinct} distinct of {summary.described} descriptions"
        if summary.confidence is not None:
            told = f"{confidence_text(summary)}, {distinct}"
            job.say.note(f"confidence of {layer.layer}: {told}")
        if summary.validity is not None:
            told = f"{validity_text(summary)}, {distinct}"
            job.say.note(f"validity of {layer.layer}: {told}")
