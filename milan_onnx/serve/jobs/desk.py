"""Between the routes and what they ask: jobs and found runs under one roof, as answers."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from milan_onnx.labels import LayerSummary, UnitLabel, summarize, values
from milan_onnx.labels.tables import whole_text
from milan_onnx.probe.base import SUFFIXES
from milan_onnx.probe.sources import TAR_SUFFIXES
from milan_onnx.run import REPORT
from milan_onnx.serve.errors import Refusal
from milan_onnx.serve.jobs.browsing import (
    FOUND,
    Browser,
    OpenRun,
    found_id,
    found_runs,
)
from milan_onnx.serve.jobs.folders import RUN
from milan_onnx.serve.jobs.places import entries
from milan_onnx.serve.jobs.runner import Runner
from milan_onnx.serve.jobs.store import Job, Store
from milan_onnx.serve.settings import ServeSettings

FRESH_SECONDS = 5.0
"""How long a look at the allowed folders is good for."""
TICKET_SECONDS = 600
BASE = "/v1/runs"


@dataclass(frozen=True)
class Shelf:
    """What lay in the allowed folders at some moment."""

    seen: float
    """When, by the monotonic clock."""

    runs: dict[str, Path]
    """Runs of the command line, by id."""

    models: tuple[Path, ...]
    """ONNX files."""

    photos: tuple[Path, ...]
    """Folders that hold photos, and archives."""


class Desk:
    """Answers about runs."""

    def __init__(self, settings: ServeSettings, store: Store, runner: Runner) -> None:
        self.settings, self.store, self.runner = settings, store, runner
        self.browser = Browser()
        self._shelf: Shelf | None = None
        self._lock = threading.Lock()
        self._key = secrets.token_bytes(32)

    # --- which ----------------------------------------------------------------------------------

    def job(self, run: str) -> Job:
        """A job. Raises Refusal (404), and (409) for a run that is none."""
        job = self.store.get(run)
        if job is None and run in self.shelf().runs:
            raise Refusal(
                409, "this run was made by the command line", hint="its folder is yours to change"
            )
        if job is None:
            raise Refusal(404, f"there is no run {run}", hint=f"GET {BASE} lists them")
        return job

    def folder(self, run: str) -> Path:
        """The folder of a whole run. Raises Refusal (404), and (409) where it is not done."""
        found = self.shelf().runs.get(run) if run.startswith(FOUND) else None
        if found is not None:
            return found
        job = self.job(run)
        if job.state != "done":
            raise Refusal(
                409, f"the run {run} is {job.state}", hint=f"GET {BASE}/{run}/events follows it"
            )
        return self.store.folder(run) / RUN

    def opened(self, run: str) -> OpenRun:
        """A run to look at. Raises as `folder` does, and RunError for a damaged one."""
        return self.browser.open(self.folder(run))

    def photo_folders(self, run: str) -> list[Path]:
        """Where the photos of a run may lie."""
        return [*self.settings.allow, self.store.folder(run)]

    def shelf(self) -> Shelf:
        """What lies in the allowed folders."""
        with self._lock:
            now = time.monotonic()
            if self._shelf is None or now - self._shelf.seen > FRESH_SECONDS:
                self._shelf = _looked(self.settings.allow, now)
            return self._shelf

    # --- as answers -----------------------------------------------------------------------------

    def listed(self, state: str | None, offset: int, limit: int) -> dict[str, Any]:
        """A page of all runs, newest first."""
        jobs = self.store.ages(state)
        found = self.shelf().runs if state in (None, "done") else {}
        ages = [*jobs, *((_written(folder), run) for run, folder in found.items())]
        ages.sort(key=lambda one: (-one[0], one[1]))
        page = [run for _, run in ages[offset : offset + limit]]
        runs = [answer for run in page if (answer := self._listed(run, found)) is not None]
        return {"total": len(ages), "offset": offset, "limit": limit, "runs": runs}

    def _listed(self, run: str, found: dict[str, Path]) -> dict[str, Any] | None:
        if run in found:
            return _found_answer(run, found[run])
        job = self.store.get(run)
        return None if job is None else self.answer(job)

    def one(self, run: str) -> dict[str, Any]:
        """One run, with its figures. Raises Refusal (404)."""
        found = self.shelf().runs.get(run)
        answer = self.answer(self.job(run)) if found is None else _found_answer(run, found)
        if answer["state"] == "done" and answer["summary"] is None:
            answer["summary"] = _figures(self.opened(run).run.labels)
        return answer

    def answer(self, job: Job) -> dict[str, Any]:
        """A job as it is now."""
        request = job.request
        uploaded = request.get("uploaded_model")
        photos = "uploaded photos" if request.get("uploaded_images") else request.get("images")
        return {
            "id": job.id,
            "name": job.name,
            "source": "job",
            "state": job.state,
            "position": self.store.before(job) if job.state == "queued" else None,
            "model": f"{uploaded} (uploaded)" if uploaded else request.get("model"),
            "layers": request.get("layers"),
            "images": photos,
            "options": request.get("options", {}),
            "created": _stamp(job.created),
            "started": _stamp(job.started),
            "finished": _stamp(job.finished),
            "starts": job.starts,
            "progress": self.runner.progress(job),
            "error": job.error,
            "summary": job.summary,
            "links": _links(job.id, done=job.state == "done", job=True),
        }

    def about(self, run: str) -> dict[str, Any]:
        """What a run is made of."""
        opened = self.opened(run)
        layers = [summarize(layer.layer, opened.run.labels) for layer in opened.run.layers]
        return whole_text(  # type: ignore[no-any-return]
            {
                "facts": dict(opened.facts),
                "warnings": list(opened.warnings),
                "layers": [_layer_answer(layer, opened) for layer in layers],
            }
        )

    def unit(self, run: str, opened: OpenRun, label: UnitLabel) -> dict[str, Any]:
        """All of one unit, with the addresses of its exemplars."""
        whole = values(label)
        base = f"{BASE}/{run}/units/{_quoted(label.layer)}/{label.unit}/exemplars"
        for rank, exemplar in enumerate(whole["exemplars"]):
            for view in ("masked", "photo", "mask"):
                exemplar[view] = f"{base}/{rank}?view={view}"
        names = {"layer_name": opened.names.get(label.layer, label.layer)}
        return whole_text(whole | names)  # type: ignore[no-any-return]

    # --- the report in a browser ----------------------------------------------------------------

    def report(self, run: str) -> Path:
        """The report's file. Raises Refusal (404) where there is none."""
        path = self.folder(run) / REPORT
        if not path.is_file():
            hint = "`milan-onnx report RUN` writes it"
            raise Refusal(404, f"the run {run} has no report", hint=hint)
        return path

    def report_link(self, run: str) -> dict[str, Any]:
        """An address that a browser can open: it sends no token, so the address holds a ticket."""
        self.report(run)
        if self.settings.token is None:
            return {"href": f"{BASE}/{run}/report", "seconds": TICKET_SECONDS}
        until = int(time.time()) + TICKET_SECONDS
        href = f"/report?run={run}&until={until}&ticket={self._ticket(run, until)}"
        return {"href": href, "seconds": TICKET_SECONDS}

    def check_ticket(self, run: str, until: int, ticket: str) -> None:
        """Raise Refusal (401) where a ticket is wrong or too old."""
        right = hmac.compare_digest(self._ticket(run, until).encode(), ticket.encode())
        if not right or time.time() > until:
            raise Refusal(401, "this address is no longer good", hint="open the report again")

    def _ticket(self, run: str, until: int) -> str:
        return hmac.new(self._key, f"{run}\n{until}".encode(), hashlib.sha256).hexdigest()


def _looked(allow: Sequence[Path], now: float) -> Shelf:
    found = list(entries(allow))
    suffixes = (".zip", *TAR_SUFFIXES)
    folders = {path.parent for path in found if path.suffix.lower() in SUFFIXES}
    archives = {path for path in found if path.name.lower().endswith(suffixes)}
    return Shelf(
        seen=now,
        runs=found_runs(found),
        models=tuple(path for path in found if path.suffix.lower() == ".onnx"),
        photos=tuple(sorted(folders | archives)),
    )


def place_texts(paths: Iterable[Path]) -> list[str]:
    """Paths that JSON can hold; others cannot be asked for, and are left out."""
    return [text for path in paths if (text := str(path)) == whole_text(text)]


def _found_answer(run: str, folder: Path) -> dict[str, Any]:
    written = _stamp(_written(folder))
    empty = dict.fromkeys(("position", "model", "layers", "images", "started", "progress", "error"))
    return {
        **empty,
        "id": run,
        "name": whole_text(folder.name),
        "source": "folder",
        "state": "done",
        "options": {},
        "created": written,
        "finished": written,
        "starts": 0,
        "summary": None,
        "links": _links(run, done=True, job=False),
    }


def _links(run: str, *, done: bool, job: bool) -> dict[str, str]:
    base = f"{BASE}/{run}"
    links = {"self": base}
    if job:
        links |= {"events": f"{base}/events", "cancel": f"{base}/cancel"}
    if done:
        names = ("about", "units", "labels", "report")
        links |= {name: f"{base}/{name}" for name in names}
    return links


def _figures(labels: Sequence[UnitLabel]) -> dict[str, int]:
    return {
        "layers": len({label.layer for label in labels}),
        "units": len(labels),
        "described": sum(label.description is not None for label in labels),
        "abstained": sum("abstained" in label.flags for label in labels),
    }


def _layer_answer(layer: LayerSummary, opened: OpenRun) -> dict[str, Any]:
    return {
        "layer": layer.layer,
        "name": opened.names.get(layer.layer, layer.layer),
        "units": layer.units,
        "described": layer.described,
        "distinct": layer.distinct,
        "confidence": layer.confidence,
        "repeated": [list(pair) for pair in layer.repeated],
    }


def _written(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _stamp(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _quoted(name: str) -> str:
    return quote(name, safe="", errors="backslashreplace")


__all__ = ["Desk", "Shelf", "found_id", "place_texts"]
