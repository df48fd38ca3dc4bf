"""Files in object storage (``s3://``, ``gs://``, ``https://``, ...), by fsspec: nothing is kept on
disk, and what a network loses now and then is asked for again.

Credentials, endpoints and regions are what the storage's own tools use: environment variables,
profiles, ``FSSPEC_*`` (docs/photos.md).
"""

from __future__ import annotations

import importlib
import io
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import IO, Any, TypeVar, cast
from urllib.parse import urlsplit

from milan_onnx.errors import ExtraMissing, ProbeError
from milan_onnx.probe.base import MAX_BYTES, too_large
from milan_onnx.probe.stored import Stored

T = TypeVar("T")

WAITS = (0.2, 0.8, 3.2)
"""Seconds before it is tried again, and again."""

PATIENT = ("s3", "s3a", "gs", "gcs")
"""Those whose packages try again by themselves; a wrong endpoint would take a minute."""

LASTING = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    TypeError,
    ValueError,
)
"""What asking again does not mend."""
GONE = (404, 410)
BUSY = (408, 425, 429)
"""Of the replies 400 to 499, those that time mends."""

LEAST, MOST = 64 << 10, 8 << 20
"""Bytes that a file object asks for: the first, and at most where it is read on and on."""

CREDENTIALS = {
    "s3": "set AWS_PROFILE or AWS_ACCESS_KEY_ID (AWS_ENDPOINT_URL where it is not Amazon's), or "
    "FSSPEC_S3_ANON=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or FSSPEC_GS_TOKEN=anon for a public bucket",
}


@dataclass(frozen=True, slots=True)
class RemoteFile(Stored):
    """A file at an address."""

    store: Store
    """What reads it."""

    key: str
    """How the store calls it."""

    url: str
    """Its address."""

    known: int | None = None
    """Its bytes, where a listing told them."""

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        # A key may hold a question mark, an address of the web has its query after one.
        path = self.url.split("?", 1)[0] if self.store.web else self.url
        return path.rstrip("/").rsplit("/", 1)[-1]

    @property
    def waits(self) -> bool:
        return self.store.waits

    def sized(self) -> RemoteFile:
        return self if self.known is not None else replace(self, known=self.store.size(self))

    def part(self, start: int, size: int) -> bytes:
        if self.known is None:
            raise ValueError("parts are read of a file whose size is known")
        return self.store.part(self, start, min(size, self.known - start))

    def whole(self) -> bytes:
        if self.known is None:
            return self.store.stream(self)
        if self.known > MAX_BYTES:
            raise too_large(self.known)
        return self.store.part(self, 0, self.known)

    def opened(self) -> IO[bytes]:
        return cast(IO[bytes], RangedFile(self))

    def beside(self, name: str) -> RemoteFile:
        return self.store.file(f"{self.url.rsplit('/', 1)[0]}/{name}")

    def missing(self) -> str:
        return ""


class Store:
    """One kind of storage, used from any thread."""

    def __init__(self, url: str) -> None:
        """The storage that an address is in. Raises ExtraMissing, and ProbeError for none such."""
        self.scheme = url.split("://", 1)[0].lower()
        self.web = self.scheme in ("http", "https")
        self.waits = self.scheme != "memory"
        self._waits = WAITS[:1] if self.scheme in PATIENT else WAITS
        try:
            self._files: Any = importlib.import_module("fsspec.core").url_to_fs(url)[0]
        except ImportError as error:
            raise _extra_missing(self.scheme, error) from error
        except Exception as error:  # each storage has errors of its own
            raise _failure(url, self.scheme, error) from error

    def file(self, url: str, known: int | None = None) -> RemoteFile:
        """The file at an address."""
        return RemoteFile(self, self._key(url), url, known)

    def below(self, url: str) -> list[tuple[str, RemoteFile]]:
        """All files below an address, sorted by their relative names. Raises ProbeError."""
        if self.web:
            raise ProbeError(
                f"the probe images {url}: an address of {self.scheme} has no folders to list",
                hint="give a list of addresses (.txt), a zip, a tar or a parquet file",
            )
        root = self._key(url).rstrip("/")

        def find() -> dict[str, dict[str, Any]]:
            # What was listed earlier in this process may be out of date.
            self._files.invalidate_cache()
            return dict(self._files.find(root, detail=True))

        base, inside = url.rstrip("/"), f"{root}/"
        found = self._found(find, url)
        names = sorted(key[len(inside) :] for key in found if key.startswith(inside))
        if not names:
            raise ProbeError(f"there is nothing below {url}", hint="check the address")
        return [
            (name, RemoteFile(self, inside + name, f"{base}/{name}", found[inside + name]["size"]))
            for name in names
        ]

    def part(self, file: RemoteFile, start: int, size: int) -> bytes:
        """Exactly ``size`` bytes. Raises ProbeError, or FileNotFoundError."""
        if size <= 0:
            return b""

        def get() -> bytes:
            if self.web:
                headers = {"Range": f"bytes={start}-{start + size - 1}"}
                data = self._bounded(file, size + 1, headers=headers)
            else:
                data = bytes(self._files.cat_file(file.key, start=start, end=start + size))
            if len(data) != size:
                raise OSError(f"{len(data)} bytes came instead of {size}")
            return data

        return self._tried(get, file.url)

    def stream(self, file: RemoteFile) -> bytes:
        """All bytes of a file whose size no listing told; no more than the limit is ever held."""

        data = self._tried(lambda: self._bounded(file, MAX_BYTES + 1), file.url)
        if len(data) > MAX_BYTES:
            raise too_large(len(data))
        return data

    def size(self, file: RemoteFile) -> int:
        """Bytes of a file that parts are read of. Raises ProbeError where that cannot be."""
        info = self._found(lambda: self._files.info(file.key), file.url)
        size, parts = info.get("size"), info.get("partial", True)
        if info.get("type") == "directory" or not isinstance(size, int) or not parts:
            raise ProbeError(
                f"cannot read {file.url}: no parts of it can be asked for", hint="copy it here"
            )
        return size

    def _bounded(self, file: RemoteFile, limit: int, **more: Any) -> bytes:
        """At most ``limit`` bytes, of a server that may send without end."""
        if self.web:
            # A stream; and that its size is told spares a question.
            more |= {"block_size": 0, "size": 1}
        with self._files.open(file.key, "rb", **more) as opened:
            parts, left = [], limit
            while left > 0 and (part := opened.read(left)):
                parts.append(part)
                left -= len(part)
        return b"".join(parts)

    def _key(self, url: str) -> str:
        return str(self._files._strip_protocol(url))

    def _found(self, call: Callable[[], T], url: str) -> T:
        """The same of what must be there: raises ProbeError where it is not."""
        try:
            return self._tried(call, url)
        except FileNotFoundError as error:
            raise ProbeError(
                f"the probe images {url} do not exist", hint="check the address"
            ) from error

    def _tried(self, call: Callable[[], T], url: str) -> T:
        """What a call gives, asked for again where it fails for now.

        Raises FileNotFoundError, and ProbeError for anything else.
        """
        for wait in (*self._waits, None):
            try:
                return call()
            except Exception as raised:  # each storage has errors of its own
                error = _cause(raised) if self.web else raised
                if isinstance(error, FileNotFoundError):
                    raise error from raised
                if wait is None or _lasts(error):
                    raise _failure(url, self.scheme, error) from raised
                time.sleep(wait)
        raise AssertionError("unreachable")


class RangedFile(io.RawIOBase):
    """A file in object storage as a file object: one window of it is held.

    The window grows while the file is read on from where it ended, and is small again after a leap:
    so headers that lie apart cost little, and a stream few requests. Not to be shared by threads.
    """

    def __init__(self, file: RemoteFile) -> None:
        super().__init__()
        self._file = file
        self._size = file.known or 0
        self._at = 0
        self._start = 0
        self._window = b""
        self._step = LEAST

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("a place before the beginning")
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        if not self._holds(wanted):
            self._fetch(wanted)
        begin = self._at - self._start
        data = self._window[begin : begin + wanted]
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _holds(self, size: int) -> bool:
        return self._start <= self._at and self._at + size <= self._start + len(self._window)

    def _fetch(self, wanted: int) -> None:
        end = self._start + len(self._window)
        on = bool(self._window) and self._start <= self._at <= end + self._step
        self._step = min(self._step * 2, MOST) if on else LEAST
        kept = self._window[self._at - self._start :] if self._start <= self._at < end else b""
        begin = self._at + len(kept)
        size = max(self._step, wanted - len(kept))
        self._window = kept + self._file.part(begin, size)
        self._start = self._at


def check_address(url: str) -> tuple[str, str]:
    """Storage and host or bucket of an address. Raises ProbeError for a password in it."""
    try:
        parts = urlsplit(url)
        if parts.password is None:
            return parts.scheme, parts.netloc
    except ValueError as error:
        raise ProbeError(f"{url} is no address: {error}", hint="check it") from error
    raise ProbeError(
        "the address of the probe images holds a password, which a run would record",
        hint="leave it out and give it in the environment",
    )


def _extra_missing(scheme: str, error: ImportError) -> ExtraMissing:
    found = error.name or re.sub(r".*\b[Ii]nstall (\S+).*", r"\1", str(error).splitlines()[0])
    return ExtraMissing(
        f"photos at {scheme}:// need {found}, which is not installed",
        hint="pip install 'milan-onnx[cpu,ray]'",
    )


def _cause(error: Exception) -> Exception:
    """fsspec calls everything that happens to an address of the web a file that is not there."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return error
    return error if getattr(cause, "status", None) in GONE else cause


def _lasts(error: Exception) -> bool:
    status = getattr(error, "status", None)
    refused = isinstance(status, int) and 400 <= status < 500 and status not in BUSY
    return refused or isinstance(error, LASTING) or "Credentials" in type(error).__name__


def _failure(url: str, scheme: str, error: Exception) -> ProbeError:
    reason = " ".join((str(error) or type(error).__name__).split())[:200]
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        hint = CREDENTIALS.get({"s3a": "s3", "gcs": "gs"}.get(scheme, scheme), "check the access")
        return ProbeError(f"cannot read {url}: no access ({reason})", hint=hint)
    return ProbeError(f"cannot read {url}: {reason}", hint="check the address and the network")
