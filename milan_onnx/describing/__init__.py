"""The main job: from a model and photos to a run.

Five stages: scan the photos for exemplars of every unit (one pass, all layers); encode the distinct
images among them; pool features under each exemplar's mask; search a description for each unit; put
it to the test on photos that were held out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from milan_onnx.cache import Cache, Key
from milan_onnx.describing.encoding import encode_exemplars
from milan_onnx.describing.folders import describe_folder, write_folders
from milan_onnx.describing.job import Job, prepare
from milan_onnx.describing.kept import NOWHERE, Kept
from milan_onnx.describing.labelling import label_units
from milan_onnx.describing.manifest import manifest
from milan_onnx.describing.options import DescribeOptions
from milan_onnx.describing.recalling import CachedJob, job_facts, run_facts
from milan_onnx.describing.resuming import begin, finished
from milan_onnx.describing.scanning import Scanned, scan_layers
from milan_onnx.describing.validating import validate
from milan_onnx.errors import UsageError
from milan_onnx.exemplars import LayerExemplars
from milan_onnx.labels import UnitLabel, summarize, validity_text, write_labels
from milan_onnx.making import Making, making
from milan_onnx.metadata import LABELLED, check_place, write_labelled
from milan_onnx.progress import Reporter, Silent
from milan_onnx.reporting import write_run_report
from milan_onnx.run import MANIFEST, MILAN_FORMAT, REPORT, Run, save_run
from milan_onnx.runtime import Describer

__all__ = ["DescribeOptions", "describe", "describe_folder", "run_key"]


def describe(
    model: str | Path,
    layers: str | Sequence[str] | None = None,
    images: str | Path | None = None,
    out: str | Path | None = None,
    *,
    bundle: str | Path | None = None,
    options: DescribeOptions | None = None,
    reporter: Reporter | None = None,
    on_label: Callable[[UnitLabel], None] = lambda label: None,
    cache: Cache | None = None,
) -> Run:
    """Describe the units of layers of an ONNX model.

    ``layers``: names, module paths or globs (None: the deepest layer with positions). ``images``: a
    folder, list file, zip or tar of photos (None: the built-in synthetic set). ``out``: the run's
    folder (None: nothing is written). ``bundle``: another captioner. ``on_label`` is called with
    each label once it is complete: as they come, or with validity at the end. ``cache``: where a
    run that was made before is found, and this one is kept (None: nowhere).

    What is done is kept beside ``out`` every few seconds (`.NAME.partial`), so that the same call
    goes on where one was stopped, by whatever, to the same bytes. On a finished run it does
    nothing.

    Raises the errors of `milan_onnx.errors`: FolderBusy where another process makes this run. On
    any of them, and on an interrupt, nothing is left behind at ``out``.
    """
    options = options or DescribeOptions()
    say = reporter or Silent()
    options.check()

    def made() -> Job:
        return _job(model, layers, images, bundle, options, say)

    if out is None:
        job = made()
        return _run(job, CachedJob(cache, job) if cache else None, on_label, NOWHERE)
    out = Path(out)
    with (
        making(out, overwrite=options.overwrite, marker=MANIFEST) as place,
        _kept_is_said(place, say),
    ):
        job = made()
        before = None if options.overwrite else finished(job, out)
        if before is not None:
            return _nothing_to_do(before, place, say, on_label)
        place.check_free()
        copy = _labelled(job, out)
        kept = begin(place, job_facts(job), say)
        cached = CachedJob(cache, job) if cache else None
        run = _run(job, cached, on_label, kept)
        with place.whole() as folder:
            save_run(folder, run)
            _save_more(folder, job, run)
            if options.report and cached:
                cached.report(folder / REPORT, run)
            elif options.report:
                write_run_report(folder / REPORT, run, say)
            if copy is not None:
                write_labelled(folder / copy, job.subject, run)
    return replace(run, path=out)


@contextmanager
def _kept_is_said(place: Making, say: Reporter) -> Iterator[None]:
    """Say what becomes of the work where it does not come to its end."""
    try:
        yield
    except BaseException:
        if place.holds_work:
            say.note(f"what is done is kept in {place.place}: the same command goes on from there")
        raise


def _nothing_to_do(
    run: Run, place: Making, say: Reporter, on_label: Callable[[UnitLabel], None]
) -> Run:
    place.done = True
    say.note(f"{place.out} is finished, of the same model, photos and options: nothing to do")
    for label in run.labels:
        on_label(label)
    return run


def run_key(
    model: str | Path,
    layers: str | Sequence[str] | None = None,
    images: str | Path | None = None,
    *,
    bundle: str | Path | None = None,
    options: DescribeOptions | None = None,
) -> Key:
    """What a cache would keep the run as that `describe` makes of the same; raises as it does."""
    options = options or DescribeOptions()
    options.check()
    return Key(run_facts(_job(model, layers, images, bundle, options, Silent())))


def _job(
    model: str | Path,
    layers: str | Sequence[str] | None,
    images: str | Path | None,
    bundle: str | Path | None,
    options: DescribeOptions,
    say: Reporter,
) -> Job:
    photos, captioner = Path(images) if images else None, Path(bundle) if bundle else None
    return prepare(Path(model), layers, photos, captioner, options, say)


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


def _save_more(folder: Path, job: Job, run: Run) -> None:
    """Write what else was asked for: labels in other formats, exemplars in the paper's."""
    names = [layer.layer for layer in run.layers]
    for name in job.options.formats:
        write_labels(folder / f"labels.{name}", run.labels, names, name)
    if job.options.milan_format:
        modules = [str(facts["module"] or facts["tensor"]) for facts in run.manifest["layers"]]
        write_folders(folder / MILAN_FORMAT, job, run.layers, modules)


def _run(
    job: Job, cached: CachedJob | None, on_label: Callable[[UnitLabel], None], kept: Kept
) -> Run:
    """The run of a job: as it was made before, or made now."""
    run = cached.run() if cached else None
    if run is not None:
        for label in run.labels:
            on_label(label)
    else:
        run = _describe(job, on_label, kept)
        if cached:
            cached.keep(run)
    if run.manifest["validity"] is not None:
        _say_validity(job, run.layers, run.labels)
    return run


def _describe(job: Job, on_label: Callable[[UnitLabel], None], kept: Kept) -> Run:
    # The subject's session ends with this stage: its memory is better used by the encoder.
    scanned = scan_layers(job, kept)
    return label(job, scanned, on_label, kept.under(scanned.met.photos.hexdigest()[:16]))


def label(job: Job, scanned: Scanned, on_label: Callable[[UnitLabel], None], kept: Kept) -> Run:
    """The run of what a scan found."""
    describer = Describer(job.bundle, job.device.value, job.threads)
    encoder = describer.encoder()
    features = encode_exemplars(job, scanned.layers, encoder, kept)
    # A label is complete once it was put to the test, after those of all layers are known.
    told = (lambda label: None) if scanned.held_out else on_label
    described = label_units(job, describer, scanned.layers, features, told, kept)
    del features
    if scanned.held_out:
        labels = validate(job, describer, encoder, scanned, described, kept)
        for found in labels:
            on_label(found)
    else:
        labels = [unit.label for layer in described for unit in layer]
    facts = Key(job_facts(job)).sha256
    return Run(manifest(job, scanned, labels, facts), tuple(labels), scanned.layers)


def _say_validity(job: Job, layers: Sequence[LayerExemplars], labels: Sequence[UnitLabel]) -> None:
    for layer in layers:
        summary = summarize(layer.layer, labels)
        distinct = f"{summary.distinct} distinct of {summary.described} descriptions"
        job.say.note(f"validity of {layer.layer}: {validity_text(summary)}, {distinct}")
