"""Whole-model runs as a part of the service."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from fastapi import APIRouter
from prometheus_client import Gauge

from milan_onnx.choice import Choice
from milan_onnx.serve.jobs.desk import BASE, Desk
from milan_onnx.serve.jobs.looks import Looks
from milan_onnx.serve.jobs.routes import Routes, browse_routes, job_routes, place_routes
from milan_onnx.serve.jobs.runner import Runner
from milan_onnx.serve.jobs.store import State, Store, check_place
from milan_onnx.serve.parts import Surroundings

SHUTDOWN_SECONDS = 10.0
"""Seconds that running jobs have to stop by themselves; they lose nothing by being killed."""
COUNTED: tuple[State, ...] = ("queued", "running", "done", "failed", "cancelled")


class JobsPart:
    """Jobs, runs and what is said about them."""

    open_paths: frozenset[str] = frozenset({"/report"})
    harmless: frozenset[str] = frozenset()

    def __init__(self, around: Surroundings) -> None:
        self._settings, self._say = around.settings, around.say
        self._routes = Routes()
        self._store: Store | None = None
        self._runner: Runner | None = None
        self._gauge = Gauge(
            "milan_onnx_jobs", "Jobs in each state.", ["state"], registry=around.metrics.registry
        )
        self.uploads: Mapping[str, int] = {BASE: around.settings.max_upload}

    def router(self) -> APIRouter:
        """All routes of runs."""
        whole = APIRouter()
        for routes in (job_routes, browse_routes, place_routes):
            whole.include_router(routes(self._routes))
        return whole

    async def start(self) -> None:
        """Open the store and go on with its jobs.

        Raises UsageError for folders that cannot be, EnvironmentUnfit where another service uses
        the store.
        """
        check_place(self._settings.store, self._settings.allow)
        self._introduce()
        store = self._store = await asyncio.to_thread(Store, self._settings.store)
        runner = self._runner = Runner(store, self._settings)
        for state in COUNTED:
            self._gauge.labels(state).set_function(partial(store.count, state))
        self._routes.looks = Looks(self._settings)
        await runner.start(work=not self._settings.read_only)
        self._routes.desk = Desk(self._settings, store, runner)

    def _introduce(self) -> None:
        """Say what jobs may read, and what they may take."""
        settings = self._settings
        folders = ", ".join(map(str, settings.allow)) or "none: models are uploaded"
        limits = f"{settings.job_memory >> 20} MiB and {settings.job_seconds:g} s each"
        self._say.choice("store", Choice(settings.store, "--store"))
        self._say.choice("folders", Choice(folders, "--allow"))
        self._say.choice(
            "jobs", Choice(f"{settings.max_jobs} at once, {limits}", "--max-jobs, --job-memory")
        )

    async def stop(self) -> None:
        """Interrupt running jobs; they go on when the service is back."""
        if self._runner is not None:
            await self._runner.stop(min(SHUTDOWN_SECONDS, self._settings.grace))
        if self._store is not None:
            self._store.close()

    def hush(self) -> None:
        """Let streams of events end, so that the service can."""
        if self._runner is not None:
            self._runner.hush()

    def waits_for(self) -> str:
        """The store, until it is open."""
        return "" if self._routes.desk is not None else "the store is being opened"
