"""The app: its parts put together, and what stands between them and a client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer

from milan_onnx import __version__
from milan_onnx.progress import Reporter, Silent
from milan_onnx.serve import errors, probes
from milan_onnx.serve.bodies import Bodies
from milan_onnx.serve.captioning.part import Captioning
from milan_onnx.serve.jobs.part import JobsPart
from milan_onnx.serve.metrics import Metrics
from milan_onnx.serve.observing import Observed
from milan_onnx.serve.page import PagePart
from milan_onnx.serve.parts import Part, Surroundings
from milan_onnx.serve.security import Guard
from milan_onnx.serve.settings import ServeSettings

LOG = logging.getLogger("milan_onnx.serve")
ABOUT = (
    "Natural language descriptions of exemplar sets, and scores of given phrases. Every failure "
    "is answered with one JSON object: `error`, one sentence, `hint`, the mend."
)


def parts_of(surroundings: Surroundings) -> list[Part]:
    """All parts of a service, in the order in which they are started."""
    return [JobsPart(surroundings), PagePart(), Captioning(surroundings)]


def create_app(
    settings: ServeSettings,
    *,
    say: Reporter | None = None,
    parts: Callable[[Surroundings], Sequence[Part]] = parts_of,
    on_fault: Callable[[Exception], None] = lambda error: None,
) -> FastAPI:
    """The ASGI app of a service.

    ``say``: where choices are told. ``parts`` makes its parts. ``on_fault`` is given what a part
    could not start for; the app goes on answering, and is never ready. Raises UsageError for
    settings that make no sense.
    """
    settings.check()
    around = Surroundings(settings, Metrics(), say or Silent())
    made = list(parts(around))
    app = FastAPI(
        title="milan-onnx",
        version=__version__,
        description=ABOUT,
        # Its pages load their scripts from a server of others; /openapi.json is there.
        docs_url=None,
        redoc_url=None,
        lifespan=lambda _: _running(made, on_fault),
        # Nothing is asked here: `Guard` has done so; this is for the document.
        dependencies=[Depends(HTTPBearer(auto_error=False))] if settings.token else [],
    )
    app.state.parts = made
    app.state.settings = settings
    app.state.metrics = around.metrics
    app.include_router(probes.router(around, made))
    for part in made:
        app.include_router(part.router())
    errors.install(app)
    _protect(app, around, made)
    return app


def _protect(app: FastAPI, around: Surroundings, parts: Sequence[Part]) -> None:
    """What every request goes through; the last one first."""
    uploads = {path: size for part in parts for path, size in part.uploads.items()}
    app.add_middleware(Bodies, settings=around.settings, uploads=uploads)
    app.add_middleware(
        Guard,
        settings=around.settings,
        open_paths=frozenset().union(*(part.open_paths for part in parts)),
        harmless=frozenset().union(*(part.harmless for part in parts)),
    )
    app.add_middleware(Observed, metrics=around.metrics)


@asynccontextmanager
async def _running(
    parts: Sequence[Part], on_fault: Callable[[Exception], None]
) -> AsyncIterator[None]:
    """Parts start while the app already answers, and end in the opposite order."""
    starting = asyncio.create_task(_start(parts, on_fault))
    try:
        yield
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        for part in reversed(parts):
            await part.stop()


async def _start(parts: Sequence[Part], on_fault: Callable[[Exception], None]) -> None:
    for part in parts:
        try:
            await part.start()
        except Exception as error:
            on_fault(error)
            return
