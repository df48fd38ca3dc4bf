"""The report: one offline HTML file a run, with every unit, its scores and its exemplars.

The page holds each photo once, as a JPEG that the exemplars of all units share, and for each
exemplar a mask of 56x56 bits; the browser draws the exciting region bright and the rest dim when
a unit comes into view. Its size is bounded: photos shrink, then exemplars are left out, until the
page fits its budget.

All text of labels and names is untrusted (`milan_onnx.labels.pages`), and what the script reads is
only ever shown as text.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.files import write_bytes
from milan_onnx.labels.confidence import has_confidence, percent_text
from milan_onnx.labels.masks import GRID, pack_mask
from milan_onnx.labels.pages import page_style, render, script_json, template
from milan_onnx.labels.record import (
    UnitLabel,
    in_order,
    rounded_activation,
    rounded_score,
)
from milan_onnx.labels.summary import figure_text, summarize
from milan_onnx.labels.thumbnails import (
    STEPS,
    FrameSource,
    Step,
    Thumbnails,
    encode_all,
    foreseen_bytes,
    shared_head,
)

MaskSource = Callable[[str, int, int, int], NDArray[np.bool_]]
"""(layer, unit, rank of the exemplar, size) to a bool mask of the frame, (size, size) at best."""

UNIT_BYTES = 25_000_000 // 512
LEAST_BYTES = 6_000_000
MOST_BYTES = 48_000_000
CANDIDATES = 10
LONGEST_TEXT = 400


@dataclass(frozen=True)
class ReportRun:
    """What a report shows."""

    title: str
    """Heading of the page: the model's name."""

    facts: Mapping[str, str]
    """What was run on what (name to text), in the order shown."""

    layers: tuple[str, ...]
    """Layer names, in the order shown."""

    labels: Sequence[UnitLabel]
    """Every unit of those layers."""

    mask: MaskSource
    """Gives the exciting region of an exemplar."""

    frames: FrameSource
    """Gives the frames of photos."""

    warnings: tuple[str, ...] = field(default=())
    """What the reader should know before trusting the labels."""


@dataclass(frozen=True)
class ReportSize:
    """What was chosen to keep the page within its budget."""

    bytes: int
    """Size of the page."""

    budget: int
    """Most it was to take."""

    units: int
    """Units shown."""

    images: int
    """Distinct photos embedded."""

    side: int
    """Longer side of a photo, pixels."""

    quality: int
    """JPEG quality."""

    exemplars: int
    """Most exemplars shown a unit."""


def default_budget(units: int) -> int:
    """Bytes a report of that many units may take: 25 MB at 512 units, within 6 and 48 MB."""
    return min(MOST_BYTES, max(LEAST_BYTES, UNIT_BYTES * units))


def write_report(path: Path, *, run: ReportRun, budget: int | None = None) -> ReportSize:
    """Write the report of a run as one HTML file; returns what was chosen for its size."""
    limit = default_budget(len(run.labels)) if budget is None else budget
    labels = in_order(run.labels, run.layers)
    masks = _packed_masks(run, labels)
    forecast = _foresee(run, labels, masks)
    steps, error = STEPS, 1.03
    while True:
        step = next((s for s in steps if forecast.page(s, error) <= limit), STEPS[-1])
        thumbnails = encode_all(run.frames, _images(labels, step.exemplars), step)
        page = _page(run, labels, masks, thumbnails)
        if len(page) <= limit or step is STEPS[-1]:
            break
        # Photos came out larger than the sample said: take that into account for what is left.
        error = max(error, (len(page) - forecast.text[step.exemplars]) / forecast.photos(step))
        steps = steps[steps.index(step) + 1 :]
    write_bytes(path, page)
    return ReportSize(
        bytes=len(page),
        budget=limit,
        units=len(labels),
        images=len(thumbnails.jpegs),
        side=max(thumbnails.height, thumbnails.width),
        quality=step.quality,
        exemplars=step.exemplars,
    )


def _packed_masks(run: ReportRun, labels: Sequence[UnitLabel]) -> list[list[str]]:
    """For each label, the masks of the exemplars that may be shown."""
    most = STEPS[0].exemplars
    return [
        [
            pack_mask(run.mask(label.layer, label.unit, rank, GRID))
            for rank in range(len(label.exemplars[:most]))
        ]
        for label in labels
    ]


def _images(labels: Sequence[UnitLabel], exemplars: int) -> list[int]:
    return sorted({e.image for label in labels for e in label.exemplars[:exemplars]})


@dataclass(frozen=True)
class _Forecast:
    """How large a page would be at each step, before its photos are decoded."""

    text: Mapping[int, int]
    """Bytes without photos, by the exemplars shown a unit."""

    images: Mapping[int, int]
    """Number of photos, by the exemplars shown a unit."""

    photo: Mapping[tuple[int, int], float]
    """Bytes of a photo, by side and quality."""

    def photos(self, step: Step) -> float:
        return max(1.0, self.images[step.exemplars] * self.photo[step.side, step.quality])

    def page(self, step: Step, error: float) -> float:
        return self.text[step.exemplars] + error * self.photos(step)


def _foresee(
    run: ReportRun, labels: Sequence[UnitLabel], masks: Sequence[Sequence[str]]
) -> _Forecast:
    shown = dict.fromkeys(step.exemplars for step in STEPS)
    any_step = {step.exemplars: step for step in STEPS}
    return _Forecast(
        text={n: len(_page(run, labels, masks, Thumbnails(any_step[n], {}, 1, 1))) for n in shown},
        images={n: len(_images(labels, n)) for n in shown},
        photo=foreseen_bytes(run.frames, _images(labels, STEPS[0].exemplars)),
    )


def _page(
    run: ReportRun,
    labels: Sequence[UnitLabel],
    masks: Sequence[Sequence[str]],
    thumbnails: Thumbnails,
) -> bytes:
    photos, positions = _photos_json(labels, thumbnails)
    data = _data_json(run, labels, masks, thumbnails, positions)
    return render(
        template("milan_onnx.labels", "report.html.j2"),
        style=page_style() + template("milan_onnx.labels", "report.css"),
        script=template("milan_onnx.labels", "report.js"),
        title=run.title,
        facts=run.facts,
        warnings=run.warnings,
        summaries=[summarize(layer, labels) for layer in data["layers"]],
        figure=figure_text,
        percent=percent_text,
        confident=has_confidence(labels),
        units=len(labels),
        thumbnails=thumbnails,
        data=script_json(data),
        photos=script_json(photos),
    )


def _photos_json(
    labels: Sequence[UnitLabel], thumbnails: Thumbnails
) -> tuple[dict[str, Any], dict[int, int]]:
    """The photos for the script, and the position of each image id in them."""
    names = {
        e.image: e.name for label in labels for e in label.exemplars[: thumbnails.step.exemplars]
    }
    images = sorted(names)
    jpegs = thumbnails.jpegs
    head = shared_head([jpegs[i] for i in images if i in jpegs])
    bodies = [
        b64encode(jpegs[i][len(head) :]).decode("ascii") if i in jpegs else None for i in images
    ]
    photos = {
        "head": b64encode(head).decode("ascii"),
        "bodies": bodies,
        "names": [_clipped(names[i]) for i in images],
    }
    return photos, {image: position for position, image in enumerate(images)}


def _data_json(
    run: ReportRun,
    labels: Sequence[UnitLabel],
    masks: Sequence[Sequence[str]],
    thumbnails: Thumbnails,
    positions: Mapping[int, int],
) -> dict[str, Any]:
    layers = list(dict.fromkeys([*run.layers, *(label.layer for label in labels)]))
    numbers = {layer: number for number, layer in enumerate(layers)}
    return {
        "grid": GRID,
        "width": thumbnails.width,
        "height": thumbnails.height,
        "shown": thumbnails.step.exemplars,
        "layers": layers,
        "units": [
            _unit_json(label, numbers[label.layer], own[: thumbnails.step.exemplars], positions)
            for label, own in zip(labels, masks, strict=True)
        ],
    }


def _unit_json(
    label: UnitLabel, layer: int, masks: Sequence[str], positions: Mapping[int, int]
) -> dict[str, Any]:
    """A unit for the script; short keys, there are thousands."""
    return {
        "l": layer,
        "u": int(label.unit),
        "d": None if label.description is None else _clipped(label.description),
        "s": _scores(label.pmi, label.log_p_given_exemplars, label.log_p, label.confidence),
        "t": rounded_activation(label.threshold),
        "f": sorted(label.flags),
        "v": _validity(label),
        "c": [
            [
                _clipped(c.description),
                *_scores(c.pmi, c.log_p_given_exemplars, c.log_p, c.confidence),
            ]
            for c in label.candidates[:CANDIDATES]
        ],
        "x": [
            [positions[e.image], rounded_activation(e.activation), mask]
            for e, mask in zip(label.exemplars, masks, strict=False)
        ],
    }


def _validity(label: UnitLabel) -> list[float | None] | None:
    """Correlation, the same shuffled, AUPRC, the same shuffled, photos; None: not tested."""
    v = label.validity
    if v is None:
        return None
    figures = _scores(v.correlation, v.shuffled_correlation, v.auprc, v.shuffled_auprc)
    return [*figures, int(v.images)]


def _scores(*values: float | None) -> list[float | None]:
    return [rounded_score(value) for value in values]


def _clipped(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
