"""Training end to end on toy data, and the bundle it leaves."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")
tokenizers = pytest.importorskip("tokenizers")

from milan_onnx.export.original.run import AnnotatedRecipe  # noqa: E402
from milan_onnx.export.region_run import RegionRecipe, RegionRun  # noqa: E402

from milan_onnx import bundle as contract  # noqa: E402
from milan_onnx.bundle import Bundle, load_bundle  # noqa: E402
from milan_onnx.cli.app import app  # noqa: E402
from milan_onnx.errors import UsageError  # noqa: E402
from milan_onnx.export import train  # noqa: E402
from milan_onnx.export.onnx_export import make_tokenizer, vocabulary_spec  # noqa: E402
from milan_onnx.export.recipe import RECIPES, build, load_recipe  # noqa: E402
from tests.export.toy_data import write_toy_data  # noqa: E402

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RegionRun, Bundle]:
    folder = tmp_path_factory.mktemp("train")
    data = write_toy_data(folder / "data")
    threads = torch.get_num_threads()
    run = train.train("toy", data, folder / "work", workers=1, threads=1)
    torch.set_num_threads(threads)
    made = train.export(folder / "work", folder / "out")
    assert isinstance(run, RegionRun)
    return run, made


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
    assert {o.name for o in begin.get_outputs()} == {spec.name for spec in captioner}
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


def test_training_leaves_a_bundle_by_the_contract(trained: tuple[RegionRun, Bundle]) -> None:
    check_contract(trained[1])
    card = trained[1].file(contract.MODEL_CARD).read_text("utf-8")
    assert "Not measured yet" in card
    assert "non-commercial" in card


@torch.no_grad()
def test_encoder_of_the_bundle_follows_pytorch(trained: tuple[RegionRun, Bundle]) -> None:
    run, bundle = trained
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    expected = run.backbone.encoder(torch.from_numpy(images))
    for found, map_ in zip(
        session(bundle, contract.ENCODER).run(None, {"images": images}), expected, strict=True
    ):
        np.testing.assert_allclose(found, map_.numpy(), atol=1e-4, rtol=1e-4)


def test_bundle_holds_no_paths_of_the_machine(trained: tuple[RegionRun, Bundle]) -> None:
    run, bundle = trained
    for name in bundle.manifest.files:
        data = bundle.file(name).read_bytes()
        for path in (str(Path(train.__file__).parent), str(run.options.work)):
            assert path.encode() not in data


def test_best_weights_are_those_of_the_checkpoint(trained: tuple[RegionRun, Bundle]) -> None:
    """The bundle's first states are what the checkpoint's modules give."""
    run, bundle = trained
    captioner, _ = run.trained()
    features = run.features.features[:5].astype(np.float32)[None]
    begin = session(bundle, contract.CAPTIONER_INIT)
    h, c = begin.run(["h", "c"], {"features": features})
    with torch.no_grad():
        _, expected_h, expected_c = captioner.begin(torch.from_numpy(features))
    np.testing.assert_allclose(h, expected_h.numpy(), atol=1e-4)
    np.testing.assert_allclose(c, expected_c.numpy(), atol=1e-4)


TOOL = str(Path(sys.executable).with_name("milan-onnx"))


def milan(*line: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TOOL, *map(str, line)], capture_output=True, text=True)


def test_what_is_trained_goes_on_and_is_exported(
    trained: tuple[RegionRun, Bundle], tmp_path: Path
) -> None:
    """Done stages are not done again; another recipe is refused; the command exports the same."""
    run, bundle = trained
    data, work = run.options.data, run.options.work
    said: list[str] = []
    train.train("toy", data, work, stages=("captioner", "lm"), say=said.append)
    assert sum("nothing to do" in line for line in said) == 2
    with pytest.raises(UsageError, match="another recipe or seed"):
        train.train("toy", data, work, changes=["captioner.steps=31"])
    with pytest.raises(UsageError, match="another recipe or seed"):
        train.train("toy", data, work, seed=1)
    done = milan("export", work, "-o", tmp_path / "again")
    assert done.returncode == 0 and done.stdout == f"{tmp_path / 'again'}\n"
    assert load_bundle(tmp_path / "again").sha256 == bundle.sha256


@pytest.mark.parametrize(
    "recipe, more, code, named",
    [
        ("toy", [], 5, "regions.jsonl.gz"),
        ("no-recipe", [], 2, "default, milan, short, toy"),
        ("toy", ["--set", "captionr.steps=5"], 2, "did you mean captioner?"),
        ("toy", ["--set", "captioner.steps=many"], 2, "captioner.steps is 'many', not a int"),
        ("toy", ["--set", "kind=photos"], 2, "'photos'"),
        ("toy", ["--set", "steps"], 2, "KEY=VALUE"),
        ("toy", ["--stage", "fly"], 2, "captioner, refine, lm"),
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
    empty = milan("export", tmp_path, "-o", tmp_path / "out")
    assert empty.returncode == 2 and "holds no training run" in empty.stderr
    assert not (tmp_path / "out").exists()


def test_recipes_that_ship_can_be_read() -> None:
    for path in RECIPES.glob("*.toml"):
        table = load_recipe(path.stem)
        kind = RegionRecipe if table["kind"] == "regions" else AnnotatedRecipe
        build(kind, {key: value for key, value in table.items() if key != "kind"}, path.name)
    short = load_recipe("short", ["units.mix.pair=0", "networks=[]"])
    assert short["captioner"] == {"steps": 700, "batch": 96} and short["networks"] == []
    assert short["units"]["mix"] == {"pair": 0} and short["projection"] == 448


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
    assert bundle.manifest.encoder.features == 1872


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="wants the photos of ../shared/data")
def test_shared_regions_are_read_and_split() -> None:
    from milan_onnx.regions import read_regions, region_mask

    regions = read_regions(SHARED)
    assert len(regions) > 20_000
    assert {region.split for region in regions} == {"train", "val"}
    for region in regions[:: len(regions) // 50]:
        assert region_mask(region).shape == (region.height, region.width)


def test_a_recipe_that_is_its_own_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('base = "b"\nkind = "regions"\n')
    (tmp_path / "b.toml").write_text('base = "a"\n')
    with pytest.raises(UsageError, match="its own base"):
        load_recipe(str(tmp_path / "a.toml"))


def test_settings_of_the_ablations_fit_the_short_recipe() -> None:
    """benchmarks/ablation.py names settings; a run must know each."""
    spec = importlib.util.spec_from_file_location("ablation", BENCHMARKS / "ablation.py")
    ablation = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ablation)
    for name, settings in ablation.VARIANTS.items():
        table = load_recipe("short", settings)
        recipe = build(RegionRecipe, {k: v for k, v in table.items() if k != "kind"}, name)
        assert name == "" or recipe != _short()


def _short() -> RegionRecipe:
    table = load_recipe("short")
    return build(RegionRecipe, {k: v for k, v in table.items() if k != "kind"}, "short")
