"""What a request is told when it fails: one JSON object, never a traceback.

The package's errors become statuses by what they mean to a client:

    UsageError, BadInput    422   what was sent cannot be
    RunNotThere, ...        404   (`Refusal`)
    ExtraMissing, ...       503   this installation cannot do it
    anything else           500   a fault of the program; its id is in the log

`Refusal` is what the service itself says: 401, 403, 404, 408, 413, 429, 503.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from milan_onnx.errors import BadInput, EnvironmentUnfit, GateNotMet, MilanError, UsageError

LOG = logging.getLogger("milan_onnx.serve")

STATUSES: tuple[tuple[type[MilanError], int], ...] = (
    (UsageError, 422),
    (BadInput, 422),
    (GateNotMet, 422),
    (EnvironmentUnfit, 503),
)
MEANINGS = {
    401: "A token is asked for, and this one is missing or wrong.",
    403: "Not allowed here: read-only, another site's page, or a path outside the allowed folders.",
    404: "There is no such thing.",
    405: "The path does not know this method.",
    408: "The body took too long to arrive.",
    409: "It is in a state in which this cannot be done.",
    413: "The body is too long.",
    415: "The body is of another type.",
    422: "What was sent cannot be used; the sentence says why.",
    429: "Too much at once: try again after `Retry-After` seconds.",
    500: "A fault of the program; the id is in its log.",
    503: "Not ready, or stopping, or this installation cannot do it.",
}
GONE = 499
"""What proxies log for a client that went away; nobody receives it."""
MEND_TYPE = "see /openapi.json for what it takes"


class Problem(BaseModel):
    """What went wrong."""

    error: str = Field(description="One sentence that names the thing and the cause.")
    hint: str = Field(description="The mend; empty where there is none.")
    id: str | None = Field(None, description="Of a fault of the program: its mark in the log.")

    model_config = {
        "json_schema_extra": {
            "examples": [{"error": "the queue is full", "hint": "try again in 2 s", "id": None}]
        }
    }


class Refusal(HTTPException):
    """What the service answers in place of a result."""

    def __init__(
        self, status: int, error: str, *, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, error, dict(headers or {}))
        self.hint = hint


def too_much(error: str, seconds: int) -> Refusal:
    """429, with the seconds after which to try again."""
    hint = f"try again in {seconds} s"
    return Refusal(429, error, hint=hint, headers={"Retry-After": str(seconds)})


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may answer with these statuses."""
    made: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        made[status] = {"model": Problem, "description": MEANINGS[status]}
        if status == 429:
            retry = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
            made[status]["headers"] = {"Retry-After": retry}
    return made


def problem(
    status: int,
    error: str,
    hint: str = "",
    *,
    mark: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The answer that says what went wrong."""
    body = Problem(error=error, hint=hint, id=mark).model_dump()
    return JSONResponse(body, status, dict(headers or {}))


def status_of(error: MilanError) -> int:
    """The status that an error of the package is answered with."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def from_error(error: Exception) -> Response:
    """The answer to any error. A fault of the program is logged, and told only by its id."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=GONE)
    if isinstance(error, Refusal):
        return problem(error.status_code, error.detail, error.hint, headers=error.headers)
    if isinstance(error, HTTPException):
        return problem(error.status_code, _of_framework(error), headers=error.headers)
    if isinstance(error, RequestValidationError):
        return problem(422, validation_sentence(error.errors()), MEND_TYPE)
    if isinstance(error, MilanError) and status_of(error) != 500:
        return problem(status_of(error), error.message, error.hint)
    mark = secrets.token_hex(6)
    LOG.error("fault %s", mark, exc_info=error)
    return problem(500, "the service failed", f"its log says why: look for {mark}", mark=mark)


def validation_sentence(errors: Sequence[Mapping[str, Any]]) -> str:
    """The first of several findings as one sentence: where, and what."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")[:200]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{place or 'the body'}: {first['msg']}{more}"


def install(app: FastAPI) -> None:
    """Answer every error of the app so."""

    async def answer(request: Request, error: Exception) -> Response:
        return from_error(error)

    for kind in (HTTPException, RequestValidationError, MilanError, ClientDisconnect):
        app.add_exception_handler(kind, answer)


def _of_framework(error: HTTPException) -> str:
    known = {404: "there is no such path", 405: "the path does not know this method"}
    return known.get(error.status_code, str(error.detail))
