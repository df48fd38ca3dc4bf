"""Jobs one after another, each in a process of its own; interrupted ones go on after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from milan_onnx.errors import OutputUnwritable
from milan_onnx.machine import processors
from milan_onnx.serve.errors import Refusal, too_much
from milan_onnx.serve.jobs import child as children
from milan_onnx.serve.jobs.child import Child
from milan_onnx.serve.jobs.confine import Limits
from milan_onnx.serve.jobs.events import EventWriter, Signal
from milan_onnx.serve.jobs.folders import EVENTS, LOG, drop_leftovers, drop_run, is_run
from milan_onnx.serve.jobs.store import Job, Store
from milan_onnx.serve.settings import ServeSettings

LOGGER = logging.getLogger("milan_onnx.serve")
WORKER = "milan_onnx.serve.jobs.worker"
MOST_CRASHES = 3
"""Workers of one job that may die of what is not the service's doing; after the last it failed."""
RETRY_SECONDS = 30
"""What a client is told to wait for where too many jobs wait."""
CANCEL_SECONDS = 5.0
FAULT_HINT = "see the service's log"
FAULT_SECONDS = 5.0
"""Pause until a state is written again that could not be: the disk is full."""
LEFTOVER_SECONDS = 5.0
LARGEST_FILE = 64 << 30


@dataclass
class Active:
    """A job that is being worked on."""

    job: Job
    """As it was when its worker began."""

    changed: Signal
    """Fires with every event."""

    child: Child | None = None
    """Its worker, once there is one."""

    progress: dict[str, Any] | None = None
    """The last that was told."""

    verdict: dict[str, Any] | None = None
    """The worker's last word: done, or failed."""

    cancelled: bool = False
    """Whether a client wants it to end."""

    task: asyncio.Task[None] | None = field(default=None, repr=False)
    """What works on it."""


class Runner:
    """Works on the jobs of a store, so many at once."""

    def __init__(self, store: Store, settings: ServeSettings) -> None:
        self._store, self._settings = store, settings
        self._active: dict[str, Active] = {}
        self._waiting: dict[str, Signal] = {}
        self._arriving = 0
        self._stopping = False
        self._wake = Signal()
        self._scheduler: asyncio.Task[None] | None = None

    # --- what the routes ask --------------------------------------------------------------------

    @contextmanager
    def room(self) -> Iterator[None]:
        """A place in the queue while a request arrives. Raises Refusal (429, 503)."""
        waiting = self._store.count("queued") + self._arriving
        if waiting >= self._settings.max_queued_jobs:
            raise too_much(f"{waiting} jobs wait already", RETRY_SECONDS)
        if self._stopping:
            raise Refusal(503, "the service is stopping", hint="ask again when it is back")
        self._arriving += 1
        try:
            yield
        finally:
            self._arriving -= 1

    def submit(self, name: str, request: Mapping[str, Any], incoming: Path) -> Job:
        """Queue a job whose files are complete. Raises OutputUnwritable."""
        job = self._store.add(name, request, incoming)
        self._note(job, {"type": "state", "state": "queued"})
        self._wake.fire()
        return job

    def progress(self, job: Job) -> Mapping[str, Any] | None:
        """The last that was told of a job."""
        active = self._active.get(job.id)
        return active.progress if active else job.progress

    def changed(self, job: Job) -> Signal:
        """What fires when there is news of a job."""
        active = self._active.get(job.id)
        if active is not None:
            return active.changed
        return Signal() if self.over(job) else self._waiting.setdefault(job.id, Signal())

    def over(self, job: Job) -> bool:
        """Whether no more news of a job will come from this service."""
        if self._stopping:
            return True
        now = self._store.get(job.id)
        return now is None or (now.ended and job.id not in self._active)

    async def cancel(self, job: Job) -> Job:
        """End a job and delete what it made. Raises Refusal (409) where it has ended."""
        active = self._active.get(job.id)
        if active is None:
            return self._cancel_waiting(job)
        active.cancelled = True
        if active.child is not None:
            await active.child.stop(CANCEL_SECONDS)
        if active.task is not None:
            await asyncio.wait({active.task})
        return self._store.get(job.id) or job

    def _cancel_waiting(self, job: Job) -> Job:
        now = self._store.get(job.id)
        if now is None or now.ended:
            raise Refusal(
                409,
                f"the job {job.id} has ended: it is {now.state if now else 'deleted'}",
                hint="DELETE removes what it left",
            )
        return self._end(now, state="cancelled")

    # --- its life -------------------------------------------------------------------------------

    async def start(self, *, work: bool = True) -> None:
        """Take up what was interrupted, and begin to work, where that is allowed."""
        await self._take_up()
        if work:
            self._scheduler = asyncio.create_task(self._schedule())

    async def stop(self, grace: float) -> None:
        """Interrupt what is running, so that it goes on after a restart."""
        self.hush()
        if self._scheduler is not None:
            self._scheduler.cancel()
            await asyncio.gather(self._scheduler, return_exceptions=True)
        active = list(self._active.values())
        await asyncio.gather(*(one.child.stop(grace) for one in active if one.child))
        tasks = [one.task for one in active if one.task]
        await asyncio.gather(*tasks, return_exceptions=True)

    def hush(self) -> None:
        """Let followers of events go: the service is about to end."""
        self._stopping = True
        for one in self._active.values():
            one.changed.fire()
        for signal_ in self._waiting.values():
            signal_.fire()

    async def _take_up(self) -> None:
        """Queue what was running when the service was killed; end workers that outlived it."""
        jobs = self._store.in_state("running")
        for job in jobs:
            if job.worker is not None:
                children.end_leftover(job.worker)
        end = time.monotonic() + LEFTOVER_SECONDS
        while any(_lives(job) for job in jobs) and time.monotonic() < end:
            await asyncio.sleep(0.02)
        for job in jobs:
            self._interrupt(job, "the service was killed")

    async def _schedule(self) -> None:
        while True:
            change = self._wake.next()
            for job in self._store.in_state("queued"):
                if len(self._active) >= self._settings.max_jobs:
                    break
                if job.id not in self._active:
                    self._begin(job)
            await change.wait()

    def _begin(self, job: Job) -> None:
        active = Active(job, self._waiting.pop(job.id, Signal()))
        self._active[job.id] = active
        active.task = asyncio.create_task(self._work(active))

    async def _work(self, active: Active) -> None:
        """One worker's life."""
        try:
            await self._run(active)
        except Exception as error:  # a full disk or a fault must not end the others
            LOGGER.exception("job %s", active.job.id)
            text = f"the job could not be run: {error}"
            await self._written(lambda: self._fail(active.job, text, FAULT_HINT))
        finally:
            del self._active[active.job.id]
            if not self.over(active.job):  # its followers wait for the next worker
                self._waiting[active.job.id] = active.changed
            active.changed.fire()
            self._wake.fire()

    async def _run(self, active: Active) -> None:
        job = active.job = self._store.update(
            active.job, state="running", started=time.time(), starts=active.job.starts + 1
        )
        self._note(job, {"type": "state", "state": "running", "start": job.starts}, active)
        folder = self._store.folder(job.id)
        with (folder / LOG).open("ab") as log:
            child = await children.start(WORKER, [str(folder), self._facts()], self._limits(), log)
        active.child = child
        if active.cancelled or self._stopping:
            child.kill()
        try:
            active.job = self._store.update(job, worker=child.identity)
            await self._listen(active, child)
        except BaseException:
            child.kill()
            raise
        finally:
            code = await child.ended()
        await self._written(lambda: self._settle(active, child, code))

    async def _listen(self, active: Active, child: Child) -> None:
        """Pass on what the worker says."""
        with contextlib.closing(EventWriter(self._store.folder(active.job.id) / EVENTS)) as events:
            async for line in child.lines():
                if line.get("type") == "progress":
                    active.progress = _bare(line)
                if line.get("type") in ("done", "failed"):
                    active.verdict = line
                else:
                    with contextlib.suppress(OSError):  # a full disk: the worker will find it too
                        events.write(line)
                active.changed.fire()

    async def _written(self, write: Callable[[], None]) -> None:
        """Write a state, as soon as there is room; until then no other job is begun in its place.

        Where the service ends before, the next one finds the job as it was.
        """
        while True:
            try:
                write()
                return
            except OutputUnwritable as error:
                LOGGER.warning("%s", error)
                if self._stopping:
                    return
            await asyncio.sleep(FAULT_SECONDS)

    def _settle(self, active: Active, child: Child, code: int) -> None:
        """What has become of a job whose worker has ended."""
        job, verdict = active.job, active.verdict or {}
        if active.cancelled:
            self._end(job, active, state="cancelled")
        elif is_run(self._store.folder(job.id)):
            summary = _bare(verdict) or None
            self._end(job, active, state="done", progress=active.progress, summary=summary)
        elif verdict.get("type") == "failed":
            self._fail(job, verdict["error"], verdict["hint"], active)
        elif child.excess is not None or code == -signal.SIGXCPU:
            self._fail(job, *self._beyond(child.excess or "time"), active)
        elif self._stopping:
            self._interrupt(job, "the service was stopped", active)
        elif job.crashes + 1 < MOST_CRASHES:
            crashed = self._store.update(job, crashes=job.crashes + 1)
            self._interrupt(crashed, f"its process died ({_cause(code)})", active)
        else:
            hint = "the model may break ONNX Runtime, or the machine's memory was not enough"
            text = f"the job's process died {MOST_CRASHES} times, the last time of {_cause(code)}"
            self._fail(job, text, hint, active)

    def _beyond(self, excess: str) -> tuple[str, str]:
        settings = self._settings
        if excess == "memory":
            return (
                f"the job used more than the {settings.job_memory >> 20} MiB of memory that it may",
                "describe fewer layers at once, or raise the service's --job-memory",
            )
        return (
            f"the job took longer than the {settings.job_seconds:g} s that it may",
            "describe fewer layers or photos at once, or raise the service's --job-seconds",
        )

    # --- states ---------------------------------------------------------------------------------

    def _interrupt(self, job: Job, why: str, active: Active | None = None) -> None:
        """Back to the queue: the next worker goes on where this one stopped."""
        job = self._store.update(job, state="queued", worker=None)
        self._note(job, {"type": "state", "state": "queued", "why": why}, active)

    def _fail(self, job: Job, error: str, hint: str, active: Active | None = None) -> None:
        self._end(job, active, state="failed", error={"error": error, "hint": hint})

    def _end(self, job: Job, active: Active | None = None, **changes: Any) -> Job:
        """The last state of a job; what is of no more use is deleted."""
        drop = drop_leftovers if changes["state"] == "done" else drop_run
        drop(self._store.folder(job.id))
        ended = self._store.update(job, finished=time.time(), worker=None, **changes)
        event: dict[str, Any] = {"type": "state"}
        event |= {key: changes[key] for key in ("state", "error", "summary") if key in changes}
        self._note(ended, event, active)
        return ended

    def _note(self, job: Job, event: dict[str, Any], active: Active | None = None) -> None:
        """Add an event that the service itself knows of."""
        with (
            contextlib.suppress(OSError),
            contextlib.closing(EventWriter(self._store.folder(job.id) / EVENTS)) as events,
        ):
            events.write({**event, "time": round(time.time(), 3)})
        if active is not None:
            active.changed.fire()
        elif job.id in self._waiting:
            self._waiting[job.id].fire()

    def _limits(self) -> Limits:
        settings = self._settings
        return Limits(settings.job_memory, settings.job_seconds, LARGEST_FILE)

    def _facts(self) -> str:
        """What a worker must know of the service, as JSON."""
        settings = self._settings
        share = max(1, (settings.threads or processors()) // settings.max_jobs)
        facts = {
            "bundle": str(settings.bundle.absolute()) if settings.bundle else None,
            "device": settings.device,
            "threads": share,
            "max_nodes": settings.max_nodes,
        }
        return json.dumps(facts)


def _bare(line: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker's line says, without its kind."""
    return {key: value for key, value in line.items() if key != "type"}


def _lives(job: Job) -> bool:
    return job.worker is not None and children.began(job.worker[0]) == job.worker[1]


def _cause(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"
