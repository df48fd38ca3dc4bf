"""Real units as training samples: found, given features, named by what they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from milan_onnx.export import features as ft
from milan_onnx.export import units as un
from milan_onnx.export.backbones import build_backbone
from milan_onnx.export.real_units import (
    LAST,
    OWN_CLASS,
    Evidence,
    balanced,
    class_odds,
    name_units,
)
from milan_onnx.export.virtual_units import (
    Concept,
    Mix,
    SampleNames,
    UnitPlan,
    UnitSampler,
    build_concepts,
    name_samples,
)
from milan_onnx.regions import Names, NameTable, read_regions
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
    last = layer_of("net logits", np.array([apples[:4], cars[:4]]), np.ones((2, 4, 1, 1)))
    head = build_backbone().head
    assert head is not None
    unsure = type(head)(head.weight[:, :3] * 0, head.bias * 0)
    sure = head.bias * 0
    sure[0] = 50.0
    tench = type(head)(head.weight[:, :3] * 0, sure)
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
    first = len(regular.role)
    odds = class_odds(features.features, first, tench)
    assert odds.classes.shape == (len(keys), 8) and (odds.classes[:, 0] == 0).all()
    evidence = Evidence(features, known, odds, table)
    named = name_units(evidence, keys, first, layers, table)
    said = [{text for texts in unit.wording for text in texts} for unit in named]
    assert any("apples" in texts or "red apples" in texts for texts in said[:1])
    assert any("cars" in texts or "blue cars" in texts for texts in said[1:2])
    assert said[-1] == {"tenches"}  # its class, as the backbone takes all to be tenches
    assert not any("goldfish" in texts for texts in said)  # no exemplar shows that class
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


class Table:
    """Evidence by row: what each sample shows, and how surely."""

    def __init__(self, rows: list[dict[tuple[str, str], float]]) -> None:
        self.rows = rows

    def of(self, row: int) -> dict[tuple[str, str], float]:
        return self.rows[row]


def named_from(units: list[list[dict]], layer: str = "net block1", first: int = 0) -> list[dict]:
    """How often each phrase is used of units with such exemplars (and one that shows nothing)."""
    rows = [row for unit in [*units, [{}] * 40] for row in unit]
    lengths = [len(unit) for unit in [*units, [{}] * 40]]
    keys = np.array([(0, u, k) for u, n in enumerate(lengths) for k in range(n)])
    layers = [(layer, np.arange(first, first + len(lengths)))]
    found = name_units(Table(rows), keys, 0, layers, NameTable.read())
    return [{t[0]: o for t, o in zip(u.wording, u.odds, strict=True)} for u in found]


TERRIER = {("name", "airedale terriers"): 1.0, ("general", "dogs"): 1.0}
DOG = {("general", "dogs"): 1.0}
CAR = {("name", "cars"): 1.0, ("general", "vehicles"): 1.0}
TENCH = {("name", "tenches"): 1.0, ("general", "fish"): 1.0}


@pytest.mark.parametrize(
    "exemplars, said",
    [
        ([TERRIER] * 10, {"airedale terriers", "dogs"}),
        ([TERRIER] * 3 + [DOG] * 7, {"dogs"}),
        ([{("name", "cars"): 0.1}] * 10, None),
        ([DOG] * 6 + [CAR] * 4, {"dogs", "dogs and cars"}),
        ([DOG] * 6 + [CAR, TENCH, {}, {}], {"dogs"}),
    ],
)
def test_mixed_exemplars_get_a_general_name_or_two(exemplars: list, said: set | None) -> None:
    found = named_from([exemplars])
    assert (set(found[0]) if found else None) == said


@pytest.mark.parametrize("share, odds", [(1.0, 1.0), (OWN_CLASS / 2, 0.5)])
def test_a_class_names_its_unit_as_far_as_exemplars_show_it(share: float, odds: float) -> None:
    unit = [{**DOG, ("name", "tenches"): share}] * 10
    found = named_from([unit], "net logits")[0]
    assert found["tenches"] == pytest.approx(odds)
    assert found.get("dogs", 0.0) == pytest.approx(1 - odds)


def test_last_layers_have_their_share_of_what_is_drawn() -> None:
    rows = [TERRIER] * 4 + [CAR] * 4 + [TENCH] * 4 + [{}] * 36
    keys = np.array([(k // 24, k % 24 // 4, k % 4) for k in range(48)])
    layers = [("net block1", np.arange(6)), ("net logits", np.array([0, *range(400, 405)]))]
    units = name_units(Table(rows[:24] + rows[8:32]), keys, 0, layers, NameTable.read())
    odds = balanced(units)
    last = np.array([unit.layer == "net logits" for unit in units])
    assert last.any() and not last.all()
    assert odds[last].sum() == pytest.approx(LAST) and odds.sum() == pytest.approx(1)


def test_siblings_have_their_own_name_only_where_they_are_most() -> None:
    names = [Names((f"{kind} dogs",), ("dogs",)) for kind in ("brown", "small") for _ in range(20)]
    nothing = [""] * len(names)
    known = SampleNames(names, nothing, nothing, nothing, ["toy"] * 40, np.ones(40, np.bool_))
    concepts = [
        Concept(kind, (text,), np.array(rows), np.full(len(rows), 1 / len(rows)), 1.0)
        for kind, text, rows in (
            ("name", "brown dogs", range(20)),
            ("name", "small dogs", range(20, 40)),
            ("general", "dogs", range(40)),
        )
    ]
    mix = Mix(general=1.0, name=0, coloured=0, colour=0, pixels=0, shape=0, background=0, pair=0)
    plan = UnitPlan(exemplars=10, siblings=1.0, mix=mix)
    sampler = UnitSampler(concepts, known, plan, np.random.default_rng(0))
    seen = set()
    for unit in (sampler.draw() for _ in range(60)):
        share = np.mean([unit.phrase in names[row].own for row in unit.rows])
        assert unit.phrase == "dogs" or share >= 0.6
        seen.add(unit.phrase)
    assert seen == {"dogs", "brown dogs", "small dogs"}
