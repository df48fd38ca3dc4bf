"""The layers of models, each listed by a process of its own that is limited as a job's is."""

from __future__ import annotations

import asyncio
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

from milan_onnx.serve.errors import Refusal, too_much
from milan_onnx.serve.jobs import child as children
from milan_onnx.serve.jobs.confine import Limits
from milan_onnx.serve.settings import ServeSettings

LOOKING = "milan_onnx.serve.jobs.looking"
SECONDS = 60.0
LARGEST_FILE = 16 << 20
MOST_WAITING = 8
KEPT = 32
MOST_LAYERS = 20_000


class Looks:
    """Lists layers, one model at a time, and keeps the last lists."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._kept: OrderedDict[tuple[Any, ...], list[Any]] = OrderedDict()
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def layers(self, model: Path) -> list[Any]:
        """The layers of a model.

        Raises Refusal (422) where it has none that can be listed, (429) where too many ask.
        """
        stat = model.stat()
        key = (str(model), stat.st_mtime_ns, stat.st_size)
        if key in self._kept:
            return self._kept[key]
        if self._waiting >= MOST_WAITING:
            raise too_much(f"{self._waiting} models wait to be listed", 5)
        self._waiting += 1
        try:
            async with self._turn:
                found = self._kept.get(key) or await self._looked(model)
        finally:
            self._waiting -= 1
        self._kept[key] = found
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found

    async def _looked(self, model: Path) -> list[Any]:
        limits = Limits(self._settings.job_memory, SECONDS, LARGEST_FILE)
        found: list[Any] = []
        verdict: dict[str, Any] = {}
        with tempfile.TemporaryFile() as log:
            arguments = [str(model), str(self._settings.max_nodes)]
            child = await children.start(LOOKING, arguments, limits, log)
            try:
                async for line in child.lines():
                    if line.get("type") != "layer":
                        verdict = line
                    elif len(found) < MOST_LAYERS:
                        found.append({key: value for key, value in line.items() if key != "type"})
            finally:
                child.kill()
                await child.ended()
        if verdict.get("type") == "done":
            return found
        if verdict.get("type") == "failed":
            raise Refusal(422, verdict["error"], hint=verdict["hint"])
        why = f"took more than {SECONDS:g} s" if child.excess == "time" else "needs too much memory"
        raise Refusal(422, f"listing the layers of {model.name} {why}", hint="name layers yourself")
