"""The OpenAPI document is true: what requests of its kind, and others, get is what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from milan_onnx.serve.app import create_app
from milan_onnx.serve.settings import ServeSettings
from tests.serve.process import Served, served

ALL = list(HealthCheck)


@pytest.fixture(scope="module")
def running(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with the toy captioner."""
    folder = tmp_path_factory.mktemp("openapi")
    with served(folder, "--bundle", bundle_path) as service:
        yield service


OPERATIONS = [
    pytest.param(path, method, id=f"{method} {path}")
    for path, methods in create_app(ServeSettings()).openapi()["paths"].items()
    for method in methods
]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_answers_are_as_the_document_says(
    running: Served, path: str, method: str, mode: GenerationMode
) -> None:
    document = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    strategy = document[path][method].as_strategy(generation_mode=mode)

    @settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=ALL)
    @given(case=strategy)
    def ask(case: Any) -> None:
        # Text that fits the form is seldom an image's base64: 422 is right then.
        case.call_and_validate(excluded_checks=[positive_data_acceptance], timeout=30)

    try:
        ask()
    except Unsatisfiable:
        assert mode == GenerationMode.NEGATIVE  # there is nothing that it could send wrong
    assert httpx.get(f"{running.url}/healthz").status_code == 200


def test_its_examples_work(running: Served) -> None:
    document = httpx.get(f"{running.url}/openapi.json").json()
    asked = 0
    for path, methods in document["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {})
        for example in content.get("application/json", {}).get("schema", {}).get("examples", []):
            answer = httpx.post(running.url + path, json=example)
            assert answer.status_code == 200, answer.text
            asked += 1
    assert asked >= 2


def test_no_page_wants_the_internet(running: Served) -> None:
    for path in ("/docs", "/redoc"):
        assert httpx.get(running.url + path).status_code == 404
    assert "://" not in httpx.get(f"{running.url}/openapi.json").text
