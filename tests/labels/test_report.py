"""The report: complete, bounded, deterministic, safe, and alive in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from milan_onnx.labels import (
    Exemplar,
    LayerValidity,
    ReportRun,
    UnitLabel,
    Validity,
    default_budget,
    summarize,
    validity_text,
    write_report,
)
from milan_onnx.labels.masks import GRID, pack_mask
from milan_onnx.labels.thumbnails import shared_head
from tests.browser import CHROMIUM, browse
from tests.browser import Page as BrowserPage
from tests.labels.samples import dead_label, sample_label, sample_run, smooth_frames

ATTACK = "</script><script>alert(1)</script><!--<script><img src=x onerror=alert(2)>\"'&{{7*7}}"


class Page(HTMLParser):
    """The elements and the script texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        self.texts[self._inside] = self.texts.get(self._inside, "") + data

    def json(self, name: str) -> Any:
        return json.loads(self.texts[name])


def small_labels() -> list[UnitLabel]:
    described = [sample_label(u, images=range(u, u + 15)) for u in range(6)]
    return [*described, dead_label(6), sample_label(0, "relu2", images=(3, 1))]


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, run=sample_run(small_labels()))
    return path


@pytest.fixture(scope="module")
def page(page_path: Path) -> Page:
    return Page(page_path.read_text(encoding="utf-8"))


def test_every_shown_exemplar_has_its_photo_and_mask(page: Page) -> None:
    data, photos = page.json("data"), page.json("photos")
    head = base64.b64decode(photos["head"])
    assert len(head) % 3 == 0
    sizes = set()
    for body in photos["bodies"]:
        sizes.add(Image.open(io.BytesIO(head + base64.b64decode(body))).convert("RGB").size)
    assert sizes == {(data["width"], data["height"])}
    labels = small_labels()
    assert [len(u["x"]) for u in data["units"]] == [len(label.exemplars) for label in labels]
    for unit, label in zip(data["units"], labels, strict=True):
        shown = [photos["names"][position] for position, _, _ in unit["x"]]
        assert shown == [e.name for e in label.exemplars]
        assert all(unpacked(mask).any() for _, _, mask in unit["x"])


def test_a_photo_that_many_units_share_is_there_once(page: Page) -> None:
    names = page.json("photos")["names"]
    distinct = {e.name for label in small_labels() for e in label.exemplars}
    assert sorted(names) == sorted(distinct)


def test_the_page_needs_nothing_from_outside(page: Page) -> None:
    for tag, attributes in page.tags:
        assert "style" not in attributes, "the policy blocks style attributes"
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("#", "data:")), (tag, value)
    style = page.texts["style"]
    assert "url(" not in style and "@import" not in style


def test_the_policy_allows_this_script_and_style_alone(page: Page) -> None:
    [policy] = [a["content"] for t, a in page.tags if a.get("http-equiv")]
    assert policy is not None and "unsafe" not in policy and "default-src 'none'" in policy
    for kind in ("script", "style"):
        digest = base64.b64encode(sha256(page.texts[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def attacking_run() -> ReportRun:
    """A run in which every text tries to break out of its place."""
    candidates = tuple(replace(c, description=ATTACK) for c in sample_label(0).candidates)
    exemplars = (Exemplar(0, ATTACK, 1.0),)
    bad = replace(sample_label(0, ATTACK), candidates=candidates, exemplars=exemplars)
    bad = replace(bad, description=ATTACK, flags=(ATTACK,))
    run = sample_run([bad, replace(bad, unit=1)])
    return replace(run, title=ATTACK, facts={ATTACK: ATTACK}, warnings=(ATTACK,))


def test_untrusted_text_stays_text(tmp_path: Path) -> None:
    write_report(tmp_path / "bad.html", run=attacking_run())
    write_report(tmp_path / "good.html", run=sample_run([sample_label(0), sample_label(1)]))
    parsed = Page((tmp_path / "bad.html").read_text(encoding="utf-8"))
    good = Page((tmp_path / "good.html").read_text(encoding="utf-8"))

    def risky(of: Page) -> list[str]:
        return [tag for tag, _ in of.tags if tag in ("script", "img", "iframe", "object")]

    assert risky(parsed) == risky(good)
    assert parsed.json("data")["units"][0]["d"] == ATTACK
    assert parsed.json("photos")["names"] == [ATTACK]
    assert "<" not in parsed.texts["data"]


def test_two_renders_give_the_same_bytes(page_path: Path, tmp_path: Path) -> None:
    again = replace(sample_run(small_labels()), labels=list(reversed(small_labels())))
    write_report(tmp_path / "again.html", run=again)
    assert (tmp_path / "again.html").read_bytes() == page_path.read_bytes()


def test_512_units_of_noise_stay_within_25_megabytes(tmp_path: Path) -> None:
    labels = [sample_label(u, images=range(15 * u, 15 * u + 15)) for u in range(512)]
    path = tmp_path / "report.html"
    size = write_report(path, run=sample_run(labels, noise=True))
    assert path.stat().st_size == size.bytes <= 25_000_000
    assert size.images == size.exemplars * 512
    assert size.exemplars >= 10 and size.side >= 64


@pytest.mark.parametrize("budget", [120_000, 300_000, 1_000_000])
def test_a_small_budget_is_kept(tmp_path: Path, budget: int) -> None:
    labels = [sample_label(u, images=range(15 * u, 15 * u + 15)) for u in range(16)]
    path = tmp_path / "report.html"
    size = write_report(path, run=sample_run(labels, noise=True), budget=budget)
    assert path.stat().st_size <= budget
    shown = Page(path.read_text(encoding="utf-8")).json("data")["units"][0]["x"]
    assert len(shown) == size.exemplars


def test_the_default_budget() -> None:
    assert 24_900_000 < default_budget(512) <= 25_000_000
    assert default_budget(1) == 6_000_000
    assert default_budget(100_000) == 48_000_000


def test_photos_that_cannot_be_had_are_left_out(tmp_path: Path) -> None:
    def some(images: Sequence[int], side: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        return smooth_frames([i for i in images if i % 2], side)

    run = replace(sample_run([sample_label(0, images=(0, 1, 2, 3))]), frames=some)
    assert write_report(tmp_path / "r.html", run=run).images == 2
    bodies = Page((tmp_path / "r.html").read_text(encoding="utf-8")).json("photos")["bodies"]
    assert [body is None for body in bodies] == [True, False, True, False]


def test_frames_need_not_be_square(tmp_path: Path) -> None:
    def wide(images: Sequence[int], side: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        return ((i, frame[: side // 2]) for i, frame in smooth_frames(images, side))

    run = replace(sample_run([sample_label(0, images=(0, 1))]), frames=wide)
    write_report(tmp_path / "r.html", run=run)
    data = Page((tmp_path / "r.html").read_text(encoding="utf-8")).json("data")
    assert data["width"] == 2 * data["height"]


def test_a_run_without_units_has_a_page(tmp_path: Path) -> None:
    run: ReportRun = sample_run([])
    assert write_report(tmp_path / "r.html", run=run).units == 0


def test_the_summary_counts() -> None:
    labels = [*(sample_label(u) for u in range(6)), dead_label(6), sample_label(0, "other")]
    summary = summarize("relu1", labels)
    assert (summary.units, summary.described, summary.distinct) == (7, 6, 5)
    assert summary.repeated == (("dog faces", 2),)
    assert summary.flags == {"dead": 1}


def judged(unit: int, correlation: float | None, *flags: str) -> UnitLabel:
    validity = Validity(correlation, 0.5, 0.1, 0.3, 36)
    return replace(sample_label(unit, images=(1, 2)), validity=validity, flags=flags)


TESTED = [
    judged(0, 0.2),
    judged(1, -0.4, "abstained"),
    judged(2, 0.6),
    judged(3, None, "abstained"),
]


def test_the_summary_has_means_of_validity() -> None:
    found = summarize("relu1", [*TESTED, dead_label(4)]).validity
    assert found == LayerValidity(0.1333, 0.1, 0.5, 0.3)
    assert summarize("relu1", [*TESTED, dead_label(4)]).abstained == 0.5
    text = "correlation 0.13 (shuffled 0.10), AUPRC 0.50 (0.30), 50 % abstained"
    assert validity_text(summarize("relu1", TESTED)) == text
    assert summarize("relu1", [sample_label(0)]).validity is None
    assert validity_text(summarize("relu1", [sample_label(0)])) == "not tested"


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
@settings(max_examples=60, deadline=None)
def test_a_mask_survives_packing(small: NDArray[np.bool_]) -> None:
    mask = np.zeros((GRID, GRID), bool)
    mask[: small.shape[0], 3 : 3 + small.shape[1]] = small
    np.testing.assert_array_equal(unpacked(pack_mask(mask)), mask)


def test_masks_of_all_kinds_survive_packing() -> None:
    noise = np.random.default_rng(0).random((GRID, GRID)) < 0.5
    for mask in (noise, np.ones((GRID, GRID), bool), np.zeros((GRID, GRID), bool)):
        np.testing.assert_array_equal(unpacked(pack_mask(mask)), mask)
    quarter = np.zeros((7, 14), bool)
    quarter[:3, :7] = True
    assert unpacked(pack_mask(quarter))[:24, :28].all()


def test_a_shared_head_is_a_prefix_of_all() -> None:
    parts = [b"abcdefgh1", b"abcdefgh2", b"abcdefgx"]
    assert shared_head(parts) == b"abcdef"
    assert shared_head([]) == b""
    assert shared_head([b"abc", b"abcd"]) == b"abc"


def unpacked(text: str) -> NDArray[np.bool_]:
    """What the page's script does with a packed mask."""
    raw = base64.b64decode(text[1:])
    if text[0] == "b":
        bits = np.unpackbits(np.frombuffer(raw, np.uint8))[: GRID * GRID]
    else:
        bits = np.repeat(np.arange(len(raw)) % 2, list(raw))
    return bits.astype(bool).reshape(GRID, GRID)


@contextmanager
def shown(path: Path, tmp_path: Path, hash_: str = "") -> Iterator[BrowserPage]:
    """The report in a browser, once its script has listed the units."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with browse(path.as_uri() + hash_, tmp_path / "profile") as page:
        page.wait("document.querySelectorAll('article.card').length > 0")
        yield page
        assert page.console == []


def test_a_browser_shows_every_unit_without_a_complaint(page_path: Path, tmp_path: Path) -> None:
    with shown(page_path, tmp_path) as page:
        page.wait("document.querySelectorAll('.strip canvas').length > 15")
        page.wait("[...document.querySelectorAll('.strip canvas')].some(c => c.width !== 300)")
        dom = page.html()
    assert len(re.findall(r'<article class="card', dom)) == len(small_labels())
    assert "8 units" in dom


def test_a_browser_searches(page_path: Path, tmp_path: Path) -> None:
    with shown(page_path, tmp_path, "#q=dog+-face") as page:
        dom = page.html()
    units = re.findall(r'<article class="card"[^>]*aria-label="unit (\d+) of relu1"', dom)
    assert units == ["4"]
    assert "<mark>dog</mark>" in dom and "1 of 8 units" in dom


def test_a_browser_goes_to_a_unit_and_runs_nothing_of_a_label(tmp_path: Path) -> None:
    write_report(tmp_path / "bad.html", run=attacking_run())
    with shown(tmp_path / "bad.html", tmp_path, f"#{quote(ATTACK)}/1") as page:
        page.wait("document.querySelectorAll('article.card.here').length === 1")
        dom = page.html()
    [here] = re.findall(r'<article class="card here"[^>]*aria-label="unit (\d+)', dom)
    assert here == "1"
    assert not re.search(r"<img|alert\(\d\)</script>", dom)


def test_a_browser_sorts_by_validity_and_greys_what_abstains(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", run=sample_run([*TESTED, dead_label(4)]))
    order = r'<article class="card"[^>]*aria-label="unit (\d+)'
    with shown(tmp_path / "r.html", tmp_path, "#sort=valid") as page:
        best = page.html()
    with shown(tmp_path / "r.html", tmp_path, "#sort=doubtful&flag==abstained") as page:
        worst = page.html()
    assert re.findall(order, best) == ["2", "0", "1", "3", "4"]
    assert re.findall(order, worst) == ["1", "3"]
    assert len(re.findall('class="description abstained"', best)) == 2
    assert len(re.findall('class="bar ticked"', best)) == 4
    assert "shuffled 0.10" in best and "validity <b>−0.40</b>" in best


def test_a_browser_offers_no_validity_where_there_is_none(page_path: Path, tmp_path: Path) -> None:
    with shown(page_path, tmp_path) as page:
        dom = page.html()
    assert 'value="pmi"' in dom and 'value="valid"' not in dom


SURE = [
    replace(sample_label(0, images=(1,)), confidence=0.5),
    replace(judged(1, -0.4, "abstained"), confidence=0.2),
    replace(sample_label(2, images=(2,)), confidence=0.9199, candidates=()),
    dead_label(3),
]


def test_a_browser_shows_confidence_first_and_scores_on_demand(tmp_path: Path) -> None:
    size = write_report(tmp_path / "r.html", run=sample_run(SURE))
    assert size.units == 4
    order = r'<article class="card"[^>]*aria-label="unit (\d+)'
    with shown(tmp_path / "r.html", tmp_path, "#sort=unsure") as page:
        assert re.findall(order, page.html()) == ["1", "0", "2", "3"]
    with shown(tmp_path / "r.html", tmp_path, "#sort=sure") as page:
        dom = page.html()
        lines = page.evaluate("[...document.querySelectorAll('.scores')].map(p => p.innerText)")
        page.evaluate("document.querySelector('[aria-label^=\"unit 1 \"] .more').open = true")
        page.wait("!!document.querySelector('.more tbody td')")
        cells = "[...document.querySelectorAll('.more tr')].map(r => r.innerText.split('\\t'))"
        head, first, *_ = page.evaluate(cells)
    assert re.findall(order, dom) == ["2", "0", "1", "3"]
    assert [" ".join(line.split()) for line in lines] == [
        *("confidence 91 %", "confidence 50 %"),
        *("confidence 20 % validity −0.40 · shuffled 0.10", ""),
    ]
    assert "PMI" not in " ".join(lines) and 'value="pmi"' not in dom
    assert head == ["description", "confidence", "PMI", "log p(d|E)", "log p(d)"]
    assert first == ["red wheels", "–", "−1.50", "−4.00", "−12.50"]
    assert "confidence <b>54 %</b>" in dom and "below the run's limit" in dom
    assert len(re.findall('class="description abstained"', dom)) == 1
