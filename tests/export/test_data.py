"""Regions, masks, pooling, names and virtual units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from milan_onnx.errors import ProbeError, UsageError  # noqa: E402
from milan_onnx.export import features as ft  # noqa: E402
from milan_onnx.export import phrases, pixels, pooling  # noqa: E402
from milan_onnx.export.backbones import build_backbone  # noqa: E402
from milan_onnx.export.virtual_units import (  # noqa: E402
    UnitPlan,
    UnitSampler,
    build_concepts,
    name_samples,
)
from milan_onnx.regions import (  # noqa: E402
    NameTable,
    Region,
    View,
    centre_view,
    cut_mask,
    decode_rle,
    mask_shape,
    read_regions,
    region_mask,
)
from tests.export.toy_data import encode_rle, write_toy_data  # noqa: E402


@pytest.mark.parametrize("density", [0.0, 0.03, 0.5, 1.0])
def test_run_lengths_come_back(density: float) -> None:
    rng = np.random.default_rng(1)
    mask = rng.random((37, 53)) < density
    mask[5:30, 10:12] |= density > 0
    np.testing.assert_array_equal(decode_rle(encode_rle(mask), 37, 53), mask)


def test_run_lengths_of_coco() -> None:
    """As pycocotools writes a 2x3 mask: down the columns, background first."""
    mask = np.array([[0, 1, 1], [0, 0, 1]], dtype=bool)
    assert encode_rle(mask) == "2111"
    np.testing.assert_array_equal(decode_rle("2111", 2, 3), mask)


def test_mask_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(ProbeError, match="does not fit"):
        decode_rle("2111", 4, 4)


def test_box_and_whole_become_masks() -> None:
    box = Region("s", "i", "box", "x", "train", 10, 8, box=(2.0, 1.0, 3.0, 4.0))
    assert region_mask(box).sum() == 12
    assert region_mask(Region("s", "i", "whole", "x", "train", 10, 8)).all()


def test_views_follow_the_mask() -> None:
    mask = np.zeros((20, 40), dtype=bool)
    mask[:, 10:20] = True
    assert centre_view(40, 20) == View(10.0, 0.0, 20.0)
    assert cut_mask(mask, centre_view(40, 20), 10)[:, :5].all()
    assert cut_mask(mask, View(10.0, 0.0, 20.0, flip=True), 10)[:, 5:].all()


def test_shapes_of_masks() -> None:
    y, x = np.mgrid[0:60, 0:80]
    disc = (y - 30) ** 2 + (x - 40) ** 2 < 400
    bar, tile = np.zeros((2, 60, 80), dtype=bool)
    bar[28:33, 5:70] = True
    tile[10:40, 20:60] = True
    assert [mask_shape(m) for m in (disc, bar, tile)] == ["round", "long", "rectangular"]
    assert mask_shape(np.ones((60, 80), dtype=bool)) == ""
    assert mask_shape(np.zeros((60, 80), dtype=bool)) == ""


def test_outlines_run_along_the_region() -> None:
    mask = np.zeros((112, 112), dtype=bool)
    mask[30:80, 40:90] = True
    edge = ft.edge_of(mask, np.random.default_rng(1))
    inside = np.zeros_like(mask)
    inside[41:69, 51:79] = True
    assert edge.any()
    assert not (edge & inside).any()
    assert not ft.edge_of(np.ones((112, 112), dtype=bool), np.random.default_rng(1)).any()


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"regions\.jsonl\.gz"):
        read_regions(tmp_path)


def test_unknown_backbone_lists_the_known() -> None:
    with pytest.raises(UsageError, match="efficientnet-lite0"):
        build_backbone("vgg")


# --- pooling ---------------------------------------------------------------------------------


def test_empty_mask_gives_zeros() -> None:
    maps, masks = torch.rand(2, 3, 4, 4), torch.zeros(2, 8, 8)
    masks[1] = 1
    for resize in ("area", "bilinear"):
        pooled = pooling.pool_level(maps, masks, resize)
        assert torch.equal(pooled[0], torch.zeros(3))
        torch.testing.assert_close(pooled[1], maps[1].mean((1, 2)))


def test_area_counts_covered_pixels() -> None:
    mask = torch.zeros(1, 4, 4)
    mask[0, 0, 0] = mask[0, 2:, 2:] = 1
    expected = torch.tensor([[[0.25, 0.0], [0.0, 1.0]]])
    torch.testing.assert_close(pooling.resize_masks(mask, 2, 2), expected)
    pooled = pooling.pool_level(torch.tensor([[[[5.0, 0], [0, 1.0]]]]), mask)
    torch.testing.assert_close(pooled, torch.tensor([[(5 * 0.25 + 1) / 1.25]]))


def test_bilinear_misses_thin_masks_as_the_paper_does() -> None:
    mask = torch.zeros(1, 32, 32)
    mask[0, :, 4] = 1
    assert not pooling.resize_masks(mask, 2, 2, "bilinear").any()
    assert pooling.resize_masks(mask, 2, 2, "area").any()


def test_training_pools_like_the_reference() -> None:
    rng = np.random.default_rng(0)
    maps = [rng.random((c, s, s), dtype=np.float32) for c, s in ((3, 16), (5, 8), (7, 4))]
    masks = rng.random((4, 32, 32)) < 0.3
    masks[0] = False
    expected = pooling.pool_pyramid(
        [torch.from_numpy(m).expand(4, *m.shape) for m in maps], torch.from_numpy(masks)
    )
    np.testing.assert_allclose(ft.pool(maps, masks), expected.numpy(), atol=1e-6)


# --- pixels ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((0, 0, 0), "black"),
        ((255, 255, 255), "white"),
        ((128, 128, 128), "gray"),
        ((220, 20, 20), "red"),
        ((250, 140, 10), "orange"),
        ((240, 230, 20), "yellow"),
        ((20, 160, 40), "green"),
        ((20, 40, 220), "blue"),
        ((120, 60, 20), "brown"),
        ((255, 160, 200), "pink"),
    ],
)
def test_colour_words(rgb: tuple[int, int, int], name: str) -> None:
    frame = np.tile(np.array(rgb, np.uint8), (8, 8, 1))
    maps = pixels.pixel_maps(frame)
    assert {pixels.COLOURS[i] for i in np.unique(maps.colour)} == {name}


@pytest.mark.parametrize(("axis", "direction"), [(1, 0.0), (0, 90.0)])
def test_edges_know_their_direction(axis: int, direction: float) -> None:
    stripes = (np.arange(32) // 4 % 2 * 255).astype(np.uint8)
    plane = np.broadcast_to(stripes if axis == 1 else stripes[:, None], (32, 32))
    maps = pixels.pixel_maps(np.repeat(plane[:, :, None], 3, axis=2).copy())
    strength, agreement, angle = pixels.edge_direction(
        pixels.statistics(maps, np.ones((1, 16, 16), np.float32))[0]
    )
    assert strength > 0.1
    assert agreement > 0.99
    assert abs(angle) == pytest.approx(direction, abs=1.0)


# --- phrases ---------------------------------------------------------------------------------


def test_names_table_covers_all_classes_with_plain_words() -> None:
    table = NameTable.read()
    texts = [n for names in table.entries.values() for n in names.all]
    assert all(table.of_class(i).all for i in range(1000))
    dataset_words = ("clip art", "texture ", "carton ", "emoji", "clipart")
    assert not [t for t in texts if any(word in f"{t} " for word in dataset_words)]
    assert all(t == t.lower() and t == " ".join(phrases.tokenise(t)) for t in texts)
    assert "animals" in table.of_label("dog").general


# --- virtual units ---------------------------------------------------------------------------


class Fixed:
    """An encoder that needs no network: means of blocks of the image."""

    def __call__(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        planes = images.transpose(0, 3, 1, 2).astype(np.float32) / 255
        count, channels, size, _ = planes.shape
        shape = (count, channels, 7, size // 7, 7, size // 7)
        return [planes[:, :, ::2, ::2], planes.reshape(shape).mean((3, 5))]


def test_virtual_units_of_toy_data(tmp_path: Path) -> None:
    data = write_toy_data(tmp_path)
    regions = read_regions(data)
    made = [
        ft.collect_features(
            data, regions, Fixed(), None, ft.FeaturePlan(shard=i, shards=2), lambda _: None
        )
        for i in range(2)
    ]
    ft.FeatureSet.join(made).save(tmp_path / "features")
    features = ft.FeatureSet.load(tmp_path / "features")
    assert len(features.role) == sum(len(part.role) for part in made)
    known = name_samples(features, regions, NameTable.read())
    photos = sorted({region.image for region in regions})
    held = {region.image for region in regions if region.split == "val"}
    concepts = build_concepts(features, known, train=True)
    sampler = UnitSampler(concepts, known, UnitPlan(), np.random.default_rng(0))
    units = [sampler.draw() for _ in range(200)]
    for unit in units:
        assert unit.rows.shape == (15,)
        assert not {photos[features.image[row]] for row in unit.rows} & held
        assert unit.phrase in unit.accepted or unit.kind == "pair"
        first, _, second = unit.phrase.partition(" and ")
        assert first != second
    assert {"apples", "vehicles"} <= {unit.phrase for unit in units}


def test_units_are_the_same_for_a_seed(tmp_path: Path) -> None:
    data = write_toy_data(tmp_path)
    regions = read_regions(data)
    features = ft.collect_features(data, regions, Fixed(), None, ft.FeaturePlan(), lambda _: None)
    known = name_samples(features, regions, NameTable.read())
    concepts = build_concepts(features, known, train=True)
    drawn = [
        [UnitSampler(concepts, known, UnitPlan(), np.random.default_rng(7)).draw().phrase]
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
