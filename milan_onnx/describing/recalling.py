"""A run that was made before is taken from a cache: no photo is decoded, no session made.

The unit of the cache is a whole run, not a layer. A layer's last bits depend on what else is asked
for: a tensor that becomes an output keeps ONNX Runtime from folding the nodes around it, and the
memory for exact quantiles is shared by the layers (docs/cache.md).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import milan_onnx
from milan_onnx.cache import Cache, Key
from milan_onnx.describing.job import Job
from milan_onnx.describing.manifest import places, result_options
from milan_onnx.errors import RunError
from milan_onnx.labels import SCHEMA_VERSION
from milan_onnx.machine import arithmetic
from milan_onnx.probe import Converted, Skipped, describe_skips, listing_digest
from milan_onnx.reporting import heading, write_run_report
from milan_onnx.run import FORMAT_VERSION, REPORT, Run, load_run, save_run
from milan_onnx.runtime import installed_runtimes

MADE_OF = (".py", ".css", ".js", ".j2")
"""Files of the package that change a result; bundles have a hash of their own."""
ELSEWHERE = ("annotations", "applications", "cli", "export", "models")
"""Folders of the package that `describe` takes no part of its results from."""


class CachedJob:
    """A job's place in a cache."""

    def __init__(self, cache: Cache, job: Job, facts: Mapping[str, Any]) -> None:
        """``facts``: the job's (`job_facts`)."""
        self._cache = cache
        self._job = job
        self._sound = True
        self.key = Key(run_facts(job, facts))

    def run(self) -> Run | None:
        """The job's run as it was made before, with what is told of it now; None: never made."""
        place = self._cache.find(self.key)
        if place is None:
            return None
        try:
            found = load_run(place)
            told = _told_now(found.manifest, self._job, self.key)
        except (RunError, KeyError, TypeError) as error:  # removed meanwhile
            self._job.say.note(f"warning: the cache's entry {self.key} cannot be used: {error}")
            return None
        self._job.say.note(f"cache: made before, as {self.key}: no photo is scanned")
        self._job.say.note(_skips(told["probe"]))
        return replace(found, manifest=told, path=None)

    def keep(self, run: Run) -> None:
        """Keep a run, unless the photos have changed since it was asked for."""
        if listing_digest(self._job.inputs, workers=self._job.threads) != self.key.facts["photos"]:
            self._job.say.note("warning: not kept in the cache: the photos have changed meanwhile")
            self._sound = False
            return
        layers = ", ".join(layer.layer for layer in run.layers)
        what = f"run of {run.manifest['model']['name']}: {layers}"
        self._cache.keep(self.key, what, lambda folder: save_run(folder, run))

    def report(self, path: Path, run: Run) -> None:
        """Write the report of the job's run, or copy it where the same page was written before."""
        key = Key({"kind": "report", "run": self.key.sha256, "heading": heading(run)})
        place = self._cache.find(key) if self._sound else None
        if place is not None:
            shutil.copyfile(place / REPORT, path)
            return
        write_run_report(path, run, self._job.say, probe=self._job.probe)
        if self._sound:
            what = f"report of {run.manifest['model']['name']}"
            self._cache.keep(key, what, lambda folder: _copied(path, folder))


def run_facts(job: Job, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that may change the labels, exemplars and manifest of a job, as JSON values: its
    facts, and the content of its photos."""
    return {**facts, "photos": listing_digest(job.inputs, workers=job.threads)}


def job_facts(job: Job) -> dict[str, Any]:
    """What may change a result, but for the content of the photos, of which the names are read.

    Not in it is what changes no byte of a result: threads, the batch on a CPU, and where things
    are.
    """
    on_gpu = job.device.value.name != "cpu"
    generator = {k: v for k, v in (job.generator or {}).items() if k not in ("latents", "classes")}
    return {
        "kind": "run",
        "formats": {"run": FORMAT_VERSION, "labels": SCHEMA_VERSION},
        "program": {"version": milan_onnx.__version__, "sha256": program_digest()},
        "libraries": libraries() | installed_runtimes(),
        "arithmetic": arithmetic(str(job.device.value)),
        "batch": job.batch.value if on_gpu else None,
        "reduce": job.reduce.value if on_gpu else None,
        "model": job.model,
        "layers": [asdict(layer) for layer in job.layers],
        "bundle": job.bundle.sha256,
        "search": asdict(job.search),
        "options": result_options(job),
        "preprocessing": asdict(job.preprocessing),
        "geometry": asdict(job.geometry),
        "held_out": asdict(job.held_out) if job.held_out else None,
        "generator": generator,
        "names": names_digest(job.inputs.names),
    }


def names_digest(names: Sequence[str]) -> str:
    """Hexadecimal SHA-256 of a listing."""
    total = hashlib.sha256()
    for name in names:
        total.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return total.hexdigest()


def libraries() -> dict[str, str]:
    """Besides ONNX Runtime, what computes a result, by version."""
    import onnx
    import PIL

    return {"numpy": np.__version__, "onnx": onnx.__version__, "pillow": PIL.__version__}


@lru_cache(maxsize=1)
def program_digest() -> str:
    """Hexadecimal SHA-256 of the program itself: between releases the version does not change."""
    root = Path(milan_onnx.__file__).parent
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.suffix in MADE_OF and relative.parts[0] not in ELSEWHERE:
            total.update(f"{relative.as_posix()}\0{path.stat().st_size}\0".encode())
            total.update(path.read_bytes())
    return total.hexdigest()


def _told_now(manifest: Mapping[str, Any], job: Job, key: Key) -> dict[str, Any]:
    """The manifest of a run made before, with the names and places of now."""
    return dict(manifest) | {
        "model": {"name": job.subject.path.name, "sha256": job.model},
        "probe": dict(manifest["probe"]) | {"name": job.probe.name},
        "environment": dict(manifest["environment"]) | places(job) | {"from_cache": key.sha256},
    }


def _skips(probe: Mapping[str, Any]) -> str:
    skipped = [Skipped(**value) for value in probe["skipped"]]
    converted = [Converted(**value) for value in probe["converted"]]
    return describe_skips(probe["usable"], skipped, converted)


def _copied(path: Path, folder: Path) -> None:
    shutil.copyfile(path, folder / REPORT)
