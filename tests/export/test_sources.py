"""Further sources of described units: each obeys the protocol, and says what it shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from milan_onnx.annotations import AnnotatedUnits, DescribedUnits  # noqa: E402
from milan_onnx.bundle import load_bundle  # noqa: E402
from milan_onnx.export.backbones import ClassHead  # noqa: E402
from milan_onnx.export.drawings import DrawnUnits  # noqa: E402
from milan_onnx.export.sources import (  # noqa: E402
    ClassPlan,
    ClassUnits,
    MirroredUnits,
    VirtualUnits,
    class_odds,
    class_photos,
)
from milan_onnx.progress import Silent  # noqa: E402
from milan_onnx.regions import NameTable, read_regions  # noqa: E402
from milan_onnx.runtime import Describer, Device  # noqa: E402
from tests.export.toy_data import write_toy_data  # noqa: E402

SIZE = 56
Make = Callable[[Path, int], AnnotatedUnits]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_data(tmp_path_factory.mktemp("sources"))


def described(data: Path) -> DescribedUnits:
    return DescribedUnits(data / "units.jsonl.gz").chosen(lambda unit: unit.split == "train")


def class_units(data: Path, seed: int) -> ClassUnits:
    """Two classes that half of the photos show, each rather surely."""
    source = described(data)
    odds = np.zeros((len(class_photos(source)), 1000), np.float32)
    odds[::2, 7] = np.linspace(0.9, 0.8, len(odds[::2]))
    odds[1::2, 444] = 0.6
    odds[:, 3] = 0.2
    return ClassUnits(source, odds, ClassPlan(variants=3, exemplars=3), seed)


SOURCES: dict[str, Make] = {
    "labels": lambda data, seed: VirtualUnits(data, 6, 3, seed, SIZE),
    "classes": class_units,
    "drawings": lambda data, seed: DrawnUnits(8, 3, seed),
    "mirrored": lambda data, seed: MirroredUnits(described(data)),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_has_units_photos_and_masks(name: str, data: Path) -> None:
    source = SOURCES[name](data, 0)
    assert len({unit.key for unit in source.units}) == len(source.units) >= 4
    places = [(unit, rank) for unit in range(4) for rank in range(source.units[unit].exemplars)]
    photos = list(dict.fromkeys(source.photo(*place) for place in places))
    frames = list(source.frames(photos, SIZE))
    assert [photo for photo, _ in frames] == photos
    assert all(frame.shape == (SIZE, SIZE, 3) and frame.dtype == np.uint8 for _, frame in frames)
    for unit, rank in places:
        mask = source.mask(unit, rank, SIZE)
        assert mask.shape == (SIZE, SIZE) and mask.dtype == np.bool_ and mask.any()
        np.testing.assert_array_equal(mask, source.mask(unit, rank, SIZE))
    for unit in source.units:
        assert unit.annotations and all(text == text.strip() for text in unit.phrases)


@pytest.mark.parametrize("name", ["labels", "classes", "drawings"])
def test_a_digest_tells_seeds_and_units_apart(name: str, data: Path) -> None:
    first, again, other = (SOURCES[name](data, seed) for seed in (0, 0, 1))
    count = min(len(first.units), len(other.units))
    whole = list(range(count))
    assert first.digest(whole) == again.digest(whole)
    assert first.digest(whole) not in (other.digest(whole), first.digest(whole[:-1]))
    assert [u.phrases for u in first.units] == [u.phrases for u in again.units]


# --- mirrored ------------------------------------------------------------------------------------


def test_mirrored_units_are_seen_and_said_in_a_mirror(data: Path) -> None:
    source = described(data)
    once, twice = MirroredUnits(source), MirroredUnits(MirroredUnits(source))
    said = [unit.phrases for unit in source.units]
    assert any("left" in text for phrases in said for text in phrases)
    for plain, mirrored in zip(said, [unit.phrases for unit in once.units], strict=True):
        for a, b in zip(plain, mirrored, strict=True):
            assert re.sub("left", "right", a) == b and "left" not in b
    assert [unit.phrases for unit in twice.units] == said
    assert once.digest([0, 1]) != source.digest([0, 1])
    photos = [source.photo(5, rank) for rank in range(3)]
    for (_, a), (_, b), (_, c) in zip(
        source.frames(photos, SIZE), once.frames(photos, SIZE), twice.frames(photos, SIZE),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(a[:, ::-1], b)
        np.testing.assert_array_equal(a, c)
        assert (a != b).any()
    mask = source.mask(5, 0, SIZE)
    np.testing.assert_array_equal(mask[:, ::-1], once.mask(5, 0, SIZE))
    np.testing.assert_array_equal(mask, twice.mask(5, 0, SIZE))


def test_only_whole_words_are_exchanged(data: Path) -> None:
    source = described(data)
    note = source.units[0].annotations[0]
    object.__setattr__(note, "also", "upright leftovers left of the right-hand side")
    said = MirroredUnits(source).units[0].annotations[0]
    assert said.also == "upright leftovers right of the left-hand side"
    assert said.coherence == note.coherence


# --- labels and classes --------------------------------------------------------------------------


def test_virtual_units_show_photos_to_train_on_and_what_they_are_called(data: Path) -> None:
    source = VirtualUnits(data, 9, 3, 0, SIZE)
    held_out = {region.image for region in read_regions(data) if region.split != "train"}
    seen = {source.photo(u, rank) for u, unit in enumerate(source.units)
            for rank in range(unit.exemplars)}  # fmt: skip
    assert len(source.units) == 9 and not seen & held_out
    assert {unit.annotations[0].description for unit in source.units} == {"apples", "cars", "trees"}
    for number, unit in enumerate(source.units):
        label = unit.annotations[0].description.removesuffix("s")
        shown = [label in str(source.photo(number, rank)) for rank in range(unit.exemplars)]
        assert sum(shown) > len(shown) / 2


def test_class_units_show_the_surest_photos_of_their_class(data: Path) -> None:
    source, photos = class_units(data, 0), class_photos(described(data))
    table = NameTable.read()
    names = [table.of_class(number).own[0] for number in (7, 444)]
    assert [unit.phrases for unit in source.units] == [(name,) for name in names for _ in range(3)]
    assert [source.photo(0, rank) for rank in range(3)] == photos[0:6:2]
    assert {source.photo(3, rank) for rank in range(3)} <= set(photos[1::2])
    held_out = {region.image for region in read_regions(data) if region.split != "train"}
    assert photos and not set(photos) & held_out
    assert source.mask(0, 0, SIZE).all()


def test_class_probabilities_are_those_of_the_head(data: Path, bundle_path: Path) -> None:
    source, rng = described(data), np.random.default_rng(0)
    encoder = Describer(load_bundle(bundle_path), Device("cpu")).encoder()
    channels = encoder.spec.levels[-1].channels
    weight = torch.from_numpy(rng.standard_normal((5, channels))).float()
    head = ClassHead(weight, torch.arange(5.0))
    odds = class_odds(source, encoder, head, 2, Silent())
    assert odds.shape == (len(class_photos(source)), 5)
    np.testing.assert_allclose(odds.sum(1), 1, rtol=1e-5)
    units = ClassUnits(source, np.zeros((len(odds), 1000), np.float32), ClassPlan(), 0)
    for row, (_, frame) in zip(odds, units.frames(class_photos(source), encoder.image_size),
                               strict=True):  # fmt: skip
        last = encoder.maps(np.stack([frame, frame]))[-1][0].mean((1, 2))
        expected = (torch.from_numpy(last) @ weight.T + head.bias).softmax(0)
        np.testing.assert_allclose(row, expected, atol=1e-5)
