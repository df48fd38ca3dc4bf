"""Truth files: what the units of a run really are, as somebody knows or says.

    answers      planted units: JSONL, JSON, CSV or TSV with layer, unit, accepted (and general)
    classes      names for the units of a classifier's last layer: a name a line, a JSON list, or
                 a JSON object of index to name; commas separate synonyms
    annotations  people's descriptions in MILANNOTATIONS' layout: CSV or TSV with layer, unit and
                 summary, a line an annotator; other columns are read over

Everything wrong in a file is found, named by its line, and refused together.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from milan_onnx.annotations.problems import Problem, in_order, listed
from milan_onnx.applications.evaluate.answers import Answer
from milan_onnx.applications.reopened import Place
from milan_onnx.choice import Choice
from milan_onnx.errors import BadInput, UsageError
from milan_onnx.progress import Reporter
from milan_onnx.wording import normalise

Kind = Literal["answers", "classes", "annotations"]
Key = tuple[str, int]
"""(layer's tensor name, unit)"""

TEXTS = {"answers": "accepted", "annotations": "summary"}
"""The column of each kind that holds what is true."""
WORKERS = ("annotator", "worker", "worker_id", "workerid", "annotation_id", "id")
"""Columns that tell annotators apart."""


@dataclass(frozen=True)
class Truth:
    """What is known of units."""

    kind: Choice[Kind]
    """What the file is."""

    phrases: Mapping[Key, tuple[str, ...]]
    """What each unit may be called, in the order of the file."""

    general: Mapping[Key, tuple[str, ...]]
    """More general names of some units."""

    entries: int
    """Lines (or list items) that were used."""

    problems: tuple[Problem, ...] = ()
    """What was left out, where that was allowed."""

    def answer(self, key: Key, hypernyms: Hypernyms | None) -> Answer:
        """What counts as right for a unit."""
        names = self.phrases[key]
        general = self.general.get(key, ())
        if hypernyms is not None and self.kind.value == "classes":
            general = (*general, *hypernyms(names))
        # Annotators are averaged over; of a class the first name is the one that is meant.
        said = names if self.kind.value == "annotations" else names[:1]
        return Answer(names, tuple(g for g in dict.fromkeys(general) if g not in names), said)


Hypernyms = Callable[[Sequence[str]], tuple[str, ...]]


@dataclass(frozen=True)
class _Entry:
    line: int
    layer: str
    unit: str | int
    phrases: tuple[str, ...]
    general: tuple[str, ...] = ()
    worker: str | None = None


class _Collector:
    """Takes entries, checks them against the run, and keeps what is wrong."""

    def __init__(self, places: Sequence[Place], several: bool) -> None:
        """``several``: a unit may have several entries (annotators)."""
        self._places = places
        self._several = several
        self.problems: list[Problem] = []
        self.phrases: dict[Key, list[str]] = {}
        self.general: dict[Key, tuple[str, ...]] = {}
        self.entries = 0
        self._seen: dict[tuple[Any, ...], int] = {}

    def bad(self, line: int, what: str) -> None:
        """Keep a problem."""
        self.problems.append(Problem(line, what))

    def take(self, entry: _Entry) -> None:
        """Keep an entry, or what is wrong with it."""
        what, key = self._check(entry)
        if key is None:
            self.bad(entry.line, what)
            return
        self.entries += 1
        self.phrases.setdefault(key, []).extend(entry.phrases)
        if entry.general:
            self.general[key] = entry.general

    def _check(self, entry: _Entry) -> tuple[str, Key | None]:
        """What is wrong with an entry, or the unit that it is of."""
        found = [place for place in self._places if entry.layer in place.names]
        if not found:
            return f"the run has no layer {entry.layer!r} ({_names(self._places)})", None
        if len(found) > 1:
            return f"{entry.layer!r} is the name of several layers of the run", None
        unit = _unit(entry.unit)
        if unit is None:
            return f"{entry.unit!r} is not a unit's number", None
        if unit >= found[0].units:
            return f"layer {entry.layer} has no unit {unit}, only 0 to {found[0].units - 1}", None
        empty = [p for p in (*entry.phrases, *entry.general) if not normalise(p)]
        if empty or not entry.phrases:
            return "an empty phrase", None
        key = (found[0].tensor, unit)
        if not self._several or entry.worker is not None:
            first = self._seen.setdefault((*key, entry.worker), entry.line)
            if first != entry.line:
                return f"unit {unit} of {entry.layer} was on line {first} already", None
        return "", key


def read_truth(
    path: Path,
    places: Sequence[Place],
    *,
    classes_of: Sequence[Place] | None = None,
    kind: Kind | None = None,
    skip_bad: bool = False,
    say: Reporter,
) -> Truth:
    """Read a truth file for the layers of a run.

    ``classes_of``: the layers that class names may be of (by default all); it must be one, or the
    one with as many units as there are names. ``skip_bad``: go on without what is wrong, saying
    so. Raises BadInput naming every bad line (the first twenty, and how many), UsageError for a
    kind that is not there, or where it is not clear which layer class names are of.
    """
    if kind is not None and kind not in get_args(Kind):
        raise UsageError(
            f"unknown --kind {kind}", hint=f"use one of {', '.join(get_args(Kind))}, units"
        )
    text, undecodable = _read_text(path)
    chosen = Choice(kind, "--kind") if kind else _guess(path, text)
    say.choice("truth", chosen)
    collector = _Collector(places, several=chosen.value == "annotations")
    for line, what in undecodable.items():
        collector.bad(line, what)
    for entry in _entries(path, text, chosen.value, classes_of or places, collector):
        if entry.line not in undecodable:
            collector.take(entry)
    problems = in_order(collector.problems)
    report(path, problems, skip_bad, say)
    if not collector.phrases:
        raise BadInput(f"{path} says nothing of any unit", hint="see docs/evaluate.md")
    phrases = {key: tuple(found) for key, found in collector.phrases.items()}
    repeated = sum(len(found) - len(set(found)) for found in phrases.values())
    if repeated and chosen.value == "annotations":
        say.note(f"{repeated} annotations repeat one of the same unit: taken for other people's")
    return Truth(chosen, phrases, collector.general, collector.entries, problems)


def report(path: Path, problems: Sequence[Problem], skip_bad: bool, say: Reporter) -> None:
    """Refuse a file for what is wrong in it (BadInput), or say what is skipped."""
    if not problems:
        return
    if not skip_bad:
        hint = "mend them, or go on with --skip-bad"
        raise BadInput(f"{path} has {listed(problems)}", hint=hint)
    say.note(f"{path}: {listed(problems, skipped=True)}")


def _read_text(path: Path) -> tuple[str, dict[int, str]]:
    """The text of a file, and which of its lines are not UTF-8."""
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BadInput(f"cannot read {path}: {reason}", hint="give another --truth") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise BadInput(f"{path} line 1: the file is UTF-16, not UTF-8", hint="save it as UTF-8")
    text = data.decode("utf-8-sig", "surrogateescape")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    wrong = {}
    for number, line in enumerate(text.split("\n"), 1):
        if found := re.search("[\udc80-\udcff]", line):
            byte = ord(found[0]) - 0xDC00
            wrong[number] = f"not UTF-8 (byte 0x{byte:02x} in column {found.start() + 1})"
        elif "\0" in line:
            wrong[number] = "a null character"
    return text, wrong


def _guess(path: Path, text: str) -> Choice[Kind]:
    """What a file is, by its name and beginning."""
    head = text.lstrip()[:4096]
    first = head.split("\n", 1)[0]
    columns = set(_cells(first, _delimiter(path, first)))
    if path.suffix.lower() in (".jsonl", ".ndjson") or (first[:1] == "{" and '"unit"' in first):
        return Choice("answers", "a JSON object with a unit on each line")
    if head[:1] == "[" and '"unit"' in head:
        return Choice("answers", "a JSON list of objects with a unit")
    if head[:1] in "[{" and head:
        return Choice("classes", "JSON without units is a list of names")
    for kind, column in (("annotations", "summary"), ("answers", "accepted")):
        if {"unit", column} & columns == {"unit", column}:
            return Choice(_kind(kind), f"its header has the columns unit and {column}")
    if path.suffix.lower() in (".csv", ".tsv"):
        return Choice("annotations", f"it is a {path.suffix.lower()[1:].upper()} file")
    return Choice("classes", "it is plain text: a name a line")


def _kind(text: str) -> Kind:
    return next(kind for kind in get_args(Kind) if kind == text)


def _entries(
    path: Path, text: str, kind: Kind, places: Sequence[Place], collector: _Collector
) -> Iterator[_Entry]:
    head = text.lstrip()[:1]
    if kind == "classes":
        yield from _classes(text, path, places, collector)
    elif kind == "answers" and head == "[":
        yield from _json_answers(text, collector)
    elif kind == "answers" and head == "{":
        yield from _json_lines(text, collector)
    else:
        yield from _rows(path, text, kind, collector)


def _classes(
    text: str, path: Path, places: Sequence[Place], collector: _Collector
) -> Iterator[_Entry]:
    """Names by unit, from lines or JSON."""
    if text.lstrip()[:1] not in ("[", "{"):
        lines = text.rstrip("\n").split("\n") if text.strip() else []
        layer = _only(places, len(lines), path)
        for unit, line in enumerate(lines):
            yield _Entry(unit + 1, layer, unit, _synonyms(line))
        return
    value = _parse(text, collector)
    if value is None:
        return
    layer = _only(places, len(value), path)
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    lines_of = _Lines(text)
    for index, names in pairs:
        place = lines_of.of(names)
        if isinstance(names, str):
            yield _Entry(place, layer, index, _synonyms(names))
        else:
            collector.bad(place, f"the name of unit {index} is not text")


def _only(places: Sequence[Place], names: int, path: Path) -> str:
    """The layer that class names are of."""
    fitting = [place for place in places if place.units == names]
    found = list(places) if len(places) == 1 else fitting
    if len(found) != 1:
        raise UsageError(
            f"{path} has {names} names and names no layer, and {len(fitting)} layers of the run "
            f"have as many units",
            hint=f"say which with --layer ({_names(places)})",
        )
    return found[0].tensor


class _Lines:
    """On which line of a JSON text its values stand, in their order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def of(self, value: object) -> int:
        """The line of the next place that holds a value."""
        written = (json.dumps(value, ensure_ascii=a) for a in (True, False))
        found = min((p for w in written if (p := self._text.find(w, self._at)) >= 0), default=None)
        if found is not None:
            self._at = found + 1
        return self._text.count("\n", 0, self._at) + 1


def _parse(text: str, collector: _Collector) -> Any:
    """A JSON value; None, and a problem, where it is none."""
    try:
        return json.loads(text, object_pairs_hook=_pairs)
    except json.JSONDecodeError as error:
        collector.bad(error.lineno, f"not JSON: {error.msg} in column {error.colno}")
    except _Twice as error:
        collector.bad(0, f"{error} is there twice")
    except (RecursionError, ValueError) as error:
        collector.bad(1, f"not JSON: {error}")
    return None


class _Twice(Exception):
    """A key that a JSON object has twice."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise _Twice(key)
    return dict(pairs)


def _json_lines(text: str, collector: _Collector) -> Iterator[_Entry]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield from _object(line, number, collector)


def _json_answers(text: str, collector: _Collector) -> Iterator[_Entry]:
    lines, values = _Lines(text), _parse(text, collector)
    for value in values or []:
        unit = value.get("unit") if isinstance(value, dict) else None
        yield from _answer(value, lines.of(unit), collector)


def _object(line: str, number: int, collector: _Collector) -> Iterator[_Entry]:
    try:
        value = json.loads(line, object_pairs_hook=_pairs)
    except (ValueError, RecursionError) as error:
        collector.bad(number, f"not JSON: {error}")
        return
    except _Twice as error:
        collector.bad(number, f"{error} is there twice")
        return
    yield from _answer(value, number, collector)


def _answer(value: Any, line: int, collector: _Collector) -> Iterator[_Entry]:
    """An entry of an object with layer, unit, accepted and perhaps general."""
    if not isinstance(value, dict):
        collector.bad(line, "not a JSON object")
        return
    missing = [key for key in ("layer", "unit", "accepted") if key not in value]
    if missing:
        collector.bad(line, f"no {' and no '.join(missing)}")
        return
    accepted, general = _texts(value["accepted"]), _texts(value.get("general", []))
    if accepted is None or general is None or not isinstance(value["layer"], str):
        what = "layer" if not isinstance(value["layer"], str) else "accepted or general"
        collector.bad(line, f"its {what} is not text")
        return
    yield _Entry(line, value["layer"], value["unit"], accepted, general)


def _texts(value: Any) -> tuple[str, ...] | None:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        return None
    return tuple(values)


def _rows(path: Path, text: str, kind: Kind, collector: _Collector) -> Iterator[_Entry]:
    """Entries of a CSV or TSV file with a header."""
    reader = csv.reader(
        io.StringIO(text), delimiter=_delimiter(path, text.split("\n", 1)[0]), strict=True
    )
    rows = _numbered(reader, collector)
    header_line, cells = next(rows, (1, []))
    header = [cell.strip().lower() for cell in cells]
    wanted = ("layer", "unit", TEXTS[kind])
    missing = [column for column in wanted if header.count(column) != 1]
    if missing:
        found = ", ".join(header) or "nothing"
        collector.bad(
            header_line, f"the header has not one column {' and one '.join(missing)} ({found})"
        )
        return
    worker = next((column for column in WORKERS if column in header), None)
    for line, row in rows:
        if len(row) != len(header):
            collector.bad(line, f"{len(row)} columns, the header has {len(header)}")
            continue
        cell = dict(zip(header, row, strict=True))
        phrases = (cell["summary"].strip(),) if kind == "annotations" else _list(cell["accepted"])
        general = _list(cell["general"]) if cell.get("general", "").strip() else ()
        unit, layer = cell["unit"].strip(), cell["layer"].strip()
        name = cell[worker] if worker and kind == "annotations" else None
        yield _Entry(line, layer, unit, phrases, general, name)


def _numbered(reader: Any, collector: _Collector) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV reader that are not blank, with the line that each begins on."""
    before = 0
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            collector.bad(before + 1, f"not CSV: {error}")
            return
        if row is None:
            return
        if row:
            yield before + 1, row
        before = reader.line_num


def _delimiter(path: Path, first: str) -> str:
    return "\t" if path.suffix.lower() == ".tsv" or ("\t" in first and "," not in first) else ","


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip().strip('"').lower() for cell in line.split(delimiter)]


def _synonyms(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in re.split(r"[;|]", text))


def _unit(value: str | int) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value >= 0 else None
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _names(places: Sequence[Place]) -> str:
    names = [place.tensor for place in places]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"it has {', '.join(names[:5])}{more}"
