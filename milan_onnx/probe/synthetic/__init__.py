"""The built-in probe set: images drawn by code, so that the first run needs no photos.

    canvas    colours, noise fields, gradients, an antialiased sketch pad
    patterns  solids, gradients, gratings, checks, dots, rings
    textures  grain, cloth, wood, marble, brick, grass, water, fur and the like
    shapes    single, many, outlined; on plain and textured grounds
    text      letters, digits, words, signs, paragraphs (Pillow's own font)
    scenes    land, sea, sky, streets, rooms, faces, flowers, animals, food

Image i depends on (seed, i) alone. Families are interleaved, so any prefix is a fair sample.
"""

from milan_onnx.probe.synthetic.draw import SyntheticProbe

__all__ = ["SyntheticProbe"]
