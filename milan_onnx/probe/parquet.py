"""Probe images in parquet files, as Hugging Face data sets and WebDataset conversions hold them.

Opening reads the footer and the names, no image. A file is then read as a stream of a few rows at
a time, whatever its row groups are: cheap in its own order; a step back starts its row group again,
unless the image was passed lately.
"""

from __future__ import annotations

import importlib
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from milan_onnx.errors import ExtraMissing, MilanError, ProbeError
from milan_onnx.probe.base import MAX_BYTES, ProbeSet, clean_name, too_large
from milan_onnx.probe.decode import Unusable
from milan_onnx.probe.stored import Stored

IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "content")
"""What columns of photos are called, the likeliest first."""
NAMES = ("__key__", "path", "file_name", "filename", "file", "name", "image_path", "key")
"""What columns of names are called, the likeliest first."""

ROWS, NAME_ROWS = 4, 64
"""Images, and names, decoded at once: all that a hostile dictionary page can multiply."""
MOST_ROWS = 20_000_000
"""Of one file: a footer may claim any number."""
LONGEST = 1000
"""Characters of a name; what is longer is no name."""
NEAR = 64
"""Rows that are read on and not leaped over."""
BUFFER = 1 << 20
CACHE_BYTES = 128 << 20


@dataclass(frozen=True)
class Columns:
    """Which columns of a file are read."""

    image: str
    """Path of the encoded photos."""

    names: tuple[str, ...]
    """Paths of columns that may name them, the likeliest first."""

    why: str
    """Why that column of photos."""


class ParquetProbe(ProbeSet):
    """Photos in a parquet file, in the order of its rows.

    A row goes by the name that a column gives it, else by FILE#ROW.
    """

    streamed = True

    def __init__(self, file: Stored, column: str | None = None, *, within: str = "") -> None:
        """``column``: that of the photos, where the choice is not to be left to the file.

        ``within``: the file's relative path, where it is one of several: it goes before the names.
        Raises ProbeError, or ExtraMissing where pyarrow is not installed.
        """
        self.source = f"{file}#{column}" if column else str(file)
        self.waits = file.waits
        self._file = file.sized()
        self._parquet = _parquet(file)
        table = self._opened()
        chosen = choose_columns(table.schema_arrow, file, column)
        self.column = chosen.image.split(".")[0]
        self.name = f"parquet {file}, column {self.column} ({chosen.why})"
        self._groups = [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
        self._names = self._named(table, chosen, within)
        self._path = chosen.image
        self._ends = list(accumulate(self._groups))
        self._lock = threading.Lock()
        self._rows: Iterator[bytes | int | None] | None = None
        self._next = 0
        self._passed: OrderedDict[int, bytes | int | None] = OrderedDict()
        self._held = 0

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def read(self, index: int) -> bytes:
        with self._lock:
            try:
                data = self._read(index)
            except Exception as error:  # pyarrow raises nearly anything on broken bytes
                self._forget()
                if isinstance(error, MilanError | MemoryError):
                    raise
                data = self._alone(index)
        if data is None:
            raise Unusable("no bytes in its row")
        if isinstance(data, int):
            raise too_large(data)
        return data

    def close(self) -> None:
        with self._lock:
            self._forget()

    def _alone(self, index: int) -> bytes | int | None:
        """A row after a failure, from the start of its own group: what was damaged may lie before
        it, and which rows are unusable must not depend on who asks when."""
        try:
            return self._read(index)
        except Exception as error:
            self._forget()
            if isinstance(error, MilanError | MemoryError):
                raise
            raise Unusable(f"damaged in the parquet file ({_first_line(error)})") from error

    def _read(self, index: int) -> bytes | int | None:
        """The bytes of a row; their number where it is over the limit; None where it is null."""
        if index in self._passed:
            return self._drop(index)
        group = bisect_right(self._ends, index)
        begin = self._ends[group] - self._groups[group]
        # Threads ask slightly out of order, so a group is not begun while the last may be wanted.
        leap = begin > self._next and index - self._next > NEAR
        if self._rows is None or index < self._next or leap:
            self._restart(group, begin)
        while self._next < index:
            self._keep(self._next, self._advance())
        return self._advance()

    def _restart(self, group: int, begin: int) -> None:
        self._rows, self._next = self._from(group), begin

    def _from(self, group: int) -> Iterator[bytes | int | None]:
        """The rows from a group on."""
        table = self._opened()
        for place in range(group, len(self._groups)):
            batches = table.iter_batches(
                ROWS, row_groups=[place], columns=[self._path], use_threads=False
            )
            for batch in batches:
                yield from map(_bytes, _leaf(batch))

    def _advance(self) -> bytes | int | None:
        assert self._rows is not None
        for data in self._rows:
            self._next += 1
            return data
        raise EOFError("fewer rows than it says")

    def _keep(self, index: int, data: bytes | int | None) -> None:
        self._passed[index] = data
        self._held += _held(data)
        while self._held > CACHE_BYTES:
            self._drop(next(iter(self._passed)))

    def _drop(self, index: int) -> bytes | int | None:
        data = self._passed.pop(index)
        self._held -= _held(data)
        return data

    def _forget(self) -> None:
        self._rows, self._next, self._held = None, 0, 0
        self._passed.clear()

    def _opened(self) -> Any:
        try:
            # Otherwise a row group is held whole.
            opened = self._file.opened()
            return self._parquet.ParquetFile(opened, pre_buffer=False, buffer_size=BUFFER)
        except MilanError:
            raise
        except Exception as error:
            raise _unreadable(self._file, error) from error

    def _named(self, table: Any, columns: Columns, within: str) -> list[str]:
        """A name for each row."""
        count = sum(self._groups)
        if not 0 < count <= MOST_ROWS:
            raise ProbeError(
                f"the parquet file {self._file} holds {count or 'no'} rows",
                hint=f"give one of 1 to {MOST_ROWS}",
            )
        found: list[str | None] = []
        for column in columns.names:
            found = self._texts(table, column)
            if any(found):
                break
        found = found if len(found) == count else [None] * count
        unnamed, prefix = within or self._file.name, f"{within}/" if within else ""
        return [
            f"{prefix}{clean_name(name)}" if name else f"{unnamed}#{row}"
            for row, name in enumerate(found)
        ]

    def _texts(self, table: Any, column: str) -> list[str | None]:
        try:
            batches = table.iter_batches(NAME_ROWS, columns=[column], use_threads=False)
            return [_text(value) for batch in batches for value in _leaf(batch)]
        except MilanError:
            raise
        except Exception as error:
            raise _unreadable(self._file, error) from error


def choose_columns(schema: Any, file: Stored, wanted: str | None) -> Columns:
    """The columns of photos and of names of a schema.

    Raises ProbeError naming the columns where none, or not one alone, can be that of the photos.
    """
    types = importlib.import_module("pyarrow.types")
    photos = {field.name: path for field in schema if (path := _photo_path(field, types))}
    named = [name for name in IMAGES if name in photos]
    if wanted is not None:
        chosen, why = wanted, "as asked for"
    elif named:
        others = len(photos) - 1
        chosen, why = named[0], "by its name" if others else "the only one of bytes"
    else:
        chosen, why = next(iter(photos), ""), "the only one of bytes"
    several = wanted is None and not named and len(photos) > 1
    if chosen not in photos or several or schema.names.count(chosen) > 1:
        what = f"no column {wanted} of photos" if wanted else "no one column of photos"
        seen = ", ".join(f"{field.name}: {str(field.type)[:60]}" for field in schema)
        raise ProbeError(
            f"the parquet file {file} has {what} (it has {clean_name(seen)[:600]})",
            hint="photos are bytes, or structs of bytes and path; FILE.parquet#COLUMN names one",
        )
    own = (
        [f"{chosen}.path"] if photos[chosen] != chosen and _has_path(schema, chosen, types) else []
    )
    texts = {field.name for field in schema if _is_text(field.type, types)}
    return Columns(photos[chosen], (*own, *(name for name in NAMES if name in texts)), why)


def _photo_path(field: Any, types: Any) -> str:
    """Where the bytes of a column are; '' where it has none."""
    if "." in field.name:  # pyarrow would take it for a path
        return ""
    if _is_bytes(field.type, types):
        return str(field.name)
    if types.is_struct(field.type):
        index = field.type.get_field_index("bytes")
        if index >= 0 and _is_bytes(field.type.field(index).type, types):
            return f"{field.name}.bytes"
    return ""


def _has_path(schema: Any, column: str, types: Any) -> bool:
    kind = schema.field(column).type
    index = kind.get_field_index("path")
    return index >= 0 and _is_text(kind.field(index).type, types)


def _is_bytes(kind: Any, types: Any) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_text(kind: Any, types: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _leaf(batch: Any) -> Any:
    """The values of a batch's only column, or of the only field of it."""
    array = batch.column(0)
    # A struct that is null hides what its field holds, which flatten knows.
    return (
        array.flatten()[0] if hasattr(array.type, "num_fields") and array.type.num_fields else array
    )


def _bytes(value: Any) -> bytes | int | None:
    if not value.is_valid:
        return None
    buffer = value.as_buffer()
    return int(buffer.size) if buffer.size > MAX_BYTES else bytes(buffer)


def _text(value: Any) -> str | None:
    if not value.is_valid or value.as_buffer().size > LONGEST:
        return None
    return bytes(value.as_buffer()).decode("utf-8", "replace")


def _held(data: bytes | int | None) -> int:
    return len(data) if isinstance(data, bytes) else 0


def _parquet(file: Stored) -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ExtraMissing(
            f"the parquet file {file} needs pyarrow, which is not installed",
            hint="pip install 'milan-onnx[cpu,parquet]'",
        ) from error


def _unreadable(file: Stored, error: Exception) -> ProbeError:
    return ProbeError(
        f"cannot read the parquet file {file}: {_first_line(error)}",
        hint="check that it is complete",
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
