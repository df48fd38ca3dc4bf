"""The main job: from a model and photos to a run.

Four stages: scan the photos for exemplars of every unit (one pass, all layers); encode the distinct
images among them; pool features under each exemplar's mask; search a description for each unit.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx import __version__
from milan_onnx.bundle import Bundle, SearchDefaults, load_bundle
from milan_onnx.choice import Choice
from milan_onnx.encoding import describable, encode_exemplars
from milan_onnx.errors import LayerUnsuitable, ProbeError, SubjectError
from milan_onnx.exemplars import LayerExemplars, ScanOptions, scan
from milan_onnx.labels import Candidate, Exemplar, UnitLabel
from milan_onnx.options import DescribeOptions
from milan_onnx.probe import (
    Batch,
    Loader,
    ProbeSet,
    describe_skips,
    open_probe,
    probe_digest,
)
from milan_onnx.progress import Reporter, Silent
from milan_onnx.reporting import write_run_report
from milan_onnx.run import FORMAT, FORMAT_VERSION, REPORT, Run, save_run, staged_folder
from milan_onnx.runtime import (
    Describer,
    Device,
    Hypothesis,
    Session,
    choose_device,
    choose_threads,
    in_order,
    installed_runtimes,
    search_options,
)
from milan_onnx.subject import (
    Kind,
    Layer,
    Preprocessing,
    Subject,
    TappedModel,
    choose_preprocessing,
    list_layers,
    load,
    resolve_many,
    tap,
)

Floats = NDArray[np.float32]

CPU_BATCH = 8
GPU_BATCH = 32


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
) -> Run:
    """Describe the units of layers of an ONNX model.

    ``layers``: names, module paths or globs (None: the deepest layer with positions). ``images``: a
    folder, list file, zip or tar of photos (None: the built-in synthetic set). ``out``: the run's
    folder (None: nothing is written). ``bundle``: another captioner. ``on_label`` is called with
    each label as it comes.

    Raises the errors of `milan_onnx.errors`; on any of them, and on an interrupt, nothing is left
    behind at ``out``.
    """
    options = options or DescribeOptions()
    say = reporter or Silent()
    options.check()
    if out is None:
        return _describe(Path(model), layers, images, bundle, options, say, on_label)
    with staged_folder(Path(out), overwrite=options.overwrite) as folder:
        run = _describe(Path(model), layers, images, bundle, options, say, on_label)
        save_run(folder, run)
        if options.report:
            write_run_report(folder / REPORT, run, say)
    return replace(run, path=Path(out))


def _describe(
    model: Path,
    layers: str | Sequence[str] | None,
    images: str | Path | None,
    bundle: str | Path | None,
    options: DescribeOptions,
    say: Reporter,
    on_label: Callable[[UnitLabel], None],
) -> Run:
    subject = load(model, fixed_inputs=options.inputs)
    chosen = _choose_layers(subject, layers, options.layout, say)
    captioner = load_bundle(Path(bundle) if bundle else None)
    probe = _open_probe(images, options, say)
    setting = _setting(subject, options, say)
    tapped, session = _open_subject(subject, chosen, setting, say)
    found, loader = _scan(tapped, session, probe, setting, options, say)
    del session  # its memory is better used by the encoder
    search = search_options(captioner, beam_size=options.beam_size, pmi_weight=options.pmi_weight)
    describer = Describer(captioner, setting.device.value, setting.threads.value)
    geometry = setting.preprocessing.value.geometry
    threads = setting.threads.value
    features = encode_exemplars(found, describer.encoder(), probe, geometry, threads, say)
    labels = _label(found, features, describer, search, probe, subject, options, say, on_label)
    manifest = _manifest(subject, tapped, captioner, probe, loader, setting, search, found, options)
    return Run(manifest, tuple(labels), tuple(found))


@dataclass(frozen=True)
class _Setting:
    """What was chosen for this run, and why."""

    device: Choice[Device]
    """Where inference runs."""

    threads: Choice[int]
    """Batches in flight."""

    batch: Choice[int]
    """Photos in a batch."""

    preprocessing: Choice[Preprocessing]
    """How photos become the model's input."""


def _choose_layers(
    subject: Subject, names: str | Sequence[str] | None, layout: Kind | None, say: Reporter
) -> list[Layer]:
    if names is None:
        layer = _deepest_spatial(list_layers(subject))
        say.choice(
            "layer", Choice(layer.tensor, "the deepest with positions; --layer sets another")
        )
        return [layer]
    asked = [names] if isinstance(names, str) else list(names)
    layers: dict[str, Layer] = {}
    for resolution in resolve_many(subject, asked, layout=layout):
        for warning in resolution.warnings:
            say.note(f"warning: {warning}")
        say.choice("layer", Choice(_layer_text(resolution.layer), resolution.reason))
        layers.setdefault(resolution.layer.tensor, resolution.layer)
    return list(layers.values())


def _layer_text(layer: Layer) -> str:
    units = f"{layer.units} units" if layer.units else "units known at run time"
    return f"{layer.tensor}, {layer.op}, {units}"


def _deepest_spatial(layers: Sequence[Layer]) -> Layer:
    for layer in reversed(layers):
        grid = [s for s in layer.shape[2:] if isinstance(s, int)]
        if len(layer.shape) == 4 and any(size > 1 for size in grid):
            return layer
    if not layers:
        raise LayerUnsuitable("the model has no layer with units", hint="see `milan-onnx layers`")
    return layers[-1]


def _open_probe(images: str | Path | None, options: DescribeOptions, say: Reporter) -> ProbeSet:
    probe = open_probe(
        Path(images) if images is not None else None,
        limit=options.limit,
        synthetic=options.synthetic,
        seed=options.seed,
    )
    why = "--images" if images is not None else "no --images; give your own photos for real labels"
    say.choice("probe images", Choice(f"{probe.name}, {len(probe)} images", why))
    if len(probe) < options.exemplars:
        raise _too_few(len(probe), options.exemplars)
    return probe


def _too_few(images: int, exemplars: int) -> ProbeError:
    return ProbeError(
        f"{images} usable probe images are fewer than the {exemplars} exemplars of a unit",
        hint=f"give more photos, or --exemplars {max(1, images)}",
    )


def _setting(subject: Subject, options: DescribeOptions, say: Reporter) -> _Setting:
    device = choose_device(options.device)
    threads = choose_threads(options.threads)
    if options.batch_size is not None:
        batch = Choice(options.batch_size, "--batch-size")
    elif device.value.name == "cpu":
        batch = Choice(CPU_BATCH, "small batches are faster on a CPU")
    else:
        batch = Choice(GPU_BATCH, "one fixed shape on a GPU")
    preprocessing = choose_preprocessing(subject, **options.preprocessing)
    say.choice("device", device)
    say.choice("threads", threads)
    say.choice(
        "preprocessing", Choice(_preprocessing_text(preprocessing.value), preprocessing.reason)
    )
    return _Setting(device, threads, batch, preprocessing)


def _preprocessing_text(value: Preprocessing) -> str:
    geometry = value.geometry
    resize = "no resize" if geometry.resize is None else f"resize {geometry.resize}"
    mean = ", ".join(f"{m:g}" for m in value.mean)
    std = ", ".join(f"{s:g}" for s in value.std)
    return f"{resize}, crop {geometry.crop[0]}x{geometry.crop[1]}, mean {mean}, std {std}"


def _open_subject(
    subject: Subject, layers: Sequence[Layer], setting: _Setting, say: Reporter
) -> tuple[TappedModel, Session]:
    """The tapped model in a session, its batch free where the graph allows it."""
    device, preprocessing = setting.device.value, setting.preprocessing.value
    tapped = tap(subject, layers, preprocessing)
    for output in tapped.outputs:
        for note in output.notes:
            say.note(f"{output.layer.tensor}: {note}")
    session = _subject_session(subject, tapped, device)
    if not tapped.freed:
        return tapped, session
    fixed = tap(subject, layers, preprocessing, batch=subject.input.batch)
    slow = _subject_session(subject, fixed, device)
    if _same_in_batches(session, tapped, slow, fixed):
        return tapped, session
    return fixed, slow


def _same_in_batches(
    session: Session, tapped: TappedModel, slow: Session, fixed: TappedModel
) -> bool:
    """Whether the graph with its batch made free gives what the batch it holds gives."""
    count = 2 * (fixed.batch or 1)
    shape = (count, *tapped.frame, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    try:
        together = session.run({tapped.input_name: images})
    except SubjectError:
        return False
    apart = [slow.run({fixed.input_name: half}) for half in np.split(images, 2)]
    return all(
        out.shape[0] == count and np.allclose(out, np.concatenate(parts), rtol=1e-3, atol=1e-4)
        for out, parts in zip(together, zip(*apart, strict=True), strict=True)
    )


def _subject_session(subject: Subject, tapped: TappedModel, device: Device) -> Session:
    return Session(
        tapped.model_bytes,
        device,
        what=str(subject.path),
        error=SubjectError,
        external_folder=tapped.external_folder,
    )


def _scan(
    tapped: TappedModel,
    session: Session,
    probe: ProbeSet,
    setting: _Setting,
    options: DescribeOptions,
    say: Reporter,
) -> tuple[list[LayerExemplars], Loader]:
    batch = setting.batch
    if tapped.batch is not None:
        batch = Choice(tapped.batch, "the model's graph holds this batch and no other works")
    say.choice("batch", batch)
    threads = setting.threads.value
    geometry = setting.preprocessing.value.geometry
    loader = Loader(probe, geometry, batch_size=batch.value, workers=threads)

    def run(batch: Batch) -> list[Floats]:
        return _activations(session, tapped, batch.images)

    names = [output.layer.tensor for output in tapped.outputs]
    settings = ScanOptions(options.exemplars, options.quantile, options.tail_memory)
    with say.stage("scan", len(probe), "images") as meter:
        activations = ((done.ids, out) for done, out in in_order(run, loader, threads))
        scans = scan(activations, names, len(probe), settings, meter)
    say.note(describe_skips(loader))
    if len(loader.digests) < options.exemplars:
        raise _too_few(len(loader.digests), options.exemplars)
    return [layer.result() for layer in scans], loader


def _activations(session: Session, tapped: TappedModel, images: NDArray[np.uint8]) -> list[Floats]:
    """Each layer's activations (B,U,h,w) of frames (B,H,W,3).

    A lone image is run twice: kernels take another path for a batch of one, with other last bits.
    A batch that the graph fixes is filled up.
    """
    count = len(images)
    wanted = tapped.batch or max(2, count)
    if count < wanted:
        images = np.concatenate((images, np.repeat(images[-1:], wanted - count, axis=0)))
    return [out[:count] for out in session.run({tapped.input_name: images})]


def _label(
    found: Sequence[LayerExemplars],
    features: Sequence[Floats],
    describer: Describer,
    search: SearchDefaults,
    probe: ProbeSet,
    subject: Subject,
    options: DescribeOptions,
    say: Reporter,
    on_label: Callable[[UnitLabel], None],
) -> list[UnitLabel]:
    labels = []
    total = sum(len(describable(layer)) for layer in found)
    with say.stage("describe", total, "units") as meter:
        for layer, units in zip(found, features, strict=True):
            wanted = set(describable(layer))
            texts = describer.describe(units, search, candidates=options.candidates, progress=meter)
            for unit in range(layer.units):
                hypotheses = next(texts) if unit in wanted else []
                labels.append(_unit_label(subject, layer, unit, hypotheses, probe))
                on_label(labels[-1])
    return labels


def _unit_label(
    subject: Subject,
    layer: LayerExemplars,
    unit: int,
    hypotheses: Sequence[Hypothesis],
    probe: ProbeSet,
) -> UnitLabel:
    best = hypotheses[0] if hypotheses else None
    pairs = zip(layer.ids[unit].tolist(), layer.activations[unit].tolist(), strict=True)
    return UnitLabel(
        model=subject.sha256,
        layer=layer.layer,
        unit=unit,
        description=best.description if best else None,
        pmi=best.pmi if best else None,
        log_p_given_exemplars=best.log_p_given_exemplars if best else None,
        log_p=best.log_p if best else None,
        candidates=tuple(Candidate(**asdict(hypothesis)) for hypothesis in hypotheses),
        exemplars=tuple(Exemplar(i, probe.names[i], value) for i, value in pairs),
        threshold=float(layer.thresholds[unit]),
        flags=layer.flags(unit),
    )


def _manifest(
    subject: Subject,
    tapped: TappedModel,
    captioner: Bundle,
    probe: ProbeSet,
    loader: Loader,
    setting: _Setting,
    search: SearchDefaults,
    found: Sequence[LayerExemplars],
    options: DescribeOptions,
) -> dict[str, Any]:
    """What was run on what; all that may differ between equal runs is under ``environment``."""
    layers = [
        {
            "tensor": output.layer.tensor,
            "op": output.layer.op,
            "node": output.layer.node,
            "module": output.layer.module,
            "units": layer.units,
            "grid": list(layer.maps.shape[2:]),
            "quantile_method": layer.method,
            "notes": list(output.notes),
        }
        for output, layer in zip(tapped.outputs, found, strict=True)
    ]
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "milan_onnx": __version__,
        "model": {"name": subject.path.name, "sha256": subject.sha256},
        "layers": layers,
        "probe": {
            "name": probe.name,
            "images": len(probe),
            "usable": len(loader.digests),
            "sha256": probe_digest(loader.digests, probe.names),
            "skipped": [asdict(skipped) for skipped in loader.skipped],
            "converted": [asdict(converted) for converted in loader.converted],
        },
        "preprocessing": asdict(setting.preprocessing.value),
        "bundle": {
            "name": captioner.manifest.name,
            "version": captioner.manifest.version,
            "sha256": captioner.sha256,
        },
        "search": asdict(search),
        "options": {
            "exemplars": options.exemplars,
            "quantile": options.quantile,
            "candidates": options.candidates,
            "tail_memory": options.tail_memory,
            "limit": options.limit,
            "synthetic": options.synthetic,
            "seed": options.seed,
            "layout": options.layout,
            "inputs": dict(sorted(options.inputs.items())),
        },
        "environment": {
            "model_path": str(subject.path),
            "images": probe.source,
            "bundle_path": str(captioner.path),
            "device": str(setting.device.value),
            "device_reason": setting.device.reason,
            "threads": setting.threads.value,
            "batch": setting.batch.value,
            "onnxruntime": installed_runtimes(),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
