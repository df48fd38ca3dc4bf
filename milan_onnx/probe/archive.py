"""Probe images inside a zip or tar file, read in place: nothing is unpacked to disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
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
from milan_onnx.files import sha256_file
from milan_onnx.probe.base import MAX_BYTES, ProbeSet, clean_name, is_image_name, too_large
from milan_onnx.probe.decode import Unusable

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

OPENERS: dict[str, Callable[..., object]] = {
    "": open,
    "gz": gzip.open,
    "bz2": bz2.open,
    "xz": lzma.open,
}

CACHE_BYTES = 64 << 20


class ZipProbe(ProbeSet):
    """Photos in a zip file; every thread reads through its own handle."""

    def __init__(self, path: Path) -> None:
        self.name = f"archive {path}"
        self.source = str(path)
        self._path = path
        self._local = threading.local()
        try:
            with zipfile.ZipFile(path) as archive:
                infos = [info for info in archive.infolist() if not info.is_dir()]
        except DAMAGE as error:
            raise _unreadable(path, error) from error
        named = [(_inner_name(path, info.filename.replace("\\", "/")), info) for info in infos]
        members = sorted((name, n) for n, (name, _) in enumerate(named) if is_image_name(name))
        self._names = _some([name for name, _ in members], path, len(infos))
        self._infos = [named[n][1] for _, n in members]

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def read(self, index: int) -> bytes:
        info = self._infos[index]
        if info.file_size > MAX_BYTES:
            raise too_large(info.file_size)
        if info.flag_bits & 1:
            raise Unusable("encrypted in the archive")
        try:
            # ZipExtFile stops at the size that the directory states, so a lie cannot grow.
            return self._handle().read(info)
        except DAMAGE as error:
            raise Unusable(f"damaged in the archive ({error})") from error

    def _handle(self) -> zipfile.ZipFile:
        handle: zipfile.ZipFile | None = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = zipfile.ZipFile(self._path)
        return handle

    def close(self) -> None:
        """Close the calling thread's handle; those of ended threads close by themselves."""
        handle: zipfile.ZipFile | None = getattr(self._local, "handle", None)
        if handle is not None:
            handle.close()
            self._local.handle = None


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

    def __init__(self, path: Path) -> None:
        self.name = f"archive {path}"
        self.source = str(path)
        self._path = path
        try:
            self._compression = _compression(path)
            members, others = self._list()
        except DAMAGE as error:
            raise _unreadable(path, error) from error
        # Members of a compressed file keep its order: sorted names could mean endless rewinding.
        self._members = sorted(members, key=_by_name) if not self._compression else members
        self._names = _some([member.name for member in self._members], path, others)
        self._stream = _Stream(self._open, self._members) if self._compression else None

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def read(self, index: int) -> bytes:
        member = self._members[index]
        if member.size > MAX_BYTES:
            raise too_large(member.size)
        try:
            data = self._stream.read(index) if self._stream else self._read_at(member)
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
            return sha256_file(self._path)
        except OSError as error:
            raise _unreadable(self._path, error) from error

    def close(self) -> None:
        if self._stream:
            self._stream.close()

    def _read_at(self, member: Member) -> bytes:
        with self._open() as file:
            file.seek(member.offset)
            return file.read(member.size)

    def _open(self) -> IO[bytes]:
        return cast(IO[bytes], OPENERS[self._compression](self._path, "rb"))

    def _list(self) -> tuple[list[Member], int]:
        members, others = [], 0
        with (
            self._open() as raw,
            tarfile.open(fileobj=cast(IO[bytes], _Bounded(raw)), mode="r:") as tar,
        ):
            while (info := tar.next()) is not None:
                # Links, devices and sparse files hold no photo that could be read at an offset.
                plain = info.isreg() and not info.issparse()
                name = _inner_name(self._path, info.name) if plain else ""
                if plain and is_image_name(name):
                    members.append(Member(name, info.offset_data, info.size))
                elif not info.isdir():
                    others += 1
                # Otherwise tarfile keeps every header for as long as it is open.
                tar.members = []  # type: ignore[attr-defined]
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


class _Bounded:
    """A file that refuses huge reads: tarfile believes the size in an extended header."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if size < 0 or size > 1 << 24:
            raise tarfile.ReadError("a header of more than 16 MiB")
        return self._file.read(size)


def _by_name(member: Member) -> str:
    return member.name


def _compression(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(6)
    for magic, kind in ((b"\x1f\x8b", "gz"), (b"BZh", "bz2"), (b"\xfd7zXZ\0", "xz")):
        if head.startswith(magic):
            return kind
    return ""


def _inner_name(path: Path, name: str) -> str:
    """A member's name as a relative path; raises ProbeError for one that climbs out."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ProbeError(
            f"the archive {path} holds a path that climbs out of it ({clean_name(name)})",
            hint="do not trust it, or pack the photos again",
        )
    return clean_name("/".join(parts))


def _some(names: list[str], path: Path, others: int) -> list[str]:
    if not names:
        raise ProbeError(
            f"the archive {path} holds no images ({others} other file{'' if others == 1 else 's'})",
            hint="photos are found by suffix: jpg, png, bmp, gif, webp, tif, ppm, pgm, pbm",
        )
    return names


def _unreadable(path: Path, error: BaseException) -> ProbeError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ProbeError(
        f"cannot read the archive {path}: {reason.lower()}",
        hint="check that it is complete, or give the folder of photos",
    )
