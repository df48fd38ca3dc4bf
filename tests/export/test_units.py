"""Real units as training samples: found, given features, named by what they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from milan_onnx.export import features as ft
from milan_onnx.export import units as un
from milan_onnx.export.backbones import build_backbone
from milan_onnx.export.real_units import balanced, name_units
from milan_onnx.export.virtual_units import (
    UnitPlan,
    UnitSampler,
    build_concepts,
    name_samples,
)
from milan_onnx.regions import NameTable, read_regions
from tests.export.test_data import Fixed
from tests.export.toy_data import write_toy_data


def quiet(text: str) -> None:
    """Nobody listens."""


def layer_of(name: str, images: np.ndarray, maps: np.ndarray) -> un.LayerUnits:
    units = np.arange(len(images))
    return un.LayerUnits(name, units, images, maps.astype("f2"), np.full(len(images), 0.5, "f4"))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list, list[str]]:
    data = write_toy_data(tmp_path_factory.mktemp("toy"))
    regions = read_regions(data)
    return data, regions, sorted({region.image for region in regions})


def test_winners_are_those_of_a_full_sort() -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((50, 7, 4, 4)).astype(np.float32)
    plan = un.ScanPlan(exemplars=6, units=5)
    winners = un._Winners("net block1", 7, plan, np.random.default_rng(1))
    for begin in range(0, 50, 8):
        part = np.arange(begin, min(begin + 8, 50))
        winners.add(part, maps[part])
    found = winners.result()
    score = maps.max((2, 3)) + 1e-3 * maps.mean((2, 3))
    expected = np.argsort(-score[:, found.units], axis=0, kind="stable")[:6].T
    np.testing.assert_array_equal(found.images, expected)
    np.testing.assert_array_equal(
        found.maps[2, 3], maps[expected[2, 3], found.units[2]].astype("f2")
    )
    assert (found.thresholds > 0.9).all()


def test_units_of_a_real_network_come_from_photos_to_train_on(toy: tuple) -> None:
    data, regions, images = toy
    plan = un.ScanPlan(exemplars=4, units=3, every=7)
    layers = un.find_exemplars(data, regions, "efficientnet-lite0", plan, quiet)
    assert [layer.layer.split()[1] for layer in layers] == [
        "block1", "block8", "block15", "head", "logits",
    ]  # fmt: skip
    held = {region.image for region in regions if region.split != "train"}
    for layer in layers:
        assert layer.images.shape == (1000 if layer.layer.endswith("logits") else 3, 4)
        assert not {images[i] for i in layer.images.ravel()} & held
        first = layer.maps.astype("f4").max((2, 3))
        assert (np.diff(first, axis=1) <= 2e-2).all()


def test_a_unit_is_named_by_what_its_exemplars_share(toy: tuple) -> None:
    data, regions, images = toy
    apples = [i for i, name in enumerate(images) if "apple" in name]
    cars = [i for i, name in enumerate(images) if "car" in name]
    inside = np.zeros((14, 14))
    inside[5:9, 4:8] = 1  # toy shapes cover the middle
    maps = np.broadcast_to(inside, (3, 4, 14, 14))
    mixed = [apples[0], cars[0], apples[1], cars[1]]
    layer = layer_of("net block1", np.array([apples[:4], cars[:4], mixed]), maps)
    last = layer_of("net logits", np.array([apples[:4]] * 2), np.ones((2, 4, 1, 1)))
    head = build_backbone().head
    assert head is not None
    unsure = type(head)(head.weight[:, :3] * 0, head.bias * 0)
    found = [
        un.unit_features(data, regions, [layer, last], Fixed(), unsure, (part, 2), quiet)
        for part in range(2)
    ]
    units = ft.FeatureSet.join([part[0] for part in found])
    keys = np.concatenate([part[1] for part in found])
    regular = ft.collect_features(data, regions, Fixed(), None, ft.FeaturePlan(), quiet)
    features = ft.FeatureSet.join([regular, units])
    known, table = name_samples(features, regions, NameTable.read()), NameTable.read()
    layers = [(part.layer, part.units) for part in (layer, last)]
    named = name_units(features, known, keys, len(regular.role), layers, table)
    said = [{text for texts in unit.wording for text in texts} for unit in named]
    assert any("apples" in texts or "red apples" in texts for texts in said[:1])
    assert any("cars" in texts or "blue cars" in texts for texts in said[1:2])
    assert said[-2:] == [{"tenches", "fish"}, {"goldfish", "fish"}]
    assert not any({"apples", "cars"} <= texts for texts in said)
    rows = [set(features.image[unit.rows].tolist()) for unit in named]
    assert rows[0] == set(apples[:4]) and rows[1] == set(cars[:4])
    concepts = build_concepts(features, known, train=True)
    plan = UnitPlan(exemplars=5, real=1.0)
    sampler = UnitSampler(concepts, known, plan, np.random.default_rng(0), named, balanced(named))
    for unit in (sampler.draw() for _ in range(20)):
        assert unit.kind == "real" and unit.phrase in unit.accepted and unit.rows.shape == (5,)
    assert not any(
        np.isin(concept.rows, range(len(regular.role), 10**6)).any() for concept in concepts
    )
