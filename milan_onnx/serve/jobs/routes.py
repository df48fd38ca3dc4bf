"""The HTTP of runs and jobs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from pydantic import ValidationError

from milan_onnx.labels import write_labels
from milan_onnx.labels.tables import whole_text
from milan_onnx.run import LABELS
from milan_onnx.serve.errors import Refusal, declared, too_much, validation_sentence
from milan_onnx.serve.jobs import browsing, uploads
from milan_onnx.serve.jobs.answers import (
    AboutRun,
    ModelLayers,
    Places,
    ReportLink,
    RunAnswer,
    RunList,
    UnitAnswer,
    UnitList,
)
from milan_onnx.serve.jobs.desk import BASE, Desk, place_texts
from milan_onnx.serve.jobs.events import follow
from milan_onnx.serve.jobs.folders import EVENTS, PHOTOS, UPLOAD, upload_name
from milan_onnx.serve.jobs.looks import Looks
from milan_onnx.serve.jobs.places import permitted
from milan_onnx.serve.jobs.request import RunRequest, describe_options, display_name
from milan_onnx.serve.jobs.store import Job, taken_in

MOST_FOLLOWERS = 64
"""Streams of events that are open at once."""
RETRY_MS = 2000
"""How soon a browser follows again where a stream was cut."""
SANDBOX = "sandbox allow-scripts allow-modals allow-downloads"
"""A report runs its own script, but cannot act as the page that shows it."""

RunId = Annotated[str, InPath(pattern=r"^[a-z0-9-]{1,64}$", description="The run's id.")]
LayerName = Annotated[str, InPath(max_length=4000, description="The layer's tensor or name.")]
UnitNumber = Annotated[int, InPath(ge=0, le=2**31, description="Index of the channel.")]
Rank = Annotated[int, InPath(ge=0, le=1000, description="0 is the exemplar that excites it most.")]
Limit = Annotated[int, Query(ge=1, le=500, description="Entries of a page, at most.")]
Offset = Annotated[int, Query(ge=0, le=2**31, description="Entries before the page.")]
State = Literal["queued", "running", "done", "failed", "cancelled"]


class Routes:
    """Routes over a desk, which is there once the part has started."""

    def __init__(self) -> None:
        self.desk: Desk | None = None
        self.looks: Looks | None = None
        self._followers = 0

    def ready(self) -> Desk:
        """The desk. Raises Refusal (503) before the part has started."""
        if self.desk is None:
            headers = {"Retry-After": "1"}
            raise Refusal(503, "the store is being opened", hint="ask again", headers=headers)
        return self.desk

    # --- asking for a run -----------------------------------------------------------------------

    async def submit(self, request: Request) -> Job:
        """Take in a request for a run, with what it brings."""
        desk = self.ready()
        with desk.runner.room(), taken_in(desk.store) as place:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "multipart/form-data":
                (place / UPLOAD).mkdir()
                model, photos = place / UPLOAD / "arriving", place / PHOTOS
                files = {uploads.ONNX_FIELD: model, uploads.PHOTOS_FIELD: photos}
                arrived = await uploads.form_body(request, files)
            elif kind in ("application/json", ""):
                arrived = uploads.Arrived(await uploads.json_body(request))
            else:
                hint = "send application/json or multipart/form-data"
                raise Refusal(415, f"a run is not asked for with {kind[:100]}", hint=hint)
            wanted = _parsed(arrived.request)
            facts = self._checked(desk, wanted, arrived)
            if facts["uploaded_model"]:
                (place / UPLOAD / "arriving").rename(place / UPLOAD / facts["uploaded_model"])
            name = display_name(wanted, arrived.names.get(uploads.ONNX_FIELD))
            return desk.runner.submit(name, facts, place)

    def _checked(self, desk: Desk, wanted: RunRequest, arrived: uploads.Arrived) -> dict[str, Any]:
        """What is kept of a request, its paths resolved. Raises Refusal, UsageError."""
        allow = desk.settings.allow
        given = arrived.names.get(uploads.ONNX_FIELD)
        photos = uploads.PHOTOS_FIELD in arrived.names
        if (wanted.model is None) == (given is None):
            what = "no model is given" if given is None else "a model is both named and uploaded"
            raise Refusal(422, what, hint="give `model`, a path, or upload it")
        if wanted.images is not None and photos:
            raise Refusal(422, "photos are both named and uploaded", hint="leave one out")
        describe_options(wanted.options, desk.settings.device, 1)
        named = None if wanted.model is None else permitted(wanted.model, allow, "model")
        seen = None if wanted.images is None else permitted(wanted.images, allow, "photos")
        return {
            "model": None if named is None else str(named),
            "uploaded_model": None if given is None else upload_name(given),
            "layers": wanted.layers,
            "images": None if seen is None else str(seen),
            "uploaded_images": photos,
            "options": wanted.options.model_dump(exclude_unset=True),
        }

    # --- following one --------------------------------------------------------------------------

    async def stream(self, job: Job, after: int) -> AsyncIterator[bytes]:
        """A job's events as server-sent ones, from the next after a number on."""
        desk = self.ready()
        path = desk.store.folder(job.id) / EVENTS
        self._followers += 1
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            signal = desk.runner.changed
            async for event in follow(
                path, after, lambda: signal(job), lambda: desk.runner.over(job)
            ):
                yield b": still here\n\n" if event is None else _event_bytes(event)
            now = await asyncio.to_thread(desk.store.get, job.id)
            if now is not None and now.ended:
                yield b"event: end\ndata: " + _json_bytes(desk.answer(now)) + b"\n\n"
        finally:
            self._followers -= 1

    def check_followers(self) -> None:
        """Raise Refusal (429) where too many follow already."""
        if self._followers >= MOST_FOLLOWERS:
            raise too_much(f"{MOST_FOLLOWERS} streams of events are open already", 5)


def job_routes(routes: Routes) -> APIRouter:
    """Asking for runs, and following them."""
    api = APIRouter(tags=["runs"])

    @api.post(
        BASE,
        status_code=202,
        summary="Describe a whole model",
        response_model=RunAnswer,
        responses=declared(401, 403, 404, 408, 413, 415, 422, 429, 503),
        openapi_extra={"requestBody": _request_body()},
    )
    async def start_run(request: Request) -> JSONResponse:
        """Queue a job that describes layers of a model: one in an allowed folder (JSON), or one
        that is uploaded (a form with `request`, the same JSON, and the files `model` and `images`,
        a zip of photos)."""
        job = await routes.submit(request)
        answer = routes.ready().answer(job)
        return JSONResponse(answer, 202, {"Location": f"{BASE}/{job.id}"})

    @api.get(BASE, summary="List runs", responses=declared(401, 422, 503))
    def list_runs(limit: Limit = 50, offset: Offset = 0, state: State | None = None) -> RunList:
        """Jobs of this service and runs found in the allowed folders, newest first."""
        return RunList(**routes.ready().listed(state, offset, limit))

    @api.get(f"{BASE}/{{run}}", summary="One run", responses=declared(401, 404, 422, 503))
    def get_run(run: RunId) -> RunAnswer:
        """State, progress and figures of a run."""
        return RunAnswer(**routes.ready().one(run))

    @api.get(
        f"{BASE}/{{run}}/events",
        summary="Follow a run",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
            **declared(401, 404, 409, 422, 429, 503),
        },
    )
    async def run_events(
        run: RunId,
        last_event_id: Annotated[str | None, Header(description="Go on after this one.")] = None,
    ) -> StreamingResponse:
        """Server-sent events: `state`, `choice`, `note`, `progress`, `label`, and `end` with the
        run as it then is. It ends when the job does."""
        job = routes.ready().job(run)
        routes.check_followers()
        after = int(last_event_id) if last_event_id and last_event_id.isdecimal() else 0
        return StreamingResponse(
            routes.stream(job, after),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    @api.post(
        f"{BASE}/{{run}}/cancel",
        summary="Cancel a run",
        responses=declared(401, 403, 404, 409, 422, 503),
    )
    async def cancel_run(run: RunId) -> RunAnswer:
        """End a job and delete what it made so far."""
        desk = routes.ready()
        job = await desk.runner.cancel(desk.job(run))
        return RunAnswer(**desk.answer(job))

    @api.delete(
        f"{BASE}/{{run}}",
        status_code=204,
        summary="Delete a run",
        responses=declared(401, 403, 404, 409, 422, 503),
    )
    def delete_run(run: RunId) -> None:
        """Delete a job that has ended, with its run and all that was uploaded for it."""
        desk = routes.ready()
        job = desk.job(run)
        if not job.ended:
            raise Refusal(409, f"the job {run} is {job.state}", hint="cancel it first")
        desk.store.remove(job)

    return api


def browse_routes(routes: Routes) -> APIRouter:
    """Looking at what runs found."""
    api = APIRouter(tags=["runs"])
    refusals = declared(401, 404, 409, 422, 503)

    @api.get(f"{BASE}/{{run}}/about", summary="What a run is made of", responses=refusals)
    def about_run(run: RunId) -> AboutRun:
        """Facts, warnings, and a summary of each layer."""
        return AboutRun(**routes.ready().about(run))

    @api.get(
        f"{BASE}/{{run}}/labels",
        summary="All labels",
        response_class=Response,
        responses={
            200: {
                "content": {
                    "application/x-ndjson": {"schema": {"type": "string"}},
                    "text/csv": {"schema": {"type": "string"}},
                }
            },
            **refusals,
        },
    )
    def run_labels(
        run: RunId,
        kind: Annotated[Literal["jsonl", "csv"], Query(alias="format")] = "jsonl",
    ) -> Response:
        """The labels as a file: the record (a JSON object a line), or a table."""
        desk = routes.ready()
        folder = desk.folder(run)
        headers = {"Content-Disposition": f'attachment; filename="labels-{run}.{kind}"'}
        if kind == "jsonl":
            return FileResponse(folder / LABELS, media_type="application/x-ndjson", headers=headers)
        opened = desk.opened(run)
        with TemporaryDirectory(dir=desk.store.root) as place:
            table = Path(place) / "labels.csv"
            write_labels(table, opened.run.labels, [x.layer for x in opened.run.layers], "csv")
            return Response(table.read_bytes(), media_type="text/csv", headers=headers)

    @api.get(f"{BASE}/{{run}}/units", summary="Search labels", responses=refusals)
    def run_units(
        run: RunId,
        query: Annotated[str, Query(max_length=500, description="Words; all must be said.")] = "",
        layer: Annotated[str, Query(max_length=4000, description="Only of this layer.")] = "",
        limit: Limit = 50,
        offset: Offset = 0,
    ) -> UnitList:
        """Units whose description, or else another candidate, says all words, best first; without
        words all units, in order."""
        opened = routes.ready().opened(run)
        tensor = browsing.layer_of(opened, layer) if layer else None
        found = browsing.search(opened, query, tensor)
        page = [browsing.hit_json(opened, hit) for hit in found[offset : offset + limit]]
        return UnitList(total=len(found), offset=offset, limit=limit, units=whole_text(page))

    @api.get(
        f"{BASE}/{{run}}/units/{{layer:path}}/{{unit}}/exemplars/{{rank}}",
        summary="An exemplar as an image",
        response_class=Response,
        responses={
            200: {
                "content": {
                    kind: {"schema": {"type": "string", "format": "binary"}}
                    for kind in ("image/jpeg", "image/png")
                }
            },
            **refusals,
        },
    )
    def exemplar(
        run: RunId,
        layer: LayerName,
        unit: UnitNumber,
        rank: Rank,
        side: Annotated[int, Query(ge=16, le=1024, description="Longer side, pixels.")] = 224,
        view: browsing.View = "masked",
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        """A photo that excites the unit, its region bright; the photo alone; or the region."""
        desk = routes.ready()
        opened = desk.opened(run)
        label = browsing.label_of(opened, browsing.layer_of(opened, layer), unit)
        tag = browsing.image_tag(opened, label, rank, side, view)
        headers = {"ETag": tag, "Cache-Control": "private, max-age=3600"}
        if if_none_match == tag:
            return Response(status_code=304, headers=headers)
        folders = desk.photo_folders(run)
        data, kind = browsing.exemplar_image(opened, label, rank, side, view, folders)
        return Response(data, media_type=kind, headers=headers)

    @api.get(
        f"{BASE}/{{run}}/units/{{layer:path}}/{{unit}}", summary="One unit", responses=refusals
    )
    def run_unit(run: RunId, layer: LayerName, unit: UnitNumber) -> UnitAnswer:
        """All that is said of a unit, and where its exemplars are."""
        desk = routes.ready()
        opened = desk.opened(run)
        label = browsing.label_of(opened, browsing.layer_of(opened, layer), unit)
        return UnitAnswer(**desk.unit(run, opened, label))

    page: dict[int | str, dict[str, Any]] = {
        200: {"content": {"text/html": {"schema": {"type": "string"}}}}
    }

    @api.get(
        f"{BASE}/{{run}}/report",
        summary="The report",
        response_class=Response,
        responses=page | refusals,
    )
    def run_report(run: RunId) -> FileResponse:
        """The report: one page with every unit and its exemplars."""
        return _report(routes.ready().report(run))

    @api.get(f"{BASE}/{{run}}/report-link", summary="The report's address", responses=refusals)
    def run_report_link(run: RunId) -> ReportLink:
        """An address of the report that a browser can open by itself, for some minutes."""
        return ReportLink(**routes.ready().report_link(run))

    @api.get("/report", include_in_schema=False)
    def report_by_ticket(run: str, until: int, ticket: str) -> FileResponse:
        desk = routes.ready()
        desk.check_ticket(run, until, ticket)
        return _report(desk.report(run))

    return api


def place_routes(routes: Routes) -> APIRouter:
    """What there is to describe."""
    api = APIRouter(tags=["runs"])

    @api.get("/v1/places", summary="Models and photos", responses=declared(401, 503))
    def places() -> Places:
        """Models and photos in the allowed folders, a few folders deep."""
        desk = routes.ready()
        shelf = desk.shelf()
        return Places(
            models=place_texts(shelf.models),
            photos=place_texts(shelf.photos),
            read_only=desk.settings.read_only,
        )

    @api.get(
        "/v1/models",
        summary="The layers of a model",
        responses=declared(401, 403, 404, 422, 429, 503),
    )
    async def model_layers(
        path: Annotated[str, Query(min_length=1, max_length=4096, description="An ONNX file.")],
    ) -> ModelLayers:
        """The layers of a model in an allowed folder, listed by a process of its own."""
        desk = routes.ready()
        model = permitted(path, desk.settings.allow, "model")
        assert routes.looks is not None
        return ModelLayers(path=str(model), layers=await routes.looks.layers(model))

    return api


def _parsed(text: bytes) -> RunRequest:
    try:
        return RunRequest.model_validate_json(text or b"{}")
    except ValidationError as error:
        sentence = validation_sentence([dict(one) for one in error.errors()])
        raise Refusal(422, sentence, hint="see /openapi.json for what a run takes") from error


def _event_bytes(event: dict[str, Any]) -> bytes:
    kind = str(event.get("type", "note"))
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        event["number"],
        kind.encode("ascii", "replace"),
        _json_bytes(event),
    )


def _json_bytes(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _report(path: Path) -> FileResponse:
    headers = {
        "Content-Security-Policy": SANDBOX,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    return FileResponse(path, media_type="text/html", headers=headers)


def _request_body() -> dict[str, Any]:
    """The body of a request for a run, for the OpenAPI document."""
    schema = _inlined(RunRequest.model_json_schema())
    file = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "properties": {
            uploads.REQUEST_FIELD: schema,
            uploads.ONNX_FIELD: file | {"description": "An ONNX file, weights inside."},
            uploads.PHOTOS_FIELD: file | {"description": "A zip of photos."},
        },
    }
    return {
        "required": True,
        "content": {
            "application/json": {"schema": schema, "examples": {"folder": _EXAMPLE}},
            "multipart/form-data": {
                "schema": form,
                "encoding": {uploads.REQUEST_FIELD: {"contentType": "application/json"}},
            },
        },
    }


_EXAMPLE = {
    "summary": "A model in an allowed folder",
    "value": {"model": "/models/resnet18.onnx", "layers": ["layer4"], "images": "/photos/val"},
}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema without references."""
    parts = schema.pop("$defs", {})

    def inline(value: Any) -> Any:
        if isinstance(value, list):
            return [inline(inner) for inner in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            found = parts[value["$ref"].rpartition("/")[2]]
            return inline({**found, **{k: v for k, v in value.items() if k != "$ref"}})
        return {key: inline(inner) for key, inner in value.items()}

    return dict(inline(schema))
