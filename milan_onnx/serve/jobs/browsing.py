"""Runs to look at: those of jobs, and those that the command line wrote into an allowed folder.

A run is read once and kept while its files are the same. No model is opened here: photos of a run
whose model is a generator are made by that model, so such a run shows its labels and its report,
but no exemplars.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import RunError
from milan_onnx.exemplars import exemplar_masks
from milan_onnx.files import sha256_bytes
from milan_onnx.geometry import Geometry
from milan_onnx.labels import UnitLabel, values
from milan_onnx.labels.thumbnails import encode
from milan_onnx.probe import ProbeSet, frames
from milan_onnx.reporting import display_names, heading, masks_fade, run_geometry, run_probe
from milan_onnx.run import LABELS, MANIFEST, Run, load_run
from milan_onnx.serve.errors import Refusal
from milan_onnx.serve.jobs.places import within
from milan_onnx.wording import normalise

View = Literal["masked", "photo", "mask"]

KEPT = 8
"""Runs held in memory."""
FOUND = "folder-"
"""What ids of runs begin with that the command line wrote."""
DIM = 0.3
"""Brightness of what lies outside the exciting region, as in the report."""
OUTLINE = (255, 221, 120)
QUALITY = 85
DECODING = threading.BoundedSemaphore(4)
"""Photos decoded at once, of all requests: each takes the memory of all its pixels."""
LABELS_BYTES = 256 << 20
"""Labels of a run that is shown, at most."""


@dataclass(frozen=True)
class OpenRun:
    """A run that is being looked at."""

    run: Run
    """What was found."""

    names: Mapping[str, str]
    """What people call each layer, by tensor."""

    words: Sequence[tuple[frozenset[str], ...]]
    """For each label, the words of its description and of each further candidate."""

    facts: Mapping[str, str]
    """What was run on what, for people."""

    warnings: Sequence[str]
    """What to know before trusting its labels."""

    @cached_property
    def probe(self) -> ProbeSet:
        """Its photos. Raises RunError where they have moved or are others."""
        return run_probe(self.run, None)

    def close(self) -> None:
        """Let go of its photos; they are opened again when they are asked for."""
        if "probe" in vars(self):
            self.probe.close()


@dataclass(frozen=True)
class Hit:
    """A label that a search found."""

    label: UnitLabel
    """What is said of the unit."""

    said_by: int
    """Whose words they are: 0 for the description, n for the n-th further candidate."""


class Browser:
    """Reads runs, and keeps the last ones."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], OpenRun] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, folder: Path) -> OpenRun:
        """The run of a folder. Raises RunError where it cannot be read."""
        key = (str(folder), *_stamps(folder))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = _read(folder)
        with self._lock:
            self._kept[key] = found
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)[1].close()
        return found


def _stamps(folder: Path) -> tuple[int, ...]:
    try:
        stats = [(folder / name).stat() for name in (MANIFEST, LABELS)]
    except OSError as error:
        raise RunError(
            f"there is no run in {folder.name}", hint="it may have been moved"
        ) from error
    if stats[1].st_size > LABELS_BYTES:
        raise RunError(
            f"the labels of {folder.name} are larger than {LABELS_BYTES >> 20} MiB",
            hint="look at its report instead",
        )
    return tuple(number for stat in stats for number in (stat.st_mtime_ns, stat.st_size))


def _read(folder: Path) -> OpenRun:
    run = load_run(folder)
    try:
        names, head = display_names(run), heading(run)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"the manifest of {folder.name} is damaged ({type(error).__name__}: {error})",
            hint="describe again, or restore it from a backup",
        ) from error
    words = [
        tuple(frozenset(normalise(text)) for text in said_texts(label)) for label in run.labels
    ]
    return OpenRun(run, names, words, head["facts"], head["warnings"])


def said_texts(label: UnitLabel) -> list[str]:
    """The description, and candidates that say something else, best first."""
    others = [c.description for c in label.candidates if c.description != label.description]
    return [label.description or "", *others]


# --- finding ------------------------------------------------------------------------------------


def layer_of(opened: OpenRun, name: str) -> str:
    """The tensor of a layer called so. Raises Refusal (404)."""
    if name in opened.names:
        return name
    for tensor, shown in opened.names.items():
        if shown == name:
            return tensor
    known = ", ".join(list(opened.names)[:20])
    raise Refusal(404, f"the run has no layer {name[:200]}", hint=f"its layers are {known}")


def search(opened: OpenRun, query: str, layer: str | None) -> list[Hit]:
    """Labels that say every word of a query (plural and spelling folded), best first.

    Those whose description says them come first, then by the rank of the first candidate that does;
    of equals those with the fewer other words, then those that do not abstain, then the higher
    confidence, then the higher PMI, then by layer and unit. Without words all are found, in the
    run's order.
    """
    wanted = frozenset(normalise(query))
    labels = zip(opened.run.labels, opened.words, strict=True)
    asked = [(label, words) for label, words in labels if layer in (None, label.layer)]
    if not wanted:
        return [Hit(label, 0) for label, _ in asked] if not query.strip() else []
    found = []
    for place, (label, texts) in enumerate(asked):
        rank = next((i for i, words in enumerate(texts) if wanted <= words), None)
        if rank is not None:
            pmi = label.pmi if label.pmi is not None else -np.inf
            others, abstained = len(texts[rank] - wanted), "abstained" in label.flags
            sure = label.confidence or 0.0
            found.append(((rank, others, abstained, -sure, -pmi, place), Hit(label, rank)))
    return [hit for _, hit in sorted(found, key=lambda item: item[0])]


def label_of(opened: OpenRun, layer: str, unit: int) -> UnitLabel:
    """What is said of one unit. Raises Refusal (404)."""
    for label in opened.run.labels:
        if (label.layer, label.unit) == (layer, unit):
            return label
    raise Refusal(404, f"{layer} has no unit {unit}", hint="units are counted from 0")


def hit_json(opened: OpenRun, hit: Hit) -> dict[str, Any]:
    """A found label, without candidates and exemplars."""
    whole = values(hit.label)
    keys = ("layer", "unit", "description", "confidence", "pmi", "flags", "validity")
    others = said_texts(hit.label)
    return {
        **{key: whole[key] for key in keys},
        "layer_name": opened.names.get(hit.label.layer, hit.label.layer),
        "said_by": hit.said_by,
        "candidate": others[hit.said_by] if hit.said_by else None,
    }


# --- exemplars ----------------------------------------------------------------------------------


def exemplar_image(
    opened: OpenRun, label: UnitLabel, rank: int, side: int, view: View, folders: Sequence[Path]
) -> tuple[bytes, str]:
    """An exemplar as a file, and its media type: JPEG, or PNG of the mask.

    ``side``: longer side in pixels. ``folders``: where photos may be read from. Raises Refusal
    (404) where there is none, RunError and ProbeError where the photos have changed.
    """
    if not 0 <= rank < len(label.exemplars):
        raise Refusal(404, f"the unit has {len(label.exemplars)} exemplars", hint="count from 0")
    run = opened.run
    geometry = _scaled(run, side)
    if view == "mask":
        return _png(_mask(run, label, rank, geometry.size)), "image/png"
    image = label.exemplars[rank].image
    probe = _photos(opened, folders)
    with DECODING:
        frame = next(frame for _, frame in frames(probe, [image], geometry, workers=1))
    if view == "photo":
        return encode(frame, QUALITY), "image/jpeg"
    shown = _dimmed(frame, _mask(run, label, rank, geometry.size))
    return encode(shown, QUALITY), "image/jpeg"


def image_tag(opened: OpenRun, label: UnitLabel, *what: object) -> str:
    """What is another one wherever the image may be another."""
    model = opened.run.manifest["model"]["sha256"]
    photos = opened.run.manifest["probe"]["sha256"]
    whole = (model, photos, label.layer, label.unit, label.threshold, *what)
    return f'"{sha256_bytes(repr(whole).encode())[:32]}"'


def _scaled(run: Run, side: int) -> Geometry:
    geometry = run_geometry(run)
    height, width = geometry.size
    scale = side / max(height, width)
    return geometry.scaled(max(1, round(height * scale)), max(1, round(width * scale)))


def _photos(opened: OpenRun, folders: Sequence[Path]) -> ProbeSet:
    """A run's photos, where they may be shown. Raises Refusal (404)."""
    environment = opened.run.manifest["environment"]
    if "generator" in environment:
        raise Refusal(
            404,
            "the photos of this run are made by its model, which is not run here",
            hint="look at the run's report",
        )
    source = str(environment["images"])
    if not source.startswith("synthetic:") and not within(Path(source), folders):
        raise Refusal(
            404,
            "the photos of this run are not in an allowed folder",
            hint="look at its report, or start the service with --allow and their folder",
        )
    return opened.probe


def _mask(run: Run, label: UnitLabel, rank: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    layer = run.layer(label.layer)
    level = layer.thresholds[label.unit : label.unit + 1]
    maps = np.asarray(layer.maps[label.unit, rank])[None]
    masks = exemplar_masks(maps, level, *size, fade=masks_fade(run))
    return np.asarray(masks[0], dtype=np.bool_)


def _dimmed(frame: NDArray[np.uint8], region: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A frame (H, W, 3) whose region (H, W) is bright and has an outline, the rest dim."""
    around = np.pad(region, 1, mode="edge")
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    dim = (frame * np.float32(DIM)).astype(np.uint8)
    shown = np.where(region[:, :, None], frame, dim)
    shown[region & ~inner] = OUTLINE
    return np.asarray(shown, dtype=np.uint8)


def _png(mask: NDArray[np.bool_]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


# --- runs of the command line -------------------------------------------------------------------


def found_id(folder: Path) -> str:
    """The id of a run that lies in an allowed folder."""
    return (
        FOUND
        + hashlib.sha256(str(folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    )


def found_runs(entries: Iterable[Path]) -> dict[str, Path]:
    """Runs among some paths, by id."""
    folders = (path.parent for path in entries if path.name == MANIFEST)
    return {found_id(folder): folder for folder in folders if (folder / LABELS).is_file()}
