"""A module's name gives what a PyTorch forward hook on it sees, or says why it cannot."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from milan_onnx.errors import LayerNotFound, LayerUnsuitable
from milan_onnx.subject import (
    Preprocessing,
    Resolution,
    choose_preprocessing,
    load,
    resolve,
    tap,
)

torch = pytest.importorskip("torch")

# The least number of modules that are equal, and that are equal or their norm's, which is said.
FLOORS = {
    ("resnet18", "dynamo"): (47, 67),
    ("resnet18", "torchscript"): (27, 47),
    ("mobilenet_v3_small", "dynamo"): (173, 207),
    ("mobilenet_v3_small", "torchscript"): (139, 173),
    ("alexnet", "dynamo"): (21, 21),
    ("alexnet", "torchscript"): (21, 21),
    ("vit", "dynamo"): (22, 22),
    ("vit", "torchscript"): (22, 22),
    ("efficientnet_lite0", "dynamo"): (84, 133),
    ("efficientnet_lite0", "torchscript"): (52, 101),
}
EXPLAINED = re.compile(r"folded into|has nothing in the graph")


class Hooked:
    """The last-call outputs of all modules of a network, and the norm behind each module."""

    def __init__(self, net: Any, images: NDArray[Any]) -> None:
        self.outputs: dict[str, Any] = {}
        self.returned: dict[str, Any] = {}
        self.inputs: dict[str, Any] = {}
        handles = [
            module.register_forward_hook(self._hook(name))
            for name, module in net.named_modules()
            if name
        ]
        with torch.no_grad():
            net(torch.from_numpy(images))
        for handle in handles:
            handle.remove()
        norms = {n for n, m in net.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
        behind = {id(self.inputs[norm]): norm for norm in norms if norm in self.inputs}
        self.norm_behind = {n: behind.get(id(value)) for n, value in self.returned.items()}

    def _hook(self, name: str) -> Any:
        def keep(_module: Any, inputs: Any, output: Any) -> None:
            self.returned[name] = output[0] if isinstance(output, tuple) else output
            # A ReLU that works in place would change it later.
            self.outputs[name] = self.returned[name].clone()
            self.inputs[name] = inputs[0] if inputs else None

        return keep

    def value(self, name: str) -> NDArray[Any]:
        """An output as a tapped graph gives it: (N, C, h, w), without the class token."""
        array: NDArray[Any] = self.outputs[name].numpy()
        if array.ndim == 2:
            return array[:, :, None, None]
        if array.ndim == 3:
            patches = array[:, 1:].swapaxes(1, 2)
            side = int(patches.shape[-1] ** 0.5)
            return patches.reshape(*patches.shape[:2], side, side)
        return array


def normalised(frames: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """The plain reading of a preprocessing, as float32 (N, 3, H, W)."""
    scaled = frames * preprocessing.rescale
    scaled = (scaled - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2).astype(np.float32))


def close(one: NDArray[Any], two: NDArray[Any]) -> bool:
    if one.shape != two.shape:
        return False
    scale = max(float(np.abs(two).max()), 1e-6)
    return bool(np.allclose(one, two, rtol=1e-3, atol=1e-3 * scale))


def outcome(name: str, found: Resolution | Exception, value: Any, hooked: Hooked) -> str:
    if isinstance(found, LayerUnsuitable):
        return "unsuitable"
    if isinstance(found, LayerNotFound):
        return "explained" if EXPLAINED.search(str(found)) else "unexplained"
    assert isinstance(found, Resolution)
    if close(value, hooked.value(name)):
        return "equal"
    norm = hooked.norm_behind[name]
    said = any("folded batch norm" in warning for warning in found.warnings)
    if norm and said and close(value, hooked.value(norm)):
        return "after norm, said"
    return "WRONG"


@pytest.mark.parametrize(("network", "exporter"), list(FLOORS))
def test_every_module_is_its_hook_or_is_explained(
    network: str, exporter: str, exported: Any, run: Any, frames: Any, capsys: Any
) -> None:
    net, path = exported(network, exporter)
    subject = load(path)
    preprocessing = choose_preprocessing(subject).value
    images = frames(2, preprocessing.geometry.crop)
    hooked = Hooked(net, normalised(images, preprocessing))

    found: dict[str, Resolution | Exception] = {}
    for name in hooked.outputs:
        try:
            found[name] = resolve(subject, name)
        except (LayerNotFound, LayerUnsuitable) as error:
            found[name] = error
    layers = {r.layer.tensor: r.layer for r in found.values() if isinstance(r, Resolution)}
    values = run(tap(subject, list(layers.values()), preprocessing), images)
    by_tensor = dict(zip(layers, values, strict=True))

    results = {
        name: outcome(name, what, by_tensor[what.layer.tensor], hooked)
        if isinstance(what, Resolution)
        else outcome(name, what, None, hooked)
        for name, what in found.items()
    }
    counts = Counter(results.values())
    with capsys.disabled():
        print(f"\n{network:20} {exporter:12} {len(results):4} modules: {dict(counts)}")
    bad = {n: str(found[n]) for n, r in results.items() if r in ("WRONG", "unexplained")}
    assert not bad
    equal, known = FLOORS[network, exporter]
    assert counts["equal"] >= equal
    assert counts["equal"] + counts["after norm, said"] >= known
