"""The network under study: read it, list its layers, resolve a name, preprocess, cut and tap.

    subject = load(Path("model.onnx"))
    layer = resolve(subject, "layer4.1.conv2").layer
    tapped = tap(subject, [layer], choose_preprocessing(subject).value)

Importing this does not import onnx; reading a model does.
"""

from milan_onnx.subject.generator import PIXEL, load_generator, read_latents
from milan_onnx.subject.layers import Kind, Layer, list_layers, with_layout
from milan_onnx.subject.model import ImageInput, Subject, load
from milan_onnx.subject.preprocess import Preprocessing, choose_preprocessing
from milan_onnx.subject.resolve import Resolution, resolve, resolve_many
from milan_onnx.subject.surgery import TapOutput, TappedModel, tap

__all__ = [
    "PIXEL",
    "ImageInput",
    "Kind",
    "Layer",
    "Preprocessing",
    "Resolution",
    "Subject",
    "TapOutput",
    "TappedModel",
    "choose_preprocessing",
    "list_layers",
    "load",
    "load_generator",
    "read_latents",
    "resolve",
    "resolve_many",
    "tap",
    "with_layout",
]
