"""A published MILAN checkpoint: what is in it, checked against what its own settings call for.

The original saves nested ``properties`` (settings and the vocabulary), ``children`` (class names)
and a ``state_dict``, and loads with ``strict=False``, which hides what is missing. Here every
tensor that the settings call for must be there, in its shape, and finite.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from milan_onnx.errors import BadInput
from milan_onnx.export.original.pickles import load_pickle
from milan_onnx.files import sha256_file

ENCODERS = ("alexnet", "resnet18", "resnet50", "resnet101")
FEATURES = {"alexnet": 1152, "resnet18": 1024, "resnet50": 3904, "resnet101": 3904}
"""F: length of an exemplar's features."""
SPECIALS = ("<start>", "<stop>", "<pad>", "<unk>")
BACKBONE = "encoder.encoder.model."
LM = "lm."
# What the original's own classes leave in a state dict and MILAN does not use.
UNUSED_ENDS = ("num_batches_tracked",)
UNUSED_STARTS = (f"{BACKBONE}fc.", f"{BACKBONE}classifier.", "reranker.")
LISTED = 12
"""Names that an error lists before it counts the rest."""
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Checkpoint:
    """A captioner, a language model and an encoder as the original saved them."""

    path: Path
    """The file."""

    sha256: str
    """Its hash."""

    encoder: str
    """Name of the backbone."""

    words: tuple[str, ...]
    """The vocabulary without special tokens: ids 0 to n-1, then start, stop, pad, unk."""

    embedding: int
    """Length of the captioner's word vectors."""

    hidden: int
    """Length of its state."""

    attention: int
    """Length of its attention's hidden layer."""

    length: int
    """Longest description in tokens."""

    beam_size: int
    """Hypotheses kept a unit."""

    temperature: float
    """λ."""

    strategy: str
    """How the original decodes by default: rerank, beam, greedy or sample."""

    lm_embedding: int
    """Length of the language model's word vectors."""

    lm_hidden: int
    """Length of its states."""

    lm_layers: int
    """Its LSTM layers."""

    state: Mapping[str, Tensor]
    """All tensors that the modules need, the language model's rows in the captioner's order."""

    notes: tuple[str, ...]
    """What was dropped or put in order, in words."""

    @property
    def vocabulary(self) -> int:
        """V, special tokens included."""
        return len(self.words) + len(SPECIALS)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors below a name, by the rest of their names."""
        return {k.removeprefix(prefix): v for k, v in self.state.items() if k.startswith(prefix)}


def read_checkpoint(path: Path, *, allow_unexpected: bool = False) -> Checkpoint:
    """Read and check a checkpoint; nothing in it is run.

    ``allow_unexpected`` drops tensors that the settings do not call for, with a note, as the
    original's ``strict=False`` does without one. Raises BadInput naming what is wrong.
    """
    saved = load_pickle(path)
    if not isinstance(saved, dict) or not {"properties", "state_dict"} <= set(saved):
        raise _bad(path, "it holds no `properties` and `state_dict` as MILAN's own files do")
    read = _Settings(path, "properties", saved["properties"])
    encoder = _encoder(read, saved)
    words = _vocabulary(read)
    if not isinstance(read.value.get("lm"), dict):
        raise _bad(path, "it holds no language model (`lm` is empty), which PMI needs")
    lm = read.below("lm")
    hidden = read.whole("hidden_size")
    unset = read.value.get("attention_hidden_size") is None
    features = FEATURES[encoder]
    made = {
        "embedding": read.whole("embedding_size"),
        "hidden": hidden,
        "attention": min(hidden, features) if unset else read.whole("attention_hidden_size"),
        "lm_embedding": lm.whole("embedding_size"),
        "lm_hidden": lm.whole("hidden_size"),
        "lm_layers": lm.whole("layers"),
    }
    state = _tensors(path, saved["state_dict"])
    wanted = _captioner_shapes(features, len(words) + 4, made) | _lm_shapes(len(words) + 4, made)
    wanted |= _encoder_shapes(encoder)
    notes = _check(path, state, wanted, allow_unexpected)
    kept = {name: state[name] for name in wanted}
    kept, order = _in_order(path, kept, words, _vocabulary(lm))
    return Checkpoint(
        path,
        sha256_file(path),
        encoder,
        words,
        length=read.whole("length"),
        beam_size=read.whole("beam_size"),
        temperature=read.number("temperature"),
        strategy=str(read.value.get("strategy")),
        state=kept,
        notes=(*notes, *order),
        **made,
    )


@dataclass(frozen=True)
class _Settings:
    """A dict of the checkpoint's properties."""

    path: Path
    """The checkpoint."""

    name: str
    """Where the dict is in it."""

    value: Mapping[str, Any]
    """The dict."""

    def __post_init__(self) -> None:
        if not isinstance(self.value, dict):
            raise _bad(self.path, f"its {self.name} is no dict")

    def below(self, *names: str) -> _Settings:
        """The properties of a child."""
        inner: Any = self.value
        for name in names:
            inner = inner.get(name) if isinstance(inner, dict) else None
            inner = inner.get("properties") if isinstance(inner, dict) else None
        return _Settings(self.path, ".".join((self.name, *names)), inner)

    def whole(self, name: str) -> int:
        """A positive whole number."""
        found = self.value.get(name)
        if not isinstance(found, int) or isinstance(found, bool) or not 0 < found < 2**20:
            raise _bad(self.path, f"its {self.name}.{name} is {found!r}, not a positive number")
        return found

    def number(self, name: str) -> float:
        """A number."""
        found = self.value.get(name)
        if not isinstance(found, int | float) or isinstance(found, bool):
            raise _bad(self.path, f"its {self.name}.{name} is {found!r}, not a number")
        return float(found)


def _bad(path: Path, reason: str, hint: str = "") -> BadInput:
    hint = hint or "give a captioner that MILAN saved (milan-base.pth and its siblings)"
    return BadInput(f"{path} cannot be converted: {reason}", hint=hint)


def _encoder(read: _Settings, saved: Mapping[str, Any]) -> str:
    children = saved.get("children")
    kind = children.get("encoder") if isinstance(children, dict) else None
    if kind not in (None, "PyramidConvEncoder"):
        raise _bad(read.path, f"its encoder is a {kind}, not MILAN's PyramidConvEncoder")
    config = read.below("encoder").value.get("config")
    if config not in ENCODERS:
        raise _bad(
            read.path,
            f"its encoder's config is {config!r}",
            f"known are {', '.join(ENCODERS)}; this may be another fork's file",
        )
    return str(config)


def _vocabulary(read: _Settings) -> tuple[str, ...]:
    indexer = read.below("indexer")
    tokens = read.below("indexer", "vocab").value.get("tokens")
    if not isinstance(tokens, tuple | list) or not all(isinstance(t, str) for t in tokens):
        raise _bad(read.path, f"its {indexer.name}.vocab holds no tuple of words")
    if not tokens or len(set(tokens)) != len(tokens):
        raise _bad(read.path, f"its {indexer.name}.vocab is empty or holds a word twice")
    for special in ("start", "stop", "pad", "unk"):
        if indexer.value.get(special) is not True:
            raise _bad(read.path, f"its vocabulary has no <{special}> token")
    return tuple(tokens)


def _tensors(path: Path, found: Any) -> dict[str, Tensor]:
    if not isinstance(found, dict):
        raise _bad(path, "its state_dict is no dict")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise _bad(path, f"its state_dict holds {name!r}, which is no tensor")
    return dict(found)


def _captioner_shapes(features: int, vocabulary: int, sizes: Mapping[str, int]) -> Shapes:
    e, h, a = sizes["embedding"], sizes["hidden"], sizes["attention"]
    linear = {
        "init_h.0": (h, features),
        "init_c.0": (h, features),
        "attend.query_to_hidden": (a, h),
        "attend.key_to_hidden": (a, features),
        "attend.output.0": (1, a),
        "feature_gate.0": (features, h),
        "output.1": (vocabulary, h),
    }
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocabulary, e)}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes | _lstm_shapes("lstm.", "", e + features, h)


def _lm_shapes(vocabulary: int, sizes: Mapping[str, int]) -> Shapes:
    e, h = sizes["lm_embedding"], sizes["lm_hidden"]
    shapes: dict[str, tuple[int, ...]] = {
        f"{LM}embedding.weight": (vocabulary, e),
        f"{LM}output.0.weight": (vocabulary, h),
        f"{LM}output.0.bias": (vocabulary,),
    }
    for layer in range(sizes["lm_layers"]):
        shapes |= _lstm_shapes(f"{LM}lstm.", f"_l{layer}", e if layer == 0 else h, h)
    return shapes


def _lstm_shapes(prefix: str, suffix: str, inputs: int, hidden: int) -> Shapes:
    shapes = {"weight_ih": (4 * hidden, inputs), "weight_hh": (4 * hidden, hidden)}
    biases = {"bias_ih": (4 * hidden,), "bias_hh": (4 * hidden,)}
    return {f"{prefix}{name}{suffix}": shape for name, shape in {**shapes, **biases}.items()}


def _encoder_shapes(name: str) -> Shapes:
    """The backbone's tensors as torchvision shapes them, and the normalisation's."""
    from milan_onnx.export.backbones import import_torchvision_models

    with torch.device("meta"):
        network = getattr(import_torchvision_models(), name)(weights=None)
    shapes = {f"{BACKBONE}{key}": tuple(value.shape) for key, value in network.state_dict().items()}
    shapes = {key: shape for key, shape in shapes.items() if not _unused(key)}
    return shapes | {"encoder.mean": (1, 3, 1, 1), "encoder.std": (1, 3, 1, 1)}


def _unused(name: str) -> bool:
    return name.startswith(UNUSED_STARTS) or name.endswith(UNUSED_ENDS)


def _check(
    path: Path, state: Mapping[str, Tensor], wanted: Shapes, allow_unexpected: bool
) -> list[str]:
    """Notes on what is dropped. Raises BadInput listing what is missing, misshapen, unwanted."""
    wrong = [
        f"{name} is {tuple(state[name].shape)}, not {shape}"
        for name, shape in wanted.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted and not _unused(name)]
    reasons = []
    if missing:
        reasons.append(f"it lacks {_listed(missing)}")
    if wrong:
        reasons.append(f"of another shape: {_listed(wrong)}")
    if extra and not allow_unexpected:
        reasons.append(f"its settings do not call for {_listed(extra)}")
    if reasons:
        only_extra = not missing and not wrong
        hint = "convert without these by --allow-unexpected" if only_extra else ""
        raise _bad(path, "; ".join(reasons), hint)
    for name in wanted:
        if not state[name].is_floating_point():
            raise _bad(path, f"{name} is {state[name].dtype}, not floating point")
        if not bool(torch.isfinite(state[name]).all()):
            raise _bad(path, f"{name} holds NaN or infinity")
    return [f"dropped, as nothing uses them: {_listed(extra)}"] if extra else []


def _listed(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = len(listed) - LISTED
    return ", ".join(listed[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _in_order(
    path: Path, state: dict[str, Tensor], words: Sequence[str], lm_words: Sequence[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """The state with the language model's rows in the order of the captioner's vocabulary."""
    if tuple(words) == tuple(lm_words):
        return state, []
    different = sorted(set(words) ^ set(lm_words))
    if different:
        raise _bad(path, f"captioner and language model differ in the words {_listed(different)}")
    place = {word: index for index, word in enumerate(lm_words)}
    rows = [place[word] for word in words] + list(range(len(words), len(words) + len(SPECIALS)))
    names = ("embedding.weight", "output.0.weight", "output.0.bias")
    moved = {f"{LM}{name}": state[f"{LM}{name}"][rows] for name in names}
    return state | moved, ["the language model's vocabulary was put in the captioner's order"]
