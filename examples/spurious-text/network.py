"""A small convolutional network, trained from scratch in PyTorch and exported to ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

WIDTHS = (24, 48, 96, 256)


def network(classes: int) -> nn.Sequential:
    """Four blocks of convolution, norm, ReLU; of each last unit its largest activation counts."""
    blocks: list[nn.Module] = []
    before = 3
    for index, width in enumerate(WIDTHS):
        stride = 2 if index == 0 else 1
        block = [nn.Conv2d(before, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()]
        blocks.append(nn.Sequential(*block, *([nn.MaxPool2d(2)] if index < 3 else [])))
        before = width
    blocks += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(before, classes)]
    return nn.Sequential(*blocks)


def train(
    frames: np.ndarray, labels: np.ndarray, classes: int, *, epochs: int, seed: int
) -> nn.Module:
    """AdamW with one cycle of the learning rate; prints the loss of each epoch."""
    torch.manual_seed(seed)
    model = network(classes).train().to(memory_format=torch.channels_last)
    images = torch.from_numpy(frames).permute(0, 3, 1, 2)
    wanted = torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    steps = epochs * (len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        total, parts = 0.0, torch.randperm(len(images), generator=generator).split(64)
        for part in parts[: len(images) // 64]:
            inputs = images[part].float().div_(255).contiguous(memory_format=torch.channels_last)
            loss = nn.functional.cross_entropy(model(inputs), wanted[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss)
        print(f"  epoch {epoch + 1}: loss {total / len(parts):.3f}", flush=True)
    return model.eval()


def export(model: nn.Module, side: int, path: Path) -> None:
    """As ONNX, its batch norms folded into the convolutions."""
    torch.onnx.export(
        model.to(memory_format=torch.contiguous_format),
        (torch.zeros(1, 3, side, side),),
        path,
        dynamo=False,
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes={"image": {0: "N"}, "scores": {0: "N"}},
        opset_version=17,
    )
