"""Jobs that wait, are cancelled, harm, or ask for too much."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Command
from tests.serve import hostile
from tests.serve.asking import Client
from tests.serve.process import Served, resident, served
from tests.toy import toy_subject

MEMORY = 700
LONG = {"synthetic": 20_000, "exemplars": 5}
SECONDS = 12


@pytest.fixture(scope="module")
def tight(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that gives jobs little."""
    folder = tmp_path_factory.mktemp("tight")
    limits = ("--job-memory", MEMORY, "--job-seconds", SECONDS, "--max-nodes", 300)
    more = ("--max-queued-jobs", 3, "--max-upload", 4)
    with served(folder, "--bundle", bundle_path, *limits, *more) as service:
        yield service


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return toy_subject(tmp_path_factory.mktemp("toy") / "toy.onnx").read_bytes()


def text_file(path: Path) -> Path:
    path.write_text("not a model")
    return path


def cut_short(path: Path) -> Path:
    data = toy_subject(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def empty(path: Path) -> Path:
    path.touch()
    return path


HOSTILE: list[tuple[Callable[[Path], Path], str]] = [
    (text_file, "m.onnx is not an ONNX model"),
    (cut_short, "is not an ONNX model, or is cut short"),
    (empty, "is empty"),
    (lambda path: hostile.external(path, "/etc/hostname"), "weights in other files"),
    (lambda path: hostile.external(path, "../../../secret"), "weights in other files"),
    (hostile.external_in_a_branch, "weights in other files"),
    (lambda path: hostile.deep(path, 400), "has 400 nodes, more than the 300"),
    (hostile.giant, f"more than the {MEMORY} MiB of memory"),
    (hostile.giant_of_the_image, f"more than the {MEMORY} MiB of memory"),
    (hostile.growing, f"more than the {MEMORY} MiB of memory"),
    (hostile.endless, f"longer than the {SECONDS} s"),
]


@pytest.mark.parametrize(("make", "why"), HOSTILE)
def test_a_hostile_model_fails_its_job_alone(
    tight: Served, tmp_path: Path, make: Callable[[Path], Path], why: str
) -> None:
    client = Client(tight.url)
    before = resident(tight.process.pid)
    model = make(tmp_path / "made.onnx").read_bytes()
    layers = ["last"] if b"last" in model else None
    options = {"synthetic": 40, "exemplars": 5, "batch_size": 1}
    answer = client.upload(model, layers=layers, options=options)
    assert answer.status_code == 202, answer.text
    run = client.ended(answer.json()["id"])
    assert run["state"] == "failed" and why in run["error"]["error"], run["error"]
    assert "Traceback" not in run["error"]["error"] and str(tmp_path) not in run["error"]["error"]
    folder = tight.log.parent / "store" / "runs" / run["id"]
    assert not (folder / "upload").exists() and not list(folder.glob(".run*"))
    assert client.http.get("/readyz").status_code == 200
    assert resident(tight.process.pid) - before < 60


def test_a_long_upload_is_refused(tight: Served) -> None:
    client = Client(tight.url)
    try:
        answer = client.upload(bytes(6 << 20))
        assert answer.status_code == 413
    except httpx.TransportError:  # it closed the connection before all was sent
        pass
    assert not list((tight.log.parent / "store" / "runs").glob(".incoming-*"))
    assert client.http.get("/readyz").status_code == 200


def test_too_many_jobs_are_refused_and_cancelled_ones_make_room(tight: Served, toy: bytes) -> None:
    client = Client(tight.url)
    ids = []
    while True:
        answer = client.upload(toy, layers=["relu1"], options=LONG)
        if answer.status_code == 429:
            break
        assert answer.status_code == 202, answer.text
        ids.append(answer.json()["id"])
        assert len(ids) <= 4
        client.until(ids[0], "running")
    assert int(answer.headers["retry-after"]) >= 1 and "wait already" in answer.json()["error"]
    positions = [client.get(f"/v1/runs/{run}")["position"] for run in ids]
    assert positions == [None, 0, 1, 2]
    for run in reversed(ids):
        answer = client.http.post(f"/v1/runs/{run}/cancel")
        assert answer.status_code == 200 and answer.json()["state"] == "cancelled"
        assert client.http.post(f"/v1/runs/{run}/cancel").status_code == 409
        folder = tight.log.parent / "store" / "runs" / run
        assert sorted(path.name for path in folder.iterdir() if path.name != "log.txt") == [
            "events.jsonl",
            "outcome.json",
            "request.json",
        ]
    assert client.get("/v1/runs", state="running")["total"] == 0
    assert list(client.events(ids[0]))[-1][1]["state"] == "cancelled"


def test_two_jobs_run_at_once_where_that_is_allowed(
    bundle_path: Path, toy: bytes, tmp_path: Path
) -> None:
    with served(tmp_path, "--bundle", bundle_path, "--max-jobs", 2) as service:
        client = Client(service.url)
        ids = [client.upload(toy, options=LONG).json()["id"] for _ in range(3)]
        for run in ids[:2]:
            client.until(run, "running")
        assert client.state(ids[2]) == "queued"
        client.http.post(f"/v1/runs/{ids[0]}/cancel")
        client.until(ids[2], "running")
        # A stop does not wait for jobs, nor for those who follow them.
        start = time.monotonic()
        with client.http.stream("GET", f"/v1/runs/{ids[1]}/events") as stream:
            assert stream.status_code == 200
            assert service.end() == 0
        assert time.monotonic() - start < 20
        assert "Traceback" not in service.text()


def test_a_token_and_read_only_mode_hold_for_jobs(
    bundle_path: Path, toy: bytes, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("secret")
    common = ("--bundle", bundle_path, "--token-file", tmp_path / "token")
    with served(tmp_path, *common) as service:
        client = Client(service.url, "secret")
        run = client.upload(toy, options={"synthetic": 40, "exemplars": 5}).json()["id"]
        assert client.ended(run)["state"] == "done"
        for path in ("/v1/runs", f"/v1/runs/{run}/report", "/v1/places", "/report?run=x"):
            assert httpx.get(service.url + path).status_code in (401, 422)
        href = client.get(f"/v1/runs/{run}/report-link")["href"]
        assert httpx.get(service.url + href).status_code == 200
        assert httpx.get(service.url + href[:-1]).status_code == 401
        assert httpx.get(service.url + href.replace("until=1", "until=9")).status_code == 401
        assert httpx.get(service.url).status_code == 200
    with served(tmp_path, *common, "--read-only") as service:
        client = Client(service.url, "secret")
        assert client.get("/v1/places")["read_only"] is True
        assert client.get("/v1/runs")["total"] == 1
        assert client.upload(toy).status_code == 403
        assert client.http.delete(f"/v1/runs/{run}").status_code == 403
        assert client.http.get(f"/v1/runs/{run}/units").status_code == 200


def test_a_store_belongs_to_one_service(milan: Command, tight: Served, tmp_path: Path) -> None:
    store = tight.log.parent / "store"
    done = milan("serve", "--port", 0, "--store", store, cwd=tmp_path)
    assert done.returncode == 4
    assert f"is used by another service (process {tight.process.pid})" in done.stderr
    done = milan("serve", "--port", 0, "--store", tmp_path / "a" / "s", "--allow", tmp_path)
    assert done.returncode == 2 and "lies inside the allowed folder" in done.stderr
    done = milan("serve", "--port", 0, "--store", tmp_path / "s", "--allow", tmp_path / "none")
    assert done.returncode == 2 and "is not there" in done.stderr
