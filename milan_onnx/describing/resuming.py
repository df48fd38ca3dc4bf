"""A job that was begun before is gone on with; one that is finished is not done again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from milan_onnx.cache import Key
from milan_onnx.describing.job import Job, unchanged
from milan_onnx.describing.kept import Kept
from milan_onnx.errors import RunError, UsageError
from milan_onnx.files import write_json
from milan_onnx.making import Making
from milan_onnx.progress import Reporter
from milan_onnx.run import LABELS, MANIFEST, MILAN_FORMAT, REPORT, Run, load_run

MACHINE = ("arithmetic", "batch", "reduce")
"""Facts of where a job is done. Other processors may give other last bits."""


def finished(job: Job, facts: Mapping[str, Any], out: Path) -> Run | None:
    """The run that is there, where it is this job's and nothing that was asked for is missing."""
    if not (out / MANIFEST).is_file():
        return None
    try:
        run = load_run(out)
    except RunError:
        return None
    same = run.manifest["environment"].get("job") == Key(facts).sha256
    return run if same and _has_all(job, out) and _same_photos(job, run) else None


def _has_all(job: Job, out: Path) -> bool:
    options = job.options
    files = [f"labels.{name}" for name in options.formats]
    files += [REPORT] if options.report else []
    files += [MILAN_FORMAT] if options.milan_format else []
    return not options.write_metadata and all((out / name).exists() for name in [LABELS, *files])


def _same_photos(job: Job, run: Run) -> bool:
    probe = run.manifest["probe"]
    skipped = [photo["id"] for photo in probe["skipped"]]
    return unchanged(job, range(len(job.inputs)), skipped, probe["sha256"])


def begin(making: Making, facts: Mapping[str, Any], say: Reporter) -> Kept:
    """Where the work of a job is kept, with what an earlier try left of it.

    Work of another job is discarded where --overwrite says so; else that is a UsageError naming
    what differs. Raises OutputUnwritable where nothing can be kept.
    """
    if differs := difference(_read(making.facts) or {}, facts):
        if making.holds_work:
            what = f"{making.out} was begun with another {differs}"
            if not making.overwrite:
                raise UsageError(what, hint="go on as it was begun, or --overwrite to begin anew")
            say.note(f"begins anew: {what}")
        making.discard()
        write_json(making.facts, facts)
    return Kept(making.work)


def apart_from_machine(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that parts of a job share wherever they are done."""
    return {name: value for name, value in facts.items() if name not in MACHINE}


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What differs, for people; '' where nothing does."""
    first, second = (json.loads(json.dumps(facts)) for facts in (one, other))
    names: list[str] = []
    for name in sorted({*first, *second}):
        mine, theirs = first.get(name), second.get(name)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            keys = [key for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key)]
            names += keys if name == "options" else [f"{name} ({', '.join(keys)})"] * bool(keys)
        elif mine != theirs:
            names.append("listing of photos" if name == "names" else name)
    return ", ".join(names)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
