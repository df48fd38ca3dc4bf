"""Probe images inside a zip or tar file, read in place: nothing is unpacked to disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, cast

from milan_onnx.errors import ProbeError
from milan_onnx.files import sha256_file, sha256_stream
from milan_onnx.probe.base import MAX_BYTES, ProbeSet, clean_name, is_image_name, too_large
from milan_onnx.probe.decode import Unusable
from milan_onnx.probe.headers import entries
from milan_onnx.probe.stored import Stored

# What reading a hostile or damaged archive raises.
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    NotImplementedError,
)

OPENERS: dict[str, Callable[..., object]] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}

CACHE_BYTES = 64 << 20

LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Of a zip's member: signature, lengths of its name and of what else comes before its bytes."""


class ZipProbe(ProbeSet):
    """Photos in a zip file: a member is read at its place, header and bytes at once."""

    def __init__(self, file: Stored) -> None:
        self.name = f"archive {file}"
        self.source = str(file)
        self._file = file.sized()
        self.waits = file.waits
        try:
            with zipfile.ZipFile(self._file.opened()) as archive:
                infos = [info for info in archive.infolist() if not info.is_dir()]
        except DAMAGE as error:
            raise _unreadable(file, error) from error
        named = [(_inner_name(file, info.filename.replace("\\", "/")), info) for info in infos]
        members = sorted((name, n) for n, (name, _) in enumerate(named) if is_image_name(name))
        self._names = _some([name for name, _ in members], file, len(infos))
        self._infos = [named[n][1] for _, n in members]

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def read(self, index: int) -> bytes:
        info = self._infos[index]
        size = max(info.file_size, info.compress_size)
        if size > MAX_BYTES:
            raise too_large(size)
        if info.flag_bits & 1:
            raise Unusable("encrypted in the archive")
        try:
            packed = io.BytesIO(self._packed(info))
            # ZipExtFile stops at the size that the directory states, so a lie cannot grow.
            return zipfile.ZipExtFile(packed, "r", info).read()
        except DAMAGE as error:
            raise Unusable(f"damaged in the archive ({error})") from error

    def _packed(self, info: zipfile.ZipInfo) -> bytes:
        """The member's bytes as they are in the file."""
        # The directory's copy of what comes before them tells about how much to read.
        head = LOCAL_HEADER.size + len(info.filename.encode()) + len(info.extra) + 64
        data = self._file.part(info.header_offset, head + info.compress_size)
        signature, *lengths = LOCAL_HEADER.unpack_from(data.ljust(LOCAL_HEADER.size, b"\0"))
        if signature != b"PK\3\4":
            raise zipfile.BadZipFile("Bad magic number for file header")
        begin = LOCAL_HEADER.size + sum(lengths)
        end = begin + info.compress_size
        if len(data) < end:
            data += self._file.part(info.header_offset + len(data), end - len(data))
        return data[begin:end]


@dataclass(frozen=True)
class Member:
    """An image in a tar file."""

    name: str
    """Relative POSIX name."""

    offset: int
    """Where its bytes begin in the unpacked stream."""

    size: int
    """Its bytes."""


class TarProbe(ProbeSet):
    """Photos in a tar file: plain, sorted by name; gzip, bzip2 or xz, in the archive's order.

    Opening lists the members, which for a compressed file means one pass over it. A plain file is
    then read at each member's offset. A compressed one is read as a stream: in its order that is
    one more pass, and each step back starts the stream again, unless the member was passed lately
    (the last 64 MiB of passed images are kept, which covers threads that ask slightly out of
    order).
    """

    def __init__(self, file: Stored) -> None:
        self.name = f"archive {file}"
        self.source = str(file)
        self._file = file.sized()
        self.waits = file.waits
        try:
            self._compression = _compression(self._file.part(0, 6))
            members, others = self._list()
        except DAMAGE as error:
            raise _unreadable(file, error) from error
        # Members of a compressed file keep its order: sorted names could mean endless rewinding.
        self._members = sorted(members, key=_by_name) if not self._compression else members
        self._names = _some([member.name for member in self._members], file, others)
        self._stream = _Stream(self._open, self._members) if self._compression else None

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def read(self, index: int) -> bytes:
        member = self._members[index]
        if member.size > MAX_BYTES:
            raise too_large(member.size)
        try:
            data = (
                self._stream.read(index)
                if self._stream
                else self._file.part(member.offset, member.size)
            )
        except DAMAGE as error:
            raise Unusable(f"damaged in the archive ({error})") from error
        if len(data) != member.size:
            raise Unusable("cut short in the archive")
        return data

    def digest(self, index: int) -> str:
        """Of a compressed file the whole's hash and the place: threads would read it back and
        forth."""
        if not self._stream:
            return super().digest(index)
        member = self._members[index]
        return f"{self._whole}:{member.offset}:{member.size}"

    @cached_property
    def _whole(self) -> str:
        try:
            opened = self._file.opened()
            return sha256_file(opened) if isinstance(opened, Path) else sha256_stream(opened)
        except OSError as error:
            raise _unreadable(self._file, error) from error

    def close(self) -> None:
        if self._stream:
            self._stream.close()

    def _open(self) -> IO[bytes]:
        """The unpacked stream, to be closed."""
        opened = self._file.opened()
        if self._compression:
            return cast(IO[bytes], OPENERS[self._compression](opened, "rb"))
        return opened.open("rb") if isinstance(opened, Path) else opened

    def _list(self) -> tuple[list[Member], int]:
        members, others = [], 0
        with self._open() as raw:
            for entry in entries(raw):
                name = _inner_name(self._file, entry.name) if entry.plain else ""
                if entry.plain and is_image_name(name):
                    members.append(Member(name, entry.offset, entry.size))
                elif not entry.folder:
                    others += 1
        return members, others


class _Stream:
    """Random access to a compressed stream, cheap in its own order."""

    def __init__(self, opener: Callable[[], IO[bytes]], members: Sequence[Member]) -> None:
        self._opener = opener
        self._members = members
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self._next = 0
        self._passed: OrderedDict[int, bytes] = OrderedDict()
        self._held = 0

    def read(self, index: int) -> bytes:
        """The bytes of a member (fewer at the end of a file that was cut)."""
        with self._lock:
            if index in self._passed:
                return self._drop(index)
            if self._file is None or index < self._next:
                self._restart()
            while self._next < index:
                self._keep(self._next, self._advance())
            return self._advance()

    def close(self) -> None:
        """Close the file and forget what was kept."""
        with self._lock:
            self._forget()

    def _restart(self) -> None:
        self._forget()
        self._file = self._opener()

    def _forget(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._next, self._held = None, 0, 0
        self._passed.clear()

    def _advance(self) -> bytes:
        assert self._file is not None
        member = self._members[self._next]
        self._next += 1
        if member.size > MAX_BYTES:
            return b""
        self._file.seek(member.offset)
        return self._file.read(member.size)

    def _keep(self, index: int, data: bytes) -> None:
        self._passed[index] = data
        self._held += len(data)
        while self._held > CACHE_BYTES:
            self._drop(next(iter(self._passed)))

    def _drop(self, index: int) -> bytes:
        data = self._passed.pop(index)
        self._held -= len(data)
        return data


def _by_name(member: Member) -> str:
    return member.name


def _compression(head: bytes) -> str:
    """What a file is compressed by, from its first bytes; '' for nothing."""
    for magic, kind in ((b"\x1f\x8b", "gz"), (b"BZh", "bz2"), (b"\xfd7zXZ\0", "xz")):
        if head.startswith(magic):
            return kind
    return ""


def _inner_name(file: Stored, name: str) -> str:
    """A member's name as a relative path; raises ProbeError for one that climbs out."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ProbeError(
            f"the archive {file} holds a path that climbs out of it ({clean_name(name)})",
            hint="do not trust it, or pack the photos again",
        )
    return clean_name("/".join(parts))


def _some(names: list[str], file: Stored, others: int) -> list[str]:
    if not names:
        raise ProbeError(
            f"the archive {file} holds no images ({others} other file{'' if others == 1 else 's'})",
            hint="photos are found by suffix: jpg, png, bmp, gif, webp, tif, ppm, pgm, pbm",
        )
    return names


def _unreadable(file: Stored, error: BaseException) -> ProbeError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ProbeError(
        f"cannot read the archive {file}: {reason.lower()}",
        hint="check that it is complete, or give the folder of photos",
    )
