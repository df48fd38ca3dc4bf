"""What a tar file holds, found from its headers alone.

`tarfile` reads twenty thousand headers a second, and data sets have millions. Nearly all are plain
ones that say name and size and no more; these are read here, and `tarfile` reads the others.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, cast

BLOCK = tarfile.BLOCKSIZE
LONGEST = 1 << 24
"""Bytes that one header may ask for: tarfile believes the size in an extended one."""
TOLD = re.compile(rb"(?:^|\n)\d+ (?:path|size|linkpath|hdrcharset|GNU\.sparse)")
"""Records of an extended header that say something else of a file than its own header does."""
REGULAR, EXTENDED = (b"0", b"\0"), b"x"


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a tar file."""

    name: str
    """As it is there."""

    offset: int
    """Where its bytes begin in the unpacked stream."""

    size: int
    """Its bytes."""

    plain: bool
    """Whether its bytes lie there: a regular file, no link, device or sparse one."""

    folder: bool = False
    """Whether it is a folder."""


def entries(file: IO[bytes]) -> Iterator[Entry]:
    """What an unpacked tar file holds, in its order. Raises tarfile.TarError, OSError, ..."""
    with tarfile.open(fileobj=cast(IO[bytes], _Bounded(file)), mode="r:") as tar:
        at = 0
        while True:
            # A global header has a say in all that follow.
            entry = None if tar.pax_headers else _plain(file, at)
            if entry is None:
                file.seek(0)
                entry = _odd(tar, at)
                if entry is None:
                    return
                if tar.offset <= at:  # a size below zero, which tarfile believes
                    raise tarfile.ReadError("a header that leads back")
                at = tar.offset
            else:
                at = entry.offset + _blocks(entry.size)
            yield entry


def _plain(file: IO[bytes], at: int) -> Entry | None:
    """The regular file whose header is there; None where it is for tarfile to say what there is."""
    # The byte before tells whether the last file was complete.
    file.seek(max(0, at - 1))
    header = file.read(BLOCK + 1 if at else BLOCK)[1 if at else 0 :]
    data = at + BLOCK
    if header[156:157] == EXTENDED and _sound(header):
        size = _blocks(_number(header[124:136]))
        if not 0 <= size <= LONGEST:
            return None
        records = file.read(size)
        if TOLD.search(records):
            return None
        header, data = file.read(BLOCK), data + size + BLOCK
    if header[156:157] not in REGULAR or not _sound(header):
        return None
    name, prefix = _text(header[:100]), _text(header[345:500])
    size = _number(header[124:136])
    if size < 0 or name.endswith("/"):
        return None
    return Entry(f"{prefix}/{name}" if prefix else name, data, size, True)


def _odd(tar: tarfile.TarFile, at: int) -> Entry | None:
    tar.firstmember = None  # type: ignore[attr-defined]
    tar.offset = at
    info = tar.next()
    # Otherwise tarfile keeps every header for as long as it is open.
    tar.members = []  # type: ignore[attr-defined]
    if info is None:
        return None
    plain = info.isreg() and not info.issparse()
    return Entry(info.name, info.offset_data, info.size, plain, info.isdir())


def _sound(header: bytes) -> bool:
    """Whether a header is whole, of the usual kind, and has the sum that it says."""
    if len(header) != BLOCK or header[257:262] != b"ustar" or header[124] & 0x80:
        return False
    said = header[148:156]
    return _number(said) == sum(header) - sum(said) + 8 * ord(" ")


def _number(field: bytes) -> int:
    digits = field.split(b"\0", 1)[0].strip() or b"0"
    try:
        return int(digits, 8)
    except ValueError:
        return -1


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


class _Bounded:
    """A file that refuses huge reads."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if size < 0 or size > LONGEST:
            raise tarfile.ReadError("a header of more than 16 MiB")
        return self._file.read(size)
