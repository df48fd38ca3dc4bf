"""PyTorch networks with random weights, exported both ways, for the hook-equivalence tests."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from milan_onnx.export.backbones import import_torchvision_models

Exporter = Literal["dynamo", "torchscript"]


def alexnet() -> nn.Module:
    """AlexNet with a narrow classifier: the same modules, a fifth of the file."""
    net = import_torchvision_models().alexnet(num_classes=10)
    for place, (wide, narrow) in {1: (9216, 32), 4: (32, 32), 6: (32, 10)}.items():
        net.classifier[place] = nn.Linear(wide, narrow)
    return net  # type: ignore[no-any-return]


def vit() -> nn.Module:
    """A torchvision vision transformer: 4x4 patches, a class token, two blocks."""
    net = import_torchvision_models().VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
        num_classes=10,
    )
    for parameter in (net.heads.head.weight, net.class_token):
        nn.init.normal_(parameter)
    return net  # type: ignore[no-any-return]


def lite0() -> nn.Module:
    """EfficientNet-Lite0 without its trained weights."""
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name("efficientnet-lite0")  # type: ignore[no-any-return]


NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (lambda: import_torchvision_models().resnet18(num_classes=10), 64),
    "mobilenet_v3_small": (
        lambda: import_torchvision_models().mobilenet_v3_small(num_classes=10),
        64,
    ),
    "alexnet": (alexnet, 224),
    "vit": (vit, 32),
    "efficientnet_lite0": (lite0, 64),
}


def build(name: str) -> tuple[nn.Module, int]:
    """A network with batch norms that are no identity, and the side of its frames."""
    make, side = NETWORKS[name]
    torch.manual_seed(0)
    net = make()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return net.eval(), side


def export(
    net: nn.Module, side: int, path: Path, exporter: Exporter, *, batch: int | None = None
) -> Path:
    """Write a network as ONNX, with a free batch or a fixed one."""
    example = torch.zeros(batch or 2, 3, side, side)
    options: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"], "verbose": False}
    if exporter == "dynamo":
        options["external_data"] = False
        if batch is None:
            options["dynamic_shapes"] = ({0: torch.export.Dim("N")},)
    elif batch is None:
        options["dynamic_axes"] = {"x": {0: "N"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (example,), path, dynamo=exporter == "dynamo", **options)
    return path
