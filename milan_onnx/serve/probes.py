"""Whether the service is alive and ready, and its figures."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from milan_onnx.serve.errors import Refusal, declared
from milan_onnx.serve.parts import Part, Surroundings


class State(BaseModel):
    """A service's state."""

    status: str = Field(description="`ok`.")

    model_config = {"json_schema_extra": {"examples": [{"status": "ok"}]}}


def router(around: Surroundings, parts: Sequence[Part]) -> APIRouter:
    """The routes that a supervisor asks."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/healthz", summary="Is the process alive?")
    async def healthz() -> State:
        return State(status="ok")

    @routes.get("/readyz", summary="Can it do its work?", responses=declared(503))
    async def readyz() -> State:
        waiting = [text for part in parts if (text := part.waits_for())]
        if waiting:
            headers = {"Retry-After": "1"}
            raise Refusal(503, "; ".join(waiting), hint="ask again in a second", headers=headers)
        return State(status="ok")

    @routes.get(
        "/metrics",
        summary="Figures for Prometheus",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **declared(401, 403),
        },
    )
    async def metrics() -> Response:
        return Response(around.metrics.page(), media_type=CONTENT_TYPE_LATEST)

    return routes
