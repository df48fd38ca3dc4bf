"""A request's body: JSON with base64 files in it, or a form with a JSON part and files."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from milan_onnx.errors import BadInput
from milan_onnx.serve.captioning.messages import Asked, Files
from milan_onnx.serve.errors import MEND_TYPE, Refusal, validation_sentence
from milan_onnx.serve.settings import ServeSettings

JSON, FORM = "application/json", "multipart/form-data"
MiB = 1 << 20

F = TypeVar("F", bound=Asked)
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Sending(Generic[F]):
    """What a request holds."""

    form: F
    """What is asked."""

    files: Mapping[str, bytes | str]
    """Images and masks by name; text is base64."""

    def size(self) -> tuple[int, int]:
        """How many units and exemplars."""
        return len(self.form.units), sum(len(unit.exemplars) for unit in self.form.units)


async def read(
    request: Request, whole: type[BaseModel], form: type[F], settings: ServeSettings
) -> Sending[F]:
    """Read a body of either kind: ``whole`` is the JSON's model, ``form`` the form's.

    Raises Refusal: 415 for another type, 422 for what does not fit the model or the limits.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == JSON:
        # Not request.body(), which would keep the bytes as long as the request.
        body = _parsed(whole, b"".join([part async for part in request.stream()]))
        assert isinstance(body, Files) and isinstance(body, form)
        sending = Sending(body, body.files)
    elif kind == FORM:
        sending = await _form(request, form, settings)
    else:
        raise Refusal(415, f"the body is of type {kind[:80]!r}", hint=f"send {JSON} or {FORM}")
    check(sending, settings)
    return sending


def check(sending: Sending[F], settings: ServeSettings) -> None:
    """Refuse (422) what passes the limits, or names files that are not there."""
    units = sending.form.units
    exemplars = [exemplar for unit in units for exemplar in unit.exemplars]
    for what, count, most in (
        ("units", len(units), settings.max_units),
        ("exemplars", len(exemplars), settings.max_images),
        ("phrases", len(getattr(sending.form, "phrases", ())), settings.max_phrases),
    ):
        if count > most:
            raise Refusal(
                422, f"the request has {count} {what}, at most {most} are taken", hint="send less"
            )
    named = dict.fromkeys(n for e in exemplars for n in (e.image, e.mask) if n is not None)
    for name in named:
        if name not in sending.files:
            raise Refusal(422, f"there is no file {name!r}", hint="send it, or name one that is")
    for name in sending.files:
        if name not in named:
            raise Refusal(422, f"no exemplar names the file {name!r}", hint="leave it out")


def content(name: str, value: bytes | str) -> bytes:
    """The bytes of a file. Raises BadInput where they are no base64."""
    if isinstance(value, bytes):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(
            f"the file {name!r} is no base64: {error}", hint="send its bytes as base64"
        ) from error


async def _form(request: Request, form: type[F], settings: ServeSettings) -> Sending[F]:
    most = 2 * settings.max_images
    try:
        parts = await request.form(max_files=most + 1, max_fields=4, max_part_size=4 * MiB)
    except Refusal:
        raise
    except HTTPException as error:  # the parser's own, 400
        raise Refusal(422, f"the form cannot be read: {error.detail}", hint=MEND_TYPE) from error
    try:
        return await _sending(parts, form)
    finally:
        await parts.close()


async def _sending(parts: FormData, form: type[F]) -> Sending[F]:
    asked: list[bytes] = []
    files: dict[str, bytes | str] = {}
    for field, value in parts.multi_items():
        data = await value.read() if isinstance(value, UploadFile) else value.encode()
        if field == "request":
            asked.append(data)
        elif field == "files" and isinstance(value, UploadFile) and value.filename:
            if value.filename in files:
                raise Refusal(422, f"two files are called {value.filename!r}", hint="rename one")
            files[value.filename] = data
        else:
            raise Refusal(422, f"the form has a part {field!r}", hint=MEND_TYPE)
    if len(asked) != 1:
        raise Refusal(422, "the form needs one part `request`, of JSON", hint=MEND_TYPE)
    return Sending(_parsed(form, asked[0]), files)


def _parsed(model: type[M], data: bytes) -> M:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        found: Sequence[Mapping[str, object]] = error.errors(
            include_url=False, include_context=False, include_input=False
        )
        raise Refusal(422, validation_sentence(found), hint=MEND_TYPE) from error
