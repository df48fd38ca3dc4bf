"""A process that works on untrusted files, seen from the service: started, watched, ended.

The process limits itself (`milan_onnx.serve.jobs.confine`); here is what it cannot do: its resident
memory and its wall time are watched, and it is killed, with all that it started, beyond them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Literal

from milan_onnx.serve.jobs.confine import Limits

WATCH_SECONDS = 0.2
LONGEST_LINE = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")

Excess = Literal["memory", "time"]


class Child:
    """A running process whose stdout is lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process, limits: Limits) -> None:
        self.excess: Excess | None = None
        """The limit that it was killed for."""
        self._process = process
        self._limits = limits
        self._watch = asyncio.create_task(self._watched())

    @property
    def identity(self) -> tuple[int, int]:
        """Its process id, and when it began in the kernel's count: ids are used again."""
        return self._process.pid, began(self._process.pid) or 0

    async def lines(self) -> AsyncIterator[dict[str, Any]]:
        """What it says, until it ends; lines that are no JSON object are passed over."""
        stdout = self._process.stdout
        assert stdout is not None
        while True:
            try:
                line = await stdout.readline()
            except ValueError:  # longer than any that is meant
                continue
            if not line:
                return
            with contextlib.suppress(ValueError, RecursionError):
                value = json.loads(line)
                if isinstance(value, dict):
                    yield value

    async def ended(self) -> int:
        """Its exit code, once it has ended; negative: the signal that ended it."""
        try:
            return await self._process.wait()
        finally:
            self._watch.cancel()
            self.kill()  # what it may have started

    async def stop(self, seconds: float) -> None:
        """Ask it to end, and after some seconds make it."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._process.wait()), seconds)
        self.kill()

    def kill(self) -> None:
        """End it and what it started, now."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _watched(self) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + self._limits.seconds
        while self.excess is None:
            await asyncio.sleep(WATCH_SECONDS)
            if resident(self._process.pid) > self._limits.memory:
                self.excess = "memory"
            elif clock() > end:
                self.excess = "time"
        self.kill()


async def start(module: str, arguments: Sequence[str], limits: Limits, log: IO[bytes]) -> Child:
    """Start ``python -m module`` with its limits and arguments; stderr goes to ``log``.

    Raises OSError where no process can be made.
    """
    facts = json.dumps({**asdict(limits), "parent": os.getpid()})
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # not of the folder that the service was started in
        *("-m", module, facts, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
        start_new_session=True,
        limit=LONGEST_LINE,
        env=_environment(),
    )
    return Child(process, limits)


def end_leftover(identity: tuple[int, int]) -> None:
    """End a process that outlived the service that started it, if it is still the same one."""
    pid, start_time = identity
    if start_time and began(pid) == start_time:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def began(pid: int) -> int | None:
    """When a process began, in the kernel's count; None where it is gone or cannot be asked."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text[text.rindex(")") + 2 :].split()
        return None if fields[0] == "Z" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 where it is gone or cannot be asked."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return 0


def _environment() -> dict[str, str]:
    """The service's own, without its token."""
    return {key: value for key, value in os.environ.items() if key != "MILAN_ONNX_TOKEN"}
