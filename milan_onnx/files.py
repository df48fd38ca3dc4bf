"""Files appear whole (temporary name, fsync, rename) or not at all; hashes of what was read."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from milan_onnx.errors import OutputUnwritable

CHUNK = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes its name only when the block ends without an error.

    Raises OutputUnwritable when the folder cannot be written or the disk is full.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise unwritable(path, error) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        open_up(temporary, 0o666)
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def open_up(temporary: Path, mode: int) -> None:
    """Give what mkstemp or mkdtemp made for its owner alone the mode that the umask allows."""
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(mode & ~umask)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file atomically."""
    with atomic_file(path) as file:
        file.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write canonical JSON (sorted keys, UTF-8, two-space indent, a newline at the end).

    A path with bytes that are no text has lone surrogates; they are written as JSON escapes.
    """
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False)
    write_bytes(path, text.encode("utf-8", "backslashreplace") + b"\n")


def unwritable(path: Path, error: OSError) -> OutputUnwritable:
    """The error for a path that cannot be written, with the operating system's reason."""
    reason = (error.strerror or str(error)).lower()
    return OutputUnwritable(f"cannot write {path}: {reason}", hint="choose another folder")
