"""``milan-onnx analyze`` end to end, on runs of a toy network."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from milan_onnx.applications.analyze import AnalyzeOptions, Section, analyze_runs, write_page
from milan_onnx.applications.analyze.plots import Line, legend, line_chart
from milan_onnx.errors import BadInput, RunError, UsageError
from milan_onnx.labels import read_jsonl, write_jsonl
from milan_onnx.run import LABELS, MANIFEST, STORE
from tests.browser import CHROMIUM, browse
from tests.conftest import Command

EARLY = ("red areas", "horizontal lines", "striped patterns", "the color green", "dark lines", None)
LATE = ("dogs", "brown dogs", "human faces", "dogs on grass", "wheels", "text on signs")
HOSTILE = '</svg></style><script>alert("x")</script><img src=x onerror=alert(1)> {{ 7*7 }} \x1b[31m'


@pytest.fixture(scope="module")
def plain_run(milan: Command, subject_path: Path, bundle_path: Path, tmp_path_factory: Any) -> Path:
    """A run of relu1 (8 units) and relu6 (12), with random descriptions."""
    out = tmp_path_factory.mktemp("plain") / "run"
    layers = ("--layer", "relu1", "--layer", "relu6", "--synthetic", 40, "--exemplars", 3)
    rest = ("--bundle", bundle_path, "--out", out, "--no-report", "--quiet")
    done = milan("describe", subject_path, *layers, *rest)
    assert done.returncode == 0, done.stderr
    return out


def reworded(run: Path, out: Path, early: Sequence[str | None], late: Sequence[str | None]) -> Path:
    """The same run with other descriptions: those of relu1 and of relu6, over and over."""
    shutil.copytree(run, out)
    labels = read_jsonl(out / LABELS)
    texts = {"relu1": early, "relu6": late}
    labels = [
        replace(x, description=texts[x.layer][x.unit % len(texts[x.layer])], flags=())
        for x in labels
    ]
    write_jsonl(out / LABELS, labels, ["relu1", "relu6"])
    return out


@pytest.fixture(scope="module")
def run_path(plain_run: Path, tmp_path_factory: Any) -> Path:
    """Colours and textures early, things late."""
    return reworded(plain_run, tmp_path_factory.mktemp("reworded") / "toy", EARLY, LATE)


def tables_of(stdout: str) -> list[list[list[str]]]:
    blocks = stdout.strip("\n").split("\n\n")
    return [[line.split("\t") for line in block.split("\n")] for block in blocks]


def svgs_of(page: str) -> list[str]:
    parts = page.split("<svg ")[1:]
    return [f"<svg {part.split('</svg>')[0]}</svg>" for part in parts if 'role="img"' in part]


# --- tables ----------------------------------------------------------------------------------


def test_tables_say_what_units_respond_to(milan: Command, run_path: Path) -> None:
    done = milan("analyze", run_path)
    assert done.returncode == 0, done.stderr
    layers, kinds, words = tables_of(done.stdout)
    assert [row[1] for row in layers[1:]] == ["relu1", "relu6", "all layers"]
    early, late, both = (dict(zip(layers[0], row, strict=True)) for row in layers[1:])
    assert (early["units"], early["described"], early["distinct"]) == ("8", "7", "5")
    assert (late["units"], late["described"], both["units"]) == ("12", "12", "20")
    assert early["with a kind"] == late["with a kind"] == "1.000"
    shares = {
        row[1]: dict(zip(kinds[0][2:], map(float, row[2:]), strict=True)) for row in kinds[1:]
    }
    assert shares["relu1"]["colour"] + shares["relu1"]["texture"] == pytest.approx(1, abs=0.002)
    assert shares["relu6"]["object"] == 0.5
    assert shares["relu6"]["part"] == pytest.approx(1 / 3, abs=0.001)
    assert shares["relu6"]["text"] == pytest.approx(1 / 6, abs=0.001)
    more = {row[1]: row[2] for row in words[1:]}
    assert more["relu1"].startswith("lines +")
    assert more["relu6"].startswith("dogs +")
    assert "19 of 19 described units have a kind" in done.stderr


def test_words_without_a_kind_are_named(plain_run: Path, tmp_path: Path) -> None:
    run = reworded(plain_run, tmp_path / "odd", ["xyzzys"], ["dogs", "plughs near xyzzys"])
    found = analyze_runs([run])
    assert found.coverage == "6 of 20 described units have a kind; the others say xyzzys, plughs"
    assert found.rows[0].mains["no kind"] == 8
    assert found.unknown == (("xyzzys", 14), ("plughs", 6))


def test_a_run_without_a_description(milan: Command, plain_run: Path, tmp_path: Path) -> None:
    run = reworded(plain_run, tmp_path / "mute", [None], [None])
    done = milan("analyze", run, "--html", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert "no unit has a description" in done.stderr
    assert (tmp_path / "page.html").stat().st_size > 1000


def test_runs_are_held_against_each_other(
    milan: Command, run_path: Path, plain_run: Path, tmp_path: Path
) -> None:
    other = reworded(plain_run, tmp_path / "toy", ["cats"], ["cats", "cars"])
    found = analyze_runs([run_path, other])
    assert found.runs == ("toy", "toy (2)")
    first, second = found.apart[:2]
    assert (first.layer, first.units, first.others) == (None, 19, 20)
    assert first.more[0].word == second.less[0].word == "dogs"
    assert second.more[0].word == first.less[0].word == "cats"
    assert second.more[0].z == -first.less[0].z > 0
    done = milan("analyze", run_path, other, "--layer", "relu6", "--top", 1, "--json")
    value = json.loads(done.stdout)
    assert [row["layer"] for row in value["rows"]] == ["relu6", "relu6"]
    assert [len(apart["more"]) for apart in value["apart"]] == [1, 1]


def test_json_and_csv_hold_the_same_figures(milan: Command, run_path: Path, tmp_path: Path) -> None:
    places = ("--out", tmp_path / "a.json", "--csv", tmp_path / "deep" / "csv", "--quiet")
    done = milan("analyze", run_path, "--json", *places)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value == json.loads((tmp_path / "a.json").read_text())
    assert (value["format"], value["format_version"]) == ("milan-onnx-analysis", 1)
    names = sorted(path.name for path in (tmp_path / "deep" / "csv").iterdir())
    assert names == [
        "complexity.csv", "examples.csv", "kinds.csv", "layers.csv", "lengths.csv", "speech.csv",
        "unknown.csv", "words.csv",
    ]  # fmt: skip
    with (tmp_path / "deep" / "csv" / "kinds.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["layer"] == "relu6"]
    counted = {row["kind"]: row["units"] for row in rows if row["units"]}
    assert counted == {name: str(n) for name, n in value["rows"][1]["kinds"].items()}


def test_equal_runs_give_equal_bytes(milan: Command, run_path: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        places = ("--out", tmp_path / f"{name}.json", "--html", tmp_path / f"{name}.html")
        assert milan("analyze", run_path, *places, "--csv", tmp_path / name).returncode == 0
    for suffix in ("json", "html"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


# --- what is refused -------------------------------------------------------------------------


def test_a_layer_that_is_not_there(milan: Command, run_path: Path) -> None:
    done = milan("analyze", run_path, "--layer", "conv9")
    assert done.returncode == 2
    assert done.stderr.endswith("the run has no layer conv9; its layers are relu1, relu6\n")


@pytest.mark.parametrize("file", [MANIFEST, LABELS, STORE])
def test_a_damaged_run(milan: Command, run_path: Path, tmp_path: Path, file: str) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run_path, copy)
    if file == STORE:
        shutil.rmtree(copy / file)
    else:
        (copy / file).write_bytes((copy / file).read_bytes()[:-300])
    done = milan("analyze", copy, "--out", tmp_path / "a.json")
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    assert str(copy) in done.stderr
    assert not (tmp_path / "a.json").exists()


def test_a_manifest_without_what_is_read(run_path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run_path, copy)
    for key in ("model", "bundle", "probe", "layers"):
        manifest = json.loads((run_path / MANIFEST).read_text())
        del manifest[key]
        (copy / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(RunError, match="manifest"):
            analyze_runs([copy])


def test_a_lexicon_that_is_none(milan: Command, run_path: Path, tmp_path: Path) -> None:
    (tmp_path / "kinds.toml").write_text("[colour]\nwords = []\n")
    done = milan("analyze", run_path, "--kinds", tmp_path / "kinds.toml")
    assert done.returncode == 5
    assert "has no list of words" in done.stderr
    with pytest.raises(BadInput, match="cannot read the lexicon"):
        analyze_runs([run_path], AnalyzeOptions(kinds=tmp_path / "gone.toml"))


def test_numbers_that_make_no_sense(run_path: Path) -> None:
    with pytest.raises(UsageError, match="--top"):
        analyze_runs([run_path], AnalyzeOptions(top=0))
    with pytest.raises(UsageError, match="no run"):
        analyze_runs([])


def test_a_place_that_cannot_be_written(milan: Command, run_path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = milan("analyze", run_path, "--csv", tmp_path / "file" / "csv")
    assert done.returncode == 4
    assert "Traceback" not in done.stderr


# --- the page --------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Collects what elements a page has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.ids += [str(value) for name, value in attrs if name == "id"]


def page_of(run: Path, place: Path, sections: Sequence[Section] = ()) -> str:
    write_page(place, analyze_runs([run]), sections)
    return place.read_text(encoding="utf-8")


def test_the_page_has_sound_plots(run_path: Path, tmp_path: Path) -> None:
    page = page_of(run_path, tmp_path / "page.html")
    plots = svgs_of(page)
    assert len(plots) == 1 + 2 + 1 + 2 * 2
    for svg in plots:
        root = ElementTree.fromstring(svg)
        named = (root.get("aria-labelledby") or "").split()
        assert [element.get("id") for element in root[:2]] == named
    elements = Elements(page)
    assert len(elements.ids) == len(set(elements.ids))
    assert "style" not in elements.attributes
    assert "script" not in elements.tags


def test_hostile_descriptions_are_text(plain_run: Path, tmp_path: Path) -> None:
    run = reworded(plain_run, tmp_path / HOSTILE.replace("/", "-"), [HOSTILE], ["dogs", HOSTILE])
    page = page_of(run, tmp_path / "page.html")
    elements = Elements(page)
    assert not {"script", "img"} & elements.tags
    assert not {name for name in elements.attributes if name.startswith("on")}
    assert "&lt;script&gt;" in page
    for svg in svgs_of(page):
        ElementTree.fromstring(svg)


def test_others_can_add_sections(run_path: Path, tmp_path: Path) -> None:
    lines = [Line("nouns", (0, 5, 10), (80, 60, 20), (70, 50, 10), (90, 70, 30))]
    svg = line_chart("ablation", "Accuracy", "falls", lines, x_name="%", y_name="%")
    plot = ("all layers", legend(["nouns"], lines=True) + svg)
    section = Section("Importance by <ablation>", "How much worse it gets.", [plot])
    page = page_of(run_path, tmp_path / "page.html", [section])
    assert "<h2>Importance by &lt;ablation&gt;</h2>" in page
    assert page.count("<polyline") == 1


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_a_browser_shows_the_page_as_its_policy_wants(run_path: Path, tmp_path: Path) -> None:
    page_of(run_path, tmp_path / "page.html")
    with browse((tmp_path / "page.html").as_uri(), tmp_path / "profile") as page:
        page.wait("document.readyState === 'complete'")
        assert page.evaluate("getComputedStyle(document.querySelector('.fill-0')).fill") == (
            "rgb(0, 114, 178)"
        )
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.console == []
