"""Units ablated in the graph are those that a PyTorch hook ablates; undone, nothing has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from milan_onnx.errors import LayerUnsuitable, SubjectError, UsageError
from milan_onnx.subject import Layer, choose_preprocessing, list_layers, load, resolve
from milan_onnx.subject.ablation import Ablation, ablated, restored, split
from tests.subject.subject_graphs import conv_model, written
from tests.subject.subject_networks import build, export
from tests.subject.test_subject_hooks import normalised

torch = pytest.importorskip("torch")

UNITS = (1, 2, 5)
# Of each network: a module, and the one that the hook is on (the norm that is folded into it).
# Convolutions that are plain, grouped (depthwise) and pointwise, with a norm or without; whole
# blocks; linear layers on vectors and on tokens, those of a transformer's MLP among them.
CASES = {
    "resnet18": {
        "conv1": "bn1",
        "layer1.0.conv2": "layer1.0.bn2",
        "layer2.0.downsample.0": "layer2.0.downsample.1",
        "layer3.1": "layer3.1",
        "fc": "fc",
    },
    "grouped": {"3": "4", "6": "7", "9": "9"},
    "alexnet": {"features.3": "features.3", "classifier.1": "classifier.1"},
    "vit": {
        "encoder.layers.encoder_layer_0.mlp.0": "encoder.layers.encoder_layer_0.mlp.0",
        "encoder.layers.encoder_layer_1.mlp.1": "encoder.layers.encoder_layer_1.mlp.1",
        "encoder.layers.encoder_layer_0": "encoder.layers.encoder_layer_0",
    },
}


def grouped() -> tuple[Any, int]:
    """Grouped, depthwise and pointwise convolutions, the first two with norms."""
    torch.manual_seed(0)
    nn = torch.nn
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    layers += [nn.Conv2d(8, 16, 3, groups=4), nn.BatchNorm2d(16), nn.ReLU()]
    layers += [nn.Conv2d(16, 16, 3, groups=16), nn.BatchNorm2d(16), nn.ReLU()]
    layers += [nn.Conv2d(16, 12, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)]
    return nn.Sequential(*layers).eval(), 32


class Network:
    """A network, its ONNX file, and some frames."""

    def __init__(self, name: str, folder: Path) -> None:
        self.net, side = grouped() if name == "grouped" else build(name)
        self.subject = load(export(self.net, side, folder / f"{name}.onnx", "torchscript"))
        self.preprocessing = choose_preprocessing(self.subject).value
        shape = (3, side, side, 3)
        self.frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        self.images = normalised(self.frames, self.preprocessing)

    def hooked(self, module: str, axis: int) -> NDArray[np.float32]:
        """Logits with the units of a module's output at zero."""

        def hook(_: Any, __: Any, out: Any) -> Any:
            changed = out.clone()
            changed.index_fill_(axis, torch.tensor(UNITS), 0.0)
            return changed

        handle = self.net.get_submodule(module).register_forward_hook(hook)
        with torch.no_grad():
            logits = self.net(torch.from_numpy(self.images)).numpy()
        handle.remove()
        return np.asarray(logits)


@pytest.fixture(scope="module", params=CASES)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Network:
    return Network(request.param, tmp_path_factory.mktemp(request.param))


def logits(model: bytes, inputs: dict[str, Any]) -> NDArray[np.float32]:
    return np.asarray(ort.InferenceSession(model).run(None, inputs)[0])


def in_two(network: Network, layer: Layer, units: tuple[int, ...]) -> NDArray[np.float32]:
    """Logits by prefix and suffix."""
    output = network.subject.model.graph.output[0].name
    parts = split(network.subject, [layer], network.preprocessing, output)
    before = ort.InferenceSession(parts.prefix.model_bytes)
    passed = before.run(None, {parts.prefix.input_name: network.frames})
    kept = np.ones(parts.units[0], bool)
    kept[list(units)] = False
    inputs = dict(zip(parts.passed, passed, strict=True))
    return logits(parts.suffix, {**inputs, parts.kept[0]: kept})


def test_zeroed_in_the_graph_is_zeroed_by_a_hook(network: Network) -> None:
    name = network.subject.path.stem
    whole = logits(network.subject.model.SerializeToString(), {"x": network.images})
    for module, hooked in CASES[name].items():
        layer = resolve(network.subject, module).layer
        axis = 2 if layer.kind == "tokens" else 1
        expected = network.hooked(hooked, axis)
        assert np.abs(expected - whole).max() > 1e-4, f"{module}: nothing to see"
        edited = ablated(network.subject, [Ablation(layer, UNITS)])
        onnx.checker.check_model(edited, full_check=True)
        found = logits(edited.SerializeToString(), {"x": network.images})
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0, err_msg=module)
        np.testing.assert_allclose(
            in_two(network, layer, UNITS), expected, atol=1e-5, rtol=0, err_msg=module
        )
        np.testing.assert_allclose(in_two(network, layer, ()), whole, atol=1e-5, rtol=0)


def test_undone_the_model_is_the_same_bytes(network: Network) -> None:
    name = network.subject.path.stem
    layers = {resolve(network.subject, module).layer for module in CASES[name]}
    edited = ablated(network.subject, [Ablation(layer, UNITS) for layer in layers])
    weights = {t.name: t.SerializeToString() for t in network.subject.model.graph.initializer}
    kept = {t.name: t.SerializeToString() for t in edited.graph.initializer if t.name in weights}
    assert kept == weights
    assert restored(edited) == len(layers)
    same = [m.SerializeToString(deterministic=True) for m in (edited, network.subject.model)]
    assert same[0] == same[1]
    assert restored(edited) == 0


def test_another_runtime_runs_the_edited_model(tmp_path: Path) -> None:
    subject = load(written(tmp_path, conv_model()))
    edited = ablated(subject, [Ablation(resolve(subject, "act").layer, (0, 3))])
    images = np.random.default_rng(0).normal(0, 1, (2, 3, 8, 8)).astype(np.float32)
    by_reference = ReferenceEvaluator(edited).run(None, {"x": images})[0]
    found = logits(edited.SerializeToString(), {"x": images})
    np.testing.assert_allclose(found, by_reference, atol=1e-5)


def test_a_unit_can_be_set_to_a_value_and_infinity_does_not_leak(tmp_path: Path) -> None:
    subject = load(written(tmp_path, conv_model()))
    layer = resolve(subject, "act").layer
    edited = ablated(subject, [Ablation(layer, (2,), (0.5,))])
    edited.graph.output.add(name="r")
    images = np.full((1, 3, 8, 8), np.inf, np.float32)
    model = edited.SerializeToString()
    out = ort.InferenceSession(model).run(["r"], {"x": images})[0]
    assert (out[:, 2] == 0.5).all()


def test_the_layer_is_found_by_its_names_in_the_edited_model(network: Network) -> None:
    module = [*CASES[network.subject.path.stem]][-1]
    layer = resolve(network.subject, module).layer
    edited = ablated(network.subject, [Ablation(layer, UNITS)])
    path = network.subject.path.with_name("edited.onnx")
    onnx.save(edited, path)
    assert resolve(load(path), module).layer.tensor == layer.tensor
    assert layer.tensor in [found.tensor for found in list_layers(load(path))]


def test_several_layers_are_ablated_together_and_apart(tmp_path: Path) -> None:
    subject = load(written(tmp_path, conv_model()))
    layers = [resolve(subject, name).layer for name in ("conv", "act", "pool")]
    parts = split(subject, layers, choose_preprocessing(subject, crop=8).value, "y")
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    passed = ort.InferenceSession(parts.prefix.model_bytes).run(
        None, {parts.prefix.input_name: frames}
    )
    inputs: dict[str, Any] = dict(zip(parts.passed, passed, strict=True))
    images = normalised(frames, choose_preprocessing(subject, crop=8).value)
    sets = ((0,), (1, 2), ())
    for name, layer, units in zip(parts.kept, layers, sets, strict=True):
        assert layer.units is not None
        inputs[name] = np.isin(np.arange(layer.units), units, invert=True)
    ablations = [Ablation(x, u) for x, u in zip(layers, sets, strict=True)]
    expected = logits(ablated(subject, ablations).SerializeToString(), {"x": images})
    np.testing.assert_allclose(logits(parts.suffix, inputs), expected, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(units=st.sets(st.integers(0, 3)))
def test_any_units_in_any_order(tmp_path_factory: pytest.TempPathFactory, units: set[int]) -> None:
    folder = tmp_path_factory.mktemp("any")
    subject = load(written(folder, conv_model()))
    edited = ablated(subject, [Ablation(resolve(subject, "act").layer, tuple(sorted(units)))])
    edited.graph.output.add(name="r")
    images = np.random.default_rng(1).normal(0, 1, (2, 3, 8, 8)).astype(np.float32)
    session = ort.InferenceSession(edited.SerializeToString())
    zero = (session.run(["r"], {"x": images})[0] == 0).all(axis=(0, 2, 3))
    plain = subject.model.__class__()
    plain.CopyFrom(subject.model)
    plain.graph.output.add(name="r")
    before = ort.InferenceSession(plain.SerializeToString()).run(["r"], {"x": images})[0]
    dead = (before == 0).all(axis=(0, 2, 3))
    assert set(np.flatnonzero(zero & ~dead).tolist()) == units - set(np.flatnonzero(dead).tolist())


def test_what_cannot_be_ablated_is_said(tmp_path: Path) -> None:
    subject = load(written(tmp_path, conv_model()))
    layer = resolve(subject, "act").layer
    with pytest.raises(LayerUnsuitable, match="has no unit 4"):
        ablated(subject, [Ablation(layer, (4,))])
    with pytest.raises(UsageError, match="does not depend on"):
        split(
            subject,
            [resolve(subject, "head").layer],
            choose_preprocessing(subject, crop=8).value,
            "c",
        )
    old = load(written(tmp_path, conv_model(opset=8), "old.onnx"))
    with pytest.raises(SubjectError, match="opset 8"):
        ablated(old, [Ablation(resolve(old, "act").layer, (0,))])
