"""Planted units: an ONNX model made in code whose units are known detectors.

What each unit detects is known beforehand, so a description of it can be judged. The detectors
are real ones, of convolutions, arithmetic on colour planes, pooling, minima and maxima:

    network    a small builder of graphs: planes, gates, pyramids, matched filters
    colours    hue, saturation and brightness of pixels
    lines      direction of edges, width of stripes, checks
    forms      round, rectangular, dots, and things by their templates
    glyphs     digits and words by templates of the letters themselves
    units      which units there are, which phrases are right for each, and the whole model
"""

from milan_onnx.planted.units import LAYERS, PLANTED, PlantedUnit, planted_model, save_planted_model

__all__ = ["LAYERS", "PLANTED", "PlantedUnit", "planted_model", "save_planted_model"]
