"""What is where in the folder of a job."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from milan_onnx.run import MANIFEST

REQUEST = "request.json"
OUTCOME = "outcome.json"
EVENTS = "events.jsonl"
LOG = "log.txt"
RUN = "run"
UPLOAD = "upload"
PHOTOS = "photos.zip"

LONGEST_NAME = 100


def upload_name(given: str) -> str:
    """The file name that an uploaded model is kept under, made of the one it was sent with."""
    stem = re.split(r"[/\\]", given)[-1].removesuffix(".onnx")
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:LONGEST_NAME]
    return f"{safe or 'model'}.onnx"


def model_of(folder: Path, request: Mapping[str, Any]) -> tuple[Path, bool]:
    """The model of a job's request, and whether it was uploaded."""
    uploaded = request["uploaded_model"]
    return (folder / UPLOAD / uploaded, True) if uploaded else (Path(request["model"]), False)


def is_run(folder: Path) -> bool:
    """Whether a job's folder holds its whole run."""
    return (folder / RUN / MANIFEST).is_file()


def drop_leftovers(folder: Path) -> None:
    """Delete what killed workers left beside the run."""
    for place in folder.glob(f".{RUN}*"):
        shutil.rmtree(place, ignore_errors=True)


def drop_run(folder: Path) -> None:
    """Delete what there is of a run that will not be finished, and what was uploaded for it."""
    drop_leftovers(folder)
    for place in (folder / RUN, folder / UPLOAD):
        shutil.rmtree(place, ignore_errors=True)
    (folder / PHOTOS).unlink(missing_ok=True)
