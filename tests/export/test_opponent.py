"""The opponent of the benchmarks does what the original does, and the runtime says the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="wants the export extra")

from benchmarks.original.decoding import rerank  # noqa: E402
from benchmarks.original.exemplars import Photos, find_exemplars  # noqa: E402
from benchmarks.original.networks import FEATURES, load_decoder  # noqa: E402
from benchmarks.original.sketches import RunningQuantile, RunningTopK  # noqa: E402
from milan_onnx.bundle import Bundle  # noqa: E402
from milan_onnx.exemplars import exemplar_masks  # noqa: E402
from milan_onnx.export.original.convert import convert  # noqa: E402
from milan_onnx.runtime import Describer  # noqa: E402
from milan_onnx.runtime.device import Device  # noqa: E402
from tests.export.original import WORDS, Recipe, write_standin  # noqa: E402

SHARED = Path(__file__).parents[2].parent / "shared/reference/original"
STOP = len(WORDS) + 1


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    """A stand-in's checkpoint, and the bundle that is made of it."""
    folder = tmp_path_factory.mktemp("opponent")
    path = write_standin(folder, Recipe()).path
    return path, convert(path, folder / "bundle")


@pytest.mark.parametrize("carry", [True, False])
def test_its_captions_are_the_runtime_s(carry: bool, converted: tuple[Path, Bundle]) -> None:
    path, bundle = converted
    rng = np.random.default_rng(0)
    features = (3 * rng.standard_normal((40, 5, FEATURES["resnet18"]))).astype(np.float32)
    found = rerank(
        load_decoder(path),
        torch.from_numpy(features),
        STOP,
        beam=16,
        length=15,
        weight=0.2,
        carry_features=carry,
    )
    options = replace(bundle.manifest.search, legacy=True)
    ours = Describer(bundle, Device("cpu"), 2).describe(features, options, candidates=1)
    for row, score, unit in zip(found.tokens.tolist(), found.score, ours, strict=True):
        ended = row[: row.index(STOP) + 1] if STOP in row else row
        assert tuple(ended) == unit[0].tokens
        assert unit[0].pmi == pytest.approx(score.item(), abs=1e-4)


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is absent")
def test_its_captions_are_the_original_s() -> None:
    expected = np.load(SHARED / "expected.npz")
    decoder = load_decoder(SHARED / "standin-resnet18.pth")
    features = torch.from_numpy(expected["features"])
    stop = decoder.embedding.num_embeddings - 3
    found = rerank(decoder, features, stop, beam=50, length=15, weight=0.2)
    tokens = expected["rerank_tokens"]
    np.testing.assert_array_equal(found.tokens.numpy(), tokens[:, : found.tokens.shape[1]])
    np.testing.assert_allclose(found.score, expected["rerank_scores"], atol=1e-4)


def test_its_exemplars_are_the_most_active_regions(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    paths = []
    for index in range(24):
        paths.append(tmp_path / f"{index:02}.png")
        small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        small.resize((400, 300), Image.Resampling.BICUBIC).save(paths[-1])
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 32, 32), torch.nn.ReLU())
    photos = Photos(paths)
    found = find_exemplars(model, "1", photos, k=4, quantile=0.99, workers=0)
    with torch.inference_mode():
        activations = model(torch.stack([photos[i] for i in range(len(photos))]))
    best, ids = activations.amax((2, 3)).topk(4, dim=0)
    np.testing.assert_array_equal(found.ids, ids.T)
    np.testing.assert_allclose(found.activations, best.T)
    values = activations.transpose(0, 1).flatten(1).numpy()
    for unit in range(6):
        rank = (values[unit] <= found.levels[unit]).mean()
        assert rank == pytest.approx(0.99, abs=0.01)
        maps = activations[ids[:, unit], unit].numpy()
        levels = found.levels[unit].repeat(4)
        masks = exemplar_masks(maps, levels, 224, 224, fade=True)
        assert (found.masks[unit, :, 0].astype(bool) == masks).mean() > 0.9999


def test_its_sketches() -> None:
    values = torch.from_numpy(np.random.default_rng(2).standard_normal((60_000, 3), np.float32))
    sketch, topk = RunningQuantile(resolution=1024), RunningTopK(5)
    for part in values.split(700):
        sketch.add(part)
        topk.add(part)
    assert len(sketch.levels) > 4
    ranks = (values.numpy() <= sketch.quantile(0.99)).mean(axis=0)
    np.testing.assert_allclose(ranks, 0.99, atol=0.003)
    best, places = values.topk(5, dim=0)
    np.testing.assert_array_equal(topk.result()[0], best.T)
    np.testing.assert_array_equal(topk.result()[1], places.T)
