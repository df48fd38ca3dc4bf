"""The report of a run: what the page shows, taken from the run and its photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import RunError
from milan_onnx.exemplars import exemplar_masks
from milan_onnx.generator import recorded_images
from milan_onnx.geometry import Geometry, Interpolation
from milan_onnx.labels import (
    ReportRun,
    ReportSize,
    UnitLabel,
    confidence_text,
    has_confidence,
    summarize,
    validity_text,
    write_report,
)
from milan_onnx.markdown import safe, table
from milan_onnx.probe import ExemplarImages, ProbeSet, absent, frames, open_probe
from milan_onnx.progress import Reporter, Silent
from milan_onnx.run import Run

MOST = 5
"""Descriptions that a page of Markdown names a layer."""


def write_run_report(
    path: Path,
    run: Run,
    say: Reporter | None = None,
    *,
    images: str | Path | None = None,
    probe: ProbeSet | None = None,
) -> ReportSize:
    """Write the report of a run as one HTML file.

    ``images``: the photos, where they are no longer where the run found them. ``probe``: the run's
    own photos, where they are open (to list those of a tar in object storage may be to read it).
    Raises RunError when the photos are not those of the run, ProbeError when they cannot be read.
    """
    try:
        shown = _report_run(run, run_probe(run, images) if probe is None else probe)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged_manifest(run, error) from error
    size = write_report(path, run=shown)
    (say or Silent()).note(
        f"report: {size.units} units, {size.images} photos, {size.bytes / 1e6:.1f} MB"
    )
    return size


def run_markdown(run: Run) -> str:
    """What a run found, as a page of Markdown: a line a layer, and what was run on what.

    Raises RunError where the manifest is damaged.
    """
    try:
        facts, names = heading(run), display_names(run)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged_manifest(run, error) from error
    confident = has_confidence(run.labels)
    rows = [
        _layer_row(names[layer.layer], layer.layer, run.labels, confident) for layer in run.layers
    ]
    figures = ("confidence", "validity") if confident else ("validity",)
    header = ("layer", "units", "described", "distinct", *figures, "said most often")
    lines = [
        f"## Labels of {safe(facts['title'])}",
        "",
        *table(header, rows),
        "",
        *(f"- {name}: {safe(text)}" for name, text in facts["facts"].items() if name != "Layers"),
        *(line for warning in facts["warnings"] for line in ("", f"> {safe(warning)}")),
    ]
    return "\n".join(lines) + "\n"


def _layer_row(
    name: str, tensor: str, labels: Sequence[UnitLabel], confident: bool
) -> list[object]:
    found = summarize(tensor, labels, most=MOST)
    most = ", ".join(f"{text} ({count})" for text, count in found.repeated)
    counts = (found.units, found.described, found.distinct)
    figures = [confidence_text(found)] if confident else []
    return [safe(name), *counts, *figures, validity_text(found), safe(most)]


def _damaged_manifest(run: Run, error: Exception) -> RunError:
    return RunError(
        f"the manifest of the run {run.path or ''} is damaged ({type(error).__name__}: {error})",
        hint="describe again, or restore it from a backup",
    )


def run_probe(run: Run, images: str | Path | None) -> ProbeSet:
    """The photos of a run. Raises RunError where they have moved or are others."""
    if "generator" in run.manifest["environment"]:
        return recorded_images(run.manifest)
    source = run.manifest["environment"]["images"]
    synthetic = source.startswith("synthetic:") and images is None
    place = None if synthetic else (images or source)
    if place is not None and absent(place):
        raise RunError(
            f"the photos of this run are not at {place}", hint="say where they are with --images"
        )
    probe = _open(run, place, images)
    for label in run.labels:
        for exemplar in label.exemplars:
            if exemplar.image >= len(probe) or probe.names[exemplar.image] != exemplar.name:
                raise RunError(
                    f"{place or probe.name} holds other photos than this run's: "
                    f"image {exemplar.image} was {exemplar.name}",
                    hint="say where they are with --images",
                )
    return probe


def _open(run: Run, place: str | Path | None, images: str | Path | None) -> ProbeSet:
    if place is not None and images is None and run.manifest["probe"].get("from_exemplars"):
        return ExemplarImages(Path(place))
    options = run.manifest["options"]
    return open_probe(
        place,
        limit=options["limit"],
        synthetic=options["synthetic"],
        seed=options["seed"],
    )


def _report_run(run: Run, probe: ProbeSet) -> ReportRun:
    names = display_names(run)
    layers = {names[layer.layer]: layer for layer in run.layers}
    geometry, fade = run_geometry(run), masks_fade(run)

    def mask(layer: str, unit: int, rank: int, size: int) -> NDArray[np.bool_]:
        store = layers[layer]
        level = store.thresholds[unit : unit + 1]
        masks = exemplar_masks(store.maps[unit, rank][None], level, size, size, fade=fade)
        return np.asarray(masks[0], dtype=np.bool_)

    def views(ids: Sequence[int], side: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        height, width = geometry.size
        scale = side / max(height, width)
        view = geometry.scaled(max(1, round(height * scale)), max(1, round(width * scale)))
        return frames(probe, ids, view)

    return ReportRun(
        title=run.manifest["model"]["name"],
        facts=_facts(run),
        layers=tuple(layers),
        labels=[replace(label, layer=names[label.layer]) for label in run.labels],
        mask=mask,
        frames=views,
        warnings=_warnings(run),
    )


def display_names(run: Run) -> dict[str, str]:
    """What people call each layer: its module, where no other layer of the run has the same."""
    facts = run.manifest["layers"]
    modules = Counter(layer["module"] for layer in facts)
    return {
        layer["tensor"]: layer["module"]
        if layer["module"] and modules[layer["module"]] == 1
        else layer["tensor"]
        for layer in facts
    }


def run_geometry(run: Run) -> Geometry:
    """How a run's photos become frames. Raises ValueError or KeyError for a damaged manifest."""
    value = run.manifest["preprocessing"]["geometry"]
    if value["interpolation"] not in get_args(Interpolation):
        raise ValueError(f"unknown interpolation {value['interpolation']!r}")
    resize, output = value["resize"], value["output"]
    return Geometry(
        crop=(value["crop"][0], value["crop"][1]),
        resize=tuple(resize) if isinstance(resize, list) else resize,
        interpolation=value["interpolation"],
        output=tuple(output) if output else None,
    )


def masks_fade(run: Run) -> bool:
    """Whether a run's masks fade at the border, as those of the paper's code do."""
    return bool(run.manifest["search"].get("legacy"))


def heading(run: Run) -> dict[str, Any]:
    """What a run's page says besides its labels and photos: equal runs may differ in it."""
    title = run.manifest["model"]["name"]
    return {"title": title, "facts": _facts(run), "warnings": list(_warnings(run))}


def _facts(run: Run) -> dict[str, str]:
    manifest = run.manifest
    search, probe, bundle = manifest["search"], manifest["probe"], manifest["bundle"]
    skipped = f", {len(probe['skipped'])} skipped" if probe["skipped"] else ""
    return {
        "Model": f"{manifest['model']['name']} (sha256 {manifest['model']['sha256'][:12]})",
        "Layers": ", ".join(_layer_fact(layer) for layer in manifest["layers"]),
        "Probe images": f"{probe['name']}, {probe['usable']} used{skipped}",
        "Exemplars": f"{manifest['options']['exemplars']} a unit, "
        f"threshold at the {manifest['options']['quantile']:g} quantile",
        "Captioner": f"{bundle['name']} {bundle['version']} (sha256 {bundle['sha256'][:12]})",
        **_abstaining_fact(manifest),
        "Search": f"beam {search['beam_size']}, λ {search['pmi_weight']:g}",
        "Device": manifest["environment"]["device"],
        "Made by": f"milan-onnx {manifest['milan_onnx']}",
    }


def _abstaining_fact(manifest: Mapping[str, Any]) -> dict[str, str]:
    """When labels abstain, where any could; runs of earlier versions knew but one rule."""
    before = {"rule": "validity"} if manifest["validity"] else None
    rule = manifest.get("abstaining", before)
    if rule is None:
        return {}
    if rule["rule"] == "confidence":
        return {"Abstains": f"a label below a confidence of {100 * rule['below']:g} %"}
    return {"Abstains": "a label no better on held-out photos than those of other units"}


def _layer_fact(layer: Mapping[str, Any]) -> str:
    grid = "×".join(map(str, layer["grid"]))
    module = f"{layer['module']} = " if layer["module"] else ""
    return f"{module}{layer['tensor']} ({layer['units']} units, {grid})"


def _warnings(run: Run) -> tuple[str, ...]:
    if run.manifest["environment"]["images"].startswith("synthetic:"):
        return (
            "These labels come from the built-in synthetic images: good to see that it works, "
            "too narrow to trust. Give your own photos with --images.",
        )
    return ()
