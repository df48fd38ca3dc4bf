"""Exemplars of the paper's own code: described here, or written for it.

Either tool can go on from the other's exemplars, so a network is scanned once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from milan_onnx.bundle import load_bundle
from milan_onnx.choice import Choice
from milan_onnx.describing.abstaining import say_rule
from milan_onnx.describing.encoding import encode_exemplars
from milan_onnx.describing.job import Captioning, choose_machine, choose_search
from milan_onnx.describing.kept import NOWHERE
from milan_onnx.describing.labelling import label_units, searching
from milan_onnx.describing.manifest import folder_manifest
from milan_onnx.describing.options import DescribeOptions
from milan_onnx.errors import BadInput, ProbeError
from milan_onnx.exemplar_folder import ExemplarArrays, ExemplarWriter, layer_folders, read_exemplars
from milan_onnx.exemplars import LayerExemplars, exemplar_masks
from milan_onnx.files import staged_folder
from milan_onnx.geometry import Geometry
from milan_onnx.labels import UnitLabel
from milan_onnx.probe import ExemplarImages, ProbeSet, exemplar_numbers, frames, open_probe
from milan_onnx.progress import Reporter, Silent
from milan_onnx.reporting import write_run_report
from milan_onnx.run import MANIFEST, REPORT, Run, save_run
from milan_onnx.runtime import Describer

SIDE = 224
"""Side of the images and masks of the paper's code."""
RESIZE = 256
"""Shorter side of the dataset's images before their centre is cut out."""
WITHIN = 0.5
"""Masks are 0 or 1."""


def describe_folder(
    folder: str | Path,
    out: str | Path,
    *,
    images: str | Path | None = None,
    bundle: str | Path | None = None,
    options: DescribeOptions | None = None,
    reporter: Reporter | None = None,
    on_label: Callable[[UnitLabel], None] = lambda label: None,
) -> Run:
    """Describe the units whose exemplars a folder of the paper's format holds.

    ``images``: the dataset, where the folder holds no images. Units whose activations are all zero
    are dead and get no description. Raises the errors of `milan_onnx.errors`: BadInput naming the
    file that does not fit, ProbeError for another dataset; nothing is left behind at ``out`` then.
    """
    options, say = options or DescribeOptions(), reporter or Silent()
    options.check()
    captioner = Path(bundle) if bundle else None
    with staged_folder(Path(out), overwrite=options.overwrite, marker=MANIFEST) as staged:
        run = _describe(Path(folder), images or None, captioner, options, say, on_label)
        save_run(staged, run)
        if options.report:
            write_run_report(staged / REPORT, run, say)
    return replace(run, path=Path(out))


def _describe(
    folder: Path,
    images: str | Path | None,
    bundle: Path | None,
    options: DescribeOptions,
    say: Reporter,
    on_label: Callable[[UnitLabel], None],
) -> Run:
    places = layer_folders(folder)
    arrays = [read_exemplars(place) for place in places]
    layers = [
        _layer(place, found, len(arrays)) for place, found in zip(places, arrays, strict=True)
    ]
    probe, geometry = _images(folder, images, arrays, say)
    captioner = load_bundle(bundle)
    search = choose_search(captioner, options)
    exemplars = max(layer.ids.shape[1] for layer in layers)
    say_rule(captioner, search, options, exemplars, False, say)
    device, threads = choose_machine(options, say)
    job = Captioning(
        model=_digest(places, arrays),
        bundle=captioner,
        probe=probe,
        geometry=geometry,
        options=replace(options, exemplars=exemplars),
        search=search,
        device=device,
        threads=threads.value,
        say=say,
    )
    describer = Describer(captioner, device.value, threads.value)
    features = encode_exemplars(job, layers, describer.encoder(), NOWHERE)
    described = label_units(job, layers, features, on_label, NOWHERE, searching(job, describer))
    labels = [unit.label for layer in described for unit in layer]
    return Run(folder_manifest(job, folder, layers, labels), tuple(labels), tuple(layers))


def _layer(place: Path, found: ExemplarArrays, layers: int) -> LayerExemplars:
    units, k = found.ids.shape
    if not np.array_equal(found.units, np.arange(units)):
        raise BadInput(
            f"{place / 'units.npy'} holds other units than the first {units}",
            hint="compute the exemplars of all units, or of the first ones",
        )
    ids = exemplar_numbers(found)
    if layers > 1 and ids is not found.ids:
        raise BadInput(
            f"{place} tells no numbers of images, which several layers need",
            hint="describe each layer's folder by itself",
        )
    told = found.activations
    return LayerExemplars(
        layer=place.name,
        ids=ids,
        activations=np.full((units, k), np.nan, np.float32) if told is None else told,
        maps=found.masks[:, :, 0],
        thresholds=np.full(units, WITHIN, np.float32),
        bottomed=np.zeros(units, np.bool_),
        maximum=np.ones(units, np.float32) if told is None else told.max(axis=1),
        sample=np.zeros(0, np.int64),
        fingerprint=np.zeros((units, 0), np.float32),
        images=len(np.unique(ids)),
        method="given",
    )


def _images(
    folder: Path, images: str | Path | None, arrays: Sequence[ExemplarArrays], say: Reporter
) -> tuple[ProbeSet, Geometry]:
    side = arrays[0].masks.shape[-1]
    if any(found.masks.shape[-1] != side for found in arrays):
        raise BadInput(f"the layers of {folder} have masks of different sizes")
    if images is None:
        probe: ProbeSet = ExemplarImages(folder)
        say.choice("images", Choice(probe.name, "it holds them; --images takes the dataset's"))
        return probe, Geometry(crop=(side, side), resize=None)
    probe = open_probe(images)
    last = max(int(found.ids.max()) for found in arrays)
    if last >= len(probe) or min(int(found.ids.min()) for found in arrays) < 0:
        raise ProbeError(
            f"{images} holds {len(probe)} images, and the exemplars are numbered up to {last}",
            hint="give the folder that they were computed from",
        )
    say.choice("images", Choice(f"{probe.name}, {len(probe)} images", "--images"))
    return probe, Geometry(crop=(side, side), resize=round(side * RESIZE / SIDE))


def _digest(places: Sequence[Path], arrays: Sequence[ExemplarArrays]) -> str:
    """What tells these exemplars from others: hexadecimal SHA-256."""
    digest = hashlib.sha256()
    for place, found in zip(places, arrays, strict=True):
        digest.update(place.name.encode("utf-8", "surrogateescape"))
        digest.update(found.ids.tobytes())
        for unit in found.masks:
            digest.update(np.packbits(unit).tobytes())
    return digest.hexdigest()


def write_folders(
    folder: Path, job: Captioning, layers: Sequence[LayerExemplars], names: Sequence[str]
) -> None:
    """Write exemplars in the paper's format: a folder a layer, called by ``names``.

    Raises OutputUnwritable where that fails, ProbeError where a photo can no longer be read.
    """
    view = job.geometry.scaled(SIDE, SIDE)
    for layer, name in zip(layers, folder_names(names), strict=True):
        units, k = layer.ids.shape
        writer = ExemplarWriter(folder / name, units, k, SIDE)
        wanted = np.unique(layer.ids[layer.ids >= 0]).tolist()
        with job.say.stage(f"write {name}", len(wanted), "images") as meter:
            for image, frame in frames(job.probe, wanted, view, workers=job.threads):
                rows, ranks = np.nonzero(layer.ids == image)
                maps = layer.maps[rows, ranks].astype(np.float32, copy=False)
                levels = layer.thresholds[rows]
                masks = exemplar_masks(maps, levels, SIDE, SIDE, fade=job.search.legacy)
                for unit, rank, mask in zip(rows.tolist(), ranks.tolist(), masks, strict=True):
                    writer.put(unit, rank, frame, mask)
                meter(1)
        writer.close(layer.ids, layer.activations)


def folder_names(names: Sequence[str]) -> list[str]:
    """Names of layers as names of folders, no two the same."""
    made: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "layer"
        number = 1
        while (plain if number == 1 else f"{plain}-{number}") in made:
            number += 1
        made.append(plain if number == 1 else f"{plain}-{number}")
    return made
