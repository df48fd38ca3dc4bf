"""kill -9 of the service, and of a job's process: the job completes, with the same labels.

MILAN_ONNX_KILLS sets how many random moments are tried (by default two of each), and
MILAN_ONNX_KILLS_SEED which.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from milan_onnx.serve.jobs.child import began
from tests.serve.asking import Client, labels_of
from tests.serve.process import served
from tests.toy import toy_photos, toy_subject

KILLS = int(os.environ.get("MILAN_ONNX_KILLS", "4"))
SEED = int(os.environ.get("MILAN_ONNX_KILLS_SEED", "0"))
OPTIONS = {"exemplars": 5, "beam_size": 40}


@dataclass
class Unbroken:
    """A job that nobody disturbed."""

    folder: Path
    bundle: Path
    labels: bytes
    seconds: float

    @property
    def line(self) -> tuple[object, ...]:
        return ("--bundle", self.bundle, "--allow", self.folder / "allowed", "--job-seconds", 100)

    def start(self, client: Client) -> str:
        asked = {"model": "toy.onnx", "layers": ["relu1", "relu6"], "images": "photos"}
        return str(client.start(**asked, options=OPTIONS)["id"])


@pytest.fixture(scope="module")
def unbroken(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    folder = tmp_path_factory.mktemp("kills")
    (folder / "allowed").mkdir()
    toy_subject(folder / "allowed" / "toy.onnx")
    toy_photos(folder / "allowed" / "photos", 300)
    job = Unbroken(folder, bundle_path, b"", 0.0)
    with served(folder, *job.line) as service:
        client = Client(service.url)
        run = job.start(client)
        client.until(run, "running")
        begin = time.monotonic()
        assert client.ended(run)["state"] == "done"
        seconds = time.monotonic() - begin
        return Unbroken(folder, bundle_path, labels_of(folder / "store", run), seconds)


def moments() -> Iterator[tuple[str, float]]:
    """What is killed, and when, as a share of the time that a job takes."""
    chosen = random.Random(SEED)
    for number in range(KILLS):
        yield ("service", "worker")[number % 2], round(chosen.uniform(0, 1.1), 3)


def worker_of(server: int) -> int | None:
    """The process of the job of a service."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            status = (process / "stat").read_text().rpartition(")")[2].split()
            if int(status[1]) == server and b"jobs.worker" in (process / "cmdline").read_bytes():
                return int(process.name)
        except (OSError, ValueError, IndexError):
            continue
    return None


@pytest.mark.parametrize(("what", "share"), list(moments()))
def test_a_killed_job_completes_with_the_same_labels(
    unbroken: Unbroken, what: str, share: float
) -> None:
    store = unbroken.folder / "store"
    with served(unbroken.folder, *unbroken.line, ready=False) as service:
        client = Client(service.url)
        wait_until_open(client)
        run = unbroken.start(client)
        time.sleep(share * unbroken.seconds)
        worker = worker_of(service.process.pid)
        if what == "worker" and worker is not None:
            os.kill(worker, signal.SIGKILL)
            done = client.ended(run)
        else:
            service.end(signal.SIGKILL)
            if worker is not None:
                wait_until_gone(worker)
    if what == "service" or worker is None:
        with served(unbroken.folder, *unbroken.line, ready=False) as service:
            client = Client(service.url)
            wait_until_open(client)
            done = client.ended(run)
            check_events(client, run)
    assert done["state"] == "done", done
    assert done["summary"]["units"] == 20
    assert labels_of(store, run) == unbroken.labels
    left = sorted(path.name for path in (store / "runs" / run).iterdir())
    assert left == ["events.jsonl", "log.txt", "outcome.json", "request.json", "run"]


def test_an_index_that_is_lost_or_damaged_is_made_again(unbroken: Unbroken) -> None:
    store = unbroken.folder / "store"

    def listed() -> list[object]:
        with served(unbroken.folder, *unbroken.line, ready=False) as service:
            client = Client(service.url)
            wait_until_open(client)
            keys = ("id", "name", "state", "created", "model", "layers", "options", "summary")
            found = [client.get(f"/v1/runs/{run['id']}") for run in client.get("/v1/runs")["runs"]]
            service.end()
            return [{key: run[key] for key in keys} for run in found]

    before = listed()
    assert before
    for path in store.glob("index.sqlite*"):
        path.unlink()
    assert listed() == before
    (store / "index.sqlite").write_bytes(b"no database" * 1000)
    assert listed() == before


def test_a_stopped_service_goes_on_with_its_jobs(unbroken: Unbroken) -> None:
    store = unbroken.folder / "store"
    with served(unbroken.folder, *unbroken.line, ready=False) as service:
        client = Client(service.url)
        wait_until_open(client)
        runs = [unbroken.start(client) for _ in range(2)]
        client.until(runs[0], "running")
        assert service.end() == 0
    with served(unbroken.folder, *unbroken.line, ready=False) as service:
        client = Client(service.url)
        wait_until_open(client)
        for run in runs:
            done = client.ended(run)
            assert done["state"] == "done" and labels_of(store, run) == unbroken.labels
        assert client.get(f"/v1/runs/{runs[0]}")["starts"] == 2
        states = [e[1].get("why", "") for e in client.events(runs[0]) if e[0] == "state"]
        assert "the service was stopped" in states


def wait_until_open(client: Client) -> None:
    while client.http.get("/v1/runs").status_code == 503:
        time.sleep(0.02)


def wait_until_gone(process: int) -> None:
    """A worker does not outlive its service."""
    end = time.monotonic() + 5
    while began(process) is not None:
        assert time.monotonic() < end, f"the worker {process} outlives its service"
        time.sleep(0.01)


def check_events(client: Client, run: str) -> None:
    """They are numbered without a gap, through the kill."""
    numbers = [data["number"] for kind, data in client.events(run) if kind != "end"]
    assert numbers == list(range(1, len(numbers) + 1))
