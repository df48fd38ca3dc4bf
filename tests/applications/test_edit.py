"""Editing: units chosen by words or number, judged on images that chose nothing, and taken back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

import milan_onnx
from milan_onnx.applications.ablating import Classifier
from milan_onnx.applications.edit import EditOptions, choosing, edit_model, undo
from milan_onnx.applications.edit.selecting import by_phrases, by_words
from milan_onnx.applications.labelled import open_labelled
from milan_onnx.applications.phrases import Scoring
from milan_onnx.errors import (
    BadInput,
    PhraseUnknown,
    ProbeError,
    RunError,
    SubjectError,
    UsageError,
)
from milan_onnx.progress import Silent
from milan_onnx.subject import choose_preprocessing, load, resolve
from tests.applications.painted import (
    COLOURS,
    WHITE_UNIT,
    painted_classifier,
    painted_photos,
)

Command = Callable[..., Any]
PREPROCESSING = {"resize": 0, "crop": (32, 32), "mean": 0.0, "std": 1.0, "rescale": 1 / 255}


class Case:
    """A classifier, its run, and labelled photos."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.folder = folder
        self.model = painted_classifier(folder / "colours.onnx")
        self.clean = painted_photos(folder / "clean", 16, marked=False)
        self.adversarial = painted_photos(folder / "adversarial", 16, marked=True)
        self.run = milan_onnx.describe(
            self.model,
            ["act"],
            self.adversarial,
            folder / "run",
            bundle=bundle,
            options=milan_onnx.DescribeOptions(
                preprocessing=PREPROCESSING, validity=False, report=False
            ),
        )

    def edit(self, **options: Any) -> Any:
        return edit_model(self.model, self.run, None, options=EditOptions(**options))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path) -> Case:
    return Case(tmp_path_factory.mktemp("edit"), bundle_path)


def test_the_unit_that_misleads_is_found_and_its_loss_helps(case: Case) -> None:
    found = case.edit(
        units=("act:0-4",),
        images=case.clean,
        adversarial=case.adversarial,
        most=3,
        choose_on="adversarial",
    )
    assert [item.key[1] for item in found.ablated] == [WHITE_UNIT]
    clean, adversarial = found.judged
    assert adversarial.accuracy["before"].value == pytest.approx(1 / 3)
    assert adversarial.accuracy["after"].value == 1.0
    assert adversarial.gain.low is not None and adversarial.gain.low > 0.3
    assert clean.accuracy["after"].value == clean.accuracy["before"].value == 1.0
    assert adversarial.accuracy["random"].value < 0.8
    assert adversarial.accuracy["sort-all"].value == 1.0
    assert {name: row[1:] for name, row in adversarial.classes.items()} == {
        "blue": (1.0, 1.0),
        "green": (0.0, 1.0),
        "red": (0.0, 1.0),
    }


def test_the_part_that_judges_has_chosen_nothing(case: Case) -> None:
    images = open_labelled(case.clean, 3)
    chosen, judged = images.parted(0.5)
    assert not set(chosen.probe.names) & set(judged.probe.names)
    assert sorted([*chosen.probe.names, *judged.probe.names]) == sorted(images.probe.names)
    assert np.bincount(chosen.labels).tolist() == [8, 8, 8]
    pairs = zip(chosen.probe.names, chosen.labels, strict=True)
    assert all(name.startswith(images.names[label]) for name, label in pairs)


@pytest.mark.parametrize("order", ["sorted", "greedy", "given"])
def test_every_order_stops_where_validation_is_best(case: Case, order: str) -> None:
    found = case.edit(
        units=("act:0-4",),
        images=case.clean,
        adversarial=case.adversarial,
        order=order,
        baselines=False,
        choose_on="adversarial",
    )
    scores = found.chosen.scores
    assert scores[found.chosen.count] == max(scores)
    assert found.chosen.count == scores.index(max(scores))
    if order != "given":
        assert [item.key[1] for item in found.ablated] == [WHITE_UNIT]


@pytest.mark.parametrize("order", ["sorted", "greedy"])
def test_chosen_on_clean_images_all_go_whose_loss_they_bear(case: Case, order: str) -> None:
    found = case.edit(
        units=("act:2-5",), images=case.clean, adversarial=case.adversarial, order=order
    )
    assert sorted(item.key[1] for item in found.ablated) == [WHITE_UNIT, 4, 5]  # not red's
    clean, adversarial = found.judged
    assert adversarial.tested == 48 and clean.tested == 24  # adversarial images chose nothing
    assert adversarial.accuracy["after"].value == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(1, 12), st.floats(0, 1))
def test_the_number_is_the_best_or_the_largest_that_is_bearable(
    values: list[float], most: int, tolerance: float
) -> None:
    units = [("layer", unit) for unit in range(len(values))]
    tried = [values[-1], *values[: min(most, len(values))]]

    def score(ablated: Any) -> float:
        return values[len(ablated.get("layer", ())) - 1]

    found = choosing.in_order(units, score, most, choosing.best, Silent())
    assert found.scores == tuple(tried)
    assert found.count == tried.index(max(tried))
    found = choosing.in_order(units, score, most, choosing.bearable(tolerance), Silent())
    assert tried[found.count] >= tried[0] - tolerance
    assert all(later < tried[0] - tolerance for later in tried[found.count + 1 :])


def test_batches_and_threads_change_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(threads: int, batch: int, memory: int, joined: int = 4 << 20) -> list[list[int]]:
        monkeypatch.setattr("milan_onnx.applications.ablating.BATCH", batch)
        monkeypatch.setattr("milan_onnx.applications.ablating.JOINED", joined)
        monkeypatch.setattr("milan_onnx.applications.ablating.MEMORY", memory)
        subject = load(case.model)
        chosen = choose_preprocessing(subject, **PREPROCESSING).value
        classifier = Classifier.open(subject, chosen, Silent(), device="cpu", threads=threads)
        cut = classifier.cut([resolve(subject, "act").layer])
        passed = cut.passed(open_labelled(case.adversarial, 3))
        return [passed.predicted({"act": units}).tolist() for units in ([], [3], [0, 1, 2])]

    expected = answers(1, 16, 1 << 30)
    assert answers(3, 5, 1 << 30) == expected
    assert answers(2, 16, 0) == expected  # everything in a file
    assert answers(2, 5, 1 << 30, joined=0) == expected
    assert answers(2, 5, 1 << 30, joined=100_000) == expected  # groups of a few batches


def logits(path: Path, images: np.ndarray) -> np.ndarray:
    return np.asarray(ort.InferenceSession(path).run(None, {"input": images})[0])


def test_the_command_writes_a_model_that_can_be_undone(
    case: Case, milan: Command, tmp_path: Path
) -> None:
    out, back = tmp_path / "edited.onnx", tmp_path / "back.onnx"
    done = milan(
        "edit", case.model, "--run", case.folder / "run", "--units", "act:3", "-o", out,
        "-i", case.clean, "--adversarial", case.adversarial, "--json", tmp_path / "figures.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "after - before" in done.stdout and "adversarial" in done.stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["ablated"][0]["exemplars"]
    onnx.checker.check_model(out)
    images = np.random.default_rng(0).uniform(0, 1, (2, 3, 32, 32)).astype(np.float32)
    images[:, :, :9, :9] = 1.0
    assert (logits(case.model, images)[:, 0] - logits(out, images)[:, 0]).min() > 1
    record = json.loads(load(out).metadata["milan_onnx.edits"])[0]
    assert record["model"]["sha256"] == hashlib.sha256(case.model.read_bytes()).hexdigest()
    assert [(unit["layer"], unit["unit"]) for unit in record["units"]] == [("act", 3)]
    done = milan("edit", out, "--undo", "-o", back)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["same"] is True
    assert back.read_bytes() == case.model.read_bytes()


def test_an_edited_model_can_be_edited_again_and_all_is_undone(case: Case, tmp_path: Path) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    edit_model(case.model, case.run, first, options=EditOptions(units=("act:3",)))
    run = milan_onnx.describe(
        first,
        ["act"],
        case.clean,
        tmp_path / "run",
        bundle=Path(case.run.manifest["environment"]["bundle_path"]),
        options=milan_onnx.DescribeOptions(preprocessing=PREPROCESSING, validity=False),
    )
    assert "dead" in run.labels[3].flags
    edit_model(None, run, second, options=EditOptions(units=("act:0",)))
    assert len(json.loads(load(second).metadata["milan_onnx.edits"])) == 2
    found = undo(second, tmp_path / "back.onnx")
    assert found.same and found.layers == 2


def test_units_can_be_set_to_their_mean(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "mean.onnx"
    edit_model(case.model, case.run, out, options=EditOptions(units=("act:3",), set_to="mean"))
    images = np.zeros((1, 3, 32, 32), np.float32)
    head = 60.0
    value = logits(out, images)[0, 0] - logits(case.model, images)[0, 0]
    # 81 of 1,024 positions are white, and white gives 3 - 2.4.
    assert value / head == pytest.approx(0.6 * 81 / 1024, rel=1e-3)


def test_words_are_looked_for_in_labels_and_candidates(case: Case) -> None:
    label = next(x for x in case.run.labels if x.description and len(x.candidates) > 2)
    said = label.description.split()[0]
    assert label.unit in [item.key[1] for item in by_words(case.run.labels, [said], 1)]
    wide = by_words(case.run.labels, [said], 5)
    assert len(wide) >= len(by_words(case.run.labels, [said], 1))
    assert not by_words(case.run.labels, ["submarine"], 5)


def test_phrases_select_more_units_the_more_false_alarms_may_be(case: Case) -> None:
    word = next(x.description for x in case.run.labels if x.description).split()[0]
    found = [
        {item.key for item in by_phrases(case.run, [word], level, Scoring(device="cpu"), Silent())}
        for level in (0.001, 0.3, 0.999)
    ]
    assert found[0] <= found[1] <= found[2]
    assert len(found[2]) == sum(x.description is not None for x in case.run.labels)
    with pytest.raises(PhraseUnknown, match="can say none of submarine"):
        by_phrases(case.run, ["submarine"], 0.1, Scoring(device="cpu"), Silent())


def test_external_weights_come_along(case: Case, tmp_path: Path, bundle_path: Path) -> None:
    folder, other = tmp_path / "model", tmp_path / "other"
    folder.mkdir(), other.mkdir()
    model = onnx.load(case.model)
    onnx.save(
        model,
        folder / "m.onnx",
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
        convert_attribute=False,
    )
    run = milan_onnx.describe(
        folder / "m.onnx", ["act"], case.clean, bundle=bundle_path,
        options=milan_onnx.DescribeOptions(preprocessing=PREPROCESSING, validity=False),
    )  # fmt: skip
    edit_model(None, run, other / "edited.onnx", options=EditOptions(units=("act:3",)))
    images = np.ones((1, 3, 32, 32), np.float32)
    assert logits(other / "edited.onnx", images)[0, 0] < logits(folder / "m.onnx", images)[0, 0]


def refused(case: Case, error: type[Exception], says: str, **options: Any) -> None:
    with pytest.raises(error, match=says):
        case.edit(**options)


def test_what_cannot_be_is_said(case: Case, tmp_path: Path, milan: Command) -> None:
    refused(case, UsageError, "which units", look=1)
    refused(case, UsageError, "no unit is selected", match=("submarine",))
    refused(case, UsageError, "all 6 units of act are selected", units=("act:0-5",))
    refused(case, UsageError, "no unit 9 of act", units=("act:9",))
    refused(case, UsageError, "no layer conv9", units=("conv9:1",))
    refused(case, UsageError, "neither a file nor", units=("act:x",))
    refused(case, UsageError, "no output pool", units=("act:3",), images=case.clean, output="pool")
    refused(case, ProbeError, "lies outside", units=("act:3",), images=case.clean / "red")
    fewer = painted_photos(tmp_path / "fewer", 2, marked=False)
    for photo in (fewer / "red").iterdir():
        photo.unlink()
    refused(
        case, ProbeError, "2 classes .* do not match the 3 outputs", units=("act:3",), images=fewer
    )
    names = tmp_path / "names.txt"
    names.write_text("blue\ngreen\n")
    refused(case, BadInput, "names 2 classes", units=("act:3",), images=fewer, classes=names)
    names.write_text("blue\nlime\nred\n")
    refused(case, BadInput, "class green", units=("act:3",), images=fewer, classes=names)
    other = tmp_path / "other.onnx"
    other.write_bytes(case.model.read_bytes() + b"")
    model = onnx.load(case.model)
    model.producer_name = "another"
    onnx.save(model, other)
    with pytest.raises(RunError, match="is not the model of this run"):
        edit_model(other, case.run, None, options=EditOptions(units=("act:3",)))
    with pytest.raises(SubjectError, match="was not edited"):
        undo(case.model, tmp_path / "x.onnx")
    done = milan("edit", case.model, "--run", case.folder / "run", "--units", "act:3", "-o", other)
    assert done.returncode == 2 and "already there" in done.stderr
    done = milan("edit", case.model, "--run", tmp_path, "--units", "act:3")
    assert done.returncode == 5 and "is not a run" in done.stderr
    assert "Traceback" not in done.stderr


def test_classes_come_from_names_numbers_or_a_csv(case: Case, tmp_path: Path) -> None:
    names = tmp_path / "names.json"
    names.write_text(json.dumps(["red", "green", "blue"]))
    images = open_labelled(case.clean, 3, names)
    assert images.names == ("red", "green", "blue")
    assert images.labels[0] == 2  # blue comes first in the folder
    table = tmp_path / "labels.csv"
    rows = [f"{photo},{index}" for index, name in enumerate(COLOURS)
            for photo in sorted((case.clean / name).iterdir())[:2]]  # fmt: skip
    table.write_text("image,class\n" + "\n".join(rows) + "\n")
    assert open_labelled(table, 1000).labels.tolist() == [0, 0, 1, 1, 2, 2]
    table.write_text("photo,class\na.png,1\n")
    with pytest.raises(ProbeError, match="no column image"):
        open_labelled(table, 3)
    table.write_text("image,class\na.png,1\n")
    with pytest.raises(ProbeError, match=r"line 2 .* does not exist"):
        open_labelled(table, 3)


def test_where_accuracy_bears_no_loss_figures_are_shown_and_no_model_is_written(
    case: Case, milan: Command, tmp_path: Path
) -> None:
    out, figures = tmp_path / "edited.onnx", tmp_path / "figures.json"
    done = milan(
        "edit", case.model, "--run", case.folder / "run", "--units", "act:2", "-o", out,
        "-i", case.clean, "--json", figures, "--tolerance", 0, "--no-baselines",
    )  # fmt: skip
    assert done.returncode == 2 and "bears" not in done.stdout
    assert "accuracy does not bear the loss of any selected unit" in done.stderr
    assert "after - before" in done.stdout and json.loads(figures.read_text())["ablated"] == []
    assert not out.exists()
