"""A file that photos are read from: on this machine, or in object storage (`probe.remote`).

Archives, tables and lists ask for parts of a file and do not care where it lies. A part is read at
its offset, without a handle that threads would have to share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from milan_onnx.probe.base import MAX_BYTES, too_large


class Stored(ABC):
    """A file, read from any thread. ``str`` gives its path or address, for people and manifests.

    Reading raises OSError; of a file in object storage ProbeError, after some tries.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The last component."""

    @property
    def waits(self) -> bool:
        """Whether reading waits for another machine."""
        return False

    def sized(self) -> Stored:
        """The same, ready for parts of it to be read. Raises ProbeError where it is not there."""
        return self

    @abstractmethod
    def part(self, start: int, size: int) -> bytes:
        """At most ``size`` bytes from ``start``; fewer at the end of the file."""

    @abstractmethod
    def whole(self) -> bytes:
        """All bytes. Raises Unusable beyond ``MAX_BYTES``, OSError where there is no such file."""

    @abstractmethod
    def opened(self) -> Path | IO[bytes]:
        """What libraries that read files take: a path, or a new file object."""

    @abstractmethod
    def beside(self, name: str) -> Stored:
        """The file of a name relative to this one's folder."""

    @abstractmethod
    def missing(self) -> str:
        """Why it is not a file, or '' (also where only reading would tell)."""


@dataclass(frozen=True, slots=True)
class LocalFile(Stored):
    """A file on this machine."""

    path: Path
    """Where."""

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    def part(self, start: int, size: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(size)

    def whole(self) -> bytes:
        size = self.path.stat().st_size
        if size > MAX_BYTES:
            raise too_large(size)
        return self.path.read_bytes()

    def opened(self) -> Path:
        return self.path

    def beside(self, name: str) -> LocalFile:
        return LocalFile(self.path.parent / name)

    def missing(self) -> str:
        try:
            if self.path.is_file():
                return ""
            return "is a folder" if self.path.is_dir() else "does not exist"
        except OSError as error:
            return f"cannot be read ({(error.strerror or str(error)).lower()})"
