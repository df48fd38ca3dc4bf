"""Tiny bundles and subject models made with onnx alone, obeying the real contracts.

Nothing here is a stand-in for the code under test: the graphs are small, random and real.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from milan_onnx.bundle import (
    WORD_VECTORS,
    Bundle,
    Calibration,
    CaptionerSpec,
    EncoderSpec,
    LanguageModelSpec,
    Level,
    Manifest,
    Part,
    SearchDefaults,
    TensorSpec,
    VocabularySpec,
    write_manifest,
)

FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8
SIZE = 32
LEVELS = (Level("low", 4, 16, 16), Level("high", 6, 8, 8))
FEATURES = 10
HIDDEN, ATTENTION = 16, 16

WORDS = tuple(
    "red green blue white dark bright round striped dotted square dog cat bird sky grass water "
    "tree wheel eye face letter word line edge corner areas objects animals and of the in".split()
)


class Graph:
    """Collects nodes and constants; random weights come from one generator."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def weight(self, *shape: int, scale: float = 1.0) -> str:
        values = self.rng.standard_normal(shape) * scale / np.sqrt(np.prod(shape[1:]))
        return self.constant(values.astype(np.float32))

    def constant(self, value: NDArray[np.generic]) -> str:
        name = f"const_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: object) -> str:
        output = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, list(inputs), [output], f"node_{output}", **attributes)
        )
        return output

    def save(self, path: Path, inputs: Sequence[tuple], outputs: Sequence[tuple]) -> Path:
        graph = helper.make_graph(
            self.nodes,
            path.stem,
            [helper.make_tensor_value_info(*i) for i in inputs],
            [helper.make_tensor_value_info(*o) for o in outputs],
            self.constants,
        )
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path


def toy_bundle(
    folder: Path,
    *,
    seed: int = 0,
    words: Sequence[str] = WORDS,
    search: SearchDefaults | None = None,
    parts: tuple[Part, ...] = ("mean",),
    vectors: int = 0,
    predicted: bool = False,
    calibration: Calibration | None = None,
) -> Bundle:
    """A bundle with random weights over a small vocabulary; ``vectors``: length of word vectors;
    ``predicted``: whether the captioner predicts a phrase vector."""
    folder.mkdir(parents=True, exist_ok=True)
    count = len(words)
    vocabulary = VocabularySpec(count + 4, count, count + 1, count + 2, count + 3)
    _encoder(folder / "encoder.onnx", seed)
    spec = EncoderSpec("toy", SIZE, LEVELS, parts=parts)
    _init(folder / "captioner_init.onnx", seed + 1, spec.features, vectors if predicted else 0)
    _captioner(folder / "captioner_step.onnx", seed + 2, vocabulary)
    _language_model(folder / "lm_step.onnx", seed + 3, vocabulary)
    _tokenizer(folder / "tokenizer.json", words)
    (folder / "MODEL_CARD.md").write_text("# toy\n\nRandom weights, for tests.\n")
    if vectors:
        values = np.random.default_rng(seed).standard_normal((vocabulary.size, vectors))
        np.save(folder / WORD_VECTORS, values.astype(np.float16))
    default = SearchDefaults(forbid=(vocabulary.start, vocabulary.pad, vocabulary.unk))
    return write_manifest(
        folder,
        Manifest(
            name="toy",
            version="0",
            license="Apache-2.0",
            encoder=spec,
            captioner=CaptionerSpec(
                (TensorSpec("keys", (-1, ATTENTION)),),
                (TensorSpec("hidden", (HIDDEN,)),),
                phrase_vector=vectors if predicted else 0,
            ),
            language_model=LanguageModelSpec((TensorSpec("hidden", (HIDDEN,)),)),
            vocabulary=vocabulary,
            search=search or default,
            calibration=calibration,
        ),
    )


def toy_subject(
    path: Path, *, seed: int = 0, size: int = 32, units: int = 12, batch: int | str = "N"
) -> Path:
    """conv1 (8 units) - relu - conv2 (``units``) - relu6 - pool - fc, input float NCHW."""
    g = Graph(seed)
    x = g.op("Conv", "input", g.weight(8, 3, 3, 3), name="conv1", pads=[1] * 4, strides=[2, 2])
    x = g.op("Relu", x, name="relu1")
    x = g.op("Conv", x, g.weight(units, 8, 3, 3), name="conv2", pads=[1] * 4, strides=[2, 2])
    zero, six = g.constant(np.float32(0)), g.constant(np.float32(6))
    x = g.op("Clip", x, zero, six, name="relu6")
    x = g.op("GlobalAveragePool", x, name="pool")
    x = g.op("Flatten", x, name="flat")
    g.op("MatMul", x, g.weight(units, 5), name="logits")
    return g.save(path, [("input", FLOAT, [batch, 3, size, size])], [("logits", FLOAT, [batch, 5])])


def toy_photos(folder: Path, count: int = 20) -> Path:
    """Noise, 44 by 40 pixels, as PNG files of a new folder."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 256, (40, 44, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


def _encoder(path: Path, seed: int) -> None:
    g = Graph(seed)
    x = g.op("Cast", "images", to=FLOAT)
    x = g.op("Div", x, g.constant(np.float32(255)))
    x = g.op("Transpose", x, perm=[0, 3, 1, 2])
    x = g.op("Conv", x, g.weight(4, 3, 3, 3), pads=[1] * 4, strides=[2, 2])
    x = g.op("Relu", x, name="low")
    x = g.op("Conv", x, g.weight(6, 4, 3, 3), pads=[1] * 4, strides=[2, 2])
    g.op("Relu", x, name="high")
    g.save(
        path,
        [("images", UINT8, ["N", SIZE, SIZE, 3])],
        [(level.name, FLOAT, ["N", level.channels, level.height, level.width]) for level in LEVELS],
    )


def _init(path: Path, seed: int, length: int, predicted: int) -> None:
    g = Graph(seed)
    g.op("MatMul", "features", g.weight(length, ATTENTION), name="keys")
    mean = g.op("ReduceMean", "features", axes=[1], keepdims=0)
    g.op("Tanh", g.op("MatMul", mean, g.weight(length, HIDDEN)), name="hidden")
    outputs = [("keys", FLOAT, ["U", "K", ATTENTION]), ("hidden", FLOAT, ["U", HIDDEN])]
    if predicted:
        g.op("MatMul", mean, g.weight(length, predicted), name="phrase_vector")
        outputs.append(("phrase_vector", FLOAT, ["U", predicted]))
    g.save(path, [("features", FLOAT, ["U", "K", length])], outputs)


def _captioner(path: Path, seed: int, vocabulary: VocabularySpec) -> None:
    g = Graph(seed)
    keys = g.op("Gather", "keys", "unit", axis=0)
    query = g.op("MatMul", "hidden_in", g.weight(HIDDEN, ATTENTION))
    axis = g.constant(np.array([2], np.int64))
    energy = g.op("MatMul", keys, g.op("Unsqueeze", query, axis))
    share = g.op("Transpose", g.op("Softmax", energy, axis=1), perm=[0, 2, 1])
    one = g.constant(np.array([1], np.int64))
    seen = g.op("Squeeze", g.op("MatMul", share, keys), one)
    past = g.op(
        "Add",
        g.op("MatMul", "hidden_in", g.weight(HIDDEN, HIDDEN, scale=0.5)),
        g.op("MatMul", seen, g.weight(ATTENTION, HIDDEN, scale=0.5)),
    )
    _head(g, past, vocabulary)
    g.save(
        path,
        [
            ("keys", FLOAT, ["U", "K", ATTENTION]),
            ("unit", INT64, ["P"]),
            ("hidden_in", FLOAT, ["P", HIDDEN]),
            ("parent", INT64, ["R"]),
            ("token", INT64, ["R"]),
            ("top", INT64, [1]),
            ("target_row", INT64, ["M"]),
            ("target_token", INT64, ["M"]),
        ],
        [
            ("log_prob", FLOAT, ["R", "T"]),
            ("next_token", INT64, ["R", "T"]),
            ("target_log_prob", FLOAT, ["M"]),
            ("hidden", FLOAT, ["R", HIDDEN]),
        ],
    )


def _language_model(path: Path, seed: int, vocabulary: VocabularySpec) -> None:
    g = Graph(seed)
    past = g.op("MatMul", "hidden_in", g.weight(HIDDEN, HIDDEN, scale=0.5))
    _head(g, past, vocabulary, top=False)
    g.save(
        path,
        [
            ("hidden_in", FLOAT, ["P", HIDDEN]),
            ("parent", INT64, ["R"]),
            ("token", INT64, ["R"]),
            ("target_row", INT64, ["M"]),
            ("target_token", INT64, ["M"]),
        ],
        [("target_log_prob", FLOAT, ["M"]), ("hidden", FLOAT, ["R", HIDDEN])],
    )


def _head(g: Graph, past: str, vocabulary: VocabularySpec, *, top: bool = True) -> None:
    embedded = g.op("Gather", g.weight(vocabulary.size, HIDDEN), "token", axis=0)
    total = g.op("Add", g.op("Gather", past, "parent", axis=0), embedded)
    hidden = g.op("Tanh", total, name="hidden")
    bias = g.rng.standard_normal(vocabulary.size).astype(np.float32)
    bias[vocabulary.stop] += 2.5
    scores = g.op("MatMul", hidden, g.weight(HIDDEN, vocabulary.size))
    log_p = g.op("LogSoftmax", g.op("Add", scores, g.constant(bias)), axis=1)
    if top:
        g.nodes.append(helper.make_node("TopK", [log_p, "top"], ["log_prob", "next_token"], axis=1))
    axis = g.constant(np.array([1], np.int64))
    place = g.op(
        "Concat",
        g.op("Unsqueeze", "target_row", axis),
        g.op("Unsqueeze", "target_token", axis),
        axis=1,
    )
    g.op("GatherND", log_p, place, name="target_log_prob")


def _tokenizer(path: Path, words: Sequence[str]) -> None:
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    specials = ["<start>", "<stop>", "<pad>", "<unk>"]
    vocabulary = {word: index for index, word in enumerate([*words, *specials])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(s, special=True) for s in specials])
    tokenizer.save(str(path))
