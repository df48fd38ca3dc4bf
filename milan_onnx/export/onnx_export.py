"""The bundle's graphs and files, from the trained modules.

The captioner's and the language model's graphs are written node by node, because their step is
split in a way that no exporter does: what depends only on the parent (attention, gate, recurrent
product) is computed once for a parent, what depends only on the token (embedding times input
weights) is a constant that a session folds once, and only the rest is done for each row.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import nn

from milan_onnx import bundle
from milan_onnx.bundle import (
    Bundle,
    CaptionerSpec,
    LanguageModelSpec,
    Manifest,
    Part,
    SearchDefaults,
    TensorSpec,
    VocabularySpec,
)
from milan_onnx.errors import UsageError
from milan_onnx.export.backbones import IMAGE_SIZE, Backbone, PyramidEncoder
from milan_onnx.export.captioner import Captioner, FeatureInput
from milan_onnx.export.graph import FLOAT, INT64, GraphBuilder, stored_weight
from milan_onnx.export.language_model import LanguageModel
from milan_onnx.files import write_bytes

START, STOP, PAD, UNK = SPECIALS = ("<start>", "<stop>", "<pad>", "<unk>")
ENCODER_OPSET = 20


@dataclass(frozen=True)
class BundleInfo:
    """What a manifest says beside the graphs."""

    name: str
    """Name shown to users."""

    version: str
    """Version of the weights."""

    license: str
    """Licence of the weights."""

    card: str
    """Text of MODEL_CARD.md."""

    exemplars: int = 15
    """K the captioner was trained with."""

    search: SearchDefaults = field(default_factory=SearchDefaults)
    """Search settings it was measured with."""

    training: Mapping[str, Any] = field(default_factory=dict)
    """Data, recipe, seeds and figures, for people."""

    style: Literal["words", "sentences"] = "words"
    """How text is put together (`VocabularySpec`)."""

    forbid_specials: bool = True
    """Whether the search may not say start, pad and unk."""

    rounded: bool = True
    """Whether weights are rounded to float16."""

    parts: tuple[Part, ...] = ("mean",)
    """What an exemplar's features are made of."""

    vectors: NDArray[np.float16] | None = None
    """Word vectors (V, D); None: there are none."""


def write_bundle(
    folder: Path,
    backbone: Backbone,
    captioners: Sequence[Captioner],
    lm: LanguageModel,
    words: Sequence[str],
    info: BundleInfo,
    encoder: onnx.ModelProto | None = None,
) -> Bundle:
    """Write a whole bundle. Rounds the modules' weights to float16 in place first (unless the info
    says no), so that they and the graphs agree. Several captioners, whose features are prepared
    alike, are averaged. ``words`` is the vocabulary without the special tokens; ``encoder`` is the
    encoder's graph if it was exported before."""
    vocabulary = vocabulary_spec(words)
    sizes = {lm.config.vocabulary, *(each.config.vocabulary for each in captioners)}
    if sizes != {vocabulary.size}:
        raise UsageError("the captioner, the language model and the vocabulary differ in size")
    for module in (backbone.encoder, *captioners, lm):
        module.eval()
        if info.rounded:
            round_weights(module)
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {
        bundle.ENCODER: encoder or encoder_model(backbone.encoder),
        bundle.CAPTIONER_INIT: captioner_init_model(captioners),
        bundle.CAPTIONER_STEP: captioner_step_model(captioners),
        bundle.LM_STEP: lm_step_model(lm),
    }
    for name, model in graphs.items():
        write_bytes(folder / name, model.SerializeToString(deterministic=True))
    if info.vectors is not None:
        write_array(folder / bundle.WORD_VECTORS, info.vectors)
    write_bytes(folder / bundle.TOKENIZER, make_tokenizer(words).to_str(pretty=True).encode())
    write_bytes(folder / bundle.MODEL_CARD, info.card.encode())
    return bundle.write_manifest(folder, _manifest(backbone, captioners, lm, vocabulary, info))


def write_array(path: Path, values: NDArray[Any]) -> None:
    """Write a whole .npy file atomically."""
    file = io.BytesIO()
    np.save(file, values)
    write_bytes(path, file.getvalue())


def _manifest(
    backbone: Backbone,
    captioners: Sequence[Captioner],
    lm: LanguageModel,
    vocabulary: VocabularySpec,
    info: BundleInfo,
) -> Manifest:
    specials = (vocabulary.start, vocabulary.pad, vocabulary.unk) if info.forbid_specials else ()
    return Manifest(
        info.name,
        info.version,
        info.license,
        backbone.encoder.spec(parts=info.parts),
        captioner_spec(captioners, info.exemplars),
        lm_spec(lm),
        replace(vocabulary, style=info.style),
        replace(info.search, forbid=info.search.forbid or specials),
        training=info.training,
    )


def round_weights(module: nn.Module) -> None:
    """Round all floating weights to float16 values, in place; their type stays float32."""
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())


def vocabulary_spec(words: Sequence[str]) -> VocabularySpec:
    """Words take ids 0..n-1, then start, stop, pad and unk, as in the paper's code."""
    count = len(words)
    return VocabularySpec(count + 4, count, count + 1, count + 2, count + 3)


def make_tokenizer(words: Sequence[str]) -> Tokenizer:
    """Lowercase words; punctuation stands alone, but hyphens and apostrophes belong to words."""
    ids = {word: index for index, word in enumerate([*words, *SPECIALS])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"[^\w'-]"), behavior="isolated"),
        ]
    )
    # This decoder joins words by spaces and puts punctuation right behind the word before it.
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.add_special_tokens([AddedToken(s, special=True) for s in SPECIALS])
    return tokenizer


# --- encoder ---------------------------------------------------------------------------------


def encoder_model(encoder: PyramidEncoder, image_size: int = IMAGE_SIZE) -> onnx.ModelProto:
    """images uint8 (N,S,S,3) to one map a level, without traces of where it was exported."""
    example = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    batch = torch.export.Dim("N", min=1, max=65536)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            encoder,
            (example,),
            dynamo=True,
            input_names=["images"],
            output_names=list(encoder.names),
            dynamic_shapes=({0: batch},),
            opset_version=ENCODER_OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    strip_metadata(model)
    store_weights(model)
    onnx.checker.check_model(model)
    return model


def strip_metadata(model: onnx.ModelProto) -> None:
    """Remove what exporters note about the source: stack traces with the paths of this machine."""
    model.doc_string = ""
    model.producer_name, model.producer_version = "milan-onnx", ""
    del model.metadata_props[:]
    graph = model.graph
    graph.doc_string = ""
    graph.name = "encoder"
    del graph.metadata_props[:], graph.value_info[:]
    parts = [*graph.node, *graph.input, *graph.output, *graph.initializer]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]


def store_weights(model: onnx.ModelProto) -> None:
    """Keep float32 weights as float16 and a Cast, where that loses nothing."""
    casts: list[onnx.NodeProto] = []
    for index, tensor in enumerate(model.graph.initializer):
        if tensor.data_type == FLOAT:
            node, stored = stored_weight(tensor.name, numpy_helper.to_array(tensor))
            casts.extend(node)
            model.graph.initializer[index].CopyFrom(stored)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


# --- captioner -------------------------------------------------------------------------------


def tags(captioners: Sequence[Captioner]) -> list[str]:
    """What the names of each captioner's tensors end with."""
    return ["", *(f"_{number}" for number in range(1, len(captioners)))]


def captioner_spec(captioners: Sequence[Captioner], exemplars: int) -> CaptionerSpec:
    """Tensors that pass from graph to graph, K first where they depend on the exemplars."""
    contexts, states = [], []
    for tag, captioner in zip(tags(captioners), captioners, strict=True):
        config = captioner.config
        contexts += [
            TensorSpec(f"values{tag}", (-1, config.inner)),
            TensorSpec(f"keys{tag}", (-1, config.attention)),
        ]
        states += [TensorSpec(f"{state}{tag}", (config.hidden,)) for state in "hc"]
    predicted = captioners[0].config.phrase_vector
    return CaptionerSpec(tuple(contexts), tuple(states), exemplars, predicted)


def captioner_init_model(captioners: Sequence[Captioner]) -> onnx.ModelProto:
    """features (U,K,F) to values, keys and the first h and c of each captioner (paper, section
    3.2), and the mean of the phrase vectors where they are predicted."""
    graph, shared = GraphBuilder("captioner_init"), captioners[0].inputs
    features = graph.input("features", FLOAT, ("U", "K", captioners[0].config.features))
    prepared = features if shared is None else _prepared(graph, shared, features)
    predicted = []
    for tag, captioner in zip(tags(captioners), captioners, strict=True):
        graph.scope, config = tag, captioner.config
        values = _values(graph, captioner.inputs, prepared, f"values{tag}")
        keys = captioner.attend.key_to_hidden
        graph.linear("attend.key_to_hidden", keys, values, out=f"keys{tag}")
        whole = _whole(graph, captioner, values)
        for state, module in (("h", captioner.init_h), ("c", captioner.init_c)):
            graph.op("Tanh", graph.linear(f"init_{state}", module, whole), out=f"{state}{tag}")
        graph.output(f"values{tag}", FLOAT, ("U", "K", config.inner))
        graph.output(f"keys{tag}", FLOAT, ("U", "K", config.attention))
        for state in "hc":
            graph.output(f"{state}{tag}", FLOAT, ("U", config.hidden))
        if captioner.phrase_vector is not None:
            states = graph.op("Concat", f"h{tag}", f"c{tag}", axis=1)
            predicted.append(graph.linear("phrase_vector", captioner.phrase_vector, states))
    if predicted:
        graph.op("Mean", *predicted, out=bundle.PHRASE_VECTOR)
        graph.output(bundle.PHRASE_VECTOR, FLOAT, ("U", captioners[0].config.phrase_vector))
    return graph.model()


def _whole(graph: GraphBuilder, captioner: Captioner, values: str) -> str:
    """Mean of each unit's exemplars and, where the captioner wants it, their spread."""
    axis = graph.constant("exemplar_axis", np.array([1], dtype=np.int64))
    mean: str = graph.op("ReduceMean", values, axis, keepdims=0)
    if not captioner.config.spread:
        return mean
    apart = graph.op("Sub", values, graph.op("Unsqueeze", mean, axis))
    variance = graph.op("ReduceMean", graph.op("Mul", apart, apart), axis, keepdims=0)
    tiny = graph.constant("tiny", np.array(captioner.TINY, dtype=np.float32))
    spread = graph.op("Sqrt", graph.op("Add", variance, tiny))
    joined: str = graph.op("Concat", mean, spread, axis=-1)
    return joined


def _prepared(graph: GraphBuilder, module: FeatureInput, features: str) -> str:
    """Standardised, and reduced part by part; the same for all captioners."""
    centred = graph.op("Sub", features, graph.weight("inputs.mean", module.mean))
    scaled = graph.op("Mul", centred, graph.weight("inputs.scale", module.scale))
    low = graph.constant("clip_low", np.array(-module.CLIP, dtype=np.float32))
    high = graph.constant("clip_high", np.array(module.CLIP, dtype=np.float32))
    standard: str = graph.op("Clip", scaled, low, high)
    return _reduced(graph, module, standard) if module.config.parts else standard


def _reduced(graph: GraphBuilder, module: FeatureInput, standard: str) -> str:
    """The components of each part that has any: as blocks, for most of the matrix is zeros."""
    widths = np.array([width for width, _ in module.config.parts], dtype=np.int64)
    names = [f"part_{number}" for number in range(len(widths))]
    graph.op("Split", standard, graph.constant("widths", widths), out=names, axis=-1)
    found, row, column = [], 0, 0
    for name, (width, wanted) in zip(names, module.config.parts, strict=True):
        block = module.components[row : row + width, column : column + wanted]
        row, column = row + width, column + wanted
        if width == wanted and torch.equal(block, torch.eye(width)):
            found.append(name)
        elif wanted:
            found.append(graph.op("MatMul", name, graph.weight(f"components.{name}", block)))
    joined: str = graph.op("Concat", *found, axis=-1)
    return joined


def _values(graph: GraphBuilder, module: FeatureInput | None, prepared: str, out: str) -> str:
    """What a captioner attends to, of prepared features."""
    if module is None:
        kept: str = graph.op("Identity", prepared, out=out)
        return kept
    projected = graph.linear("inputs.project", module.project, prepared)
    normal = graph.op(
        "LayerNormalization",
        projected,
        graph.weight("inputs.norm.weight", module.norm.weight),
        graph.weight("inputs.norm.bias", module.norm.bias),
        epsilon=module.norm.eps,
    )
    values: str = graph.op("Relu", normal, out=out)
    return values


def captioner_step_model(captioners: Sequence[Captioner]) -> onnx.ModelProto:
    """One step of log p(d|E) for ragged rows; see the contract in ``bundle.py``.

    Of several captioners the mean of the log-probabilities, normalised.
    """
    graph = GraphBuilder("captioner_step")
    graph.input("unit", INT64, ("P",))
    _row_inputs(graph)
    graph.input("top", INT64, (1,))
    _target_inputs(graph)
    found = [
        _captioner_step(graph, tag, captioner)
        for tag, captioner in zip(tags(captioners), captioners, strict=True)
    ]
    log_probs = found[0]
    if len(found) > 1:
        log_probs = graph.op("LogSoftmax", graph.op("Mean", *found), axis=-1)
    graph.op("TopK", log_probs, "top", out=("log_prob", "next_token"), axis=1)
    _target_log_prob(graph, log_probs, captioners[0].config.vocabulary)
    graph.output("log_prob", FLOAT, ("R", "B"))
    graph.output("next_token", INT64, ("R", "B"))
    graph.output("target_log_prob", FLOAT, ("M",))
    return graph.model()


def _captioner_step(graph: GraphBuilder, tag: str, captioner: Captioner) -> str:
    """A captioner's log-probabilities (R, V) of the next token."""
    graph.scope, config = tag, captioner.config
    graph.input(f"values{tag}", FLOAT, ("U", "K", config.inner))
    graph.input(f"keys{tag}", FLOAT, ("U", "K", config.attention))
    for state in "hc":
        graph.input(f"{state}{tag}_in", FLOAT, ("P", config.hidden))
        graph.output(f"{state}{tag}", FLOAT, ("R", config.hidden))
    gated = _gated_context(graph, tag, captioner)
    weight = captioner.lstm.weight_ih
    words, contexts = weight[:, : config.embedding], weight[:, config.embedding :]
    context_gates = graph.op("MatMul", gated, graph.weight("lstm.weight_z", contexts.T))
    gates = _recurrent_gates(graph, "lstm", captioner.lstm, f"h{tag}_in")
    gates = graph.op("Add", gates, context_gates)
    row_gates = graph.op("Gather", gates, "parent", axis=0)
    row_gates = graph.op("Add", row_gates, _token_gates(graph, captioner.embedding, words))
    h = _lstm_cell(graph, row_gates, f"c{tag}_in", (f"h{tag}", f"c{tag}"))
    log_probs = _log_probs(graph, captioner.output, h)
    graph.scope = ""
    return log_probs


def _gated_context(graph: GraphBuilder, tag: str, captioner: Captioner) -> str:
    """Attention over the exemplars of each parent's unit, gated: (P, inner)."""
    h, attend = f"h{tag}_in", captioner.attend
    query = graph.linear("attend.query_to_hidden", attend.query_to_hidden, h)
    one = graph.constant("axis_one", np.array([1], dtype=np.int64))
    last = graph.constant("axis_last", np.array([-1], dtype=np.int64))
    keys = graph.op("Gather", f"keys{tag}", "unit", axis=0)
    energy = graph.op("Tanh", graph.op("Add", keys, graph.op("Unsqueeze", query, one)))
    scores = graph.linear("attend.output", attend.output, energy)
    weights = graph.op("Softmax", graph.op("Squeeze", scores, last), axis=-1)
    context = _context(graph, weights, f"values{tag}")
    gate = graph.op("Sigmoid", graph.linear("feature_gate", captioner.feature_gate, h))
    gated: str = graph.op("Mul", gate, context)
    return gated


def _context(graph: GraphBuilder, weights: str, values: str) -> str:
    """Each parent's unit's ``values`` (K, inner) averaged by ``weights`` (P, K): (P, inner).

    Parents of a unit are brought together in a row of slots, so that its values are read once and
    not copied for each parent, which would be K times what a parent's context takes.
    """

    def number(name: str, value: int) -> str:
        return graph.constant(name, np.array([value], dtype=np.int64))

    one = number("axis_one", 1)
    units = graph.op("Shape", values, start=0, end=1)
    switch = graph.constant("off_on", np.array([0, 1], dtype=np.int64))
    owner = graph.op("OneHot", "unit", units, switch, axis=-1)
    order = graph.op("CumSum", owner, graph.constant("axis_zero", np.array(0, dtype=np.int64)))
    place = graph.op("GatherElements", order, graph.op("Unsqueeze", "unit", one), axis=1)
    # One slot more than needed: a lone row would take another kernel, with other last bits.
    width = graph.op("Add", graph.op("ReduceMax", place, keepdims=0), one)
    start = graph.op("Mul", graph.op("Unsqueeze", "unit", one), width)
    slot = graph.op("Sub", graph.op("Add", start, place), one)
    exemplars = graph.op("Shape", weights, start=1, end=2)
    total = graph.op("Mul", units, width)
    blank = graph.op("ConstantOfShape", graph.op("Concat", total, exemplars, axis=0))
    laid = graph.op("ScatterND", blank, slot, weights)
    grid = graph.op("Concat", units, width, exemplars, axis=0)
    context = graph.op("MatMul", graph.op("Reshape", laid, grid), values)
    flat = graph.op("Concat", total, graph.op("Shape", context, start=2), axis=0)
    found: str = graph.op("GatherND", graph.op("Reshape", context, flat), slot)
    return found


# --- language model --------------------------------------------------------------------------


def lm_spec(lm: LanguageModel) -> LanguageModelSpec:
    """A pair of states a layer."""
    size = (lm.config.hidden,)
    return LanguageModelSpec(
        tuple(TensorSpec(f"{s}{i}", size) for i in range(lm.config.layers) for s in "hc")
    )


def lm_step_model(lm: LanguageModel) -> onnx.ModelProto:
    """One step of log p(d) for ragged rows; see the contract in ``bundle.py``."""
    graph, config = GraphBuilder("lm_step"), lm.config
    for spec in lm_spec(lm).states:
        graph.input(f"{spec.name}_in", FLOAT, ("P", config.hidden))
    _row_inputs(graph)
    _target_inputs(graph)
    h = ""
    for index, module in enumerate(lm.cells):
        assert isinstance(module, nn.LSTMCell)
        cell = f"cells.{index}"
        gates = _recurrent_gates(graph, cell, module, f"h{index}_in")
        gates = graph.op("Gather", gates, "parent", axis=0)
        if index == 0:
            addend = _token_gates(graph, lm.embedding, module.weight_ih)
        else:
            addend = graph.op("MatMul", h, graph.weight(f"{cell}.weight_ih", module.weight_ih.T))
        gates = graph.op("Add", gates, addend)
        h = _lstm_cell(graph, gates, f"c{index}_in", (f"h{index}", f"c{index}"))
    _target_log_prob(graph, _log_probs(graph, lm.output, h), config.vocabulary)
    graph.output("target_log_prob", FLOAT, ("M",))
    for spec in lm_spec(lm).states:
        graph.output(spec.name, FLOAT, ("R", config.hidden))
    return graph.model()


# --- parts of both ---------------------------------------------------------------------------


def _row_inputs(graph: GraphBuilder) -> None:
    graph.input("parent", INT64, ("R",))
    graph.input("token", INT64, ("R",))


def _target_inputs(graph: GraphBuilder) -> None:
    graph.input("target_row", INT64, ("M",))
    graph.input("target_token", INT64, ("M",))


def _recurrent_gates(graph: GraphBuilder, name: str, cell: nn.LSTMCell, state: str) -> str:
    """What an LSTM's gates get from the parent's state: (P, 4H), both biases included."""
    product = graph.op("MatMul", state, graph.weight(f"{name}.weight_hh", cell.weight_hh.T))
    biases = [graph.weight(f"{name}.{b}", getattr(cell, b)) for b in ("bias_hh", "bias_ih")]
    gates: str = graph.op("Add", product, graph.op("Add", *biases))
    return gates


def _token_gates(graph: GraphBuilder, embedding: nn.Embedding, weight: torch.Tensor) -> str:
    """What an LSTM's gates get from the token: (R, 4H), from a table that a session folds once."""
    words = graph.weight("embedding.weight", embedding.weight)
    table = graph.op("MatMul", words, graph.weight("embedding_to_gates.weight", weight.T))
    gates: str = graph.op("Gather", table, "token", axis=0)
    return gates


def _lstm_cell(graph: GraphBuilder, gates: str, c_in: str, out: tuple[str, str]) -> str:
    """The rest of an LSTM step for each row; PyTorch's order of gates. Returns the new h."""
    parts = [f"{out[0]}_{gate}" for gate in ("input", "forget", "cell", "output")]
    graph.op("Split", gates, out=parts, axis=1, num_outputs=4)
    enter, forget, leave = (graph.op("Sigmoid", parts[i]) for i in (0, 1, 3))
    old = graph.op("Gather", c_in, "parent", axis=0)
    kept = graph.op("Mul", forget, old)
    added = graph.op("Mul", enter, graph.op("Tanh", parts[2]))
    c = graph.op("Add", kept, added, out=out[1])
    h: str = graph.op("Mul", leave, graph.op("Tanh", c), out=out[0])
    return h


def _log_probs(graph: GraphBuilder, output: nn.Linear, h: str) -> str:
    log_probs: str = graph.op("LogSoftmax", graph.linear("output", output, h), axis=-1)
    return log_probs


def _target_log_prob(graph: GraphBuilder, log_probs: str, vocabulary: int) -> None:
    """Pick single entries; indices into the flat matrix also work when there are none."""
    flat = graph.op("Reshape", log_probs, graph.constant("flat", np.array([-1], dtype=np.int64)))
    width = graph.constant("vocabulary_size", np.array([vocabulary], dtype=np.int64))
    index = graph.op("Add", graph.op("Mul", "target_row", width), "target_token")
    graph.op("Gather", flat, index, out="target_log_prob", axis=0)
