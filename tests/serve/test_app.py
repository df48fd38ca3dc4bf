"""What stands between a client and the parts: probes, tokens, limits, errors, figures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Request

from milan_onnx.errors import BadInput, ExtraMissing, MilanError, UsageError
from milan_onnx.serve.app import create_app
from milan_onnx.serve.parts import Part, Surroundings
from milan_onnx.serve.settings import ServeSettings


class Toy:
    """A part whose routes do what the middleware must cope with."""

    open_paths = frozenset({"/open"})
    harmless = frozenset({"/harmless"})
    uploads: Mapping[str, int] = {"/upload": 5000}

    def __init__(self, around: Surroundings) -> None:
        self.ready = asyncio.Event()
        self.stopped = False
        self.fails: Exception | None = None

    def router(self) -> APIRouter:
        routes = APIRouter()

        @routes.api_route("/open", methods=["GET", "POST"])
        @routes.post("/harmless")
        @routes.post("/upload")
        @routes.post("/write")
        async def length(request: Request) -> int:
            return len(await request.body())

        @routes.get("/fail/{kind}")
        async def fail(kind: str) -> None:
            raise KINDS[kind]

        return routes

    async def start(self) -> None:
        if self.fails:
            raise self.fails
        self.ready.set()

    async def stop(self) -> None:
        self.stopped = True

    def waits_for(self) -> str:
        return "" if self.ready.is_set() else "the toy is being wound up"


KINDS: dict[str, Exception] = {
    "usage": UsageError("that cannot be", hint="ask for this"),
    "input": BadInput("the file is broken"),
    "extra": ExtraMissing("not installed"),
    "milan": MilanError("the work failed"),
    "bug": ValueError("secret /home/me"),
}


@asynccontextmanager
async def serving(**given: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Toy]]:
    """A client of a running app with the toy part."""
    made: list[Toy] = []

    def parts(around: Surroundings) -> Sequence[Part]:
        made.append(Toy(around))
        return made

    app = create_app(ServeSettings(**given), parts=parts)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client,
    ):
        await made[0].ready.wait()
        yield client, made[0]
    assert made[0].stopped


def run(work: Callable[[], Any]) -> None:
    asyncio.run(work())


def test_ready_only_when_all_parts_are() -> None:
    async def work() -> None:
        async with serving() as (client, toy):
            assert (await client.get("/readyz")).json() == {"status": "ok"}
            toy.ready.clear()
            answer = await client.get("/readyz")
            assert answer.status_code == 503 and "wound up" in answer.json()["error"]
            assert (await client.get("/healthz")).status_code == 200

    run(work)


def test_a_part_that_cannot_start_is_told_to_who_asked() -> None:
    async def work() -> None:
        found: list[Exception] = []
        toy = Toy(None)  # type: ignore[arg-type]
        toy.fails = BadInput("the bundle is damaged")
        app = create_app(ServeSettings(), parts=lambda around: [toy], on_fault=found.append)
        async with app.router.lifespan_context(app):
            await asyncio.sleep(0.01)
        assert found == [toy.fails]

    run(work)


@pytest.mark.parametrize(
    ("kind", "status"),
    [("usage", 422), ("input", 422), ("extra", 503), ("milan", 500), ("bug", 500)],
)
def test_every_error_is_one_object(
    kind: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with serving() as (client, _):
            answer = await client.get(f"/fail/{kind}")
            body = answer.json()
            assert answer.status_code == status and set(body) == {"error", "hint", "id"}
            assert (body["id"] is not None) == (status == 500)
            assert "secret" not in answer.text and "Traceback" not in answer.text
            if status == 500:
                assert body["id"] in caplog.text and str(KINDS[kind]) in caplog.text
            missing = await client.get("/nowhere")
            assert missing.status_code == 404 and missing.json()["error"]

    run(work)


def test_a_token_is_asked_for_everywhere_but_at_open_paths() -> None:
    async def work() -> None:
        async with serving(token="open-sesame") as (client, _):
            for path in ("/open", "/healthz", "/readyz"):
                assert (await client.get(path)).status_code == 200
            for path in ("/metrics", "/nowhere", "/openapi.json"):
                answer = await client.get(path)
                assert answer.status_code == 401, path
                assert answer.headers["www-authenticate"] == "Bearer"
            wrong = ("open-sesam", "Open-Sesame", "", "open-sesame2", "ö")
            for token in wrong:
                headers = [(b"authorization", f"Bearer {token}".encode())]
                assert (await client.get("/metrics", headers=headers)).status_code == 401
            basic = await client.get("/metrics", headers={"authorization": "Basic open-sesame"})
            assert basic.status_code == 401
            for kind in ("Bearer", "bearer"):
                right = {"authorization": f"{kind} open-sesame"}
                assert (await client.get("/metrics", headers=right)).status_code == 200

    run(work)


def test_read_only_refuses_what_writes() -> None:
    async def work() -> None:
        async with serving(read_only=True) as (client, _):
            assert (await client.post("/write", content=b"x")).status_code == 403
            assert (await client.delete("/anything")).status_code == 403
            assert (await client.post("/harmless", content=b"x")).json() == 1
            assert (await client.get("/open")).status_code == 200

    run(work)


def test_pages_of_other_sites_and_other_names_are_refused() -> None:
    async def work() -> None:
        async with serving() as (client, _):
            for origin in ("https://evil.example", "null", "http://127.0.0.1:9999"):
                answer = await client.post("/write", content=b"", headers={"origin": origin})
                assert answer.status_code == 403, origin
            own = {"origin": "http://127.0.0.1:8080"}
            assert (await client.post("/write", content=b"", headers=own)).status_code == 200
            for host, status in (
                ("evil.example", 403),
                ("localhost:1", 200),
                ("[::1]:1", 200),
                ("[", 403),
            ):
                answer = await client.get("/open", headers={"host": host})
                assert answer.status_code == status, host
        async with serving(host="0.0.0.0") as (client, _):
            answer = await client.get("/open", headers={"host": "service.example"})
            assert answer.status_code == 200

    run(work)


def test_bodies_are_cut_off_at_the_limit_with_and_without_a_length() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100

    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 100

    async def work() -> None:
        async with serving(max_body=1000) as (client, _):
            assert (await client.post("/write", content=b"x" * 1000)).json() == 1000
            assert (await client.post("/write", content=chunks(10))).json() == 1000
            for body in (b"x" * 1001, chunks(11), endless()):
                answer = await client.post("/write", content=body)
                assert answer.status_code == 413, answer.text
                assert "1000 bytes" in answer.json()["error"]
            assert (await client.post("/upload", content=chunks(50))).json() == 5000
            assert (await client.post("/upload", content=endless())).status_code == 413

    run(work)


def test_slow_bodies_are_cut_off() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(10)
        yield b"x"

    async def work() -> None:
        async with serving(body_seconds=0.1) as (client, _):
            answer = await client.post("/write", content=slow())
            assert answer.status_code == 408 and answer.headers["connection"] == "close"

    run(work)


def test_bodies_together_have_a_budget() -> None:
    async def work() -> None:
        async with serving(max_body=1000, max_pending=1500) as (client, _):
            go_on = asyncio.Event()

            async def held() -> AsyncIterator[bytes]:
                yield b"x" * 900
                await go_on.wait()
                yield b"x"

            first = asyncio.create_task(client.post("/write", content=held()))
            await asyncio.sleep(0.05)
            answer = await client.post("/write", content=b"x" * 900)
            assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
            assert (await client.post("/upload", content=b"x" * 900)).json() == 900
            go_on.set()
            assert (await first).json() == 901
            assert (await client.post("/write", content=b"x" * 900)).json() == 900

    run(work)


def test_figures_name_routes_and_not_paths() -> None:
    async def work() -> None:
        async with serving() as (client, _):
            for name in ("usage", "input", "unheard-of"):
                await client.get(f"/fail/{name}")
            await client.get("/some/invented/path")
            await client.request("INVENTED", "/open")
            page = (await client.get("/metrics")).text
            wanted = 'requests_total{method="GET",route="/fail/{kind}",status="422"} 2.0'
            assert f"milan_onnx_{wanted}" in page
            assert 'route="unmatched",status="404"' in page
            assert "invented" not in page.lower() and "unheard" not in page

    run(work)


@pytest.mark.parametrize(
    "given",
    [
        {"port": -1},
        {"batch": 65},
        {"batch": 0},
        {"queue": 0},
        {"wait_ms": float("nan")},
        {"timeout": float("inf")},
        {"token": ""},
        {"token": "two words"},
        {"max_body": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(given)).replace("_", "-")):
        create_app(ServeSettings(**given))
