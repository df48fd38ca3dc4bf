"""The page in a real browser: a token, a run started, watched to its end, searched, looked at.

MILAN_ONNX_SCREENSHOTS=FOLDER writes the pictures of docs/serve-jobs.md; MILAN_ONNX_SHOWN=FOLDER,
with models and photos, makes them of those instead of toys, with the built-in captioner.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image

from milan_onnx.describing import DescribeOptions
from milan_onnx.run import save_run
from tests.browser import CHROMIUM, Page, browse
from tests.confident import confident_run
from tests.serve.asking import Client
from tests.serve.process import Served, served
from tests.toy import toy_photos, toy_subject

SHOTS = os.environ.get("MILAN_ONNX_SCREENSHOTS")
SHOWN = os.environ.get("MILAN_ONNX_SHOWN")
TOKEN = "a-token"
LARGEST_SHOT = 200_000
WIDE, PHONE = (1280, 860), (390, 844)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")


@contextmanager
def service_with_a_toy(folder: Path, bundle: Path) -> Iterator[Served]:
    allowed = Path(SHOWN) if SHOWN else folder / "allowed"
    if not SHOWN:
        (allowed / "models").mkdir(parents=True)
        toy_subject(allowed / "models" / "<b>toy.onnx")
        toy_photos(allowed / "photos", 150)
    (folder / "token").write_text(TOKEN)
    captioner = () if SHOWN else ("--bundle", bundle)
    with served(
        folder, *captioner, "--allow", allowed, "--token-file", folder / "token"
    ) as service:
        yield service


def shoot(page: Page, name: str, size: tuple[int, int] = WIDE, *, dark: bool = False) -> None:
    """A picture for the docs, where they are wanted."""
    if SHOTS is None:
        return
    page.resize(*size, dark=dark)
    time.sleep(0.5)
    path = Path(SHOTS) / f"serve-{name}.png"
    page.screenshot(path)
    if path.stat().st_size > LARGEST_SHOT:
        Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
    page.resize(*WIDE)


def text(page: Page, selector: str) -> str:
    return str(page.evaluate(f"document.querySelector({selector!r})?.innerText ?? ''"))


def click(page: Page, selector: str) -> None:
    page.wait(f"!!document.querySelector({selector!r})")
    page.evaluate(f"document.querySelector({selector!r}).click()")


def push(page: Page, label: str) -> None:
    """The first button that is called so."""
    found = f"[...document.querySelectorAll('button')].find(b => b.innerText === {label!r})"
    page.wait(f"!!{found}")
    page.evaluate(f"{found}.click()")


def focus(page: Page, selector: str) -> None:
    page.wait(f"!!document.querySelector({selector!r})")
    page.evaluate(f"document.querySelector({selector!r}).focus()")


def pick_layers(page: Page, fits: str) -> None:
    """Select layers of the form whose option holds a text of some."""
    page.wait("document.querySelectorAll('select[name=layers] option[value]').length > 3")
    page.evaluate(
        "for (const o of document.querySelector('select[name=layers]').options)"
        f" o.selected = /{fits}/.test(o.textContent)"
    )


def give_token(page: Page, token: str) -> None:
    page.wait("document.querySelector('#ask')?.open && document.activeElement.id === 'token'")
    page.write(token)
    page.wait(f"document.querySelector('#token').value === {token!r}")
    page.press("Enter")


def test_a_reader_starts_a_run_and_looks_at_a_unit(bundle_path: Path, tmp_path: Path) -> None:
    with (
        service_with_a_toy(tmp_path, bundle_path) as service,
        browse(service.url, tmp_path / "profile") as page,
    ):
        give_token(page, "wrong")
        page.wait("!document.querySelector('#ask-problem').hidden")
        give_token(page, TOKEN)
        page.wait("document.querySelector('#new')?.open")  # there is no run yet
        start_a_run(page)
        watch_it(page, Client(service.url, TOKEN))
        search_and_look(page)
        keys_and_back(page)
        assert not trouble(page), page.console


def start_a_run(page: Page) -> None:
    pick_layers(page, "add_523|block15" if SHOWN else "relu1|relu6")
    page.evaluate("document.querySelector('[name=name]').value = 'EfficientNet-Lite0'")
    shoot(page, "form")
    shoot(page, "form-phone", PHONE, dark=True)
    click(page, "form.new button[type=submit]")
    page.wait("location.hash.startsWith('#run/')")


def watch_it(page: Page, client: Client) -> None:
    """The bar moves, labels come, and it ends by itself with what was found."""
    page.wait("(document.querySelector('.live progress')?.value ?? 0) > 0.1")
    assert "of" in text(page, ".live span") and "/s" in text(page, ".live span")
    assert "layer:" in text(page, ".log")
    shoot(page, "live")
    page.evaluate("document.querySelector('#home').click()")
    if SHOWN:
        page.wait("(document.querySelector('.run .live progress')?.value ?? 0) > 0.3")
        shoot(page, "runs")
        shoot(page, "runs-phone", PHONE)
    run = client.get("/v1/runs")["runs"][0]["id"]
    assert client.ended(run)["state"] == "done"
    page.wait("document.querySelector('.run .state')?.innerText === 'done'")
    assert "units of 2 layers" in text(page, ".run .what")


def search_and_look(page: Page) -> None:
    click(page, ".run .name a")
    page.wait("document.querySelectorAll('.units a').length > 10")
    word = "hearts" if SHOWN else text(page, ".units .said").split()[-1].lower()
    focus(page, "#query")
    page.write(word)
    page.wait("decodeURIComponent(location.hash).includes(document.querySelector('#query').value)")
    first = "document.querySelector('.units li')?.innerText.toLowerCase()"
    page.wait(f"{first}.includes({word!r})")
    shoot(page, "search")
    shoot(page, "search-phone", PHONE)
    click(page, ".units a")
    everywhere = "i => i.complete && i.naturalWidth > 0"
    page.wait(f"[...document.querySelectorAll('.strip img')].filter({everywhere}).length === 15")
    shoot(page, "unit")
    shoot(page, "unit-phone", PHONE, dark=True)
    before = page.evaluate("document.querySelector('.strip img').src")
    click(page, ".strip button")
    page.wait(f"document.querySelector('.strip img').src !== {before!r}")
    assert page.evaluate("document.querySelector('.strip button').ariaPressed") == "false"


def keys_and_back(page: Page) -> None:
    """The keyboard alone goes on, comes back to the search, and reaches the report."""
    title = text(page, "#title")
    page.press("j")
    page.wait(f"document.querySelector('#title').innerText !== {title!r}")
    page.wait("document.activeElement.id === 'title'")
    page.press("Escape")
    page.wait("!!document.querySelector('#query')?.value")
    page.press("/")
    page.wait("document.activeElement.id === 'query'")


def trouble(page: Page) -> list[str]:
    """What the browser complained of; a token that was asked for is none."""
    return [entry for entry in page.console if "401 (Unauthorized)" not in entry]


@pytest.fixture
def finished(bundle_path: Path, tmp_path: Path) -> Iterator[tuple[Served, str]]:
    """A service without a token and a run whose texts are hostile."""
    hostile = "<img src=x onerror=alert(1)>"
    with served(tmp_path, "--bundle", bundle_path) as service:
        client = Client(service.url)
        model = toy_subject(tmp_path / "m.onnx").read_bytes()
        options = {"synthetic": 40, "exemplars": 5}
        run = client.upload(model, layers=["relu1"], name=hostile, options=options).json()["id"]
        assert client.ended(run)["state"] == "done"
        client.upload(b"no model", name=hostile)
        yield service, run


def test_nothing_that_was_sent_becomes_part_of_the_page(
    finished: tuple[Served, str], tmp_path: Path
) -> None:
    service, run = finished
    with browse(service.url, tmp_path / "profile") as page:
        page.wait("document.querySelectorAll('.run .state.failed').length === 1")
        assert text(page, ".run .name a").startswith("<img src=x")
        assert page.evaluate("document.querySelectorAll('#main img').length") == 0
        shoot_failed(page)
        click(page, ".run:last-child .name a")
        page.wait("!!document.querySelector('#query')")
        assert page.evaluate("document.querySelectorAll('#main img').length") == 0
        page.evaluate(f"location.hash = '#run/{run}x'")
        page.wait("!document.querySelector('#problem').hidden")
        assert "there is no run" in text(page, "#problem")
    policy = httpx.get(service.url).headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_a_label_shows_its_confidence_first_and_its_scores_on_demand(
    bundle_path: Path, tmp_path: Path
) -> None:
    allowed = tmp_path / "allowed"
    (allowed / "by-hand").mkdir(parents=True)
    options = DescribeOptions(synthetic=60, exemplars=5, validity=False)
    model = toy_subject(tmp_path / "m.onnx")
    save_run(allowed / "by-hand", confident_run(model, bundle_path, options))
    with (
        served(tmp_path, "--bundle", bundle_path, "--allow", allowed) as service,
        browse(service.url, tmp_path / "profile") as page,
    ):
        click(page, ".run .name a")
        page.wait("document.querySelectorAll('.units a').length === 12")
        assert "45 %" not in text(page, ".units") and "PMI" not in text(page, ".units")
        assert text(page, ".units li:nth-child(12) .where") == "relu6 · confidence 91 %"
        click(page, ".units li:nth-child(12) a")
        page.wait("!!document.querySelector('.unit-view')")
        assert text(page, ".scores") == "confidence 91 %"
        assert "PMI" not in text(page, ".unit-view")  # a click away
        page.evaluate("document.querySelector('details.more').open = true")
        page.wait("document.querySelector('.unit-view').innerText.includes('PMI')")
        assert text(page, ".more tbody td:nth-child(2)") == "91 %"
        client = Client(service.url)
        (run,) = client.get("/v1/runs")["runs"]
        (layer,) = client.get(run["links"]["about"])["layers"]
        assert layer["confidence"] == 0.4583
        unit = client.get(f"{run['links']['units']}/relu6/6")
        assert unit["confidence"] == unit["candidates"][0]["confidence"] == 0.5


def shoot_failed(page: Page) -> None:
    if not SHOWN:
        shoot(page, "failed", (1280, 420))


def test_a_run_can_be_cancelled_and_deleted_from_the_page(
    bundle_path: Path, tmp_path: Path
) -> None:
    with (
        service_with_a_toy(tmp_path, bundle_path) as service,
        browse(service.url, tmp_path / "profile") as page,
    ):
        give_token(page, TOKEN)
        client = Client(service.url, TOKEN)
        model = toy_subject(tmp_path / "up.onnx")
        click(page, "input[name=model-way][value=upload]")
        page.choose_file("[name=model-file]", model)
        click(page, "input[name=photos-way][value=builtin]")
        page.evaluate("document.querySelector('[name=synthetic]').value = '20000'")
        click(page, "form.new button[type=submit]")
        page.wait("location.hash.startsWith('#run/')")
        run = client.get("/v1/runs")["runs"][0]
        assert run["model"] == "up.onnx (uploaded)" and run["options"] == {"synthetic": 20000}
        client.until(run["id"], "running")
        push(page, "Cancel")
        page.wait("document.querySelector('#main .state')?.innerText === 'cancelled'")
        assert client.state(run["id"]) == "cancelled"
        page.evaluate("window.confirm = () => true")
        push(page, "Delete")
        page.wait("!!document.querySelector('#new') && !document.querySelector('.run')")
        assert client.http.get(run["links"]["self"]).status_code == 404
