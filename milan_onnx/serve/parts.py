"""A service is made of parts: each brings its routes, and is started and stopped with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fastapi import APIRouter

from milan_onnx.progress import Reporter
from milan_onnx.serve.metrics import Metrics
from milan_onnx.serve.settings import ServeSettings


@dataclass(frozen=True)
class Surroundings:
    """What every part is given."""

    settings: ServeSettings
    """What the service was started with."""

    metrics: Metrics
    """Where it counts; a part adds its own to ``metrics.registry``."""

    say: Reporter
    """Where choices are told."""


class Part(Protocol):
    """One part of a service. Made without side effects; what costs time belongs to `start`."""

    open_paths: frozenset[str]
    """Paths that need no token, such as pages without data."""

    harmless: frozenset[str]
    """Paths whose POST writes nothing, and so are served in read-only mode too."""

    uploads: Mapping[str, int]
    """Paths whose bodies go to disk as they come, and how many bytes they may be long."""

    def router(self) -> APIRouter:
        """Its routes."""

    async def start(self) -> None:
        """Begin to work; the service answers before this is done, `waits_for` says so.

        An error raised here ends the service.
        """

    def hush(self) -> None:
        """Let answers without end go: the service is about to stop, and waits for all answers."""

    async def stop(self) -> None:
        """End, within the settings' ``grace``; no more requests come in."""

    def waits_for(self) -> str:
        """What is not ready yet, such as "the captioner is being loaded"; '' for nothing."""
