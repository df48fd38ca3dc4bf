"""What is asked for, made ready: everything is read, chosen and said before any work starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milan_onnx.bundle import Bundle, SearchDefaults, load_bundle
from milan_onnx.choice import Choice
from milan_onnx.describing.abstaining import say_rule
from milan_onnx.describing.options import DescribeOptions
from milan_onnx.errors import LayerUnsuitable, ProbeError, UsageError
from milan_onnx.exemplars import HeldOutOptions
from milan_onnx.files import is_url
from milan_onnx.generator import (
    RANGES,
    GeneratedImages,
    GeneratorFiles,
    LatentNumbers,
    choose_image_output,
    choose_range,
)
from milan_onnx.geometry import Geometry
from milan_onnx.probe import MadeProbe, ProbeSet, listing_digest, open_probe
from milan_onnx.progress import Reporter
from milan_onnx.runtime import Device, choose_device, choose_threads, search_options
from milan_onnx.subject import (
    PIXEL,
    Layer,
    Preprocessing,
    Subject,
    choose_preprocessing,
    list_layers,
    load,
    resolve_many,
)

CPU_BATCH = 8
GPU_BATCH = 32
LEAST_IMAGES = 64
LEAST_SHARE = 8
"""Photos listed for each exemplar of a unit from which on half of them are held out."""


@dataclass(frozen=True)
class Captioning:
    """What makes labels of exemplars: photos, captioner, settings and machine."""

    model: str
    """Hexadecimal SHA-256 of what is described."""

    bundle: Bundle
    """The captioner and language model."""

    probe: ProbeSet
    """The photos."""

    geometry: Geometry
    """How photos become frames."""

    options: DescribeOptions
    """What the user set."""

    search: SearchDefaults
    """The bundle's search settings with what the user set."""

    device: Choice[Device]
    """Where inference runs."""

    threads: int
    """Batches of the search in flight, and decoding threads."""

    say: Reporter
    """Where choices and progress are told."""

    @property
    def in_flight(self) -> int:
        """Batches of images under way at once: a GPU is filled by one."""
        return self.threads if self.device.value.name == "cpu" else 1


@dataclass(frozen=True)
class Job(Captioning):
    """One model, its layers, photos and captioner, and how they are brought together."""

    subject: Subject
    """The model."""

    inputs: ProbeSet
    """What the model reads: the photos, or the numbers of a generator's latents."""

    layers: tuple[Layer, ...]
    """Its layers to describe."""

    preprocessing: Preprocessing
    """How photos become the model's input."""

    batch: Choice[int]
    """Photos in a batch."""

    reduce: Choice[str]
    """Where activations are searched: host or device."""

    held_out: HeldOutOptions | None
    """What is kept of the half of the photos that labels are tested on; None: none is held out."""

    generator: Mapping[str, Any] | None
    """What a run records of a generator (`milan_onnx.generator`); None: the model takes photos."""


def prepare(
    model: str | Path,
    layers: str | Sequence[str] | None,
    images: str | Path | None,
    bundle: str | Path | None,
    options: DescribeOptions,
    say: Reporter,
) -> Job:
    """Read and choose everything, saying each choice. Raises as `milan_onnx.describe` does."""
    model, images = Path(model), images or None
    files = _generator_files(model, images, options)
    subject, numbers = (
        (load(model, fixed_inputs=options.inputs), None) if not files else files.load()
    )
    chosen = _choose_layers(subject, layers, options, say)
    captioner = load_bundle(Path(bundle) if bundle else None)
    if files is None or numbers is None:
        seen = _photos(subject, images, options, say)
    else:
        seen = _generated(subject, files, numbers, options, say)
    search = choose_search(captioner, options)
    held_out = _choose_held_out(len(seen.inputs), options, say)
    say_rule(captioner, search, options, options.exemplars, held_out is not None, say)
    device, threads = choose_machine(options, say)
    return Job(
        model=subject.sha256,
        subject=subject,
        layers=chosen,
        bundle=captioner,
        inputs=seen.inputs,
        probe=seen.probe,
        geometry=seen.geometry,
        options=options,
        search=search,
        preprocessing=seen.preprocessing,
        device=device,
        threads=threads.value,
        batch=_choose_batch(options, device.value),
        reduce=_choose_reduce(options, device.value),
        held_out=held_out,
        generator=seen.generator,
        say=say,
    )


@dataclass(frozen=True)
class _Seen:
    """What the model reads, and the images of it."""

    inputs: ProbeSet
    probe: ProbeSet
    geometry: Geometry
    preprocessing: Preprocessing
    generator: Mapping[str, Any] | None = None


def _photos(
    subject: Subject, images: str | Path | None, options: DescribeOptions, say: Reporter
) -> _Seen:
    probe = _open_probe(images, options, say)
    found = choose_preprocessing(subject, **options.preprocessing)
    say.choice("preprocessing", Choice(_preprocessing_text(found.value), found.reason))
    return _Seen(probe, probe, found.value.geometry, found.value)


def _generator_files(
    model: Path, images: str | Path | None, options: DescribeOptions
) -> GeneratorFiles | None:
    """What makes images; None where the model takes photos. Raises UsageError for both."""
    alone = {"classes": options.classes, "image-output": options.image_output}
    alone |= {"image-range": options.image_range}
    if options.latents is None:
        for name, value in alone.items():
            if value is not None:
                raise UsageError(f"--{name} goes with --latents only", hint="see --help")
        return None
    if images is not None:
        raise UsageError(
            "a generator makes its own images: --images and --latents exclude each other",
            hint="leave one out",
        )
    return GeneratorFiles(model, options.latents, options.classes, options.limit, options.inputs)


def _generated(
    subject: Subject,
    files: GeneratorFiles,
    numbers: LatentNumbers,
    options: DescribeOptions,
    say: Reporter,
) -> _Seen:
    say.choice("latents", Choice(f"{numbers.source}, {len(numbers)} images", "--latents"))
    output = choose_image_output(subject, options.image_output)
    bounds = choose_range(subject, output.value, len(numbers), options.image_range)
    say.choice("image output", output)
    say.choice("image range", bounds)
    if len(numbers) < options.exemplars:
        raise too_few(len(numbers), options.exemplars)
    probe = GeneratedImages(numbers, subject, output.value, RANGES[bounds.value])
    held = {"image_output": output.value, "image_range": bounds.value}
    geometry = Geometry(crop=probe.size, resize=None)
    return _Seen(numbers, probe, geometry, PIXEL, files.record() | held)


def unchanged(job: Job, photos: range, skipped: Iterable[int], checksum: str) -> bool:
    """Whether the photos at these places of the listing, but for those that could not be used,
    still have the content of this checksum (`probe_digest`)."""
    if isinstance(job.inputs, MadeProbe):
        return True  # what they are made of is among the job's facts
    unusable = {*skipped}
    ids = [i for i in photos if i not in unusable]
    return listing_digest(job.inputs, ids, workers=job.threads) == checksum


def arguments(job: Job, images: str | Path | None, bundle: str | Path | None) -> dict[str, Any]:
    """What `prepare` takes beside options to make the same job elsewhere, as JSON values."""
    return {
        "model": absolute(job.subject.path),
        "layers": [f"tensor:{layer.tensor}" for layer in job.layers],
        "images": absolute(images) if images else None,
        "bundle": absolute(bundle) if bundle else None,
    }


def absolute(path: str | Path) -> str:
    """A path as it may be used from anywhere; a URL as it is."""
    return str(path) if is_url(path) else str(Path(path).absolute())


def choose_machine(options: DescribeOptions, say: Reporter) -> tuple[Choice[Device], Choice[int]]:
    """The device and the number of threads, said."""
    device = choose_device(options.device)
    threads = choose_threads(options.threads)
    say.choice("device", device)
    say.choice("threads", threads)
    return device, threads


def choose_search(captioner: Bundle, options: DescribeOptions) -> SearchDefaults:
    """The bundle's search settings with what the user set."""
    return search_options(
        captioner,
        beam_size=options.beam_size,
        pmi_weight=options.pmi_weight,
        strategy=options.strategy,
        legacy=options.legacy,
    )


def too_few(images: int, exemplars: int) -> ProbeError:
    """The error for fewer photos than a unit has exemplars."""
    return ProbeError(
        f"{images} usable probe images are fewer than the {exemplars} exemplars of a unit",
        hint=f"give more photos, or --exemplars {max(1, images)}",
    )


def _choose_layers(
    subject: Subject,
    names: str | Sequence[str] | None,
    options: DescribeOptions,
    say: Reporter,
) -> tuple[Layer, ...]:
    if names is None:
        layer = _deepest_spatial(list_layers(subject))
        why = "the deepest with positions; --layer sets another"
        say.choice("layer", Choice(_layer_text(layer), why))
        return (layer,)
    resolutions = resolve_many(subject, names, layout=options.layout)
    for resolution in resolutions:
        for warning in resolution.warnings:
            say.note(f"warning: {warning}")
        say.choice("layer", Choice(_layer_text(resolution.layer), resolution.reason))
    return tuple(resolution.layer for resolution in resolutions)


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
    probe = open_probe(images, limit=options.limit, synthetic=options.synthetic, seed=options.seed)
    why = "--images" if images is not None else "no --images; give your own photos for real labels"
    say.choice("probe images", Choice(f"{probe.name}, {len(probe)} images", why))
    if len(probe) < options.exemplars:
        raise too_few(len(probe), options.exemplars)
    return probe


def _choose_held_out(images: int, options: DescribeOptions, say: Reporter) -> HeldOutOptions | None:
    """Fewer held-out photos bring fewer of each kind: the most active stay a small share."""
    least = max(LEAST_IMAGES, LEAST_SHARE * options.exemplars)
    if options.validity is False:
        say.choice("validity", Choice("off", "--no-validity"))
        return None
    if options.validity is None and images < least:
        why = f"{images} images; half are held out from {least} on, or with --validity"
        say.choice("validity", Choice("off", why))
        return None
    top = min(12, max(4, images // 80))
    held_out = HeldOutOptions(top=top, sample=max(12, 2 * top))
    why = "--validity" if options.validity else "half of the photos; --no-validity uses all"
    text = f"on {held_out.top} most active and {held_out.sample} random held-out photos a unit"
    say.choice("validity", Choice(text, why))
    return held_out


def _choose_batch(options: DescribeOptions, device: Device) -> Choice[int]:
    if options.batch_size is not None:
        return Choice(options.batch_size, "--batch-size")
    if device.name == "cpu":
        return Choice(CPU_BATCH, "small batches are faster on a CPU")
    return Choice(GPU_BATCH, "one fixed shape on a GPU")


def _choose_reduce(options: DescribeOptions, device: Device) -> Choice[str]:
    if options.reduce != "auto":
        return Choice(options.reduce, f"--reduce {options.reduce}")
    if device.name == "cpu":
        return Choice("host", "the model runs on the CPU")
    return Choice("device", "so that whole activation maps need not leave the GPU")


def _preprocessing_text(value: Preprocessing) -> str:
    geometry = value.geometry
    resize = "no resize" if geometry.resize is None else f"resize {geometry.resize}"
    mean = ", ".join(f"{m:g}" for m in value.mean)
    std = ", ".join(f"{s:g}" for s in value.std)
    return f"{resize}, crop {geometry.crop[0]}x{geometry.crop[1]}, mean {mean}, std {std}"
