"""A client of runs and jobs, as the tests use it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

TIME = 240.0
Run = dict[str, Any]


class Client:
    """Asks one service."""

    def __init__(self, url: str, token: str | None = None) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.Client(base_url=url, timeout=TIME, headers=headers)

    def get(self, path: str, **params: Any) -> Any:
        """An answer that is well."""
        answer = self.http.get(path, params=params or None)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def start(self, **request: Any) -> Run:
        """A run of a model in an allowed folder."""
        answer = self.http.post("/v1/runs", json=request)
        assert answer.status_code == 202, answer.text
        started: Run = answer.json()
        assert answer.headers["location"] == started["links"]["self"]
        return started

    def upload(
        self, model: bytes, photos: bytes | None = None, name: str = "m.onnx", **request: Any
    ) -> httpx.Response:
        """A run of a model that is sent."""
        files = {"model": (name, model)}
        if photos is not None:
            files["images"] = ("photos.zip", photos)
        return self.http.post("/v1/runs", data={"request": json.dumps(request)}, files=files)

    def state(self, run: str) -> str:
        return str(self.get(f"/v1/runs/{run}")["state"])

    def until(self, run: str, *states: str) -> Run:
        """The run once it is in one of some states."""
        end = time.monotonic() + TIME
        while True:
            now: Run = self.get(f"/v1/runs/{run}")
            if now["state"] in states:
                return now
            assert now["state"] in ("queued", "running"), now
            assert time.monotonic() < end, now
            time.sleep(0.03)

    def ended(self, run: str) -> Run:
        """The run once nothing more happens to it."""
        return self.until(run, "done", "failed", "cancelled")

    def events(self, run: str, after: int | None = None) -> Iterator[tuple[str, Any]]:
        """Kinds and data of its events."""
        headers = {} if after is None else {"last-event-id": str(after)}
        with self.http.stream("GET", f"/v1/runs/{run}/events", headers=headers) as stream:
            assert stream.status_code == 200
            kind = ""
            for line in stream.iter_lines():
                name, _, text = line.partition(": ")
                if name == "event":
                    kind = text
                elif name == "data":
                    yield kind, json.loads(text)


def labels_of(store: Path, run: str) -> bytes:
    """The bytes of the labels that a job wrote."""
    return (store / "runs" / run / "run" / "labels.jsonl").read_bytes()
