"""Descriptions that were found, a line a unit, in the order of layers and units.

Its end may be torn where a process was killed; what is whole is taken up by the next one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import IO, Any

from milan_onnx.describing.kept import Kept
from milan_onnx.files import unwritable
from milan_onnx.runtime import Hypothesis

NAME = "described.jsonl"

Hypotheses = list[Hypothesis]


class Journal:
    """What an earlier try found, and what is found now."""

    def __init__(self, kept: Kept) -> None:
        """Read what is there. Raises OutputUnwritable."""
        self._kept = kept
        self._path = kept.folder / NAME if kept.folder else None
        self._file: IO[bytes] | None = None
        self._lines: list[bytes] = []
        if self._path is not None:
            try:
                self._path.touch()
                self._file = self._path.open("r+b")
            except OSError as error:
                raise unwritable(self._path, error) from error
            self._lines = [line for line in self._file if line.endswith(b"\n")]
            self._file.seek(0)

    def take(self, most: int, step: int) -> list[Hypotheses]:
        """The next units that an earlier try found: at most so many, and in whole steps but for the
        last of ``most``. What follows a step that is not whole is forgotten."""
        found: list[Hypotheses] = []
        for line in self._lines[:most]:
            try:
                found.append([_hypothesis(value) for value in json.loads(line)])
            except (ValueError, TypeError, KeyError):
                break
        whole = len(found) if len(found) == most else len(found) - len(found) % step
        taken, self._lines = self._lines[:whole], self._lines[whole:]
        if whole < most:
            self._lines = []
        if self._file is not None:
            self._file.seek(sum(map(len, taken)), os.SEEK_CUR)
            if whole < most:
                self._file.truncate()
        return found[:whole]

    def put(self, found: Sequence[Hypothesis]) -> None:
        """One more unit is found; after the last that was taken. Raises OutputUnwritable."""
        if self._file is None or self._path is None:
            return
        try:
            self._file.write(json.dumps([asdict(value) for value in found]).encode() + b"\n")
            if self._kept.due:
                with self._kept.saving():
                    self._file.flush()
                    os.fsync(self._file.fileno())
        except OSError as error:
            raise unwritable(self._path, error) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None and self._path is not None:
            try:
                self._file.close()
            except OSError as failed:
                if error is None:
                    raise unwritable(self._path, failed) from failed


def _hypothesis(value: dict[str, Any]) -> Hypothesis:
    return Hypothesis(**(value | {"tokens": tuple(value["tokens"])}))
