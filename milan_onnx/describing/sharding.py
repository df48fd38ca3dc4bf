"""A scan in parts: each in a process of its own, wherever, and all of them in one run.

A shard is a folder:

    shard.json          which part of which job: facts, arguments, the range of the photos
    scan.npz            the statistics, settled: they depend on nothing but the photos of the part

Merged, shards give the same bytes as one process does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from milan_onnx.cache import Key
from milan_onnx.describing.finishing import Here, OnLabel, kept_is_said, make_run
from milan_onnx.describing.job import Job, absolute, arguments, prepare
from milan_onnx.describing.kept import Kept
from milan_onnx.describing.options import DescribeOptions
from milan_onnx.describing.part import Part, load_part, save_part
from milan_onnx.describing.recalling import job_facts
from milan_onnx.describing.resuming import MACHINE, apart_from_machine, begin, difference
from milan_onnx.describing.scanning import (
    STATE,
    Ran,
    Scanned,
    finish,
    new_scan,
    ran_as,
    same_photos,
    scan_part,
)
from milan_onnx.errors import RunError, UsageError
from milan_onnx.files import write_json
from milan_onnx.making import making
from milan_onnx.progress import Reporter, Silent
from milan_onnx.run import Run

SHARD = "shard.json"
FORMAT, FORMAT_VERSION = "milan-onnx-shard", 1
RESULT = ("formats", "milan_format", "write_metadata", "metadata_out", "report", "overwrite")
"""Options that only the merged run has."""


@dataclass(frozen=True)
class Shard:
    """One of several parts of a listing of photos, of equal size but for one photo."""

    number: int
    """Which, from 1."""

    of: int
    """How many there are."""

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise UsageError(
                f"there is no shard {self.number} of {self.of}", hint="give I/N with I from 1 to N"
            )

    def photos(self, total: int) -> range:
        """The places of its photos in the listing."""
        return range((self.number - 1) * total // self.of, self.number * total // self.of)


def scan_shard(
    shard: Shard,
    model: str | Path,
    layers: str | Sequence[str] | None,
    images: str | Path | None,
    out: str | Path,
    *,
    bundle: str | Path | None = None,
    options: DescribeOptions | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Scan one part of the photos and write its statistics for `merge_shards`; returns ``out``.

    Goes on where it was stopped, like `milan_onnx.describe`, and raises as it does.
    """
    options, say, out = options or DescribeOptions(), reporter or Silent(), Path(out)
    options.check()
    owned = making(out, overwrite=options.overwrite, marker=SHARD, what="shard")
    with owned as place, kept_is_said(place, say):
        job = prepare(model, layers, images, bundle, options, say)
        facts = job_facts(job) | {"shard": [shard.number, shard.of]}
        if not options.overwrite and _finished(job, facts, out):
            place.done = True
            say.note(f"{out} is finished, of the same model, photos and options: nothing to do")
            return out
        place.check_free()
        photos = shard.photos(len(job.inputs))
        part, ran = scan_part(job, photos, begin(place, facts, say))
        part.scan.settle()
        with place.whole() as folder:
            save_part(folder / STATE, part, asdict(ran))
            write_json(folder / SHARD, _record(job, shard, photos, facts, images, bundle))
    return out


def merge_shards(
    shards: Sequence[str | Path],
    out: str | Path,
    *,
    model: str | Path | None = None,
    images: str | Path | None = None,
    bundle: str | Path | None = None,
    reporter: Reporter | None = None,
    on_label: OnLabel = lambda label: None,
    **result: Any,
) -> Run:
    """Make the run of all shards of a job: the same bytes as `milan_onnx.describe` makes at once.

    ``model``, ``images``, ``bundle``: where they are, if not where they were when the shards were
    scanned. ``result``: fields of `DescribeOptions` that no shard has a part in (device, threads,
    report, formats, ...).

    Raises RunError where a shard is missing, damaged or of another job, and the errors of
    `milan_onnx.describe`.
    """
    say, records = reporter or Silent(), _records([Path(shard) for shard in shards])
    before = records[0].arguments
    options = replace(_options(before["options"]), **result)
    options.check()

    def prepared() -> Job:
        job = prepare(
            model or before["model"],
            before["layers"],
            images or before["images"],
            bundle or before["bundle"],
            options,
            say,
        )
        _check_same(job_facts(job), records, say)
        return job

    return make_run(prepared, _Merge(records), Path(out), options.overwrite, say, on_label)


class _Merge(Here):
    """This process, with a scan that was made elsewhere."""

    def __init__(self, records: Sequence[_Record]) -> None:
        self._records = records

    def scan(self, job: Job, kept: Kept) -> Scanned:
        part, ran = _merged(job, self._records)
        return finish(job, part, ran, kept)


def shard_model(shard: str | Path) -> Path:
    """The model that a shard is of, where it was. Raises RunError for what is no shard."""
    return Path(_read(Path(shard)).arguments["model"])


@dataclass(frozen=True)
class _Record:
    """What shard.json says."""

    place: Path
    """The shard's folder."""

    shard: Shard
    """Which it is."""

    facts: Mapping[str, Any]
    """Of what job."""

    arguments: Mapping[str, Any]
    """What it was called with."""


def _record(
    job: Job,
    shard: Shard,
    photos: range,
    facts: Mapping[str, Any],
    images: str | Path | None,
    bundle: str | Path | None,
) -> dict[str, Any]:
    """What shard.json is to say."""
    options = {f.name: getattr(job.options, f.name) for f in fields(job.options)}
    kept = {name: value for name, value in options.items() if name not in RESULT}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "shard": [shard.number, shard.of],
        "photos": [photos.start, photos.stop],
        "facts": facts,
        "arguments": arguments(job, images, bundle)
        | {"options": {n: absolute(v) if isinstance(v, Path) else v for n, v in kept.items()}},
    }


def _options(recorded: Mapping[str, Any]) -> DescribeOptions:
    """The options of a shard. Raises RunError where they are not this version's."""
    values = {name: _frozen(value) for name, value in recorded.items()}
    for name in ("latents", "classes"):
        values[name] = Path(values[name]) if values.get(name) else None
    try:
        return DescribeOptions(**values)
    except TypeError as error:
        raise RunError(f"the shards have other options: {error}", hint="scan them again") from error


def _frozen(value: Any) -> Any:
    """Lists of JSON as the tuples that they were."""
    if isinstance(value, dict):
        return {name: _frozen(inner) for name, inner in value.items()}
    return tuple(_frozen(inner) for inner in value) if isinstance(value, list) else value


def _finished(job: Job, facts: Mapping[str, Any], out: Path) -> bool:
    try:
        record = _read(out)
        part, _ = load_part(out / STATE, new_scan(job))
    except RunError:
        return False
    return not difference(record.facts, facts) and same_photos(job, part)


def _read(place: Path) -> _Record:
    """Raises RunError where it is no shard, or another version's."""
    try:
        value = json.loads((place / SHARD).read_text(encoding="utf-8"))
        kind = value["format"], value["format_version"]
        number, of = value["shard"]
        record = _Record(place, Shard(number, of), dict(value["facts"]), dict(value["arguments"]))
    except FileNotFoundError as error:
        raise RunError(
            f"{place} is not a shard: it has no {SHARD}",
            hint="give folders that `milan-onnx describe --shard I/N --out` wrote",
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError, UsageError) as error:
        raise RunError(f"{place / SHARD} is damaged: {error}", hint="scan it again") from error
    if kind != (FORMAT, FORMAT_VERSION):
        raise RunError(f"{place / SHARD} has the format {kind[0]} {kind[1]}", hint="scan it again")
    return record


def _records(places: Sequence[Path]) -> list[_Record]:
    """The shards in their order. Raises RunError where one is missing or there twice."""
    records = sorted((_read(place) for place in places), key=lambda r: r.shard.number)
    if not records:
        raise UsageError("no shards are given", hint="give their folders")
    of = records[0].shard.of
    for one, other in pairwise(records):
        if one.shard.of != other.shard.of:
            what = f"{one.place} is one of {one.shard.of} shards, {other.place} of {other.shard.of}"
            raise RunError(what, hint="give the shards of one job")
        if one.shard == other.shard:
            raise RunError(
                f"{one.place} and {other.place} are both shard {one.shard.number} of {of}",
                hint="give each once",
            )
    missing = sorted({*range(1, of + 1)} - {record.shard.number for record in records})
    if missing:
        numbers = ", ".join(f"{number}/{of}" for number in missing[:10])
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise RunError(f"shards are missing: {numbers}{more}", hint="scan them, and give them too")
    return records


def _check_same(facts: Mapping[str, Any], records: Sequence[_Record], say: Reporter) -> None:
    """All shards must be of the job; that other processors scanned them is said."""
    alike = apart_from_machine(facts)
    for record in records:
        mine = apart_from_machine(record.facts)
        mine.pop("shard", None)
        if differs := difference(mine, alike):
            raise RunError(
                f"{record.place} was scanned with another {differs}",
                hint="merge with the same files and program, or scan it again",
            )
    machines = {Key({n: r.facts.get(n) for n in MACHINE}).sha256 for r in records}
    if len({*machines, Key({n: facts.get(n) for n in MACHINE}).sha256}) > 1:
        say.note(
            "warning: shards were scanned by processors of several kinds, or on other devices: "
            "the last bits may differ from a run on one of them"
        )


def _merged(job: Job, records: Sequence[_Record]) -> tuple[Part, Ran]:
    """All parts in one; no more than two are in memory. Raises RunError naming a bad one."""
    whole: Part | None = None
    for record in records:
        part, more = load_part(record.place / STATE, new_scan(job))
        ran = ran_as(more)
        try:
            if whole is None:
                whole = part
            else:
                whole.merge(part)
        except ValueError as error:
            raise RunError(f"{record.place} does not fit: {error}", hint="scan it again") from error
    if whole is None or (whole.begin, whole.done) != (0, len(job.inputs)):
        raise RunError("the shards are not of all photos", hint="scan them again")
    return whole, ran
