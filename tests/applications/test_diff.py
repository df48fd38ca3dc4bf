"""``milan-onnx diff`` end to end, on toy runs: of one model, a permuted and a quantised one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper

import milan_onnx
from milan_onnx import Run
from milan_onnx.applications.diff import DiffOptions, check_gates, diff_runs
from milan_onnx.applications.diff.layers import pair_layers
from milan_onnx.applications.diff.page import write_page
from milan_onnx.applications.diff.tables import MOST_ROWS, markdown
from milan_onnx.applications.sentences import PACKAGE
from milan_onnx.errors import GateNotMet, RunError, UsageError
from milan_onnx.progress import Silent
from milan_onnx.run import load_run, save_run
from tests.browser import CHROMIUM, browse
from tests.conftest import Command

Ids = NDArray[np.int64]
PLAIN = DiffOptions(similarity=False)
LAYER = "relu6"
UNITS = 12
PER_UNIT = (
    "ids",
    "activations",
    "maps",
    "thresholds",
    "bottomed",
    "maximum",
    "fingerprint",
)


class Heard(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def described(model: Path, bundle: Path, out: Path, **options: Any) -> Path:
    """A run whose units are called by their two best exemplars: the toy captioner calls all the
    same."""
    layers = options.pop("layers", [LAYER])
    given = {"synthetic": 60, "validity": False, "beam_size": 4} | options
    settings = milan_onnx.DescribeOptions(**given)
    run = milan_onnx.describe(model, layers, None, bundle=bundle, options=settings)
    labels = [
        replace(label, description=" ".join(f"i{e.image}" for e in label.exemplars[:2]))
        for label in run.labels
    ]
    out.mkdir()
    save_run(out, replace(run, labels=tuple(labels)))
    return out


@pytest.fixture(scope="module")
def runs(
    subject_path: Path, bundle_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Runs of the toy subject and of what was made of it."""
    folder = tmp_path_factory.mktemp("runs")
    permuted = permuted_subject(subject_path, folder / "permuted.onnx")
    int8 = quantised_subject(subject_path, folder / "int8.onnx")
    return {
        "a": described(subject_path, bundle_path, folder / "a"),
        "permuted": described(permuted, bundle_path, folder / "p"),
        "int8": described(int8, bundle_path, folder / "q"),
        "other photos": described(subject_path, bundle_path, folder / "o", seed=1),
        "two layers": described(
            subject_path, bundle_path, folder / "t", layers=["relu1", LAYER], exemplars=8
        ),
        "model": subject_path,
    }


ORDER = np.random.default_rng(5).permutation(UNITS)


def permuted_subject(path: Path, out: Path) -> Path:
    """The subject with the channels of conv2 in another order, and the classifier's rows too."""
    model = onnx.load(path)
    weights = {w.name: w for w in model.graph.initializer}
    nodes = {node.output[0]: node for node in model.graph.node}
    for tensor in ("conv2", "logits"):
        weight = weights[nodes[tensor].input[1]]
        values = numpy_helper.to_array(weight)[ORDER]
        weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), weight.name))
    onnx.save(model, out)
    return out


def quantised_subject(path: Path, out: Path) -> Path:
    """The subject statically quantised to int8, by ONNX Runtime's own tool."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Noise(CalibrationDataReader):
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            shape = (8, 3, 32, 32)
            self._batches = iter([{"input": rng.uniform(-2.2, 2.7, shape).astype(np.float32)}])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._batches, None)

    quantize_static(
        path,
        out,
        Noise(),
        quant_format=QuantFormat.QDQ,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return out


def lines_of(stdout: str) -> list[dict[str, str]]:
    header, *rows = (line.split("\t") for line in stdout.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def changed_run(
    run: Path, out: Path, texts: Mapping[int, str | None], flags: Mapping[int, Any] | None = None
) -> Path:
    """A copy of a run in which some units are called otherwise."""
    found = load_run(run)
    labels = [
        replace(
            label,
            description=texts.get(label.unit, label.description),
            flags=tuple((flags or {}).get(label.unit, label.flags)),
        )
        for label in found.labels
    ]
    out.mkdir()
    save_run(out, replace(found, labels=tuple(labels)))
    return out


# --- runs that differ in nothing -------------------------------------------------------------


def test_identical_runs_differ_in_nothing(milan: Command, runs: dict[str, Path]) -> None:
    for match in ("auto", "number", "activations"):
        line = ("diff", runs["a"], runs["a"], "--match", match, "--max-changed", "0%")
        done = milan(*line, "--no-similarity")
        assert done.returncode == 0, done.stderr
        assert lines_of(done.stdout) == []
        assert "the runs differ in nothing" in done.stderr
    assert not diff_runs(runs["a"], runs["a"], PLAIN).differs


def test_a_graph_with_permuted_channels_is_matched_back(
    milan: Command, runs: dict[str, Path]
) -> None:
    line = ("diff", runs["a"], runs["permuted"], "--json", "--max-changed", "0%")
    line += ("--no-similarity",)
    done = milan(*line, "--match", "activations")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (layer,) = found["layers"]
    assert not found["differs"]
    assert layer["moved"] == (np.arange(UNITS) != ORDER).sum()
    for unit in layer["units"]:
        assert ORDER[unit["after"]["unit"]] == unit["before"]["unit"]
        assert unit["verdict"] == "kept"
    by_itself = milan(*line)
    assert json.loads(by_itself.stdout)["layers"] == [
        layer | {"match_reason": json.loads(by_itself.stdout)["layers"][0]["match_reason"]}
    ]
    assert "only " in by_itself.stderr and "correlate best with the one of" in by_itself.stderr
    assert milan(*line, "--match", "number").returncode == 3


@given(order=st.permutations(range(UNITS)))
@settings(deadline=None, max_examples=25)
def test_any_permutation_is_matched_back(runs: dict[str, Path], order: list[int]) -> None:
    run = load_run(runs["a"])
    turned = permuted_run(run, np.array(order))
    found = diff_runs(run, turned, replace(PLAIN, match="activations"))
    assert not found.differs
    assert [order[u.after.unit] for u in found.layers[0].units if u.after] == [*range(UNITS)]


def permuted_run(run: Run, order: Ids) -> Run:
    """The run of the model with its units in another order."""
    (layer,) = run.layers
    arrays = {name: np.asarray(getattr(layer, name))[order] for name in PER_UNIT}
    labels = [replace(run.labels[old], unit=new) for new, old in enumerate(order.tolist())]
    return replace(run, layers=(replace(layer, **arrays),), labels=tuple(labels))


def test_equal_runs_give_equal_bytes(milan: Command, runs: dict[str, Path], tmp_path: Path) -> None:
    names = ("json", "md", "html")
    for turn in ("1", "2"):
        files = [tmp_path / f"{turn}.{name}" for name in names]
        done = milan(
            *("diff", runs["a"], runs["int8"], "-q", "--no-similarity", "-o", files[0]),
            *("--markdown", files[1], "--html", files[2]),
        )
        assert done.returncode == 0, done.stderr
    for name in names:
        assert (tmp_path / f"1.{name}").read_bytes() == (tmp_path / f"2.{name}").read_bytes()


# --- what changed ----------------------------------------------------------------------------


def test_every_verdict_is_told(milan: Command, runs: dict[str, Path], tmp_path: Path) -> None:
    said = {0: "dogs", 1: "dogs", 2: "dogs", 3: "dogs", 4: None, 5: None}
    now = {0: "dogs", 1: "a brown dog", 2: "cars", 3: None, 4: "cats", 5: None}
    same = dict.fromkeys(range(6, UNITS), "grass")
    before = changed_run(runs["a"], tmp_path / "before", said | same, {6: ["abstained"], 3: []})
    after = changed_run(runs["a"], tmp_path / "after", now | same, {3: ["dead"]})
    done = milan("diff", before, after, "--no-similarity")
    rows = {row["unit"]: row for row in lines_of(done.stdout)}
    verdicts = {unit: row["verdict"] for unit, row in rows.items()}
    assert verdicts == {"1": "reworded", "2": "changed", "3": "lost", "4": "gained", "6": "kept"}
    assert (rows["3"]["before"], rows["3"]["now"], rows["3"]["flags"]) == ("dogs", "–", "+dead")
    assert rows["6"]["flags"] == "-abstained"
    assert all(row["correlation"] == "1.00" for row in rows.values())
    count = diff_runs(before, after, PLAIN).count
    assert count.verdicts["kept"] == 7 and count.verdicts["undescribed"] == 1
    assert (count.changed, count.described) == (3, 11)
    assert count.share == pytest.approx(3 / 11)
    assert "3 of 11 descriptions say something else (27.3 %): 1 changed (0 of" in done.stderr
    assert "dead 0 → 1" in done.stderr and "abstained 1 → 0" in done.stderr
    trusted = diff_runs(before, after, PLAIN).trusted
    assert trusted.described == 10


def test_n_best_and_exemplars_are_compared(runs: dict[str, Path]) -> None:
    run = load_run(runs["a"])
    names = ("dogs", "cats", "grass", "the sky")
    texts = [replace(run.labels[0].candidates[0], description=name) for name in names]
    labels = list(run.labels)
    labels[0] = replace(labels[0], description="dogs", candidates=tuple(texts[:3]))
    run = replace(run, labels=tuple(labels))
    labels[0] = replace(
        labels[0],
        description="cats",
        candidates=(texts[1], texts[0], texts[3]),
        exemplars=labels[0].exemplars[:5],
    )
    found = diff_runs(run, replace(run, labels=tuple(labels)), PLAIN)
    unit = found.layers[0].units[0].to_json()
    assert unit["best_before_among_after"] is unit["best_after_among_before"] is True
    assert unit["candidate_overlap"] == 2 / 4
    assert found.count.near == found.count.changed == 1
    assert unit["exemplar_overlap"] == round(5 / 15, 4)
    assert unit["correlation"] == 1
    assert found.layers[0].figures()["exemplar_overlap_mean"] == pytest.approx(
        (11 + 1 / 3) / 12, abs=1e-4
    )


def test_other_words_of_the_same_meaning_need_the_sentence_model(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    if find_spec(PACKAGE) is None:  # importing it would load torch
        pytest.skip("wants the evaluate extra")
    before = changed_run(runs["a"], tmp_path / "b", {0: "blue and tan areas", 1: "dogs"})
    after = changed_run(runs["a"], tmp_path / "a", {0: "tan and blue areas", 1: "trucks"})
    found = diff_runs(before, after, DiffOptions(similarity=True))
    verdicts = [unit.verdict for unit in found.layers[0].units[:2]]
    assert verdicts == ["reworded", "changed"]
    without = diff_runs(before, after, PLAIN).layers[0].units[0]
    assert (without.verdict, without.similarity) == ("changed", None)


def test_int8_keeps_its_units_in_place(milan: Command, runs: dict[str, Path]) -> None:
    done = milan("diff", runs["a"], runs["int8"], "--json", "--no-similarity")
    assert done.returncode == 0, done.stderr
    (layer,) = json.loads(done.stdout)["layers"]
    assert layer["match"] == "number"
    assert layer["moved"] == 0
    correlations = [unit["correlation"] for unit in layer["units"]]
    assert layer["correlation_median"] > 0.9 and min(filter(None, correlations)) > 0.5
    assert sum(layer["count"][v] for v in ("kept", "reworded", "changed")) == UNITS
    assert "layer relu6: " in done.stderr and "the same tensor" in done.stderr


def test_units_without_counterpart_are_gained_and_lost(runs: dict[str, Path]) -> None:
    run = load_run(runs["a"])
    pruned = permuted_run(run, np.array([*range(4), *range(6, UNITS)]))
    found = diff_runs(run, pruned, PLAIN)
    assert found.layers[0].match.value == "activations"
    assert found.count.verdicts["lost"] == 2 and found.count.verdicts["kept"] == 10
    alone = [unit.before.unit for unit in found.layers[0].units if unit.after is None]  # type: ignore[union-attr]
    assert alone == [4, 5]
    back = diff_runs(pruned, run, PLAIN)
    assert back.count.verdicts["gained"] == 2
    assert back.count.lost_share == 0 < found.count.lost_share
    assert found.count.share == back.count.share == pytest.approx(2 / 12)
    by_number = diff_runs(run, pruned, replace(PLAIN, match="number"))
    assert [u.before.unit for u in by_number.layers[0].units if u.after is None] == [10, 11]  # type: ignore[union-attr]


# --- gates -----------------------------------------------------------------------------------


def test_the_gate_comes_after_everything_is_written(
    milan: Command, runs: dict[str, Path], tmp_path: Path
) -> None:
    after = changed_run(runs["a"], tmp_path / "after", {2: "cars", 3: None})
    files = [tmp_path / name for name in ("d.json", "d.md", "d.html")]
    line = ("diff", runs["a"], after, "--no-similarity")
    line += ("-o", files[0], "--markdown", files[1], "--html", files[2])
    done = milan(*line, "--max-changed", "2%", "--max-lost", "0.05")
    assert done.returncode == 3
    assert len(lines_of(done.stdout)) == 2
    assert all(file.stat().st_size for file in files)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: 2 of 12 descriptions say something else (16.7 %), more")
    assert "1 of 12 descriptions were lost (8.33 %), more than --max-lost 5 %" in last
    assert milan(*line[:4], "--max-changed", "17%", "--max-lost", "0.1").returncode == 0


def test_a_share_that_is_just_met_passes(runs: dict[str, Path], tmp_path: Path) -> None:
    after = changed_run(runs["a"], tmp_path / "after", {2: "cars", 3: "boats", 4: "trains"})
    found = diff_runs(runs["a"], after, PLAIN)
    check_gates(found, 0.25, 0.0)
    with pytest.raises(GateNotMet, match=r"more than --max-changed 24\.9 %"):
        check_gates(found, 0.249, None)


@pytest.mark.parametrize("share", ["2", "-1%", "nan", "inf", "many", "", "%", "101%"])
def test_a_bad_share_is_refused_before_anything_is_read(milan: Command, share: str) -> None:
    done = milan("diff", "nowhere", "nowhere", "--max-changed", share)
    assert done.returncode == 2
    assert f"--max-changed {share} is not a share; write 2% or 0.02" in done.stderr


# --- layers ----------------------------------------------------------------------------------


def renamed(run: Run, names: Mapping[str, tuple[str, str]]) -> Run:
    """The run with other tensors and modules, by its tensors."""
    facts = [
        layer | {"tensor": names[layer["tensor"]][0], "module": names[layer["tensor"]][1]}
        for layer in run.manifest["layers"]
    ]
    return replace(
        run,
        manifest=dict(run.manifest) | {"layers": facts},
        labels=tuple(replace(label, layer=names[label.layer][0]) for label in run.labels),
        layers=tuple(replace(layer, layer=names[layer.layer][0]) for layer in run.layers),
    )


def paired(before: Run, after: Run, *asked: str) -> list[tuple[str, str, str]]:
    found = pair_layers(before, after, asked).pairs
    return [(pair.before.tensor, pair.after.tensor, pair.reason) for pair in found]


def test_layers_are_paired_by_module_tensor_and_place(runs: dict[str, Path]) -> None:
    two = load_run(runs["two layers"])
    named = renamed(two, {"relu1": ("x", "stem"), LAYER: (LAYER, "")})
    other = renamed(two, {"relu1": ("relu1_q", "stem"), LAYER: (LAYER, "head")})
    assert paired(named, other) == [
        ("x", "relu1_q", "the same module"),
        (LAYER, LAYER, "the same tensor"),
    ]
    third = renamed(two, {"relu1": ("u", ""), LAYER: ("v", "")})
    assert [pair[:2] for pair in paired(two, third)] == [("relu1", "u"), (LAYER, "v")]
    assert paired(two, third, "relu1=u") == [("relu1", "u", "--layer")]
    twins = renamed(two, {"relu1": ("relu1", "twin"), LAYER: (LAYER, "twin")})
    assert {pair[2] for pair in paired(twins, twins)} == {"the same tensor"}


def test_a_layer_of_one_run_alone_is_named(milan: Command, runs: dict[str, Path]) -> None:
    done = milan("diff", runs["two layers"], runs["a"], "--no-similarity")
    assert done.returncode == 0, done.stderr
    assert "the layer relu1 (8 units) is only in" in done.stderr
    assert "the runs have other settings: exemplars" in done.stderr
    found = diff_runs(runs["a"], runs["two layers"], PLAIN)
    assert found.only_after == ("relu1",) and found.differs


BAD = {
    "no run": (("nowhere",), 5, "nowhere is not a run"),
    "damaged": (("damaged",), 5, "are damaged"),
    "cut short": (("cut",), 5, "is cut short: it labels 11 of 12 units"),
    "another format": (("old",), 5, "has format milan-onnx-run 1, not milan-onnx-run 2"),
    "other photos": (("other photos", "--match", "activations"), 5, "the runs are of other photos"),
    "no such layer": (("a", "--layer", "conv9"), 2, "the first run has no layer conv9"),
    "no such pair": (("a", "--layer", "relu6=conv9"), 2, "the second run has no layer conv9"),
    "half a pair": (("a", "--layer", "relu6="), 2, "--layer relu6= is not A=B"),
    "no counterpart": (
        ("elsewhere",),
        5,
        "no layer of the first run has a counterpart in the second",
    ),
    "level": (("a", "--level", "2"), 2, "--level 2 is out of range"),
    "similar": (("a", "--similar", "nan"), 2, "--similar nan is out of range"),
    "images alone": (("a", "--images", "photos"), 2, "--images goes with --html only"),
    "unwritable": (("a", "-o", "/nowhere/x.json"), 4, "cannot write /nowhere/x.json"),
}


@pytest.fixture(scope="module")
def bad_runs(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bad")
    made = {name: folder / name for name in ("damaged", "cut", "old", "elsewhere")}
    for name in ("damaged", "cut", "old"):
        shutil.copytree(runs["a"], made[name])
    (made["damaged"] / "exemplars" / f"000-{LAYER}" / "fingerprint.npy").write_bytes(b"x")
    labels = made["cut"] / "labels.jsonl"
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:-1]))
    manifest = made["old"] / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 2', '"format_version": 1'))
    one = load_run(runs["a"])
    made["elsewhere"].mkdir()
    small = permuted_run(renamed(one, {LAYER: ("z", "")}), np.arange(5))
    save_run(made["elsewhere"], small)
    return runs | made


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(
    milan: Command, bad_runs: dict[str, Path], case: str, tmp_path: Path
) -> None:
    (name, *more), code, sentence = BAD[case]
    other = bad_runs.get(name, Path(name))
    done = milan("diff", bad_runs["a"], other, *more, "-q", "--no-similarity", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize("key", ["bundle", "layers", "model", "options", "probe"])
def test_a_damaged_manifest_is_refused(runs: dict[str, Path], key: str) -> None:
    run = load_run(runs["a"])
    broken = replace(run, manifest=dict(run.manifest) | {key: 7})
    with pytest.raises(RunError, match=r"the manifest of the run .* is damaged"):
        diff_runs(run, broken, PLAIN)


def test_other_photos_are_compared_by_number(milan: Command, runs: dict[str, Path]) -> None:
    done = milan("diff", runs["a"], runs["other photos"], "--json", "--no-similarity")
    assert done.returncode == 0, done.stderr
    (layer,) = json.loads(done.stdout)["layers"]
    assert (layer["match"], layer["match_reason"]) == ("number", "the runs are of other photos")
    assert layer["correlation_median"] is layer["exemplar_overlap_mean"] is None
    assert "descriptions may differ where the models do not" in done.stderr


def test_runs_of_another_tools_exemplars_have_no_fingerprints(runs: dict[str, Path]) -> None:
    run = load_run(runs["a"])
    bare = replace(
        run.layers[0],
        sample=np.zeros(0, np.int64),
        fingerprint=np.zeros((UNITS, 0), np.float32),
    )
    given = replace(run, layers=(bare,))
    found = diff_runs(given, given, PLAIN)
    assert found.layers[0].match.reason.startswith("runs made from another tool's exemplars")
    assert not found.differs
    with pytest.raises(RunError, match="have no fingerprints, so their activations"):
        diff_runs(given, given, replace(PLAIN, match="activations"))


def test_options_are_checked() -> None:
    for wrong in (DiffOptions(level=0), DiffOptions(similar=float("nan"))):
        with pytest.raises(UsageError, match="out of range"):
            wrong.check()


# --- pages -----------------------------------------------------------------------------------

HOSTILE = "</style><script>alert(1)</script>\"'><img src=x onerror=alert(2)> | `x` \x1b[2J\n# h"


def test_hostile_labels_are_shown_as_text(runs: dict[str, Path], tmp_path: Path) -> None:
    after = changed_run(runs["a"], tmp_path / "after", {1: HOSTILE})
    found = diff_runs(runs["a"], after, PLAIN)
    write_page(tmp_path / "page.html", found, ({}, {}))
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page.lower() and "<img" not in page.lower()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "script-src &#39;none&#39;" in page and "default-src &#39;none&#39;" in page
    (row,) = (line for line in markdown(found, "t").splitlines() if "alert" in line)
    assert "\\<script\\>" in row and "\x1b" not in row
    assert len(re.findall(r"(?<!\\)\|", row)) == 9


def test_the_page_shows_both_runs_photos(
    milan: Command, runs: dict[str, Path], tmp_path: Path
) -> None:
    after = changed_run(runs["a"], tmp_path / "after", {1: "cars"})
    line = ("diff", runs["a"], after, "--html", tmp_path / "d.html", "-q", "--no-similarity")
    done = milan(*line)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "d.html").read_text()
    assert page.count('<img src="data:image/jpeg;base64,') == 8
    assert "http://" not in page and "https://" not in page


@pytest.mark.skipif(CHROMIUM is None, reason="wants a browser")
def test_the_page_filters_without_a_script(runs: dict[str, Path], tmp_path: Path) -> None:
    after = changed_run(runs["a"], tmp_path / "after", {1: HOSTILE, 2: "cars", 3: None})
    write_page(tmp_path / "page.html", diff_runs(runs["a"], after, PLAIN), ({}, {}))
    shown = "[...document.querySelectorAll('.card')].filter(c => c.offsetParent).length"
    with browse((tmp_path / "page.html").as_uri(), tmp_path / "profile") as page:
        page.wait(f"{shown} === 3")
        page.evaluate("document.querySelector('[for=show-lost]').click()")
        page.wait(f"{shown} === 1")
        assert page.evaluate("document.querySelectorAll('.card script, .card img').length") == 0
        assert page.console == []


def test_the_page_does_without_photos_that_are_gone(runs: dict[str, Path], tmp_path: Path) -> None:
    from milan_onnx.applications.diff.page import draw_pictures

    run = load_run(runs["a"])
    moved = dict(run.manifest) | {
        "environment": dict(run.manifest["environment"]) | {"images": "/nowhere"}
    }
    after = load_run(changed_run(runs["a"], tmp_path / "after", {1: "cars"}))
    gone = replace(run, manifest=moved), after
    found = diff_runs(*gone, PLAIN)
    say = Heard()
    before, now = draw_pictures(gone, found, None, say)
    assert before == {} and len(now) == 1
    assert "the page shows no photos of" in say.notes[0]


def test_a_long_table_is_cut_and_says_so(runs: dict[str, Path]) -> None:
    run = load_run(runs["a"])
    many = permuted_run(run, np.arange(240) % UNITS)
    changed = [replace(label, description=f"thing {label.unit}") for label in many.labels]
    found = diff_runs(many, replace(many, labels=tuple(changed)), replace(PLAIN, match="number"))
    text = markdown(found, "t")
    assert f"and {240 - MOST_ROWS} more units that differ." in text
    assert len(text) < 65536


def test_shares_are_read_as_they_are_written() -> None:
    from milan_onnx.cli.parse import parse_share

    given = {"2%": 0.02, "0.02": 0.02, " 2.5 %": 0.025, "1": 1, "100%": 1, "0": 0, None: None}
    assert {text: parse_share("--max-changed", text) for text in given} == given
