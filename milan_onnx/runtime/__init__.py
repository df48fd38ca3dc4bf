"""ONNX Runtime at work: devices, sessions, the encoder, and the PMI beam search."""

from milan_onnx.runtime.describer import Describer, Encoder, Features, search_options
from milan_onnx.runtime.device import (
    Device,
    choose_device,
    choose_threads,
    installed_runtimes,
    onnxruntime,
)
from milan_onnx.runtime.hypothesis import Hypothesis
from milan_onnx.runtime.session import Session, in_order

__all__ = [
    "Describer",
    "Device",
    "Encoder",
    "Features",
    "Hypothesis",
    "Session",
    "choose_device",
    "choose_threads",
    "in_order",
    "installed_runtimes",
    "onnxruntime",
    "search_options",
]
