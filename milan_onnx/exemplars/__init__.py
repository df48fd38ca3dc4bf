"""Exemplars: the images and regions that excite a unit most (MILAN section 3)."""

from milan_onnx.exemplars.masks import exemplar_masks, upsample
from milan_onnx.exemplars.quantile import HistogramQuantile, TailQuantile, tail_rank
from milan_onnx.exemplars.scan import LayerScan, ScanOptions, choose_methods, scan
from milan_onnx.exemplars.store import LayerExemplars, load_layers, save_layers
from milan_onnx.exemplars.topk import TopK

__all__ = [
    "HistogramQuantile",
    "LayerExemplars",
    "LayerScan",
    "ScanOptions",
    "TailQuantile",
    "TopK",
    "choose_methods",
    "exemplar_masks",
    "load_layers",
    "save_layers",
    "scan",
    "tail_rank",
    "upsample",
]
