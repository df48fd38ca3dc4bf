"""What a run was made with, opened again: layers by name, captioner, features of exemplars.

The applications start from a run. Those that ask more of its exemplars than its labels say (other
searches, phrases that no label holds) need the photos and the captioner again, and refuse others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from milan_onnx.bundle import MANIFEST, Bundle, SearchDefaults, load_bundle
from milan_onnx.errors import BundleError, RunError, UsageError
from milan_onnx.exemplars import LayerExemplars, exemplar_masks
from milan_onnx.labels import UnitLabel
from milan_onnx.probe import ProbeSet, frames
from milan_onnx.progress import Reporter
from milan_onnx.reporting import display_names, masks_fade, run_geometry
from milan_onnx.run import Run
from milan_onnx.runtime import Encoder
from milan_onnx.runtime.encoding import Floats, Use, encode
from milan_onnx.subject import Layer, Preprocessing, Subject, load, resolve


@dataclass(frozen=True)
class Place:
    """A layer of a run."""

    tensor: str
    """Its tensor."""

    names: tuple[str, ...]
    """What it may be called: tensor, node, module."""

    units: int
    """How many units it has."""


def check_manifest(run: Run) -> None:
    """Raise RunError where the manifest lacks what the applications read of it."""
    manifest = run.manifest
    try:
        run_geometry(run)
        Path(manifest["environment"]["bundle_path"])
        search_settings(run)
        facts = [*display_names(run)]
        facts += [manifest["bundle"]["sha256"], manifest["probe"]["sha256"]]
        facts += [manifest["model"]["name"], manifest["model"]["sha256"], *display_names(run)]
        dict(manifest["options"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"the manifest of the run {run.path or ''} is damaged "
            f"({type(error).__name__}: {error})",
            hint="describe again, or restore it from a backup",
        ) from error


def run_places(run: Run) -> list[Place]:
    """The layers of a run, and what they may be called."""
    facts: dict[str, tuple[str, ...]] = {}
    for layer in run.manifest.get("layers", ()):
        names = (layer.get(key) for key in ("tensor", "node", "module"))
        facts[layer["tensor"]] = tuple(dict.fromkeys(str(name) for name in names if name))
    return [Place(x.layer, facts.get(x.layer, (x.layer,)), x.units) for x in run.layers]


def choose_places(places: Sequence[Place], layers: Sequence[str]) -> list[Place]:
    """Those of some names; no names: all. Raises UsageError for a name of none, or of several."""
    if not layers:
        return list(places)
    chosen = []
    for name in layers:
        found = [place for place in places if name in place.names]
        if len(found) != 1:
            known = ", ".join(place.tensor for place in places)
            what = "no layer" if not found else "several layers called"
            raise UsageError(f"the run has {what} {name}", hint=f"its layers are {known}")
        chosen += found
    return list(dict.fromkeys(chosen))


def run_bundle(run: Run, given: Path | None) -> Bundle:
    """The captioner that made the run; ``given``: where it is, if it has moved.

    Raises BundleError where it is gone or another one.
    """
    wanted = run.manifest["bundle"]["sha256"]
    recorded = Path(run.manifest["environment"]["bundle_path"])
    for place in [given] if given else [recorded, None]:
        if place is not None and place is not given and not (place / MANIFEST).is_file():
            continue
        bundle = load_bundle(place)
        if bundle.sha256 == wanted:
            return bundle
        if given:
            raise BundleError(
                f"{given} is not the captioner of this run ({wanted[:12]})",
                hint="give the one it was made with",
            )
    raise BundleError(
        f"the captioner of this run ({wanted[:12]}) is not at {recorded}",
        hint="say where it is with --bundle",
    )


def search_settings(run: Run) -> SearchDefaults:
    """How the run's descriptions were searched. Raises RunError where the manifest has others."""
    value = dict(run.manifest["search"])
    try:
        return SearchDefaults(**(value | {"forbid": tuple(value["forbid"])}))
    except (KeyError, TypeError) as error:
        raise RunError(
            f"the manifest of the run has other search settings ({error})",
            hint="use the milan-onnx that wrote it",
        ) from error


def exemplar_features(
    run: Run,
    labels: Sequence[UnitLabel],
    probe: ProbeSet,
    encoder: Encoder,
    workers: int,
    say: Reporter,
) -> list[Floats]:
    """Features float32 (K, F) of some units' exemplars, from the run's photos (`run_probe`).

    ``workers``: batches of photos under way at once. Raises ProbeError for an unreadable photo.
    """
    size, view, fade = encoder.image_size, run_geometry(run), masks_fade(run)
    layers = {layer.layer: layer for layer in run.layers}
    uses: dict[int, list[Use]] = defaultdict(list)
    for place, label in enumerate(labels):
        for rank, image in enumerate(layers[label.layer].ids[label.unit].tolist()):
            uses[image].append((place, rank))

    def masks(some: Sequence[Use]) -> NDArray[np.bool_]:
        found = [
            _mask(layers[labels[u].layer], labels[u].unit, rank, size, fade) for u, rank in some
        ]
        return np.stack(found)

    exemplars = [layers[label.layer].ids.shape[1] for label in labels]
    photos = frames(probe, sorted(uses), view.scaled(size, size), workers=workers)
    return encode(photos, uses, masks, exemplars, encoder, workers, say)


def _mask(layer: LayerExemplars, unit: int, rank: int, size: int, fade: bool) -> NDArray[np.bool_]:
    level = layer.thresholds[unit : unit + 1]
    masks = exemplar_masks(np.asarray(layer.maps[unit, rank])[None], level, size, size, fade=fade)
    return np.asarray(masks[0], dtype=np.bool_)


def run_subject(run: Run, model: Path | None = None) -> Subject:
    """The model of a run; ``model``: its file, if it has moved.

    Raises RunError where it is gone, another one (by its hash), or a generator.
    """
    environment = run.manifest["environment"]
    if "generator" in environment or run.manifest["probe"].get("from_exemplars"):
        raise RunError(
            "units of this run cannot be ablated: its model is not a classifier of photos",
            hint="use a run of a model that takes photos",
        )
    path = model or Path(environment["model_path"])
    if not path.exists():
        raise RunError(f"the model of this run is not at {path}", hint="say where it is")
    subject = load(path, fixed_inputs=run.manifest["options"]["inputs"])
    wanted = run.manifest["model"]["sha256"]
    if subject.sha256 != wanted:
        raise RunError(
            f"{path} is not the model of this run: its hash is {subject.sha256[:12]}, the run's "
            f"{wanted[:12]}",
            hint="give the model that was described, or describe this one",
        )
    return subject


def run_preprocessing(run: Run) -> Preprocessing:
    """How the run's photos became the model's input."""
    value = run.manifest["preprocessing"]
    return Preprocessing(
        geometry=run_geometry(run),
        rescale=value["rescale"],
        mean=tuple(value["mean"]),
        std=tuple(value["std"]),
        channel_order=value["channel_order"],
    )


def run_layer(run: Run, subject: Subject, tensor: str) -> Layer:
    """A layer of the run in its model, read as the run read it."""
    layout = run.manifest["options"].get("layout")
    return resolve(subject, f"tensor:{tensor}", layout=layout).layer
