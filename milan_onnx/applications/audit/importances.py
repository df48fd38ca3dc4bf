"""How important each unit is, read from a file: CSV with the columns layer, unit and importance, or
JSON, a list of objects with these keys."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from milan_onnx.applications.reopened import Place
from milan_onnx.errors import BadInput

COLUMNS = ("layer", "unit", "importance")
Importances = Mapping[tuple[str, int], float]
"""By tensor and channel."""


def read_importances(path: Path, places: Sequence[Place]) -> dict[tuple[str, int], float]:
    """Importances from a file, for the layers of ``places``; rows of other layers are left out.

    Layers may be called by tensor, node or module. Raises BadInput naming the first bad row.
    """
    tensors = {name: place.tensor for place in places for name in place.names}
    found: dict[tuple[str, int], float] = {}
    for number, row in enumerate(_rows(path), 1):
        where = f"row {number} of {path}"
        layer, unit, importance = _values(row, where)
        if layer not in tensors:
            continue
        key = (tensors[layer], unit)
        if key in found:
            raise BadInput(f"{where} is of unit {unit} of {layer}, as one before", hint="mend it")
        found[key] = importance
    if not found:
        known = ", ".join(place.tensor for place in places)
        raise BadInput(f"{path} has no unit of the run's layers", hint=f"they are {known}")
    return found


def _rows(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BadInput(f"cannot read {path}: {reason}", hint="check --importance") from error
    if not text.lstrip().startswith("["):
        return csv.DictReader(text.splitlines())
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {error}", hint="mend it") from error
    return [row if isinstance(row, dict) else {} for row in rows]


def _values(row: Mapping[str, Any], where: str) -> tuple[str, int, float]:
    try:
        layer, unit, importance = (row[name] for name in COLUMNS)
        value = float(importance)
        if not math.isfinite(value):
            raise ValueError("an importance that is no number")
        return str(layer), int(unit), value
    except (KeyError, TypeError, ValueError) as error:
        missing = f"has no {error}" if isinstance(error, KeyError) else f"is damaged: {error}"
        raise BadInput(
            f"{where} {missing}", hint=f"columns are {', '.join(COLUMNS)}, a row a unit"
        ) from error
