"""What a job has done so far, kept where the next process finds it.

Every few seconds a stage keeps its state, seldom enough that this costs a twentieth of the time at
most. Stages are deterministic, so what was not kept is done again to the same bytes. What is kept
of the stages after the scan is good for the photos of that scan alone, and lies under their hash.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from milan_onnx.files import unwritable, write_json

EVERY = 2.0
"""Seconds between two times that work is kept, at least."""
DEAR = 20.0
"""Work is kept so many times less long than it is done."""


class Kept:
    """Where a stage keeps its work, and when it is time to."""

    def __init__(self, folder: Path | None) -> None:
        """``folder``: None keeps nothing."""
        self.folder = folder
        self._began = self._last = time.monotonic()
        self._cost = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time to keep what is done."""
        waited = time.monotonic() - self._last
        return self.folder is not None and waited >= max(EVERY, DEAR * self._cost)

    @property
    def worth_it(self) -> bool:
        """Whether a finished stage is worth keeping: so much was done since the beginning."""
        return self.folder is not None and time.monotonic() - self._began >= EVERY

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around what keeps the work."""
        start = time.monotonic()
        yield
        self._last = time.monotonic()
        self._cost = self._last - start

    def under(self, name: str) -> Kept:
        """The same for the later stages, in a folder of this name. Raises OutputUnwritable."""
        if self.folder is None:
            return self
        folder = self.folder / name
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        later = Kept(folder)
        later._began = self._began
        return later


NOWHERE = Kept(None)
"""Keeps nothing."""


class Count:
    """How many batches of a stage are done and kept."""

    def __init__(self, kept: Kept, stage: str, keep: Callable[[], None]) -> None:
        """``keep`` keeps all that the stage has made so far; then the count may be written."""
        self._kept, self._keep = kept, keep
        self._path = kept.folder / f"{stage}.json" if kept.folder else None
        self.done = _read(self._path) if self._path else 0

    def add(self) -> None:
        """One more batch is done."""
        self.done += 1
        if self._kept.due:
            self._save()

    def end(self) -> None:
        """All are done."""
        if self._kept.worth_it:
            self._save()

    def _save(self) -> None:
        if self._path is not None:
            with self._kept.saving():
                self._keep()
                write_json(self._path, {"done": self.done})


def _read(path: Path) -> int:
    try:
        return max(0, int(json.loads(path.read_text())["done"]))
    except (OSError, ValueError, KeyError, TypeError):
        return 0
