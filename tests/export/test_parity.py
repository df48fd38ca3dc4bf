"""PyTorch modules and their ONNX graphs give the same numbers, to 1e-4."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")

from milan_onnx.export import onnx_export as export  # noqa: E402
from milan_onnx.export.backbones import build_backbone  # noqa: E402
from milan_onnx.export.captioner import Captioner, CaptionerConfig, Memory  # noqa: E402
from milan_onnx.export.components import principal_components  # noqa: E402
from milan_onnx.export.language_model import (  # noqa: E402
    LanguageModel,
    LanguageModelConfig,
)

TOLERANCE = 1e-4
PAPER = CaptionerConfig(features=3904, vocabulary=300)
PAPER_RESNET18 = CaptionerConfig(
    features=1024, vocabulary=50, embedding=16, hidden=32, attention=32
)
NARROW = CaptionerConfig(
    features=60,
    vocabulary=40,
    embedding=8,
    hidden=24,
    attention=16,
    projection=20,
)
WIDTHS = {"mean": 60, "spread": 60, "ring": 60, "frame": 60, "geometry": 25}
REDUCED = {"mean": 12, "spread": 8, "ring": 0, "frame": 6}
# Of all parts, as the default bundle has it.
ALL_PARTS = replace(
    NARROW,
    features=265,
    parts=((60, 12), (60, 8), (60, 0), (60, 6), (25, 25)),
    spread=True,
    phrase_vector=9,
    noise=0.2,
    feature_dropout=0.3,
)
CONFIGS = {
    "paper": PAPER,
    "paper-resnet18": PAPER_RESNET18,
    "projected": NARROW,
    "spread": replace(NARROW, spread=True),
    "all-parts": ALL_PARTS,
}


def run(model: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = session.run(None, feeds)
    return dict(zip([output.name for output in session.get_outputs()], values, strict=True))


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=TOLERANCE, rtol=TOLERANCE)


def made(config: CaptionerConfig) -> Captioner:
    """A captioner with random weights, statistics, components and classifier."""
    torch.manual_seed(3)
    module = Captioner(config)
    if module.inputs is not None:
        mean, std = torch.randn(config.features), torch.rand(config.features) + 0.5
        standard = torch.randn(400, config.features)
        components = principal_components(standard, WIDTHS, REDUCED) if config.parts else None
        module.inputs.set_statistics(mean, std, components)
    return module.eval()


def averaged(config: CaptionerConfig) -> list[Captioner]:
    """Two captioners of other sizes whose features are prepared alike."""
    first, second = made(config), made(replace(config, hidden=20, embedding=6, projection=18))
    for name, value in first.named_buffers():
        second.get_buffer(name).copy_(value)
    return [first, second]


@pytest.fixture(params=[*CONFIGS, "averaged"])
def captioners(request: pytest.FixtureRequest) -> list[Captioner]:
    """As bundles have them: rounded."""
    name = request.param
    found = averaged(ALL_PARTS) if name == "averaged" else [made(CONFIGS[name])]
    for module in found:
        export.round_weights(module)
    return found


@torch.no_grad()
def test_captioners_follow_pytorch_over_ragged_steps(captioners: list[Captioner]) -> None:
    rng = np.random.default_rng(0)
    config, tags = captioners[0].config, export.tags(captioners)
    features = rng.standard_normal((3, 5, config.features)).astype(np.float32)
    state = run(export.captioner_init_model(captioners), {"features": features})
    begun = [captioner.begin(torch.from_numpy(features)) for captioner in captioners]
    for tag, (memory, h, c) in zip(tags, begun, strict=True):
        for name, value in {"values": memory.values, "keys": memory.keys, "h": h, "c": c}.items():
            close(state[f"{name}{tag}"], value)
    predicted = [
        captioner.phrase_vector(torch.cat([h, c], dim=1))
        for captioner, (_, h, c) in zip(captioners, begun, strict=True)
        if captioner.phrase_vector is not None
    ]
    assert ("phrase_vector" in state) == bool(predicted) == (config.phrase_vector > 0)
    if predicted:
        close(state["phrase_vector"], torch.stack(predicted).mean(0))
    step, spec = export.captioner_step_model(captioners), export.captioner_spec(captioners, 5)
    context = {tensor.name: state[tensor.name] for tensor in spec.contexts}
    unit = np.arange(3)
    for rows, targets in ((3, 2), (8, 0), (11, 5)):
        parent = np.sort(rng.integers(0, len(unit), rows))
        token = rng.integers(0, config.vocabulary, rows)
        target = rng.integers(0, rows, targets), rng.integers(0, config.vocabulary, targets)
        rows_in = {
            "unit": unit,
            "parent": parent,
            "token": token,
            "top": np.array([4]),
            "target_row": target[0],
            "target_token": target[1],
        }
        out = run(
            step, {**context, **{f"{s.name}_in": state[s.name] for s in spec.states}, **rows_in}
        )
        each = []
        for tag, captioner, (memory, _, _) in zip(tags, captioners, begun, strict=True):
            h, c, _ = captioner.step(
                torch.from_numpy(token),
                Memory(memory.values[unit[parent]], memory.keys[unit[parent]]),
                torch.from_numpy(state[f"h{tag}"][parent]),
                torch.from_numpy(state[f"c{tag}"][parent]),
            )
            close(out[f"h{tag}"], h)
            close(out[f"c{tag}"], c)
            each.append(captioner.log_probs(h))
        log_prob = torch.stack(each).mean(0).log_softmax(-1)
        close(out["log_prob"], log_prob.topk(4).values)
        close(np.take_along_axis(log_prob.numpy(), out["next_token"], 1), out["log_prob"])
        close(out["target_log_prob"], log_prob[target[0], target[1]])
        unit, state = unit[parent], out


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 2])
def test_language_model_follows_pytorch_over_ragged_steps(layers: int) -> None:
    torch.manual_seed(5)
    rng = np.random.default_rng(0)
    lm = LanguageModel(LanguageModelConfig(vocabulary=37, embedding=6, hidden=16, layers=layers))
    export.round_weights(lm.eval())
    model, names = export.lm_step_model(lm), [s.name for s in export.lm_spec(lm).states]
    state = {name: np.zeros((2, 16), np.float32) for name in names}
    for rows in (2, 7, 5):
        parent = rng.integers(0, len(state["h0"]), rows)
        token, target = rng.integers(0, 37, rows), rng.integers(0, 37, 3)
        row = rng.integers(0, rows, 3)
        feeds = {f"{name}_in": value for name, value in state.items()}
        feeds |= {"parent": parent, "token": token, "target_row": row, "target_token": target}
        out = run(model, feeds)
        before = [
            tuple(torch.from_numpy(state[f"{s}{i}"][parent]) for s in "hc") for i in range(layers)
        ]
        log_prob, after = lm.step(torch.from_numpy(token), before)
        close(out["target_log_prob"], log_prob[row, target])
        for index, (h, c) in enumerate(after):
            close(out[f"h{index}"], h)
            close(out[f"c{index}"], c)
        state = {name: out[name] for name in names}


@torch.no_grad()
def test_encoder_of_the_paper_follows_pytorch() -> None:
    """A ResNet; the default encoder is checked with the bundle that training leaves."""
    if find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    torch.manual_seed(1)
    encoder = build_backbone("resnet18").encoder
    export.round_weights(encoder)
    model = export.encoder_model(encoder)
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    out = run(model, {"images": images})
    assert list(out) == ["conv1", "layer1", "layer2", "layer3", "layer4"]
    for map_, expected in zip(out.values(), encoder(torch.from_numpy(images)), strict=True):
        close(map_, expected)
    data = model.SerializeToString()
    assert b"stack_trace" not in data
    assert str(Path(export.__file__).parent).encode() not in data


def test_paper_dimensions() -> None:
    """3904 features of a ResNet50 or 101, LSTM input 128 + 3904 (paper's code)."""
    captioner = Captioner(PAPER)
    assert captioner.inputs is None
    assert captioner.lstm.weight_ih.shape == (2048, 4032)
    assert export.captioner_spec([captioner], 15).contexts[0].shape == (-1, 3904)
