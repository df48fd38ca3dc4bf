"""Exemplars: the images and regions that excite a unit most (MILAN section 3)."""

from milan_onnx.exemplars.activations import Activations, HostActivations
from milan_onnx.exemplars.fingerprint import Fingerprints
from milan_onnx.exemplars.halves import Halves, halves
from milan_onnx.exemplars.held_out import HeldOut, HeldOutOptions, HeldOutScan
from milan_onnx.exemplars.masks import exemplar_masks, upsample
from milan_onnx.exemplars.quantile import HistogramQuantile, TailQuantile, tail_rank
from milan_onnx.exemplars.scan import LayerScan, Scan, ScanOptions, choose_methods
from milan_onnx.exemplars.store import LayerExemplars, load_layers, save_layers
from milan_onnx.exemplars.topk import TopK

__all__ = [
    "Activations",
    "Fingerprints",
    "Halves",
    "HeldOut",
    "HeldOutOptions",
    "HeldOutScan",
    "HistogramQuantile",
    "HostActivations",
    "LayerExemplars",
    "LayerScan",
    "Scan",
    "ScanOptions",
    "TailQuantile",
    "TopK",
    "choose_methods",
    "exemplar_masks",
    "halves",
    "load_layers",
    "save_layers",
    "tail_rank",
    "upsample",
]
