"""A run: what `describe` found, in memory and as a folder that every other command reads.

    manifest.json       what was run on what: content hashes, options, versions, choices
    labels.jsonl        a line a unit (see `milan_onnx.labels`)
    exemplars/          the store (see `milan_onnx.exemplars.store`)
    report.html         unless it was not wanted
    milan/              the exemplars in the paper's format, where they were wanted

The labels and the store hold nothing that varies between equal runs. What does (paths, device,
versions) is in the manifest under ``environment``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milan_onnx.errors import RunError
from milan_onnx.exemplars import LayerExemplars, load_layers, save_layers
from milan_onnx.files import write_json
from milan_onnx.labels import UnitLabel, read_jsonl, write_jsonl

FORMAT = "milan-onnx-run"
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
LABELS = "labels.jsonl"
STORE = "exemplars"
REPORT = "report.html"
MILAN_FORMAT = "milan"


@dataclass(frozen=True)
class Run:
    """What was found about the units of one model."""

    manifest: Mapping[str, Any]
    """What was run on what."""

    labels: tuple[UnitLabel, ...]
    """A label a unit, in the order of layers and units."""

    layers: tuple[LayerExemplars, ...]
    """The exemplars of each layer."""

    path: Path | None = None
    """The folder, where it was written to or read from one."""

    def layer(self, name: str) -> LayerExemplars:
        """The exemplars of a layer by tensor name. Raises RunError when it is not in the run."""
        for layer in self.layers:
            if layer.layer == name:
                return layer
        names = ", ".join(layer.layer for layer in self.layers)
        raise RunError(f"the run has no layer {name}", hint=f"its layers are {names}")


def load_run(path: str | Path) -> Run:
    """Read a run folder. Raises RunError naming what is missing, damaged or too new."""
    path = Path(path)
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise RunError(
            f"{path} is not a run: it has no {MANIFEST}",
            hint="give the folder that `milan-onnx describe --out` wrote",
        )
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
        kind, version = manifest["format"], manifest["format_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{manifest_path} is damaged: {error}", hint="describe again") from error
    if (kind, version) != (FORMAT, FORMAT_VERSION):
        raise RunError(
            f"{manifest_path} has format {kind} {version}, not {FORMAT} {FORMAT_VERSION}",
            hint="use the milan-onnx that wrote it, or describe again",
        )
    layers = load_layers(path / STORE)
    labels = read_jsonl(path / LABELS)
    _check_labels(path / LABELS, labels, layers)
    return Run(manifest, tuple(labels), tuple(layers), path)


def _check_labels(
    path: Path, labels: Sequence[UnitLabel], layers: Sequence[LayerExemplars]
) -> None:
    """Every label must be of a unit whose exemplars are there."""
    sizes = {layer.layer: layer.ids.shape for layer in layers}
    for label in labels:
        units, exemplars = sizes.get(label.layer, (0, 0))
        if label.unit >= units or len(label.exemplars) > exemplars:
            raise RunError(
                f"{path} labels unit {label.unit} of {label.layer}, whose exemplars are not there",
                hint="describe again, or restore the run from a backup",
            )
    total = sum(units for units, _ in sizes.values())
    if len(labels) != total:
        raise RunError(
            f"{path} is cut short: it labels {len(labels)} of {total} units",
            hint="describe again, or restore the run from a backup",
        )


def save_run(folder: Path, run: Run) -> None:
    """Write manifest, labels and store into an existing folder."""
    save_layers(folder / STORE, run.layers)
    write_jsonl(folder / LABELS, run.labels, layers=[layer.layer for layer in run.layers])
    write_json(folder / MANIFEST, run.manifest)
