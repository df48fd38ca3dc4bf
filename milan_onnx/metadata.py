"""Labels inside the model's own file: in the ``metadata_props`` of a copy, and read from there.

    milan_onnx                   JSON: what made the labels (hashes, versions), and which layers
    milan_onnx.labels.TENSOR     JSON: a list with an object a unit, in order

Programs that run the model pass over such entries, so it computes what it did. Whoever has the file
has the labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milan_onnx.errors import SubjectError, UsageError
from milan_onnx.files import sha256_bytes, sha256_file, write_bytes
from milan_onnx.labels import UnitLabel, to_json, values
from milan_onnx.run import Run
from milan_onnx.subject import Subject, parse_model

LABELLED = "labelled.onnx"
FORMAT_VERSION = 1
PROVENANCE = "milan_onnx"
LABELS = "milan_onnx.labels."
KEPT = ("unit", "description", "confidence", "pmi", "flags", "validity")
"""Of a label, what goes into the model; exemplars are of no use without the photos."""


@dataclass(frozen=True)
class ModelLabels:
    """The labels that a model file holds."""

    provenance: Mapping[str, Any]
    """What made them."""

    layers: Mapping[str, tuple[Mapping[str, Any], ...]]
    """By tensor, for each unit what `KEPT` names."""


def check_place(subject: Subject, path: Path) -> None:
    """Raise UsageError where a labelled copy may not be written.

    It never replaces the model, and stays beside its weights where those are in other files.
    """
    if path.resolve() == subject.path.resolve():
        raise UsageError(
            f"{path} is the model itself, which is not changed", hint="give another --metadata-out"
        )
    folder = subject.external_folder
    if folder is not None and path.resolve().parent != folder:
        beside = subject.path.with_name(f"{subject.path.stem}-{LABELLED}")
        raise UsageError(
            f"{subject.path} keeps weights in other files, and a copy finds them only beside it",
            hint=f"use --metadata-out {beside}",
        )


def write_labelled(path: Path, subject: Subject, run: Run) -> None:
    """Write a copy of a run's model that holds its labels; atomically.

    Raises SubjectError where the file has changed since it was described or cannot be read.
    """
    model = parse_model(subject.path)
    if subject.external_folder is None and sha256_file(subject.path) != subject.sha256:
        raise SubjectError(f"{subject.path} has changed meanwhile", hint="describe it again")
    others = [(p.key, p.value) for p in model.metadata_props if not _ours(p.key)]
    del model.metadata_props[:]
    for key, value in (*others, *_entries(run)):
        model.metadata_props.add(key=key, value=value)
    write_bytes(path, model.SerializeToString(deterministic=True))


def labels_from_metadata(path: str | Path) -> ModelLabels:
    """The labels in a model file. Raises SubjectError where it holds none, or damaged ones."""
    path = Path(path)
    held = {p.key: p.value for p in parse_model(path).metadata_props if _ours(p.key)}
    if PROVENANCE not in held:
        raise SubjectError(
            f"{path} holds no labels", hint="`milan-onnx describe --write-metadata` writes them"
        )
    try:
        provenance = dict(json.loads(held[PROVENANCE]))
        if provenance["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format version {provenance['format_version']}")
        layers = {name: tuple(json.loads(held[LABELS + name])) for name in provenance["layers"]}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise SubjectError(
            f"the labels in {path} are damaged: {error}", hint="describe the model again"
        ) from error
    return ModelLabels(provenance, layers)


def _entries(run: Run) -> Iterable[tuple[str, str]]:
    manifest = run.manifest
    names = [layer.layer for layer in run.layers]
    lines = "".join(to_json(label) + "\n" for label in run.labels)
    provenance = {
        "format_version": FORMAT_VERSION,
        "milan_onnx": manifest["milan_onnx"],
        "model": manifest["model"]["sha256"],
        "bundle": manifest["bundle"],
        "images": {key: manifest["probe"][key] for key in ("usable", "sha256")},
        "labels": sha256_bytes(lines.encode("ascii")),
        "layers": names,
    }
    yield PROVENANCE, _json(provenance)
    for name in names:
        labels = [_kept(label) for label in run.labels if label.layer == name]
        yield LABELS + name, _json(labels)


def _kept(label: UnitLabel) -> dict[str, Any]:
    everything = values(label)
    return {key: everything[key] for key in KEPT}


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _ours(key: str) -> bool:
    return key == PROVENANCE or key.startswith(LABELS)
