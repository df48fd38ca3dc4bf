"""Drawn training images: what they show is what they are called."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from milan_onnx.export import drawings as dr
from milan_onnx.export.training import tokenise


def test_a_drawing_is_the_same_for_a_seed_and_shows_something() -> None:
    for number in range(60):
        drawing, again = (dr.draw(np.random.default_rng((5, number))) for _ in range(2))
        np.testing.assert_array_equal(np.asarray(drawing.image), np.asarray(again.image))
        assert drawing.image.size == (dr.SIZE, dr.SIZE) and drawing.image.mode == "RGB"
        assert drawing.mask.any()
        for name in (*drawing.own, *drawing.general):
            assert name == " ".join(tokenise(name))


def direction(image: np.ndarray, inside: np.ndarray) -> tuple[float, float, float]:
    """How strongly brightness varies, how much in one direction, and in which (degrees)."""
    gray = image.astype(np.float64).mean(2)
    down, across = np.gradient(gray)
    xx, yy, xy = ((a * b)[inside].mean() for a, b in
                  ((across, across), (down, down), (across, down)))  # fmt: skip
    agreement = np.hypot(xx - yy, 2 * xy) / max(xx + yy, 1e-9)
    return float(np.sqrt(xx + yy)), float(agreement), float(
        abs(np.degrees(np.arctan2(2 * xy, xx - yy) / 2))
    )  # fmt: skip


def test_stripes_run_as_they_are_called() -> None:
    angles = {"vertical": (0, 8), "diagonal": (37, 53), "horizontal": (82, 90)}
    seen = set()
    for number in range(40):
        drawing = dr._stripes(np.random.default_rng((6, number)))
        inside = np.roll(drawing.mask, 9, (0, 1)) & np.roll(drawing.mask, -9, (0, 1))
        inside[:9] = inside[-9:] = inside[:, :9] = inside[:, -9:] = False
        strength, agreement, angle = direction(np.asarray(drawing.image), inside)
        if strength < 8 or agreement < 0.8:  # fine ones in two like tones
            continue
        [way] = [way for way in angles if f"{way} stripes" in drawing.own]
        low, high = angles[way]
        assert low - 8 <= angle <= high + 8, (way, angle)
        seen.add(way)
    assert seen == set(angles)


def test_plain_grounds_have_the_colour_of_their_name() -> None:
    tones = np.array([*dr.TONES.values()], np.float64)
    right = 0
    for number, name in enumerate(dr.TONES):
        ground = np.asarray(dr._ground(np.random.default_rng((7, number)), name))
        middle = np.median(ground.reshape(-1, 3), axis=0)
        right += [*dr.TONES][int(np.square(tones - middle).sum(1).argmin())] == name
    assert right >= len(dr.TONES) - 1


def test_units_of_drawings_say_what_most_of_their_drawings_show() -> None:
    source = dr.DrawnUnits(60, 6, 3)
    assert len(source.units) == 60
    kinds = set()
    for phrase, shown in source._chosen:
        drawings = [source._drawings[number] for number in shown]
        one = phrase.removesuffix(" areas").replace("black and white", "black & white")
        parts = [part.replace("&", "and") for part in one.split(" and ")]
        said = [[part for part in parts if part in names_of(drawing)] for drawing in drawings]
        assert sum(map(bool, said)) >= len(shown) / 2, phrase
        assert {part for found in said for part in found} == set(parts)
        kinds.add((len(parts), phrase.endswith(" areas")))
    assert kinds == {(1, False), (1, True), (2, False), (2, True)}


def names_of(drawing: dr.Drawing) -> set[str]:
    names = {*drawing.own, *drawing.general}
    return {drawing.colour, *names, *(f"{drawing.colour} {name}" for name in names)}
