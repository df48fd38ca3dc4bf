"""What was told of a job, a numbered line an event, kept in its folder and followed as it grows."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

BLOCK = 64 << 10
HEARTBEAT_SECONDS = 10.0
"""Silence after which a follower is told that all is well: proxies cut a still line."""
MOST_BYTES = 64 << 20
"""Of a job's events: beyond it only its states are kept."""
ALWAYS = frozenset({"state", "failed", "done"})


class EventWriter:
    """Appends events to a file, from one thread. They are numbered from 1, through restarts."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        _drop_half_line(path)
        self._number = sum(1 for _ in read_events(path))
        self._file = path.open("ab", buffering=0)

    def write(self, event: dict[str, Any]) -> None:
        """Append one. Raises OSError where the disk is full."""
        if self._file.tell() > MOST_BYTES and event.get("type") not in ALWAYS:
            return
        number = self._number + 1
        line = (
            json.dumps({"number": number, **event}, separators=(",", ":")).encode("ascii") + b"\n"
        )
        place = self._file.tell()
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self._file.truncate(place)
            raise
        self._number = number

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def read_events(path: Path, after: int = 0) -> Iterator[dict[str, Any]]:
    """The whole events of a file whose number is larger than ``after``."""
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        for line in file:
            event = _event(line)
            if event is not None and event["number"] > after:
                yield event


class Signal:
    """Wakes whoever waits for a change; one that comes before the wait is not missed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def fire(self) -> None:
        """Something changed."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    def next(self) -> asyncio.Event:
        """What is set at the next change after now."""
        return self._event


async def follow(
    path: Path, after: int, signal: Callable[[], Signal], over: Callable[[], bool]
) -> AsyncIterator[dict[str, Any] | None]:
    """The events of a growing file; None where for a while there was none.

    It ends once ``over`` says so and all has been read.
    """
    place, rest = 0, b""
    while True:
        change, last = signal().next(), over()
        events, read, rest = await asyncio.to_thread(_read_on, path, place, rest)
        for event in events:
            if event["number"] > after:
                yield event
        if read == place:
            if last:
                return
            try:
                await asyncio.wait_for(change.wait(), HEARTBEAT_SECONDS)
            except TimeoutError:
                yield None
        place = read


def _read_on(path: Path, place: int, rest: bytes) -> tuple[list[dict[str, Any]], int, bytes]:
    """Events from a place of the file on, the place after them, and the line that is not whole."""
    try:
        with path.open("rb") as file:
            file.seek(place)
            data = file.read(BLOCK)
    except OSError:
        return [], place, rest
    lines = (rest + data).split(b"\n")
    found = [event for line in lines[:-1] if (event := _event(line)) is not None]
    return found, place + len(data), lines[-1]


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
        return event if isinstance(event["number"], int) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _drop_half_line(path: Path) -> None:
    """Cut off what a killed service did not finish writing."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = file.seek(0, 2)
        while size:
            step = min(size, BLOCK)
            file.seek(size - step)
            end = file.read(step).rfind(b"\n")
            if end >= 0:
                file.truncate(size - step + end + 1)
                return
            size -= step
        file.truncate(0)
