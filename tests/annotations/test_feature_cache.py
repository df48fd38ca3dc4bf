"""Features of described units on disk: each photo once, interrupted, resumed, refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from milan_onnx.annotations import (
    DescribedUnits,
    FeatureCache,
    Milannotations,
    annotated_features,
    encoder_name,
)
from milan_onnx.bundle import ENCODER, load_bundle
from milan_onnx.errors import UsageError
from milan_onnx.progress import Lines, Silent
from milan_onnx.runtime import Describer, Device, Encoder
from tests.annotations.described import write_described
from tests.export.milannotations import write_network


@pytest.fixture
def source(tmp_path: Path) -> DescribedUnits:
    """Twenty units of three exemplars."""
    return DescribedUnits(write_described(tmp_path / "data"))


@pytest.fixture
def encoder(bundle_path: Path) -> Encoder:
    """The toy bundle's."""
    return Describer(load_bundle(bundle_path), Device("cpu")).encoder()


@pytest.fixture
def name(bundle_path: Path) -> str:
    """Its name."""
    bundle = load_bundle(bundle_path)
    return encoder_name(bundle.file(ENCODER), bundle.manifest.encoder)


def test_an_interrupted_cache_goes_on(
    source: DescribedUnits, encoder: Encoder, name: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("milan_onnx.annotations.cache.FLUSH", 8)
    work, looked = source.frames, []

    def stop_after_twelve(photos: Any, size: int) -> Iterator[Any]:
        for photo, frame in work(photos, size):
            if len(looked) == 17:
                raise KeyboardInterrupt
            looked.append(photo)
            yield photo, frame

    cache = FeatureCache(tmp_path / "c", source, encoder, name, exemplars=3)
    monkeypatch.setattr(source, "frames", stop_after_twelve)
    with pytest.raises(KeyboardInterrupt):
        cache.fill(1, Silent())
    with pytest.raises(UsageError, match="lacks features of"):
        cache.filled()
    monkeypatch.setattr(source, "frames", work)
    lines: list[str] = []
    again = FeatureCache(tmp_path / "c", source, encoder, name, exemplars=3)
    before = again.features.copy()
    assert before.any()
    again.fill(2, Lines(lines.append))
    total = len({source.photo(u, r) for u in range(20) for r in range(3)})
    assert lines[0] == f"features: 8 of {total} photos are cached"
    assert lines[-1].startswith(f"features: {total - 8} photos, ")
    expected = annotated_features(source, range(20), encoder, 1, Silent())
    np.testing.assert_array_equal(again.filled(), np.stack(expected).astype(np.float16))


def test_a_photo_of_many_units_is_decoded_once(source: DescribedUnits, encoder: Encoder) -> None:
    seen: list[Any] = []
    work = source.frame
    source.frame = lambda photo, size: (seen.append(photo), work(photo, size))[1]  # type: ignore[method-assign]
    annotated_features(source, range(20), encoder, 1, Silent())
    assert len(seen) == len(set(seen)) <= 20


def test_other_units_and_other_encoders_are_refused(
    source: DescribedUnits, encoder: Encoder, name: str, tmp_path: Path
) -> None:
    FeatureCache(tmp_path / "c", source, encoder, name, exemplars=3)
    some = source.chosen(lambda unit: unit.network != "a")
    for others, called in ((some, name), (source, "another")):
        with pytest.raises(UsageError, match="of other units or of another encoder"):
            FeatureCache(tmp_path / "c", others, encoder, called, exemplars=3)


def test_the_last_exemplar_fills_up(
    source: DescribedUnits, encoder: Encoder, name: str, tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path / "c", source, encoder, name, units=[4, 9], exemplars=5)
    cache.fill(1, Silent())
    filled = cache.filled()
    assert filled.shape == (2, 5, encoder.spec.features)
    np.testing.assert_array_equal(filled[:, 3], filled[:, 2])
    np.testing.assert_array_equal(filled[:, 4], filled[:, 2])
    assert (filled[:, 1] != filled[:, 2]).any()


def test_both_kinds_of_source_are_cached_alike(encoder: Encoder, name: str, tmp_path: Path) -> None:
    write_network(tmp_path / "data", layers={"conv1": 3}, exemplars=4)
    source = Milannotations(tmp_path / "data", ["alexnet/places365"])
    cache = FeatureCache(tmp_path / "c", source, encoder, name, exemplars=2)
    cache.fill(1, Silent())
    expected = annotated_features(source, range(3), encoder, 1, Silent())
    np.testing.assert_array_equal(cache.filled(), np.stack(expected)[:, :2].astype(np.float16))
