"""The edited model on disk, with what was done to it in its metadata; and the way back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milan_onnx import __version__
from milan_onnx.errors import SubjectError, UsageError
from milan_onnx.files import sha256_bytes, unwritable, write_bytes
from milan_onnx.subject import Ablation, Subject, ablated, external_files, load, restored
from milan_onnx.subject.model import all_tensors

if TYPE_CHECKING:
    from onnx import ModelProto

KEY = "milan_onnx.edits"
"""Metadata property of a model: a JSON list of edits, oldest first."""
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Undone:
    """A model whose edits were taken back."""

    path: Path
    """Where it was written."""

    layers: int
    """Layers that were edited."""

    same: bool
    """Whether it is the original to the byte."""


def write_edited(
    path: Path,
    subject: Subject,
    ablations: Sequence[Ablation],
    facts: Mapping[str, Any],
    *,
    overwrite: bool,
) -> None:
    """Write the subject with units ablated, and ``facts`` on them as JSON in its metadata.

    External weights are copied beside it. Raises UsageError where the file is there already or is
    the subject itself, SubjectError where the result is no valid model.
    """
    check_place(path, subject.path, overwrite)
    model = ablated(subject, ablations)
    edit = {
        "format_version": FORMAT_VERSION,
        "milan_onnx": __version__,
        "model": {"name": subject.path.name, "sha256": subject.sha256},
        **facts,
    }
    _set_edits(model, [*edits_of(subject.metadata), edit])
    _check(model, path)
    _copy_external(subject, path)
    write_bytes(path, model.SerializeToString())


def undo(source: Path, path: Path, *, overwrite: bool = False) -> Undone:
    """Write an edited model as it was before its first edit.

    Raises SubjectError where it was never edited here, UsageError where the file is there already.
    """
    import onnx

    check_place(path, source, overwrite)
    subject = load(source)
    edits = edits_of(subject.metadata)
    if not edits:
        raise SubjectError(
            f"{source} was not edited by milan-onnx", hint="there is nothing to undo"
        )
    model = onnx.ModelProto()
    model.CopyFrom(subject.model)
    layers = restored(model)
    _set_edits(model, [])
    data = model.SerializeToString()
    _copy_external(subject, path)
    write_bytes(path, data)
    return Undone(path, layers, sha256_bytes(data) == edits[0]["model"]["sha256"])


def edits_of(metadata: Mapping[str, str]) -> list[dict[str, Any]]:
    """The edits of a model, oldest first. Raises SubjectError where the record is damaged."""
    try:
        edits = json.loads(metadata.get(KEY, "[]"))
        [edit["model"]["sha256"] for edit in edits]
    except (ValueError, KeyError, TypeError) as error:
        raise SubjectError(
            f"the model's record of edits ({KEY}) is damaged", hint="use the original model"
        ) from error
    return list(edits)


def check_place(path: Path, source: Path, overwrite: bool) -> None:
    """Refuse to write over the model that is read, or over any file unasked."""
    if path.exists() and source.exists() and path.samefile(source):
        raise UsageError(f"{path} is the model itself", hint="give another --out")
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="give a file name with --out")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is already there", hint="give another --out, or --overwrite")


def _set_edits(model: ModelProto, edits: Sequence[Mapping[str, Any]]) -> None:
    others = [entry for entry in model.metadata_props if entry.key != KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(others)
    if edits:
        text = json.dumps(edits, sort_keys=True, ensure_ascii=True)
        model.metadata_props.add(key=KEY, value=text)


def _check(model: ModelProto, path: Path) -> None:
    """Raise SubjectError where the edited model is not valid."""
    import onnx

    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model)
    for tensor in all_tensors(skeleton):
        if tensor.data_location == tensor.EXTERNAL:  # not there yet, and as it was in the original
            del tensor.external_data[:]
            tensor.data_location, tensor.raw_data = tensor.DEFAULT, b""
            tensor.dims[:] = [0]
    try:
        onnx.checker.check_model(skeleton)
    except onnx.checker.ValidationError as error:
        line = str(error).strip().splitlines()[0]
        raise SubjectError(
            f"the model is not valid ONNX, so {path} was not written: {line}",
            hint="check it with onnx.checker, export it again",
        ) from error


def _copy_external(subject: Subject, path: Path) -> None:
    """Put external weights beside the new file."""
    folder = path.resolve().parent
    if subject.external_folder in (None, folder):
        return
    for source in external_files(subject):
        place = folder / source.relative_to(subject.external_folder or folder)
        if place.exists():
            raise UsageError(
                f"{place} is in the way of the model's external weights",
                hint="write into another folder",
            )
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
        except OSError as error:
            raise unwritable(place, error) from error
