"""Whole-model runs over HTTP: a real service, real jobs, tiny models."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import socket
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.conftest import Command
from tests.serve.asking import Client, Run, labels_of
from tests.serve.process import Served, served
from tests.toy import toy_photos, toy_subject

SMALL = {"exemplars": 5}


@dataclass
class Place:
    """A service with an allowed folder."""

    service: Served
    client: Client
    store: Path
    allowed: Path


@pytest.fixture(scope="module")
def place(
    bundle_path: Path, milan: Command, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("jobs")
    allowed = folder / "allowed"
    allowed.mkdir()
    toy_subject(allowed / "toy.onnx")
    toy_photos(allowed / "photos", 24)
    done = milan(
        *("describe", allowed / "toy.onnx", "-l", "relu1", "-l", "relu6", "-i", allowed / "photos"),
        *("--bundle", bundle_path, "--exemplars", 5, "--out", allowed / "by-hand"),
    )
    assert done.returncode == 0, done.stderr
    (folder / "secret.onnx").write_bytes((allowed / "toy.onnx").read_bytes())
    (allowed / "link.onnx").symlink_to(folder / "secret.onnx")
    with served(folder, "--bundle", bundle_path, "--allow", allowed) as service:
        yield Place(service, Client(service.url), folder / "store", allowed)


@pytest.fixture(scope="module")
def done(place: Place) -> Run:
    """A run of a model in the allowed folder."""
    asked = {"model": "toy.onnx", "layers": ["relu1", "relu6"], "images": "photos"}
    started = place.client.start(**asked, options=SMALL)
    assert started["state"] == "queued" and started["model"] == str(place.allowed / "toy.onnx")
    return place.client.ended(started["id"])


def zipped(folder: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return file.getvalue()


def test_a_run_is_what_the_command_line_makes(place: Place, done: Run) -> None:
    assert done["state"] == "done" and done["error"] is None
    assert done["summary"] == {"layers": 2, "units": 20, "described": 20, "abstained": 0}
    assert (
        labels_of(place.store, done["id"])
        == (place.allowed / "by-hand" / "labels.jsonl").read_bytes()
    )
    sent = place.client.http.get(done["links"]["labels"])
    assert sent.content == labels_of(place.store, done["id"])
    table = place.client.http.get(done["links"]["labels"], params={"format": "csv"}).text
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [(r["layer"], int(r["unit"])) for r in rows] == [
        (layer, unit) for layer, units in (("relu1", 8), ("relu6", 12)) for unit in range(units)
    ]


def test_events_tell_it_all_and_go_on_after_the_last_one(place: Place, done: Run) -> None:
    events = list(place.client.events(done["id"]))
    numbers = [data["number"] for kind, data in events if kind != "end"]
    assert numbers == list(range(1, len(numbers) + 1))
    states = [data["state"] for kind, data in events if kind == "state"]
    assert states == ["queued", "running", "done"]
    assert {"scan", "encode", "describe"} <= {
        data["stage"] for kind, data in events if kind == "progress"
    }
    labels = [data for kind, data in events if kind == "label"]
    told = {"layer", "unit", "description", "confidence", "pmi", "flags"}
    assert len(labels) == 20 and told <= set(labels[0])
    assert {data["what"] for kind, data in events if kind == "choice"} >= {"layer", "device"}
    assert events[-1] == ("end", place.client.get(done["links"]["self"]))
    later = list(place.client.events(done["id"], after=numbers[-3]))
    assert later == events[-3:]


def test_an_uploaded_model_gives_the_same_labels(place: Place, done: Run) -> None:
    model = (place.allowed / "toy.onnx").read_bytes()
    answer = place.client.upload(
        *(model, zipped(place.allowed / "photos"), "../../my net!.onnx"),
        layers=["relu1", "relu6"],
        options=SMALL,
    )
    assert answer.status_code == 202, answer.text
    run = place.client.ended(answer.json()["id"])
    assert run["state"] == "done", run["error"]
    assert run["model"] == "my-net.onnx (uploaded)" and run["images"] == "uploaded photos"
    assert labels_of(place.store, run["id"]) == labels_of(place.store, done["id"])
    unit = place.client.get(f"{run['links']['units']}/relu1/0")
    assert place.client.http.get(unit["exemplars"][0]["masked"]).status_code == 200


def test_options_reach_the_run(place: Place) -> None:
    given = {"resize": [40, 40], "mean": [0.5, 0.25, 0], "std": 1}
    options = {"preprocessing": given, "quantile": 0.9, "exemplars": 3, "synthetic": 30}
    options["abstain_below"] = 0.5
    run = place.client.start(model="toy.onnx", layers=["relu*"], options=options, name="mine")
    done = place.client.ended(run["id"])
    assert done["state"] == "done" and done["name"] == "mine", done["error"]
    assert done["options"] == options and done["summary"]["layers"] == 2
    path = place.store / "runs" / run["id"] / "run" / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest["preprocessing"]["geometry"]["resize"] == [40, 40]
    assert manifest["preprocessing"]["mean"] == [0.5, 0.25, 0.0]
    assert manifest["options"]["quantile"] == 0.9 and manifest["options"]["exemplars"] == 3
    assert manifest["options"]["abstain_below"] == 0.5


def test_search_finds_descriptions_before_candidates_in_a_total_order(
    place: Place, done: Run
) -> None:
    units = done["links"]["units"]
    everything = place.client.get(units, limit=500)
    assert everything["total"] == 20
    assert [u["unit"] for u in everything["units"]] == [*range(8), *range(12)]
    word = everything["units"][0]["description"].split()[-1]
    found = place.client.get(units, query=f"The {word.upper()}", limit=500)
    ranks = [unit["said_by"] for unit in found["units"]]
    assert found["total"] >= 1 and ranks == sorted(ranks)
    for unit in found["units"]:
        said = unit["candidate"] if unit["said_by"] else unit["description"]
        assert word.rstrip("s") in said
    for offset in range(found["total"]):
        page = place.client.get(units, query=word, limit=1, offset=offset)
        assert page["units"] == [found["units"][offset]]
    assert place.client.get(units, query="zebra crossings")["total"] == 0
    assert place.client.get(units, query="!?")["total"] == 0
    assert place.client.get(units, layer="relu6")["total"] == 12
    assert place.client.http.get(units, params={"layer": "nothing"}).status_code == 404


def test_a_unit_shows_its_exemplars(place: Place, done: Run) -> None:
    unit = place.client.get(f"{done['links']['units']}/relu6/3")
    line = labels_of(place.store, done["id"]).splitlines()[8 + 3]
    written = json.loads(line)
    for key in ("description", "candidates", "threshold", "pmi", "model"):
        assert unit[key] == written[key]
    assert len(unit["exemplars"]) == 5
    exemplar = unit["exemplars"][0]
    http = place.client.http
    masked, photo = http.get(exemplar["masked"]), http.get(exemplar["photo"])
    mask = http.get(exemplar["mask"], params={"side": 64, "view": "mask"})
    assert masked.headers["content-type"] == photo.headers["content-type"] == "image/jpeg"
    dim, bright = (Image.open(io.BytesIO(a.content)).convert("L") for a in (masked, photo))
    assert dim.size == bright.size == (224, 224)
    region = Image.open(io.BytesIO(mask.content))
    assert region.size == (64, 64) and region.getbbox() is not None
    assert sum(dim.resize((1, 1)).tobytes()) < sum(bright.resize((1, 1)).tobytes())
    again = http.get(exemplar["masked"], headers={"if-none-match": masked.headers["etag"]})
    assert again.status_code == 304 and not again.content
    for wrong in ("relu6/99", "relu6/3/exemplars/5", "nothing/0", "relu6/3/exemplars/0?side=9999"):
        assert http.get(f"{done['links']['units']}/{wrong}").status_code in (404, 422)


def test_the_report_is_a_page_that_cannot_act_for_its_reader(place: Place, done: Run) -> None:
    link = place.client.get(f"{done['links']['self']}/report-link")
    page = place.client.http.get(link["href"])
    assert page.status_code == 200 and "Unit descriptions" in page.text
    policy = page.headers["content-security-policy"]
    assert policy.startswith("sandbox") and "allow-same-origin" not in policy


def test_runs_of_the_command_line_are_shown_but_not_touched(place: Place, done: Run) -> None:
    listed = place.client.get("/v1/runs", limit=500)["runs"]
    found = next(run for run in listed if run["source"] == "folder")
    assert found["name"] == "by-hand" and found["state"] == "done"
    one = place.client.get(found["links"]["self"])
    assert one["summary"]["units"] == 20
    about = place.client.get(found["links"]["about"])
    assert [layer["layer"] for layer in about["layers"]] == ["relu1", "relu6"]
    unit = place.client.get(f"{found['links']['units']}/relu1/0")
    assert place.client.http.get(unit["exemplars"][0]["masked"]).status_code == 200
    for answer in (
        place.client.http.delete(found["links"]["self"]),
        place.client.http.post(f"{found['links']['self']}/cancel"),
    ):
        assert answer.status_code == 409, answer.text
    assert (place.allowed / "by-hand" / "labels.jsonl").is_file()


def test_runs_are_listed_newest_first_in_pages(place: Place, done: Run) -> None:
    whole = place.client.get("/v1/runs", limit=500)
    stamps = [run["created"] for run in whole["runs"]]
    assert stamps == sorted(stamps, reverse=True) and whole["total"] == len(stamps) >= 2
    pages = [place.client.get("/v1/runs", limit=1, offset=n)["runs"] for n in range(len(stamps))]
    assert [run["id"] for page in pages for run in page] == [run["id"] for run in whole["runs"]]
    assert all(r["state"] == "done" for r in place.client.get("/v1/runs", state="done")["runs"])


def test_layers_of_a_model_are_listed(place: Place) -> None:
    places = place.client.get("/v1/places")
    assert str(place.allowed / "toy.onnx") in places["models"]
    assert str(place.allowed / "photos") in places["photos"]
    layers = place.client.get("/v1/models?path=toy.onnx")["layers"]
    assert [layer["tensor"] for layer in layers][:4] == ["conv1", "relu1", "conv2", "relu6"]
    assert layers[0]["units"] == 8
    answer = place.client.http.get("/v1/models", params={"path": "photos/00.png"})
    assert answer.status_code == 422 and "not an ONNX model" in answer.json()["error"]


@pytest.mark.parametrize(
    "path",
    [
        "../secret.onnx",
        "photos/../../secret.onnx",
        "/etc/passwd",
        "link.onnx",
        "/proc/self/environ",
        "~/x.onnx",
        "a\0b",
        "x/" * 2000,
    ],
)
def test_no_path_leads_out_of_the_allowed_folders(place: Place, path: str) -> None:
    for answer in (
        place.client.http.post("/v1/runs", json={"model": path}),
        place.client.http.post("/v1/runs", json={"model": "toy.onnx", "images": path}),
        place.client.http.get("/v1/models", params={"path": path}),
    ):
        assert answer.status_code in (403, 404), answer.text
        assert answer.json()["error"] and "secret contents" not in answer.text


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ({}, "no model is given"),
        ({"model": "toy.onnx", "colour": 1}, "colour"),
        ({"model": "toy.onnx", "options": {"device": "cuda"}}, "device"),
        ({"model": "toy.onnx", "options": {"exemplars": 0}}, "exemplars"),
        ({"model": "toy.onnx", "options": {"metadata_out": "/tmp/x"}}, "metadata_out"),
        ({"model": "toy.onnx", "options": {"preprocessing": {"resise": 2}}}, "resise"),
        ({"model": "toy.onnx", "options": {"inputs": {"a": "text"}}}, "inputs"),
        ({"model": "toy.onnx", "options": {"pmi_weight": 1e999}}, "pmi_weight"),
        ({"model": "toy.onnx", "options": {"abstain_below": 1.5}}, "abstain_below"),
        ({"model": "toy.onnx", "layers": []}, "layers"),
        ({"model": 5}, "model"),
    ],
)
def test_a_request_that_cannot_be_is_refused(place: Place, request_: Run, why: str) -> None:
    before = place.client.get("/v1/runs")["total"]
    answer = place.client.http.post(
        "/v1/runs", content=json.dumps(request_), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422 and why in answer.json()["error"], answer.text
    assert place.client.get("/v1/runs")["total"] == before


def test_forms_that_cannot_be_leave_nothing_behind(place: Place) -> None:
    http = place.client.http
    model = ("m.onnx", b"x")
    for form in (
        {"files": {"other": model}},
        {"files": [("model", model), ("model", model)]},
        {"files": {"images": ("p.zip", b"x")}},
        {"files": {"model": model}, "data": {"request": "{"}},
        {"files": {"model": model}, "data": {"request": '{"model": "toy.onnx"}'}},
        {
            "files": {"model": model, "images": ("p.zip", b"")},
            "data": {"request": '{"images":"x"}'},
        },
        {"data": {"model": "no file"}, "files": {"request": (None, b"{}")}},
    ):
        answer = http.post("/v1/runs", **form)  # type: ignore[arg-type]
        assert answer.status_code == 422, answer.text
    kinds = {"content-type": "multipart/form-data; boundary=x"}
    assert http.post("/v1/runs", content=b"--x\r\n", headers=kinds).status_code == 422
    assert http.post("/v1/runs", content=b"x", headers={"content-type": "a/b"}).status_code == 415
    assert not list((place.store / "runs").glob(".incoming-*"))


def test_an_upload_that_is_broken_off_leaves_nothing_behind(place: Place) -> None:
    address = urlsplit(place.service.url)
    head = (
        "POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        'Content-Disposition: form-data; name="model"; filename="m.onnx"\r\n\r\n'
    )
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode() + b"a" * 500_000)
        while not list((place.store / "runs").glob(".incoming-*/upload/arriving")):
            pass
    for _ in range(200):
        if not list((place.store / "runs").glob(".incoming-*")):
            break
        place.client.get("/healthz")
    assert not list((place.store / "runs").glob(".incoming-*"))
    assert "fault" not in place.service.text()


def test_a_run_that_was_deleted_is_gone(place: Place) -> None:
    run = place.client.start(model="toy.onnx", layers=["no such layer"])
    ended = place.client.ended(run["id"])
    assert ended["state"] == "failed" and "no such layer" in ended["error"]["error"]
    assert place.client.http.get(f"{run['links']['self']}/report").status_code == 409
    assert place.client.http.delete(run["links"]["self"]).status_code == 204
    assert place.client.http.get(run["links"]["self"]).status_code == 404
    assert not (place.store / "runs" / run["id"]).exists()


def test_an_unknown_run_is_404(place: Place) -> None:
    for path in ("", "/events", "/report", "/units", "/units/relu1/0", "/labels", "/about"):
        assert place.client.http.get(f"/v1/runs/nothing{path}").status_code == 404
    assert place.client.http.get("/v1/runs/..%2f..%2fetc/report").status_code in (404, 422)


def test_figures_count_jobs(place: Place, done: Run) -> None:
    text = place.client.http.get("/metrics").text
    assert 'milan_onnx_jobs{state="done"}' in text


def test_a_worker_is_held_tightly(place: Place) -> None:
    """Its own session, lower priority, no core dumps, the first to go when memory ends."""
    run = place.client.start(model="toy.onnx", layers=["relu1"], options={"synthetic": 3000})
    place.client.until(run["id"], "running")
    worker = worker_of(place.service.process.pid)
    place.client.http.post(run["links"]["cancel"])
    limits, nice, group, score = worker
    for name, most in (("core file size", "0"), ("data size", str(4096 << 20)), ("cpu time", "")):
        found = re.search(rf"^Max {name} +(\S+) ", limits, re.MULTILINE)
        assert found and found[1] != "unlimited" and found[1].startswith(most)
    assert nice >= 10 and group and score == 1000


def worker_of(server: int) -> tuple[str, int, bool, int]:
    """Limits, niceness, whether it leads its session, and score of the worker of a service."""
    while True:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                status = (process / "stat").read_text().rpartition(")")[2].split()
                line = (process / "cmdline").read_bytes()
                if int(status[1]) != server or b"jobs.worker" not in line:
                    continue
                score = int((process / "oom_score_adj").read_text())
                if score != 1000:  # it is about to limit itself
                    continue
                limits = (process / "limits").read_text()
                return (
                    limits,
                    int(status[16]),
                    os.getsid(int(process.name)) == int(process.name),
                    1000,
                )
            except (OSError, ValueError, IndexError):
                continue
