"""The diff as one offline HTML page, in the report's style and as safe."""

from __future__ import annotations

from base64 import b64encode
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.applications.diff.result import RunDiff, percent
from milan_onnx.applications.diff.tables import (
    LAYER_COLUMNS,
    TELLING,
    both,
    confidence_text,
    flags_text,
    headline,
    layer_cells,
    most_telling,
    number,
    text,
)
from milan_onnx.applications.diff.units import UnitDiff
from milan_onnx.errors import ProbeError, RunError
from milan_onnx.exemplars import exemplar_masks
from milan_onnx.files import write_bytes
from milan_onnx.labels import UnitLabel
from milan_onnx.labels.pages import page_style, render, template
from milan_onnx.labels.summary import figure_text
from milan_onnx.labels.thumbnails import encode
from milan_onnx.probe import frames
from milan_onnx.progress import Reporter
from milan_onnx.reporting import masks_fade, run_geometry, run_probe
from milan_onnx.run import Run

PACKAGE = "milan_onnx.applications.diff"
PICTURED = 150
"""Units shown with photos; the others have words alone, so that the page stays small."""
PHOTOS = 4
"""Exemplars shown of a unit, before and after."""
SIDE, QUALITY, DIM = 112, 72, 0.3

Shown = tuple[str, int]
"""(tensor, unit) of a run."""
Pictures = Mapping[Shown, Sequence[str]]
"""Addresses (data:) of the photos of units."""


@dataclass(frozen=True)
class PageUnit:
    """A unit as the page shows it."""

    layer: str
    """What its layer is called."""

    verdict: str
    """What became of its description."""

    units: tuple[str, str]
    """Its number before and now."""

    sides: tuple[tuple[str, str, Sequence[str]], tuple[str, str, Sequence[str]]]
    """Before and now: the side's name, the description, and the addresses of photos."""

    flags: str
    """Flags gained and lost."""

    figures: str
    """How alike the unit is before and now."""


def write_page(path: Path, found: RunDiff, pictures: tuple[Pictures, Pictures]) -> int:
    """Write the page; returns its bytes. ``pictures``: of the first run, and of the second."""
    units = [
        PageUnit(
            layer=layer.name,
            verdict=unit.verdict,
            units=(number(unit.before), number(unit.after)),
            sides=(
                ("before", text(unit.before), _photos(pictures[0], unit.before)),
                ("now", text(unit.after), _photos(pictures[1], unit.after)),
            ),
            flags=flags_text(unit),
            figures=", ".join(_figures(unit)),
        )
        for layer, unit in most_telling(found)
    ]
    page = render(
        template(PACKAGE, "diff.html.j2"),
        style=page_style()
        + template("milan_onnx.labels", "report.css")
        + template(PACKAGE, "diff.css"),
        names=[run["model"]["name"] for run in found.runs],
        facts=_facts(found),
        headline=f"{headline(found)}.",
        notes=found.notes,
        columns=LAYER_COLUMNS,
        layers=[layer_cells(layer) for layer in found.layers],
        matches=[f"{x.name}: by {x.match.value}, {x.match.reason}" for x in found.layers],
        units=units,
        verdicts=[v for v in TELLING if any(unit.verdict == v for unit in units)],
    )
    write_bytes(path, page)
    return len(page)


def draw_pictures(
    runs: tuple[Run, Run], found: RunDiff, images: str | Path | None, say: Reporter
) -> tuple[Pictures, Pictures]:
    """The photos of the units that changed, where the runs' photos are still there."""
    ranked = most_telling(found)[:PICTURED]
    before = [(x.before, u.before.unit) for x, u in ranked if u.before is not None]
    after = [(x.after, u.after.unit) for x, u in ranked if u.after is not None]
    return _drawn(runs[0], before, images, say), _drawn(runs[1], after, images, say)


def _drawn(run: Run, units: Sequence[Shown], images: str | Path | None, say: Reporter) -> Pictures:
    """Each unit's best exemplars, bright where it is excited and dim elsewhere."""
    if not units:
        return {}
    try:
        return _draw(run, units, images)
    except (RunError, ProbeError) as error:
        if images is not None:
            raise
        say.note(f"the page shows no photos of {run.path}: {error}")
        return {}


def _draw(run: Run, units: Sequence[Shown], images: str | Path | None) -> Pictures:
    probe, geometry, fade = run_probe(run, images), run_geometry(run), masks_fade(run)
    height, width = geometry.size
    scale = SIDE / max(height, width)
    view = geometry.scaled(max(1, round(height * scale)), max(1, round(width * scale)))
    uses: dict[int, list[tuple[Shown, int]]] = defaultdict(list)
    for tensor, unit in units:
        for rank, image in enumerate(run.layer(tensor).ids[unit][:PHOTOS].tolist()):
            uses[image].append(((tensor, unit), rank))
    drawn: dict[Shown, dict[int, str]] = defaultdict(dict)
    for image, frame in frames(probe, sorted(uses), view):
        for (tensor, unit), rank in uses[image]:
            layer = run.layer(tensor)
            level = layer.thresholds[unit : unit + 1]
            maps = np.asarray(layer.maps[unit, rank])[None]
            mask = exemplar_masks(maps, level, *view.size, fade=fade)[0]
            drawn[tensor, unit][rank] = _address(frame, mask)
    return {shown: [by_rank[r] for r in sorted(by_rank)] for shown, by_rank in drawn.items()}


def _address(frame: NDArray[np.uint8], mask: NDArray[np.bool_]) -> str:
    lit = frame * np.where(mask, 1.0, DIM)[:, :, None]
    return f"data:image/jpeg;base64,{b64encode(encode(lit.astype(np.uint8), QUALITY)).decode()}"


def _photos(pictures: Pictures, label: UnitLabel | None) -> Sequence[str]:
    return pictures.get((label.layer, label.unit), ()) if label else ()


def _figures(unit: UnitDiff) -> list[str]:
    names = ("correlation", "same exemplars", "same n-best")
    values = (unit.correlation, unit.exemplars, unit.candidates)
    pairs = zip(names, values, strict=True)
    alike = [f"{name} {figure_text(value)}" for name, value in pairs if value is not None]
    sure = confidence_text(unit)
    return [f"confidence {sure}", *alike] if sure else alike


def _facts(found: RunDiff) -> dict[str, str]:
    count, layers = found.count, found.layers
    dead = [layer.flags("dead") for layer in layers]
    return {
        "Before": _run_text(found.runs[0]),
        "Now": _run_text(found.runs[1]),
        "Descriptions": f"{count.described} in either run",
        "Changed": f"{count.changed} ({percent(count.share)})",
        "Reworded": str(count.verdicts["reworded"]),
        "Dead units": both(sum(d[0] for d in dead), sum(d[1] for d in dead)),
    }


def _run_text(run: Mapping[str, Any]) -> str:
    model = run["model"]
    return f"{model['name']} (sha256 {str(model['sha256'])[:12]})"
