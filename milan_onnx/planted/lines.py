"""Detectors of lines: their direction, the width of stripes, checks."""

from __future__ import annotations

import math

import numpy as np

from milan_onnx.planted.network import Floats, Network

ANGLES = (0, 45, 90, 135)
THIN = (5.8, 8.0)
"""Wavelengths of thin stripes, pixels of the frame."""

THICK = ((4, 12.0), (8, 8.5), (8, 12.0))
"""Of thick stripes: pixels to a block, wavelength in blocks."""

CHECKS = ((4, 5.6), (4, 8.0), (8, 5.7), (8, 8.0))
"""Of the diagonal waves of a checkerboard: pixels to a block, wavelength in blocks."""

AROUND = 7
"""Cells over which lines must go on."""


def directions(net: Network, gradient: str) -> str:
    """Vertical, horizontal and diagonal lines: where all change nearby runs across them.

    By the structure tensor of ``gradient`` (N,2,112,112) in each cell of the grid.
    """
    tensor = net.mean(net.mean(_tensor(net, gradient), 4), 5, stride=1)
    # Of squares a and b and product c: a - b is ±1 for upright and level lines, 2c for diagonal.
    level = net.mix(tensor, [[1, -1, 0]])
    slant = net.op("Abs", net.mix(tensor, [[0, 0, 2]]))
    total = net.mix(tensor, [[1, 1, 0]])
    upright = net.op("Sub", level, net.times(slant, 2))
    lying = net.op("Sub", net.op("Neg", level), net.times(slant, 2))
    diagonal = net.op("Sub", slant, net.times(net.op("Abs", level), 2))
    found = net.op("Relu", net.concat([upright, lying, diagonal]))
    return net.mean(net.ratio(found, total, 0.001), AROUND, stride=1)


def widths(net: Network, grey: str) -> str:
    """Thin and thick stripes of any direction; ``grey`` (N,1,224,224)."""
    fine = [net.mean(_stripes(net, grey, wave, stride=4), 2) for wave in THIN]
    small = {block: net.mean(grey, block) for block in (4, 8)}
    coarse = [_stripes(net, small[block], wave, stride=8 // block) for block, wave in THICK]
    thin, thick = (net.op("Max", *found) for found in (fine, coarse))
    return net.mean(net.concat([thin, thick]), 5, stride=1)


def checks(net: Network, grey: str, gradient: str) -> str:
    """Checkerboards: waves along both diagonals at once, and edges that are upright or level."""
    small = {block: net.mean(grey, block) for block in (4, 8)}
    found = []
    for block, wavelength in CHECKS:
        shares = _wave_shares(net, small[block], wavelength, stride=8 // block)
        found.append(net.op("Min", net.channel(shares, 1), net.channel(shares, 3)))
    waves = net.mean(net.op("Max", *found), 3, stride=1)
    tensor = _tensor(net, gradient)
    square = net.concat([net.mix(tensor, [[1, 1, 0]]), net.op("Abs", net.channel(tensor, 2))])
    square = net.mean(net.mean(square, 4), 5, stride=1)
    slanted = net.ratio(net.channel(square, 1), net.channel(square, 0))
    return net.op("Mul", net.times(waves, 1.5), net.ramp(slanted, 0.3, 0.1))


def _tensor(net: Network, gradient: str) -> str:
    """Squares and product of the change across and down: 3 channels."""
    across, down = net.channel(gradient, 0), net.channel(gradient, 1)
    squares = net.op("Mul", gradient, gradient)
    return net.concat([squares, net.op("Mul", across, down)])


def _stripes(net: Network, grey: str, wavelength: float, stride: int) -> str:
    """Share of a wave in one direction beyond that across it: 1 channel."""
    shares = _wave_shares(net, grey, wavelength, stride)
    turned = net.concat([net.channel(shares, 2, 2), net.channel(shares, 0, 2)])
    return net.op("Relu", net.highest(net.op("Sub", shares, turned)))


def _wave_shares(net: Network, grey: str, wavelength: float, stride: int) -> str:
    """How much of the variance around a position is a wave of each of ANGLES: 4 channels."""
    kernels, profile = gabor(wavelength)
    filtered = net.filter(grey, kernels, stride)
    squared = net.op("Mul", filtered, filtered)
    # Even and odd phase of an angle stand side by side.
    energy = net.mix(squared, np.kron(np.eye(len(ANGLES)), [[1, 1]]))
    both = net.concat([grey, net.op("Mul", grey, grey)])
    moments = net.window(both, profile, profile, channels=2, stride=stride)
    mean, square = net.channel(moments, 0), net.channel(moments, 1)
    variance = net.op("Relu", net.op("Sub", square, net.op("Mul", mean, mean)))
    return net.ratio(energy, variance, 0.003)


def gabor(wavelength: float) -> tuple[Floats, Floats]:
    """Even and odd Gabor filters of each of ANGLES (8,1,k,k), and their window each way (k).

    Scaled so that the squares of a pair add up to the variance of a wave that fits.
    """
    reach = math.ceil(1.3 * wavelength)
    line = np.arange(-reach, reach + 1)
    y, x = np.meshgrid(line, line, indexing="ij")
    profile = np.exp(-(line**2) / (2 * (0.7 * wavelength) ** 2))
    profile /= profile.sum()
    window = np.outer(profile, profile)
    kernels = []
    for angle in ANGLES:
        turn = math.radians(angle)
        phase = (x * math.cos(turn) + y * math.sin(turn)) * 2 * math.pi / wavelength
        for wave in (np.cos(phase), np.sin(phase)):
            kernels.append(window * (wave - (window * wave).sum()))
    scale = np.float32(math.sqrt(2))
    return np.stack(kernels)[:, None].astype(np.float32) * scale, profile.astype(np.float32)
