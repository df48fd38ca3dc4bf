"""MILANNOTATIONS: read from disk, cached, trained on, exported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")


from milan_onnx.annotations import (  # noqa: E402
    FeatureCache,
    Milannotations,
    encoder_name,
    networks_of,
    split_units,
)
from milan_onnx.bundle import load_bundle  # noqa: E402
from milan_onnx.errors import BadInput  # noqa: E402
from milan_onnx.export import train  # noqa: E402
from milan_onnx.export.backbones import build_backbone  # noqa: E402
from milan_onnx.export.onnx_export import encoder_model  # noqa: E402
from milan_onnx.progress import Lines  # noqa: E402
from milan_onnx.runtime import Device, Encoder  # noqa: E402
from tests.export.milannotations import write_annotations, write_imagenet, write_network  # noqa: E402
from tests.export.pooling import pool_pyramid  # noqa: E402

NETWORK = "alexnet/places365"


def test_groups_are_the_papers() -> None:
    assert len(networks_of("base")) == 6
    assert networks_of("gen") == ("biggan/imagenet", "biggan/places365")
    assert networks_of("resnet152") == ("resnet152/imagenet", "resnet152/places365")
    assert networks_of("imagenet")[0] == "alexnet/imagenet" and len(networks_of("imagenet")) == 3
    left_out = networks_of("not-resnet152-imagenet")
    assert len(left_out) == 5 and "resnet152/imagenet" not in left_out
    assert networks_of("dino_vits8/imagenet") == ("dino_vits8/imagenet",)
    for name in ("everything", "not-vgg-imagenet", ""):
        with pytest.raises(BadInput, match="no group"):
            networks_of(name)


def exemplars_of(data: Milannotations, unit: int, size: int, count: int = 15) -> tuple:
    """Frames (K, S, S, 3) and masks (K, S, S) of a unit."""
    frames = data.frames([data.photo(unit, rank) for rank in range(count)], size)
    masks = [data.mask(unit, rank, size) for rank in range(count)]
    return np.stack([frame for _, frame in frames]), np.stack(masks)


def test_units_come_with_what_they_saw(tmp_path: Path) -> None:
    folder = write_network(tmp_path)
    data = Milannotations(tmp_path, [NETWORK])
    assert [u.key for u in data.units][:2] == [f"{NETWORK}/conv1/0", f"{NETWORK}/conv1/1"]
    assert len(data.units) == 11 and all(len(u.descriptions) == 3 for u in data.units)
    assert all(u.exemplars == 15 and u.coherence is None for u in data.units)
    images, masks = exemplars_of(data, 7, 32)
    raw = np.load(folder / "conv2/images.npy")[1]
    assert images.shape == (15, 32, 32, 3) and masks.shape == (15, 32, 32)
    np.testing.assert_array_equal(images, raw.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(masks, np.load(folder / "conv2/masks.npy")[1, :, 0] != 0)
    larger, _ = exemplars_of(data, 7, 64)
    np.testing.assert_array_equal(larger, images.repeat(2, axis=1).repeat(2, axis=2))


def test_images_may_be_in_an_imagenet_folder(tmp_path: Path) -> None:
    folder = write_network(tmp_path / "data", images=False, side=224, layers={"conv1": 2})
    with pytest.raises(BadInput, match="holds no images"):
        data = Milannotations(tmp_path / "data", [NETWORK])
        exemplars_of(data, 0, 224)
    photos = write_imagenet(tmp_path / "val")
    data = Milannotations(tmp_path / "data", [NETWORK], photos)
    images, _ = exemplars_of(data, 1, 224)
    ids = np.loadtxt(folder / "conv1/ids.csv", dtype=int, delimiter=",")[1]
    transforms = pytest.importorskip("torchvision.transforms.functional", exc_type=Exception)
    paths = sorted(photos.rglob("*.png"))
    from PIL import Image

    for image, number in zip(images[:4], ids[:4], strict=True):
        photo = Image.open(paths[number]).convert("RGB")
        expected = transforms.center_crop(transforms.resize(photo, 256), 224)
        np.testing.assert_array_equal(image, np.asarray(expected))


def test_units_with_fewer_than_three_people_are_left_out(tmp_path: Path) -> None:
    folder = write_network(tmp_path)
    lines = [("conv1", 4, "one"), ("conv1", 4, "two"), ("conv2", 0, "a"), ("conv2", 0, "b")]
    lines += [("conv2", 0, "c"), ("conv2", 0, "d")]
    write_annotations(folder / "annotations.csv", lines)
    data = Milannotations(tmp_path, [NETWORK])
    assert [(u.layer, u.unit, u.descriptions) for u in data.units] == [
        ("conv2", 0, ("a", "b", "c"))
    ]


def test_numbers_of_units_are_those_of_units_npy(tmp_path: Path) -> None:
    folder = write_network(tmp_path, layers={"conv1": 3})
    np.save(folder / "conv1/units.npy", np.array([2, 10, 77]))
    lines = [("conv1", 77, text) for text in "abc"]
    write_annotations(folder / "annotations.csv", lines)
    data = Milannotations(tmp_path, [NETWORK])
    assert [u.unit for u in data.units] == [77]
    expected = np.load(folder / "conv1/masks.npy")[2, :, 0]
    np.testing.assert_array_equal(exemplars_of(data, 0, 32)[1], expected != 0)
    write_annotations(folder / "annotations.csv", [("conv1", 1, text) for text in "abc"])
    with pytest.raises(BadInput, match="describes unit 1 of layer conv1"):
        Milannotations(tmp_path, [NETWORK])


@pytest.mark.parametrize(
    "lines, named",
    [
        ([("conv1", "x", "a")], "line 2: layer 'conv1', unit 'x'"),
        ([("conv1", 0, "a"), ("conv1", 0, " ")], "line 3: the description is empty"),
        ([("conv9", 0, "a")] * 3, "layer conv9"),
        ([], "describes no unit"),
    ],
)
def test_bad_lines_are_named(lines: list, named: str, tmp_path: Path) -> None:
    folder = write_network(tmp_path)
    write_annotations(folder / "annotations.csv", lines)
    with pytest.raises(BadInput, match=named):
        Milannotations(tmp_path, [NETWORK])


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        Milannotations(tmp_path, [NETWORK])
    folder = write_network(tmp_path, layers={"conv1": 2})
    (folder / "annotations.csv").write_bytes("layer,unit,summary\nconv1,0,caf\xe9".encode("latin1"))
    with pytest.raises(BadInput, match="not a UTF-8"):
        Milannotations(tmp_path, [NETWORK])
    (folder / "annotations.csv").write_text("layer,unit\n")
    with pytest.raises(BadInput, match="no column summary"):
        Milannotations(tmp_path, [NETWORK])
    write_annotations(folder / "annotations.csv", [("conv1", 0, text) for text in "abc"])
    np.save(folder / "conv1/images.npy", np.zeros((2, 15, 3, 8, 8), np.uint8))
    with pytest.raises(BadInput, match="do not fit"):
        data = Milannotations(tmp_path, [NETWORK])
        exemplars_of(data, 0, 32)
    np.save(folder / "conv1/masks.npy", np.zeros((2, 15, 32, 32), np.float32))
    with pytest.raises(BadInput, match="float32"):
        Milannotations(tmp_path, [NETWORK])


def test_splits_are_seeded_and_by_unit(tmp_path: Path) -> None:
    write_network(tmp_path)
    units = Milannotations(tmp_path, [NETWORK]).units
    split = split_units(units, 0.2, 3)
    assert split == split_units(units[::-1], 0.2, 3) != split_units(units, 0.2, 4)
    assert len(split.val) == 2 and not set(split.val) & set(split.train)


def test_cached_features_are_those_of_the_torch_encoder(tmp_path: Path) -> None:
    write_network(tmp_path / "data", layers={"conv1": 3})
    data = Milannotations(tmp_path / "data", [NETWORK])
    torch.manual_seed(0)
    encoder = build_backbone("resnet18").encoder
    model, path = encoder_model(encoder), tmp_path / "encoder.onnx"
    path.write_bytes(model.SerializeToString())
    loaded = Encoder.load(path, encoder.spec(), Device("cpu"))
    name = encoder_name(path, encoder.spec())
    cache = FeatureCache(tmp_path / "c", data, loaded, name, exemplars=2)
    lines: list[str] = []
    cache.fill(1, Lines(lines.append))
    assert lines[-1].startswith("features: 6 photos, ") and "/s, " in lines[-1]
    images, masks = exemplars_of(data, 1, 224, 2)
    with torch.inference_mode():
        maps = encoder(torch.from_numpy(images))
        expected = pool_pyramid(maps, torch.from_numpy(masks), "bilinear").numpy()
    np.testing.assert_allclose(cache.filled()[1], expected, rtol=2e-3, atol=2e-3)


RECIPE = """
annotations = "milannotations"
name = "tiny"
version = "1"
group = "alexnet/places365"
backbone = "resnet18"
style = "sentences"
rounded = false
held_out = 0.2
exemplars = 4
[sizes]
embedding = 8
hidden = 12
attention = 8
[lm_sizes]
embedding = 6
hidden = 8
layers = 2
[captioner]
steps = 12
batch = 8
validate_every = 4
alike = false
penalty = 1.0
[lm]
steps = 12
batch = 8
validate_every = 4
"""


def test_a_captioner_is_trained_and_exported(tmp_path: Path) -> None:
    write_network(tmp_path / "data")
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE)
    work = tmp_path / "work"
    run = train.train(str(recipe), tmp_path / "data", work)
    made = train.export(work, tmp_path / "out")
    assert made.manifest.vocabulary.style == "sentences"
    assert made.manifest.encoder.mask_resize == "bilinear"
    split = json.loads((work / "split.json").read_text())
    assert len(split["val"]) == 2 and len(split["train"]) == 9
    assert made.manifest.encoder.parts == ("mean",) and made.manifest.calibration is None
    assert load_bundle(tmp_path / "out").sha256 == made.sha256
    seen = {u.key: {w for text in u.phrases for w in text.split()} for u in run.annotated.units}
    known = set(run.encoding.words)
    assert known == set().union(*(seen[key] for key in split["train"]))
    # No sentence of a held-out unit is learned from, by either network.
    rows = [run.annotated.units[row].key for row in run.examples[0].unit.tolist()]
    assert set(rows) == set(split["train"]) and len(rows) == 3 * 9
    assert {run.annotated.units[row].key for row in run.examples[1].unit} == set(split["val"])
    again = tmp_path / "again"
    shutil.copytree(work, again, ignore=shutil.ignore_patterns("captioner*", "lm*"))
    train.train(str(recipe), tmp_path / "data", again)
    for name in ("captioner.pt", "lm.pt"):
        a, b = (torch.load(folder / name, weights_only=True) for folder in (work, again))
        assert a["val"] == b["val"]
        for key, value in a["state"].items():
            torch.testing.assert_close(value, b["state"][key], rtol=0, atol=0)


LARGE = """
import resource, sys, time
from pathlib import Path
import numpy as np
from milan_onnx.annotations import Milannotations
from milan_onnx.export.captioner import Captioner, CaptionerConfig
from milan_onnx.export.loop import LoopPlan, train
from milan_onnx.export.onnx_export import vocabulary_spec
from milan_onnx.export.recipe import build, load_recipe
from milan_onnx.export.run import Options, Recipe, TrainingRun
from milan_onnx.export.training import captioner_training
from milan_onnx.progress import Silent
root = Path(sys.argv[1])
started = time.process_time()
data = Milannotations(root / "data", ["alexnet/places365"])
opened = time.process_time() - started
assert len(data.units) == 20_000, len(data.units)
_, frame = next(data.frames([data.photo(12_345, 3)], 224))
assert frame.shape == (224, 224, 3)
features = np.lib.format.open_memmap(root / "f.npy", "w+", np.float16, (20_000, 15, 3904))
table = load_recipe("milan", ["group=alexnet/places365", "held_out=0.0025"])
recipe = build(Recipe, table, "milan")
run = TrainingRun(Options(recipe, root / "data", root / "work", Silent()))
model = Captioner(CaptionerConfig(3904, run.encoding.spec.size, 128, 64, 64))
plan = LoopPlan(steps=6, batch=64, validate_every=3, penalty=1.0)
what = captioner_training(model, features, np.full(20_000, 15), *run.examples, run.encoding,
                          np.random.default_rng(0), plan, length=15, recipe="x")
train(what, plan, root / "captioner.pt", print)
print(opened, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.alone
def test_twenty_thousand_units_open_at_once_and_fit_in_memory(tmp_path: Path) -> None:
    layers = {f"layer{i}": 2_500 for i in range(8)}
    write_network(tmp_path / "data", layers=layers, side=224, sparse=True)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path)], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    opened, gigabytes = (float(part) for part in done.stdout.splitlines()[-1].split())
    print(f"opened in {opened:.2f} s of a processor, {gigabytes:.2f} GiB")
    assert opened < 2 and gigabytes < 4
