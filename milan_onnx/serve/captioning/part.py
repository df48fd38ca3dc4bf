"""The routes that describe and score."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from milan_onnx import __version__
from milan_onnx.bundle import Bundle, load_bundle
from milan_onnx.choice import Choice
from milan_onnx.runtime import Device, choose_device, choose_threads
from milan_onnx.serve.captioning import messages as m
from milan_onnx.serve.captioning.decoding import Decoder
from milan_onnx.serve.captioning.engine import Answer, Describe, Engine, Region, Unit
from milan_onnx.serve.captioning.line import Line, Ticket
from milan_onnx.serve.captioning.reading import Sending, read
from milan_onnx.serve.captioning.regions import whole
from milan_onnx.serve.captioning.tasks import DescribeWish, ScoreWish, Wish
from milan_onnx.serve.captioning.worker import Worker, late
from milan_onnx.serve.errors import Refusal, declared
from milan_onnx.serve.parts import Surroundings

REFUSALS = (401, 403, 408, 413, 415, 422, 429, 500, 503)
IMAGES_SHARE = 0.1
"""Of the cache, for decoded images: about as many as there is room for their feature maps."""
WARM = 8
"""Units described before the service is ready."""
F = TypeVar("F", bound=m.Asked)
T = TypeVar("T")


@dataclass(frozen=True)
class Loaded:
    """A captioner at work."""

    bundle: Bundle
    """Its files."""

    device: Choice[Device]
    """Where it runs."""

    engine: Engine
    """It."""

    worker: Worker
    """The thread that owns it."""

    decoder: Decoder
    """What makes regions of files."""


class Captioning:
    """The part of a service that describes and scores exemplar sets."""

    open_paths: frozenset[str] = frozenset()
    harmless = frozenset({"/v1/describe", "/v1/score"})
    uploads: Mapping[str, int] = {}

    def __init__(self, around: Surroundings) -> None:
        self._settings, self._metrics, self._say = around.settings, around.metrics, around.say
        self._line = Line(self._settings)
        self._metrics.queue_units.set_function(lambda: self._line.units)
        self._loaded: Loaded | None = None
        self._numbers = itertools.count()

    async def start(self) -> None:
        """Load the captioner, and describe once: only then it is ready.

        Raises BundleError, DeviceUnavailable and UsageError.
        """
        loaded = await asyncio.to_thread(self._load)
        await asyncio.to_thread(_warm, loaded.engine, self._line, self._settings.batch)
        loaded.worker.start()
        self._loaded = loaded
        self._say.note("ready: the captioner is loaded and has described a few units")

    def hush(self) -> None:
        """Every answer has an end."""

    async def stop(self) -> None:
        """Finish the batch under way."""
        if self._loaded:
            await asyncio.to_thread(self._loaded.worker.stop, self._settings.grace)
            self._loaded.decoder.close()

    def waits_for(self) -> str:
        """'' once the captioner is warm, and while it works."""
        if self._loaded is None:
            return "the captioner is being loaded"
        return "" if self._loaded.worker.works else "the captioner has ended"

    def router(self) -> APIRouter:
        """/v1/describe, /v1/score, /v1/info."""
        routes = APIRouter(prefix="/v1")

        @routes.post(
            "/describe",
            summary="Describe units from their exemplars",
            tags=["captioning"],
            response_model=m.Described,
            responses=declared(*REFUSALS),
            openapi_extra=m.request_body(m.DescribeBody, m.DescribeForm),
        )
        async def describe(request: Request) -> Response:
            """The descriptions that maximise log p(d|E) - λ log p(d), E being the exemplars: images
            with the region of each that excites the unit. A unit's answer does not depend on what
            else is asked at the time."""
            return await self._answer(request, m.DescribeBody, m.DescribeForm, DescribeWish.of)

        @routes.post(
            "/score",
            summary="Score phrases against units' exemplars",
            tags=["captioning"],
            response_model=m.Scored,
            responses=declared(*REFUSALS),
            openapi_extra=m.request_body(m.ScoreBody, m.ScoreForm),
        )
        async def score(request: Request) -> Response:
            """How likely the captioner finds each phrase, for each unit."""
            return await self._answer(request, m.ScoreBody, m.ScoreForm, ScoreWish.of)

        @routes.get(
            "/info",
            summary="What this service is",
            tags=["operation"],
            responses=declared(401, 403),
        )
        async def info() -> m.Info:
            return self._info()

        return routes

    async def _answer(
        self,
        request: Request,
        body: type[BaseModel],
        form: type[F],
        understood: Callable[[Engine, F], Wish],
    ) -> Response:
        """Read, admit, decode, wait, answer."""
        loaded = self._loaded
        if loaded is None:
            raise Refusal(503, self.waits_for(), headers={"Retry-After": "1"})
        self._room(self._line.look)
        sending = await read(request, body, form, self._settings)
        wish = understood(loaded.engine, sending.form)
        count, exemplars = sending.size()
        ticket = self._room(lambda: self._line.admit(count, exemplars))
        work = self._found(loaded.decoder, ticket, sending, wish)
        del sending  # while it waits in the line, only its regions are kept
        try:
            found = await _unless_gone(request, work, ticket.until)
        finally:
            if left := self._line.leave(ticket):
                self._metrics.dropped.labels("gone").inc(left)
        return Response(wish.told(found).model_dump_json(), media_type="application/json")

    def _room(self, ask: Callable[[], T]) -> T:
        """What the line says; a request that it does not let in is counted."""
        try:
            return ask()
        except Refusal as refusal:
            if refusal.status_code == 429:
                self._metrics.rejected.labels("queue").inc()
            raise

    async def _found(
        self, decoder: Decoder, ticket: Ticket, sending: Sending[F], wish: Wish
    ) -> Sequence[Answer]:
        """Answers of all units."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[Answer]] = loop.create_future()

        def settle(found: Sequence[Answer] | Exception) -> None:
            if answer.done():
                return
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def deliver(found: Sequence[Answer] | Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
                loop.call_soon_threadsafe(settle, found)

        units = await decoder.units(sending, wish, next(self._numbers))
        del sending
        self._line.join(ticket, units, deliver)
        return await answer

    def _load(self) -> Loaded:
        device = choose_device(self._settings.device)
        threads = choose_threads(self._settings.threads)
        bundle = load_bundle(self._settings.bundle)
        facts = bundle.manifest
        why = "--bundle" if self._settings.bundle else "no --bundle: the built-in one"
        self._say.choice("captioner", Choice(f"{facts.name} {facts.version}", why))
        self._say.choice("device", device)
        self._say.choice("threads", threads)
        images = round(self._settings.cache * IMAGES_SHARE)
        engine = Engine(bundle, device.value, threads.value, self._settings.cache - images)
        side, fade = engine.encoder.image_size, facts.search.legacy
        decoder = Decoder(threads.value, side, self._settings.max_pixels, fade, images)
        return Loaded(bundle, device, engine, Worker(engine, self._line, self._metrics), decoder)

    def _info(self) -> m.Info:
        loaded, settings = self._loaded, self._settings
        return m.Info(
            version=__version__,
            ready=loaded is not None,
            bundle=_bundle(loaded.bundle) if loaded else None,
            device=m.ChoiceTold(value=str(loaded.device.value), reason=loaded.device.reason)
            if loaded
            else None,
            threads=loaded.engine.threads if loaded else None,
            read_only=settings.read_only,
            limits={name: getattr(settings, name) for name in LIMITS},
        )


LIMITS = (
    *("max_body", "max_upload", "max_pixels", "max_units", "max_images", "max_phrases"),
    *("max_nodes", "job_seconds", "job_memory", "max_jobs", "max_queued_jobs"),
    *("queue", "queue_images", "batch", "wait_ms", "timeout", "body_seconds"),
)


def _bundle(bundle: Bundle) -> m.BundleTold:
    facts = bundle.manifest
    return m.BundleTold(
        name=facts.name,
        version=facts.version,
        sha256=bundle.sha256,
        license=facts.license,
        image_size=facts.encoder.image_size,
        exemplars=facts.captioner.exemplars,
    )


def _warm(engine: Engine, line: Line, batch: int) -> None:
    """Describe a few units: loads what is loaded at first use, and tells how long a unit takes.

    Raises what the bundle's graphs raise.
    """
    side, task = engine.encoder.image_size, Describe(engine.bundle.manifest.search, 1)
    greys = np.arange(WARM, dtype=np.uint8)[:, None, None, None]
    frames = greys.repeat(side, 1).repeat(side, 2).repeat(3, 3)
    regions = [Region(b"grey %d" % i, frame, whole(side)) for i, frame in enumerate(frames)]
    units = [Unit((region,), task, "warm-up") for region in regions[: min(WARM, batch)]]
    for some in (units[:1], units):  # the first also pays for what is made once
        answers, cost = engine.run(some)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
    line.learn(len(units), cost.searching, max(1, cost.encoded), cost.encoding)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T], until: float) -> T:
    """What some work gives, unless the client goes (ClientDisconnect) or the time (Refusal)."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        left = max(0.0, until - monotonic())
        await asyncio.wait({task, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect if gone.done() else late()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _gone(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
