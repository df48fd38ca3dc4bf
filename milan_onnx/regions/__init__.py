"""Labelled photos: their regions, masks and views, and what people call what they show.

Training reads them to make virtual units, evaluation to judge with others.
"""

from __future__ import annotations

from milan_onnx.regions.blobs import SMALLEST, blob_of, random_blob
from milan_onnx.regions.names import COLOUR_LABEL, NAMES, Names, NameTable
from milan_onnx.regions.reading import (
    REGIONS,
    Region,
    View,
    centre_view,
    cut_image,
    cut_mask,
    decode_rle,
    read_regions,
    region_mask,
    run_lengths,
)

__all__ = [
    "COLOUR_LABEL",
    "NAMES",
    "REGIONS",
    "SMALLEST",
    "NameTable",
    "Names",
    "Region",
    "View",
    "blob_of",
    "centre_view",
    "cut_image",
    "cut_mask",
    "decode_rle",
    "random_blob",
    "read_regions",
    "region_mask",
    "run_lengths",
]
