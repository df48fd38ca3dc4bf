"""Progress as lines of JSON: what a worker says to the server that started it.

{"type":"note","text":"…"}
{"type":"choice","what":"layer","text":"…"}
{"type":"progress","stage":"scan","done":120,"total":1000,"unit":"images","rate":85.1,"left":10.3}
{"type":"label","layer":"relu1","unit":3,"description":"…","confidence":0.71,"flags":[],…}
{"type":"done","layers":1,"units":64,"described":60,"abstained":4}
{"type":"failed","error":"…","hint":"…","exit_code":5}
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from milan_onnx.choice import Choice
from milan_onnx.labels import UnitLabel
from milan_onnx.labels.record import rounded_score
from milan_onnx.progress import Meter, printable

EVERY_SECONDS = 0.25
LONGEST_TEXT = 2000
"""Characters of a text: names in a model may be of any length."""


def clipped(text: str) -> str:
    """A text on one line, of bounded length, that UTF-8 can hold."""
    whole = printable(text.encode("utf-8", "backslashreplace").decode("utf-8"))
    return whole if len(whole) <= LONGEST_TEXT else whole[: LONGEST_TEXT - 1] + "…"


class Teller:
    """Writes lines of JSON to a stream; a `milan_onnx.progress.Reporter`."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def tell(self, kind: str, **facts: Any) -> None:
        """Write one line."""
        line = json.dumps({"type": kind, **facts}, separators=(",", ":"), allow_nan=False)
        with self._lock:
            self._stream.write(line.encode("ascii") + b"\n")
            self._stream.flush()

    def choice(self, what: str, choice: Choice[Any]) -> None:
        """Say what was chosen, and why."""
        self.tell("choice", what=what, text=clipped(str(choice)))

    def note(self, text: str) -> None:
        """Say one thing worth knowing."""
        self.tell("note", text=clipped(text))

    def label(self, label: UnitLabel) -> None:
        """Say what was found of one unit."""
        self.tell(
            "label",
            layer=clipped(label.layer),
            unit=int(label.unit),
            description=None if label.description is None else clipped(label.description),
            confidence=rounded_score(label.confidence),
            pmi=rounded_score(label.pmi),
            flags=sorted(label.flags),
        )

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Meter]:
        """Tell the progress of a stage while the block runs."""
        counter = _Counter(self, name, total, unit)
        counter.tell()
        yield counter
        counter.tell()


class _Counter:
    """One stage's progress."""

    def __init__(self, teller: Teller, name: str, total: int, unit: str) -> None:
        self._teller = teller
        self._name, self._total, self._unit = name, total, unit
        self._done = 0
        self._start = self._told = time.monotonic()

    def __call__(self, done: int) -> None:
        self._done += done
        if time.monotonic() - self._told >= EVERY_SECONDS:
            self.tell()

    def tell(self) -> None:
        """One line: how many, how fast, how long still (seconds)."""
        self._told = now = time.monotonic()
        rate = self._done / max(1e-9, now - self._start)
        left = (self._total - self._done) / rate if self._done else None
        self._teller.tell(
            "progress",
            stage=self._name,
            done=self._done,
            total=self._total,
            unit=self._unit,
            rate=round(rate, 2),
            left=None if left is None else round(max(0.0, left), 1),
        )
