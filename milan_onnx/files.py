"""Files appear whole (temporary name, fsync, rename) or not at all; hashes of what was read."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from milan_onnx.errors import OutputUnwritable, UsageError

CHUNK = 1 << 20


def is_url(place: object) -> bool:
    """Whether a place is an address (``s3://bucket/photos``) and not a path on this machine."""
    return isinstance(place, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", place) is not None


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return sha256_stream(file)


def sha256_stream(file: IO[bytes]) -> str:
    """Hexadecimal SHA-256 of what is left of an open file."""
    digest = hashlib.sha256()
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


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table for spreadsheets atomically; None is an empty cell.

    A text that a spreadsheet would run as a formula (=, +, -, @ in front) gets an apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_csv_cell(cell) for cell in row] for row in rows)
    write_bytes(path, text.getvalue().encode("utf-8", "backslashreplace"))


def _csv_cell(cell: object) -> object:
    formula = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{cell}" if formula else cell


def unwritable(path: Path, error: OSError) -> OutputUnwritable:
    """The error for a path that cannot be written, with the operating system's reason."""
    reason = (error.strerror or str(error)).lower()
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "free some space, or choose another folder" if full else "choose another folder"
    return OutputUnwritable(f"cannot write {path}: {reason}", hint=hint)


@contextmanager
def staged_folder(out: Path, *, overwrite: bool, marker: str, what: str = "run") -> Iterator[Path]:
    """A folder beside ``out`` that takes its name when the block ends well, and is gone otherwise.

    It is made at once, so that an unwritable place is found before the work and not after it.
    ``marker`` is the file that tells a ``what`` (run, bundle), which may be replaced, from any
    other folder. Raises UsageError when ``out`` is there and may not be replaced, OutputUnwritable
    when it cannot be made. A link is followed: the folder goes where it leads.
    """
    out = real_place(out, what)
    check_replaceable(out, overwrite, marker, what)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.partial-"))
    except OSError as error:
        raise unwritable(out, error) from error
    try:
        yield staged
        check_replaceable(out, overwrite, marker, what)  # another may have been faster
        publish(staged, out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def real_place(out: Path, what: str) -> Path:
    """The place itself, that can be renamed. Raises UsageError for one that cannot."""
    try:
        real = out.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise UsageError(
            f"{out} is a link that leads nowhere", hint="give another --out"
        ) from error
    if real == Path.cwd() or real.is_mount():
        place = "the current folder" if real == Path.cwd() else "a mounted disk"
        raise UsageError(
            f"{out} is {place}, which a {what} cannot replace", hint=f"use --out {out / what}"
        )
    return real


def check_replaceable(out: Path, overwrite: bool, marker: str, what: str) -> None:
    """Raise UsageError where something is there that may not be replaced."""
    check_kind(out, marker, what)
    if (out / marker).is_file() and not overwrite:
        raise UsageError(f"{out} already holds a {what}", hint="give another --out, or --overwrite")


def check_kind(out: Path, marker: str, what: str) -> None:
    """Raise UsageError where something is there that is no ``what``, nor an empty folder."""
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file, not a folder", hint="give another --out")
    if not (out / marker).is_file() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty and not a {what}", hint="give another --out")


def publish(staged: Path, out: Path) -> None:
    """Give a finished folder its name, in the place of what is there. Raises OutputUnwritable."""
    open_up(staged, 0o777)
    try:
        if out.exists():
            _replace(staged, out)
        else:
            staged.rename(out)
    except OSError as error:
        raise unwritable(out, error) from error


def _replace(staged: Path, out: Path) -> None:
    """Put a folder in the place of another, which stays if that fails."""
    retired = Path(tempfile.mkdtemp(dir=staged.parent, prefix=f".{out.name}.old-"))
    try:
        out.rename(retired / out.name)
        try:
            staged.rename(out)
        except OSError:
            (retired / out.name).rename(out)
            raise
    finally:
        shutil.rmtree(retired, ignore_errors=True)
