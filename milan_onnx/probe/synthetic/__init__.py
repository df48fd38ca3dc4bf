"""The built-in probe set: images drawn by code, so that the first run needs no photos.

    draw      the probe set; families: which drawing is which image
    canvas    colours, noise fields, gradients, an antialiased sketch pad
    patterns  solids, gradients, gratings, checks, dots, rings
    textures  grain, cloth, wood, marble, brick, grass, water, fur and the like
    shapes    single, many, outlined; on plain and textured grounds
    text      letters, digits, words, signs, paragraphs (Pillow's own font)
    things    faces, flowers, animals, cars, food and so on, drawn anywhere at any size
    scenes    land, sea, sky, streets, rooms, and single things on a ground

Image i depends on (seed, i) alone. Families are interleaved, so any prefix is a fair sample.
"""

from milan_onnx.probe.synthetic.draw import SyntheticProbe

__all__ = ["SyntheticProbe"]
