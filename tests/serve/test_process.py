"""The command `serve`: a real process, real sockets, hostile and careless clients."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import Command
from tests.serve.exemplars import body, sets
from tests.serve.process import Served, figure, resident, served

TIME = 60.0


@pytest.fixture(scope="module")
def running(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with small limits."""
    folder = tmp_path_factory.mktemp("serve")
    limits = ("--max-body", 1, "--body-seconds", 2, "--queue", 16, "--max-units", 8)
    with served(folder, "--bundle", bundle_path, *limits) as service:
        yield service


def dial(service: Served) -> socket.socket:
    """A connection on which nothing was sent yet."""
    address = urlsplit(service.url)
    return socket.create_connection((address.hostname, address.port), timeout=TIME)


def head(*lines: str) -> bytes:
    first = ("POST /v1/describe HTTP/1.1", "Host: localhost", "Content-Type: application/json")
    return "\r\n".join([*first, *lines, "", ""]).encode()


def answer_of(connection: socket.socket) -> str:
    """All that comes until the connection ends."""
    received = b""
    try:
        while part := connection.recv(1 << 16):
            received += part
    except ConnectionResetError:
        pass
    return received.decode("utf-8", "replace")


def is_answering(service: Served) -> None:
    assert httpx.get(f"{service.url}/readyz", timeout=TIME).status_code == 200
    answer = httpx.post(f"{service.url}/v1/describe", json=body(*sets(1, 2)), timeout=TIME)
    assert answer.status_code == 200, answer.text


def test_a_body_without_end_is_cut_off(running: Served) -> None:
    before = resident(running.process.pid)
    with dial(running) as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        with pytest.raises(OSError):  # the service closes the connection
            for _ in range(4000):  # 256 MB
                connection.sendall(chunk)
    assert resident(running.process.pid) - before < 60
    is_answering(running)


def test_what_is_too_long_is_refused_by_its_head_alone(running: Served) -> None:
    with dial(running) as connection:
        connection.sendall(head("Content-Length: 4000000000", "Expect: 100-continue"))
        text = answer_of(connection)
    assert text.startswith("HTTP/1.1 413") and "longer than 1048576 bytes" in text
    assert "100 Continue" not in text
    is_answering(running)


def test_who_sends_too_slowly_is_cut_off(running: Served) -> None:
    start = time.monotonic()
    with dial(running) as connection:
        connection.sendall(head("Content-Length: 1000") + b"{")
        text = answer_of(connection)
    assert text.startswith("HTTP/1.1 408") and 1 < time.monotonic() - start < 20
    is_answering(running)


def test_what_is_no_http_or_lies_leaves_it_answering(running: Served) -> None:
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
        b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
        head("Content-Length: -1"),
        head("Content-Length: 5", "Content-Length: 50") + b"hello",
        head("Content-Length: 99999999999999999999999999"),
        b"POST /v1/describe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
        b"Content-Type: multipart/form-data; boundary=\r\n\r\n{}",
    ):
        with dial(running) as connection:
            connection.settimeout(5)
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                text = answer_of(connection)
            except OSError:
                continue
            assert not text.startswith("HTTP/1.1 5"), text
    is_answering(running)


def test_work_of_clients_that_went_away_is_dropped(running: Served) -> None:
    data = json.dumps(body(*sets(8, 4), beam_size=100)).encode()
    dropped = 'milan_onnx_dropped_units_total{why="gone"}'
    before = figure(running.url, dropped)
    for _ in range(20):  # the first is at work while the others wait, if all goes well
        connections = [dial(running) for _ in range(3)]
        for connection in connections:
            connection.sendall(head(f"Content-Length: {len(data)}") + data)
        until = time.monotonic() + 1
        while figure(running.url, "milan_onnx_queue_units") < 8 and time.monotonic() < until:
            pass
        for connection in connections:
            connection.close()
        if figure(running.url, dropped) > before:
            break
    assert figure(running.url, dropped) > before
    until = time.monotonic() + 10
    while figure(running.url, "milan_onnx_queue_units") and time.monotonic() < until:
        time.sleep(0.01)
    is_answering(running)
    assert "fault" not in running.text()


def test_more_than_it_can_do_is_refused_at_once_and_what_is_accepted_is_right(
    running: Served,
) -> None:
    sent = body(*sets(4, 3))
    right = httpx.post(f"{running.url}/v1/describe", json=sent, timeout=TIME).json()
    with httpx.Client(timeout=TIME, limits=httpx.Limits(max_connections=None)) as client:

        def ask(_: int) -> httpx.Response:
            return client.post(f"{running.url}/v1/describe", json=sent)

        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(ask, range(200)))
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in answers:
        if answer.status_code == 200:
            assert answer.json() == right
        else:
            assert int(answer.headers["retry-after"]) >= 1
            assert "wait already" in answer.json()["error"]
    batches = [figure(running.url, f"milan_onnx_batch_units_{kind}") for kind in ("sum", "count")]
    assert batches[0] / batches[1] > 4  # units of a request: others joined them
    is_answering(running)


def test_what_is_under_way_is_finished_when_it_is_stopped(tmp_path: Path) -> None:
    data = json.dumps(body(*sets(64, 2))).encode()
    headers = {"content-type": "application/json"}
    with (
        served(
            tmp_path, "--access-log", "--timeout", 120
        ) as service,  # the built-in captioner: seconds of work
        httpx.Client(timeout=TIME, base_url=service.url, headers=headers) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        asked = [pool.submit(client.post, "/v1/describe", content=data) for _ in range(4)]
        while figure(service.url, "milan_onnx_requests_in_flight") < 5:  # this question is one
            assert not any(answer.done() for answer in asked)
        assert service.end() == 0
        answers = [answer.result() for answer in asked]
        assert {answer.status_code for answer in answers} == {200}
        assert {len(answer.json()["units"]) for answer in answers} == {64}
        text = service.text()
        assert text.rstrip().endswith("stopped") and "Traceback" not in text
        assert text.count('"POST /v1/describe HTTP/1.1" 200') == 4
        with pytest.raises(httpx.ConnectError):
            httpx.get(service.url)


def test_it_can_be_stopped_before_it_is_ready(tmp_path: Path) -> None:
    with served(tmp_path, ready=False) as service:
        assert httpx.get(f"{service.url}/healthz", timeout=TIME).status_code == 200
        assert service.end() == 0
        assert "Traceback" not in service.text()


def test_ctrl_c_ends_it_with_0(bundle_path: Path, tmp_path: Path) -> None:
    with served(tmp_path, "--bundle", bundle_path) as service:
        assert service.end(signal.SIGINT) == 0


def test_a_port_in_use_is_one_sentence(milan: Command, running: Served, tmp_path: Path) -> None:
    port = urlsplit(running.url).port
    done = milan("serve", "--port", port, cwd=tmp_path)
    assert done.returncode == 4
    assert done.stderr == (
        f"error: port {port} of 127.0.0.1 is in use; stop what uses it, or give another --port\n"
    )


def test_mistakes_of_the_command_line_are_named(milan: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for options, code, why in (
        (("--host", "no.such.host.invalid"), 2, "no address of this machine"),
        (("--batch", 65), 2, "batch"),
        (("--token-file", tmp_path / "none"), 2, "token file"),
        (("--token-file", tmp_path / "empty"), 2, "is empty"),
        (("--port", 0, "--bundle", tmp_path), 5, "is not a bundle"),
        (("--port", 0, "--device", "tpu"), 2, "unknown device"),
    ):
        done = milan("serve", *options, cwd=tmp_path)
        assert done.returncode == code and why in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "fastapi":
            raise ModuleNotFoundError("No module named 'fastapi'", name="fastapi")
sys.meta_path.insert(0, Block())
sys.argv = ["milan-onnx", "serve"]
from milan_onnx.cli import main
main()
"""
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 4
    assert done.stderr == (
        "error: this command needs fastapi, which is not installed; "
        "pip install 'milan-onnx[cpu,serve]'\n"
    )


def test_a_token_guards_it_and_is_not_told(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of-the-file\n")
    with served(
        tmp_path,
        *("--bundle", bundle_path, "--token-file", tmp_path / "token", "--host", "0.0.0.0"),
        env={"MILAN_ONNX_TOKEN": "of-the-environment"},
    ) as service:
        url = service.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/v1/info").status_code == 401
        headers = {"authorization": "Bearer of-the-file"}
        assert httpx.get(f"{url}/v1/info", headers=headers).status_code == 200
        assert "of-the" not in service.text() and "warning" not in service.text()
    with served(tmp_path, "--bundle", bundle_path, "--host", "0.0.0.0") as service:
        assert "warning: whoever reaches this address may use it" in service.text()
