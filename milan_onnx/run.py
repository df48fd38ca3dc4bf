"""A run: what `describe` found, in memory and as a folder that every other command reads.

    manifest.json       what was run on what: content hashes, options, versions, choices
    labels.jsonl        a line a unit (see `milan_onnx.labels`)
    exemplars/          the store (see `milan_onnx.exemplars.store`)
    report.html         unless it was not wanted

The labels and the store hold nothing that varies between equal runs. What does (paths, device,
versions) is in the manifest under ``environment``.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milan_onnx.errors import RunError, UsageError
from milan_onnx.exemplars import LayerExemplars, load_layers, save_layers
from milan_onnx.files import open_up, unwritable, write_json
from milan_onnx.labels import UnitLabel, read_jsonl, write_jsonl

FORMAT = "milan-onnx-run"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
LABELS = "labels.jsonl"
STORE = "exemplars"
REPORT = "report.html"


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


@contextmanager
def staged_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder beside ``out`` that takes its name when the block ends well, and is gone otherwise.

    It is made at once, so that an unwritable place is found before the work and not after it.
    Raises UsageError when ``out`` is there and may not be replaced, OutputUnwritable when it
    cannot be made. A link is followed: the run goes where it leads.
    """
    out = _real(out)
    _check_free(out, overwrite)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.partial-"))
    except OSError as error:
        raise unwritable(out, error) from error
    try:
        yield staged
        _check_free(out, overwrite)  # another process may have been faster
        _publish(staged, out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _real(out: Path) -> Path:
    """The place itself, that can be renamed. Raises UsageError for one that can not."""
    try:
        real = out.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise UsageError(
            f"{out} is a link that leads nowhere", hint="give another --out"
        ) from error
    if real == Path.cwd() or real.is_mount():
        what = "the current folder" if real == Path.cwd() else "a mounted disk"
        raise UsageError(
            f"{out} is {what}, which a run cannot replace", hint=f"use --out {out / 'run'}"
        )
    return real


def _check_free(out: Path, overwrite: bool) -> None:
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file, not a folder", hint="give another --out")
    if (out / MANIFEST).is_file():
        if not overwrite:
            raise UsageError(
                f"{out} already holds a run", hint="give another --out, or --overwrite"
            )
    elif any(out.iterdir()):
        raise UsageError(f"{out} is not empty and not a run", hint="give another --out")


def _publish(staged: Path, out: Path) -> None:
    open_up(staged, 0o777)
    try:
        if out.exists():
            _replace(staged, out)
        else:
            staged.rename(out)
    except OSError as error:
        raise unwritable(out, error) from error


def _replace(staged: Path, out: Path) -> None:
    """Put a folder in the place of another, which stays if that fails."""
    retired = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.old-"))
    try:
        out.rename(retired / out.name)
        try:
            staged.rename(out)
        except OSError:
            (retired / out.name).rename(out)
            raise
    finally:
        shutil.rmtree(retired, ignore_errors=True)
