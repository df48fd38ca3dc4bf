"""Detectors of digits and words: templates of the letters themselves, at many sizes."""

from __future__ import annotations

import numpy as np

from milan_onnx.planted.network import GRID, Floats, Network

DIGITS = "0123456789"
LETTERS = "ABDEFHKLMNRSTWXaeghknrt"
HEIGHT, WIDTH = 17, 13
"""Sides of a template, pixels; a capital is 11 high."""

SIDES = (96, 77, 62, 50, 40, 32, 26, 21)


def glyphs(net: Network, grey: str) -> str:
    """Digits and words: where a digit matches better than a letter, and the reverse, in a row."""
    bank = np.concatenate([templates(DIGITS), templates(LETTERS)])
    levels = []
    for side in SIDES:
        match = _matches(net, net.resize(grey, side), bank)
        digit = net.highest(net.channel(match, 0, len(DIGITS)))
        letter = net.highest(net.channel(match, len(DIGITS), len(LETTERS)))
        better = net.op("Sub", digit, letter)
        digits = net.op("Mul", net.ramp(digit, 0.6, 0.95), net.ramp(better, 0.0, 0.1))
        letters = net.op("Mul", net.ramp(letter, 0.6, 0.95), net.ramp(better, 0.0, -0.1))
        digits, letters = net.spread(digits, 11), net.spread(letters, 11)
        levels.append(net.resize(net.concat([digits, _in_a_row(net, letters)]), GRID))
    return net.op("Max", *levels)


def _in_a_row(net: Network, letters: str) -> str:
    """Letters where others stand beside them."""
    level, wide = np.ones(1, np.float32), np.full(2 * WIDTH + 1, 1 / (2 * WIDTH + 1), np.float32)
    beside = net.window(letters, level, wide)
    return net.op("Min", letters, net.times(beside, 1.5))


def templates(characters: str) -> Floats:
    """Each character in white on black, mean 0 and length 1: (n, 1, 17, 13)."""
    return np.stack([_template(character) for character in characters])[:, None]


def _template(character: str) -> Floats:
    from PIL import Image, ImageDraw

    from milan_onnx.probe.synthetic.text import font

    # Drawn large and shrunk, as the frame is.
    scale = 4
    face = font(16 * scale)
    picture = Image.new("L", (WIDTH * scale, HEIGHT * scale), 0)
    place = (WIDTH * scale / 2, HEIGHT * scale / 2)
    left, top, right, bottom = face.getbbox(character)
    corner = (place[0] - (left + right) / 2, place[1] - (top + bottom) / 2)
    ImageDraw.Draw(picture).text(corner, character, fill=255, font=face)
    values = np.asarray(picture.reduce(scale), np.float64)
    values -= values.mean()
    return np.asarray(values / np.sqrt((values**2).sum()), np.float32)


def _matches(net: Network, grey: str, bank: Floats) -> str:
    """The size of the normalised correlation with each template, 0..1: light or dark letters."""
    moments = net.concat([grey, net.op("Mul", grey, grey)])
    tall, wide = (np.full(side, 1 / side, np.float32) for side in (HEIGHT, WIDTH))
    moments = net.window(moments, tall, wide, channels=2)
    mean, square = net.channel(moments, 0), net.channel(moments, 1)
    variance = net.op("Relu", net.op("Sub", square, net.op("Mul", mean, mean)))
    # Least: a contrast below a twentieth of the range is no letter.
    spread = net.op("Sqrt", net.plus(net.times(variance, HEIGHT * WIDTH), 0.5))
    return net.op("Abs", net.op("Div", net.filter(grey, bank), spread))
