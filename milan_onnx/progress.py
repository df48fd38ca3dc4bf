"""What is said while work goes on: choices with their reasons, notes, and progress with a rate.

All of it goes to stderr; on a terminal progress is one line that renews itself, elsewhere a quiet
line every few seconds. The library itself is silent: `Silent` is the default everywhere.
"""

from __future__ import annotations

import io
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO, cast
from unicodedata import category

from milan_onnx.choice import Choice

QUIET_SECONDS = 10.0
TERMINAL_SECONDS = 0.1


def printable(text: str) -> str:
    """A text on one line: names in models and photos may hold what would steer a terminal."""
    return "".join(char if category(char) != "Cc" else repr(char)[1:-1] for char in text)


class Meter(Protocol):
    """Counts the done part of a stage."""

    def __call__(self, done: int) -> None:
        """Say that so many more items are done."""


class Reporter(Protocol):
    """Where a long job says what it does."""

    def choice(self, what: str, choice: Choice[Any]) -> None:
        """Say what was chosen, and why."""

    def note(self, text: str) -> None:
        """Say one thing worth knowing."""

    def stage(self, name: str, total: int, unit: str) -> Any:
        """A context that yields a Meter for ``total`` items called ``unit``."""


class Silent:
    """Says nothing."""

    def choice(self, what: str, choice: Choice[Any]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Meter]:
        """A meter that counts for nobody."""
        yield lambda done: None


class Quiet(Silent):
    """Says nothing, on the command line too."""

    def clear(self) -> None:
        """Nothing to make room for."""


class Console:
    """Says it on a stream, stderr by default."""

    def __init__(self, stream: TextIO | None = None, *, terminal: bool | None = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty() if terminal is None else terminal

    def choice(self, what: str, choice: Choice[Any]) -> None:
        """Say what was chosen, and why."""
        self.note(f"{what}: {choice}")

    def note(self, text: str) -> None:
        """Say one thing worth knowing."""
        print(printable(text), file=self._stream, flush=True)

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Meter]:
        """Show the progress of a stage while the block runs."""
        line = _Line(self._stream, self._terminal, name, total, unit)
        try:
            yield line
        except BaseException:
            line.end(finished=False)
            raise
        line.end(finished=True)

    def clear(self) -> None:
        """Make room for a line of output on the terminal that also shows progress."""
        if self._terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


class Lines(Console):
    """Says it to a function that takes whole lines."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(cast("TextIO", _Told(say)), terminal=False)


class _Told(io.TextIOBase):
    """A stream that hands whole lines to a function."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._text = say, ""

    def write(self, text: str) -> int:
        """Take some text."""
        *lines, self._text = (self._text + text).split("\n")
        for line in lines:
            self._say(line)
        return len(text)


class _Line:
    """One stage's progress."""

    def __init__(self, stream: TextIO, terminal: bool, name: str, total: int, unit: str) -> None:
        self._stream = stream
        self._terminal = terminal
        self._name = name
        self._total = total
        self._unit = unit
        self._done = 0
        self._start = self._shown = time.monotonic()

    def __call__(self, done: int) -> None:
        self._done += done
        now = time.monotonic()
        if now - self._shown < (TERMINAL_SECONDS if self._terminal else QUIET_SECONDS):
            return
        self._shown = now
        left = (self._total - self._done) * (now - self._start) / max(1, self._done)
        self._show(f"{self._counts(now)}, {_duration(left)} left")

    def end(self, *, finished: bool) -> None:
        """The last line: how many, in what time; or only a clean terminal."""
        if finished:
            now = time.monotonic()
            self._show(f"{self._counts(now)}, {_duration(now - self._start)}")
        if self._terminal:
            self._stream.write("\n")
            self._stream.flush()

    def _counts(self, now: float) -> str:
        rate = self._done / max(1e-9, now - self._start)
        of = "" if self._done >= self._total else f" of {self._total}"
        return f"{self._name}: {self._done}{of} {self._unit}, {_rate(rate)}/s"

    def _show(self, text: str) -> None:
        if self._terminal:
            # A line that wraps could not be renewed.
            text = f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K"
        self._stream.write(text if self._terminal else f"{text}\n")
        self._stream.flush()


def _rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 90:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
