"""What comes with a request, straight to disk: no file of it is ever whole in memory.

Starlette's own forms are kept in the folder for temporary files first, which often is memory; here
a part goes to its place in the store as it arrives. How long the whole may be is counted by
`milan_onnx.serve.bodies`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from milan_onnx.files import unwritable
from milan_onnx.serve.errors import Refusal

REQUEST_FIELD = "request"
LONGEST_REQUEST = 1 << 20
"""Bytes of the JSON that says what is asked for."""
LONGEST_HEADERS = 8 << 10
ONNX_FIELD, PHOTOS_FIELD = "model", "images"
_FILE_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,255}")


@dataclass
class Arrived:
    """What a form brought."""

    request: bytes = b""
    """The JSON of its field ``request``."""

    names: dict[str, str] = field(default_factory=dict)
    """File names as they were sent, by field."""


async def json_body(request: Request) -> bytes:
    """A body that is JSON. Raises Refusal (413) where it is longer than any is meant to be."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_REQUEST:
            raise _too_long()
    return bytes(body)


async def form_body(request: Request, places: Mapping[str, Path]) -> Arrived:
    """A multipart form whose files go to ``places`` by field.

    Raises Refusal (422) for a form that is none or has other fields, (413) for a request that is
    too long, OutputUnwritable where the disk is full.
    """
    _, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if not boundary:
        raise _bad_form("its content type has no boundary")
    form = _Form(places)
    parser = MultipartParser(boundary, form.callbacks())
    try:
        async for chunk in request.stream():
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise _bad_form(str(error)[:200]) from error
    finally:
        form.close()
    if not form.complete:
        raise _bad_form("it ends in the middle")
    return form.arrived


class _Form:
    """Sorts the parts of a form as they come."""

    def __init__(self, places: Mapping[str, Path]) -> None:
        self.arrived = Arrived()
        self.complete = False
        self._places = places
        self._seen: set[str] = set()
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._size = 0
        self._file: IO[bytes] | None = None
        self._path = Path()

    def callbacks(self) -> Any:
        """What the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._take(self._name),
            "on_header_value": self._take(self._value),
            "on_header_end": self._header,
            "on_headers_finished": self._open,
            "on_part_data": self._data,
            "on_part_end": self.close,
            "on_end": self._end,
        }

    def close(self) -> None:
        """End the part that is open."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError as error:
                raise unwritable(self._path, error) from error

    def _begin(self) -> None:
        self._headers, self._size = {}, 0

    def _take(self, text: bytearray) -> Callable[[bytes, int, int], None]:
        def take(data: bytes, start: int, end: int) -> None:
            self._size += end - start
            if self._size > LONGEST_HEADERS:
                raise _bad_form("a part has too many headers")
            text.extend(data[start:end])

        return take

    def _header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _open(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name not in (REQUEST_FIELD, *self._places):
            known = ", ".join((REQUEST_FIELD, *self._places))
            raise _bad_form(f"it has a field {name[:50]!r}; known are {known}")
        if name in self._seen:
            raise _bad_form(f"it has the field {name} twice")
        self._seen.add(name)
        if name == REQUEST_FIELD:
            return
        given = options.get(b"filename", b"").decode("utf-8", "replace")
        if not _FILE_NAME.fullmatch(given):
            raise _bad_form(f"its field {name} is not a file")
        self.arrived.names[name] = given
        self._path = self._places[name]
        try:
            self._file = self._path.open("wb")
        except OSError as error:
            raise unwritable(self._path, error) from error

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is None:
            self.arrived.request += data[start:end]
            if len(self.arrived.request) > LONGEST_REQUEST:
                raise _too_long()
            return
        try:
            self._file.write(data[start:end])
        except OSError as error:
            raise unwritable(self._path, error) from error

    def _end(self) -> None:
        self.complete = True


def _bad_form(why: str) -> Refusal:
    return Refusal(
        422,
        f"the form cannot be read: {why}",
        hint="send multipart/form-data with `request`, `model` and `images`, or JSON",
    )


def _too_long() -> Refusal:
    return Refusal(413, f"the request is longer than {LONGEST_REQUEST} bytes", hint="ask for less")
