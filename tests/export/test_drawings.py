"""Drawn training images: what they show is what they are called."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from milan_onnx.export import drawings as dr
from milan_onnx.export import features as ft
from milan_onnx.export import pixels
from milan_onnx.export.phrases import tokenise
from milan_onnx.export.virtual_units import build_concepts, name_samples
from milan_onnx.regions import NameTable
from tests.export.test_data import Fixed


def drawn(count: int = 120) -> list[dr.Drawing]:
    return [dr.draw(np.random.default_rng((5, number))) for number in range(count)]


def test_a_drawing_is_the_same_for_a_seed_and_shows_something() -> None:
    again = [np.asarray(drawing.image) for drawing in drawn(20)]
    for drawing, pixels_ in zip(drawn(20), again, strict=True):
        np.testing.assert_array_equal(np.asarray(drawing.image), pixels_)
        assert drawing.image.size == (dr.SIZE, dr.SIZE) and drawing.image.mode == "RGB"
    for drawing in drawn():
        assert drawing.mask.any()
        for name in (*drawing.own, *drawing.general):
            assert name == " ".join(tokenise(name))


def test_stripes_run_as_they_are_called() -> None:
    angles = {"vertical": (0, 8), "diagonal": (37, 53), "horizontal": (82, 90)}
    seen = set()
    for number in range(60):
        drawing = dr._stripes(np.random.default_rng((6, number)))
        maps = pixels.pixel_maps(np.asarray(drawing.image))
        inside = drawing.mask[::2, ::2] & np.roll(drawing.mask, 6, (0, 1))[::2, ::2]
        weights = inside[None].astype(np.float32)
        strength, agreement, angle = pixels.edge_direction(pixels.statistics(maps, weights)[0])
        if strength < 0.03 or agreement < 0.8:  # fine ones in two like tones
            continue
        [way] = [w for w in angles if f"{w} stripes" in drawing.own]
        low, high = angles[way]
        assert low - 8 <= abs(angle) <= high + 8, (way, angle)
        seen.add(way)
    assert seen == set(angles)


def test_plain_colours_are_named_by_their_pixels() -> None:
    right = 0
    for number, (name, _) in enumerate(dr.TONES.items()):
        rng = np.random.default_rng((7, number))
        frame = np.asarray(dr._ground(rng, name))
        share = pixels.statistics(pixels.pixel_maps(frame), np.ones((1, 112, 112), np.float32))[0]
        right += pixels.COLOURS[int(share[: len(pixels.COLOURS)].argmax())] == name
    assert right >= len(dr.TONES) - 1


def test_drawings_become_concepts_to_train_on() -> None:
    features = dr.drawn_features(40, 0, Fixed(), 0, lambda text: None)
    assert set(features.role.tolist()) == {ft.DRAWN}
    assert len(set(features.image.tolist())) == 40
    known = name_samples(features, [], NameTable.read())
    concepts = build_concepts(features, known, train=True)
    texts = {text for concept in concepts for text in concept.wording}
    assert {"numbers", "stripes"} <= texts
    assert not any("smooth areas" in text and text != "smooth areas" for text in texts)
    assert not build_concepts(features, known, train=False)
