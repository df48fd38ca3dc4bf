"""The network under study: read it, list its layers, resolve a name, preprocess, cut and tap.

    subject = load(Path("model.onnx"))
    layer = resolve(subject, "layer4.1.conv2").layer
    tapped = tap(subject, [layer], choose_preprocessing(subject).value)

Importing this does not import onnx; reading a model does.
"""

from milan_onnx.subject.ablation import Ablation, SplitModel, ablated, restored, split
from milan_onnx.subject.generator import PIXEL, load_generator, read_latents
from milan_onnx.subject.layers import Kind, Layer, list_layers, output_units, with_layout
from milan_onnx.subject.model import ImageInput, Subject, external_files, load, parse_model
from milan_onnx.subject.preprocess import Preprocessing, choose_preprocessing
from milan_onnx.subject.resolve import Resolution, resolve, resolve_many
from milan_onnx.subject.surgery import TapOutput, TappedModel, tap

__all__ = [
    "PIXEL",
    "Ablation",
    "ImageInput",
    "Kind",
    "Layer",
    "Preprocessing",
    "Resolution",
    "SplitModel",
    "Subject",
    "TapOutput",
    "TappedModel",
    "ablated",
    "choose_preprocessing",
    "external_files",
    "list_layers",
    "load",
    "load_generator",
    "output_units",
    "parse_model",
    "read_latents",
    "resolve",
    "resolve_many",
    "restored",
    "split",
    "tap",
    "with_layout",
]
