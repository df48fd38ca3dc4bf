"""Labelled regions: masks, views, what people call them, and masks as units would mark them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from milan_onnx.errors import ProbeError
from milan_onnx.regions import (
    NameTable,
    Region,
    View,
    blob_of,
    centre_view,
    cut_mask,
    decode_rle,
    random_blob,
    read_regions,
    region_mask,
)
from tests.conftest import SHARED
from tests.export.toy_data import LABELS, encode_rle, write_toy_data


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
    cut = cut_mask(mask, centre_view(40, 20), 10)
    assert cut[:, :5].all() and not cut[:, 5:].any()


def test_regions_of_a_folder_are_read(tmp_path: Path) -> None:
    regions = read_regions(write_toy_data(tmp_path))
    assert len(regions) == 6 * len(LABELS) + 2 * len(LABELS)
    assert {region.label for region in regions} == {*LABELS}
    assert {region.split for region in regions} == {"train", "val"}
    assert all(region_mask(region).any() for region in regions)


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"regions\.jsonl\.gz"):
        read_regions(tmp_path)


def test_names_table_covers_all_classes_with_plain_words() -> None:
    table = NameTable.read()
    texts = [name for names in table.entries.values() for name in names.all]
    assert all(table.of_class(i).all for i in range(1000))
    dataset_words = ("clip art", "texture ", "carton ", "emoji", "clipart")
    assert not [text for text in texts if any(word in f"{text} " for word in dataset_words)]
    assert all(text == text.lower() and text == text.strip() for text in texts)
    assert "animals" in table.of_label("dog").general


def test_masks_as_units_mark_them_lie_where_the_region_is() -> None:
    mask = np.zeros((224, 224), dtype=bool)
    mask[60:150, 40:160] = True
    for seed in range(20):
        blob = blob_of(mask, np.random.default_rng(seed))
        assert (blob & mask).sum() > 0.7 * blob.sum() > 0
        np.testing.assert_array_equal(blob, blob_of(mask, np.random.default_rng(seed)))
        patch = random_blob(224, np.random.default_rng(seed))
        assert patch.shape == (224, 224) and 0 < patch.mean() < 0.9


@pytest.mark.shared
def test_shared_regions_are_read_and_split() -> None:
    if not (SHARED / "data").is_dir():
        pytest.skip("../shared/data is not here")
    regions = read_regions(SHARED / "data")
    assert len(regions) > 20_000
    assert {region.split for region in regions} == {"train", "val"}
    for region in regions[:: len(regions) // 50]:
        assert region_mask(region).shape == (region.height, region.width)
