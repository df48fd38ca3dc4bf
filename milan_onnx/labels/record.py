"""The label record: what is said of one unit, one canonical JSON line each.

Equal runs give equal bytes, so a line holds nothing that varies between them (no times, no paths)
and numbers are rounded before they are written:

    scores (pmi, log_p_given_exemplars, log_p)   4 decimals
    confidence, figures of validity              4 decimals
    activations and thresholds                   6 significant digits

A rounded zero is written 0.0, never -0.0; a number that is not finite is written null, which reads
back as None where a score may be absent and as nan elsewhere. Keys are sorted, nothing is padded
and all text is ASCII (others as ``\\uXXXX``), so a name with line separators or undecodable bytes
still takes one line.

``schema_version`` rises when a key changes its meaning. Readers ignore keys and keep flags that
they do not know, so later versions may add some. docs/label.schema.json describes a line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milan_onnx import files
from milan_onnx.errors import RunError

SCHEMA_VERSION = 1
FLAGS = ("abstained", "constant", "dead", "saturated", "sparse")
CSV_COLUMNS = (
    "layer",
    "unit",
    "description",
    "confidence",
    "pmi",
    "log_p_given_exemplars",
    "log_p",
    "threshold",
    "flags",
    "correlation",
    "shuffled_correlation",
    "auprc",
    "shuffled_auprc",
)


@dataclass(frozen=True)
class Exemplar:
    """A photo that excites a unit."""

    image: int
    """Position in the probe set's listing."""

    name: str
    """Name in the probe set, for people."""

    activation: float
    """The unit's largest activation on it."""


@dataclass(frozen=True)
class Candidate:
    """A description that the search finished, with its scores (natural logarithms)."""

    description: str
    """The words."""

    pmi: float
    """log p(d|E) - λ log p(d)."""

    log_p_given_exemplars: float
    """log p(d|E), of the captioner."""

    log_p: float
    """log p(d), of the language model."""

    confidence: float | None = None
    """Probability that a person would call it right, 0..1; None: not calibrated."""


@dataclass(frozen=True)
class Validity:
    """How well a label predicts its unit's activation on photos that it was not made from."""

    correlation: float | None
    """Pearson's, of log p(d|region) and activation; None where either does not vary."""

    auprc: float | None
    """Average precision of log p(d|region) for the unit's most active photos among random ones."""

    shuffled_correlation: float | None
    """Mean correlation of labels of other units of the layer; None where there are none."""

    shuffled_auprc: float | None
    """Mean average precision of the same."""

    images: int
    """Held-out photos that it was put to the test on."""


@dataclass(frozen=True)
class UnitLabel:
    """What is said of one unit."""

    model: str
    """Hexadecimal SHA-256 of the model file."""

    layer: str
    """Name of the tensor whose channel it is."""

    unit: int
    """Index of the channel."""

    description: str | None
    """The best candidate; None where there is nothing to describe (dead, constant)."""

    pmi: float | None
    """Its log p(d|E) - λ log p(d)."""

    log_p_given_exemplars: float | None
    """Its log p(d|E)."""

    log_p: float | None
    """Its log p(d)."""

    candidates: tuple[Candidate, ...]
    """The n-best, best first."""

    exemplars: tuple[Exemplar, ...]
    """The photos that excite it most, best first."""

    threshold: float
    """Activation above which a position belongs to the exciting region."""

    flags: tuple[str, ...] = ()
    """Sorted; of 'abstained', 'constant', 'dead', 'saturated', 'sparse'."""

    validity: Validity | None = None
    """Its test on held-out photos; None where none was made."""

    confidence: float | None = None
    """Probability that a person would call the description right, 0..1 (docs/confidence.md); None
    where there is no description, or the bundle has no calibration."""


def rounded_score(value: float | None) -> float | None:
    """A score as it is written: 4 decimals; None where absent or not finite."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), 4) + 0.0  # -0.0 + 0.0 is 0.0


def rounded_activation(value: float) -> float | None:
    """An activation or threshold as it is written: 6 significant digits; None if not finite."""
    if not math.isfinite(value):
        return None
    return float(f"{float(value):.6g}") + 0.0


def values(label: UnitLabel) -> dict[str, Any]:
    """A label as it is written: plain values, its numbers rounded."""
    return {
        "schema_version": SCHEMA_VERSION,
        "model": label.model,
        "layer": label.layer,
        "unit": int(label.unit),
        "description": label.description,
        **_scores(label),
        "candidates": [{"description": c.description, **_scores(c)} for c in label.candidates],
        "exemplars": [_exemplar_json(e) for e in label.exemplars],
        "threshold": rounded_activation(label.threshold),
        "flags": sorted(label.flags),
        "validity": None if label.validity is None else _validity_json(label.validity),
    }


def to_json(label: UnitLabel) -> str:
    """The canonical line of a label, without the line end."""
    return json.dumps(values(label), sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_json(line: str, *, number: int = 1, source: str = "labels.jsonl") -> UnitLabel:
    """The label of a line. Raises RunError naming the line where it is damaged or too new."""
    where = f"{source} line {number}"
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _damaged(where, f"is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _damaged(where, "is not a JSON object")
    _check_version(value, where)
    try:
        return _label(value)
    except KeyError as error:
        raise _damaged(where, f"has no {error.args[0]}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise _damaged(where, f"is not a label: {error}") from error


def in_order(labels: Iterable[UnitLabel], layers: Sequence[str] = ()) -> list[UnitLabel]:
    """Labels by layer, as ``layers`` orders them (others after, as they first appear), and unit."""
    everything = list(labels)
    names = dict.fromkeys([*layers, *(label.layer for label in everything)])
    order = {name: position for position, name in enumerate(names)}
    return sorted(everything, key=lambda label: (order[label.layer], label.unit))


def write_jsonl(path: Path, labels: Iterable[UnitLabel], layers: Sequence[str] = ()) -> None:
    """Write labels, one canonical line each, in the order of `in_order`; atomically."""
    with files.atomic_file(path) as file:
        for label in in_order(labels, layers):
            file.write(to_json(label).encode("ascii") + b"\n")


def read_jsonl(path: Path) -> list[UnitLabel]:
    """Read a label file, in its order. Raises RunError naming the first bad line."""
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise RunError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        raise _damaged(f"{path} line {number}", "is not UTF-8") from error
    labels: list[UnitLabel] = []
    seen: dict[tuple[str, int], int] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
        label = from_json(line, number=number, source=str(path))
        first = seen.setdefault((label.layer, label.unit), number)
        if first != number:
            raise _damaged(f"{path} line {number}", f"labels the same unit as line {first}")
        labels.append(label)
    return labels


def write_csv(path: Path, labels: Iterable[UnitLabel], layers: Sequence[str] = ()) -> None:
    """Write a table for spreadsheets, one row a unit, in the order of `in_order`; atomically."""
    files.write_csv(path, CSV_COLUMNS, map(_csv_row, in_order(labels, layers)))


def _csv_row(label: UnitLabel) -> list[object]:
    scores = (label.confidence, label.pmi, label.log_p_given_exemplars, label.log_p)
    return [
        label.layer,
        int(label.unit),
        label.description,
        *map(rounded_score, scores),
        rounded_activation(label.threshold),
        " ".join(sorted(label.flags)),
        *_csv_validity(label.validity),
    ]


def _csv_validity(validity: Validity | None) -> list[float | None]:
    figures = {} if validity is None else _validity_json(validity)
    return [figures.get(name) for name in CSV_COLUMNS[-4:]]


def _scores(scored: Candidate | UnitLabel) -> dict[str, float | None]:
    return {
        "confidence": rounded_score(scored.confidence),
        "pmi": rounded_score(scored.pmi),
        "log_p_given_exemplars": rounded_score(scored.log_p_given_exemplars),
        "log_p": rounded_score(scored.log_p),
    }


def _validity_json(validity: Validity) -> dict[str, float | None]:
    return {
        "correlation": rounded_score(validity.correlation),
        "auprc": rounded_score(validity.auprc),
        "shuffled_correlation": rounded_score(validity.shuffled_correlation),
        "shuffled_auprc": rounded_score(validity.shuffled_auprc),
        "images": int(validity.images),
    }


def _exemplar_json(exemplar: Exemplar) -> dict[str, object]:
    activation = rounded_activation(exemplar.activation)
    return {"image": int(exemplar.image), "name": exemplar.name, "activation": activation}


def _check_version(value: Mapping[str, Any], where: str) -> None:
    version = value.get("schema_version")
    if version == SCHEMA_VERSION and not isinstance(version, bool):
        return
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise RunError(
            f"{where} has schema version {version}, this program reads version {SCHEMA_VERSION}",
            hint="upgrade milan-onnx",
        )
    raise _damaged(where, f"has schema version {version!r}")


def _label(value: Mapping[str, Any]) -> UnitLabel:
    description = value["description"]
    return UnitLabel(
        model=_text(value["model"], "model"),
        layer=_text(value["layer"], "layer"),
        unit=_index(value["unit"], "unit"),
        description=None if description is None else _text(description, "description"),
        pmi=_score(value["pmi"], "pmi"),
        log_p_given_exemplars=_score(value["log_p_given_exemplars"], "log_p_given_exemplars"),
        log_p=_score(value["log_p"], "log_p"),
        candidates=tuple(_candidate(c) for c in _items(value["candidates"], "candidates")),
        exemplars=tuple(_exemplar(e) for e in _items(value["exemplars"], "exemplars")),
        threshold=_number(value["threshold"], "threshold"),
        flags=tuple(sorted(_text(f, "flags") for f in _items(value["flags"], "flags"))),
        validity=_validity(value.get("validity")),
        confidence=_probability(value.get("confidence"), "confidence"),
    )


def _validity(value: Mapping[str, Any] | None) -> Validity | None:
    if value is None:
        return None
    return Validity(
        correlation=_score(value["correlation"], "correlation"),
        auprc=_score(value["auprc"], "auprc"),
        shuffled_correlation=_score(value["shuffled_correlation"], "shuffled_correlation"),
        shuffled_auprc=_score(value["shuffled_auprc"], "shuffled_auprc"),
        images=_index(value["images"], "images"),
    )


def _candidate(value: Mapping[str, Any]) -> Candidate:
    return Candidate(
        description=_text(value["description"], "description"),
        pmi=_number(value["pmi"], "pmi"),
        log_p_given_exemplars=_number(value["log_p_given_exemplars"], "log_p_given_exemplars"),
        log_p=_number(value["log_p"], "log_p"),
        confidence=_probability(value.get("confidence"), "confidence"),
    )


def _exemplar(value: Mapping[str, Any]) -> Exemplar:
    return Exemplar(
        image=_index(value["image"], "image"),
        name=_text(value["name"], "name"),
        activation=_number(value["activation"], "activation"),
    )


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"its {key} is not text")
    return value


def _index(value: object, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"its {key} is not an index")
    return value


def _score(value: object, key: str) -> float | None:
    return None if value is None else _number(value, key)


def _probability(value: object, key: str) -> float | None:
    found = _score(value, key)
    if found is not None and not 0 <= found <= 1:
        raise ValueError(f"its {key} is not between 0 and 1")
    return found


def _number(value: object, key: str) -> float:
    if value is None:
        return math.nan
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"its {key} is not a number")
    return float(value)


def _items(value: object, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"its {key} is not a list")
    return value


def _damaged(where: str, what: str) -> RunError:
    return RunError(f"{where} {what}", hint="run describe again, or restore the file from a backup")
