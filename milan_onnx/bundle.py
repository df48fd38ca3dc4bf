"""The bundle: all that passes from training (PyTorch) to the runtime (ONNX).

A bundle is a folder:

    bundle.json           the manifest: what follows, and the sha256 of every other file
    encoder.onnx          uint8 images to a pyramid of feature maps
    captioner_init.onnx   pooled features of a unit's exemplars to context and first states
    captioner_step.onnx   one step of log p(d|E) for ragged rows
    lm_step.onnx          one step of log p(d) for ragged rows
    tokenizer.json        the vocabulary, a word-level Hugging Face ``tokenizers`` file
    MODEL_CARD.md         what it was trained on and how well it does
    word_vectors.npy      optional: a vector for each token, float16 (V, D), for the search
                          ``consensus``

Tensors, by the names in the manifest (N images, U units, K exemplars, P parent rows, R rows,
M targets, B the beam size; all floats are float32, all indices int64):

    encoder         images (N,S,S,3) uint8              -> one map (N,C_l,h_l,w_l) a level
    captioner_init  features (U,K,F)                    -> context tensors (U,...), states (U,...),
                                                           phrase_vector (U,D), where it is there
    captioner_step  context tensors (U,...), unit (P,), states (P,...), parent (R,), token (R,),
                    top (1,), target_row (M,), target_token (M,)
                        -> log_prob (R,top), next_token (R,top), target_log_prob (M,),
                           states (R,...)
    lm_step         states (P,...), parent (R,), token (R,), target_row (M,), target_token (M,)
                        -> target_log_prob (M,), states (R,...)

A *parent row* is a partial description whose states are known; several rows may share one.
``unit`` says which unit a parent row describes; ``parent`` says, for each row, which parent row it
continues; ``token`` is the token it appends. The step computes what depends only on the parent
once for each parent. ``log_prob`` are the ``top`` largest log-probabilities of the token after
that, in descending order; ``target_log_prob[m]`` is the log-probability that ``target_token[m]``
follows row ``target_row[m]``. The first step of a search has one parent row a unit (its initial
states) and one row, the start token. The language model's initial states are zeros.

Features of one exemplar are the parts that ``encoder.parts`` names, one after the other, F numbers
in all. C is the sum of the levels' channels; each part of C numbers has the levels in their order.

    mean      C    the levels' maps averaged under the exemplar's mask (the paper's features)
    spread    C    standard deviation of the levels' maps under the mask
    ring      C    the levels' maps averaged under the ring around the mask
    frame     C    the levels' maps averaged over the whole frame
    geometry  25   numbers of the mask alone

``mean``: a level's mask is the frame's 0/1 mask of (S,S) resized to (h_l,w_l) by ``mask_resize``:
``area`` (mean of the covered pixels) or ``bilinear`` (two taps, no antialias: the paper's code),
then divided by its sum. It is all that a converted MILAN checkpoint has.

The other parts are made of the mask's *shares*: it is averaged (``area``) to 56x56 cells, whatever
its resolution; a share is between 0 and 1. The *inside* are the cells whose share is at least 0.5,
or those above 0 where none reaches it. The *ring* are the cells at most 5 rows and 5 columns from
an inside one that are not inside; where all are inside it is the whole frame. A level whose height
(width) is a larger multiple of 56 is first averaged over equal blocks to 56 rows (columns). Its
weights are the shares (``spread``) or the 0/1 ring (``ring``) resized to it by ``area`` and divided
by their sum; ``spread`` is sqrt(max(0, E[x^2] - E[x]^2)) of each channel x under these weights.

``geometry``, of the shares w and the inside f; a cell's centre (x, y) lies in 0..1, x to the right,
y down; means and second moments a = var x, b = var y, c = cov(x, y) are weighted by w; A is the
mean of w, l1 >= l2 the eigenvalues of [[a, c], [c, b]]; H and V are the shares of the 56*55 pairs
of cells side by side (one above the other) of which one is inside, D and G the same of the 55*55
diagonal pairs (down to the right, down to the left); all logarithms are natural:

    log_area      log max(A, 1e-4)                    sqrt_area     sqrt A
    centre_x      mean of x                           centre_y      mean of y
    spread_x      sqrt a                              spread_y      sqrt b
    eccentricity  (l1 - l2) / max(a + b, 1e-6)        cos_2         (a - b) / max(a + b, 1e-6)
    sin_2         2 c / max(a + b, 1e-6)              outline       log(1e-3 + (H + V) / mean f)
    upright       (H - V) / (H + V + 1e-6)            diagonal      (D - G) / (D + G + 1e-6)
    top, bottom, left, right    mean w of the 3 outermost rows or columns
    top_left, top_right, bottom_left, bottom_right    mean w of the 7x7 cells in the corner
    pieces        sign(e) log(1 + |e|), e the number of pieces of f (cells that touch at a corner
                  are of one piece) minus the number of its holes
    filled        inside cells / (rows that have one * columns that have one)
    off_centre    |centre_x - 0.5| + |centre_y - 0.5|
    long_axis     sqrt l1                             short_axis    sqrt l2

All of it is float32 and finite. An empty mask gives zeros in every part but ``frame``.

The search ``consensus`` compares hypotheses by phrase vectors (see `milan_onnx.runtime.consensus`).
``phrase_vector`` is the one that the captioner expects of a unit's description; its length does not
matter.
``calibration``, where it is there, turns a hypothesis's scores into the probability that a person
would call it right (see `milan_onnx.runtime.confidence`).

Bundles of format version 1 are read too: they have the part ``mean`` alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_type_hints

from milan_onnx.errors import BundleError
from milan_onnx.files import sha256_file, write_json

if TYPE_CHECKING:  # the command's help must not wait for NumPy
    import numpy as np
    from numpy.typing import NDArray

FORMAT = "milan-onnx-bundle"
FORMAT_VERSION = 2
READABLE = (1, 2)
MANIFEST = "bundle.json"
TOKENIZER = "tokenizer.json"
ENCODER = "encoder.onnx"
CAPTIONER_INIT = "captioner_init.onnx"
CAPTIONER_STEP = "captioner_step.onnx"
LM_STEP = "lm_step.onnx"
MODEL_CARD = "MODEL_CARD.md"
WORD_VECTORS = "word_vectors.npy"
PHRASE_VECTOR = "phrase_vector"
REQUIRED = (ENCODER, CAPTIONER_INIT, CAPTIONER_STEP, LM_STEP, TOKENIZER, MODEL_CARD)

Part = Literal["mean", "spread", "ring", "frame", "geometry"]
PARTS: tuple[Part, ...] = ("mean", "spread", "ring", "frame", "geometry")
"""What features of an exemplar may be made of."""
GRID = 56
"""Rows and columns of the cells that a mask is reduced to, for every part but ``mean``."""
RING = 5
"""Width of the ring, cells."""
GEOMETRY = (
    *("log_area", "sqrt_area", "centre_x", "centre_y", "spread_x", "spread_y"),
    *("eccentricity", "cos_2", "sin_2", "outline", "upright", "diagonal"),
    *("top", "bottom", "left", "right"),
    *("top_left", "top_right", "bottom_left", "bottom_right"),
    *("pieces", "filled", "off_centre", "long_axis", "short_axis"),
)
"""The numbers of the part ``geometry``, in their order."""

Strategy = Literal["consensus", "rerank", "beam", "greedy"]
STRATEGIES: tuple[Strategy, ...] = ("consensus", "rerank", "beam", "greedy")

CALIBRATION_INPUTS = (
    *("agreement", "log_p_given_exemplars", "log_p", "pmi"),
    *("words", "coherence", "predicted", "certainty"),
)
"""What a confidence may be computed from (see `milan_onnx.runtime.confidence`)."""

PLAIN: Mapping[Any, Any] = {int: int, float: (int, float), str: str}
"""Which JSON values a field of a plain type takes."""

LARGEST_SIDE = 4096
LARGEST_BEAM = 10_000
LARGEST_LENGTH = 1000

T = TypeVar("T")


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that the runtime passes through without knowing what it means."""

    name: str
    """Name of the graph output that makes it, and (states: with ``_in``) of the input it feeds."""

    shape: tuple[int, ...]
    """Shape of one row, without the leading row dimension; -1 where it depends on K."""

    dtype: Literal["float32", "int64"] = "float32"
    """Element type."""


@dataclass(frozen=True)
class Level:
    """One level of the encoder's pyramid."""

    name: str
    """Name of the graph output."""

    channels: int
    """Features this level adds to an exemplar."""

    height: int
    """Rows of its map."""

    width: int
    """Columns of its map."""


@dataclass(frozen=True)
class EncoderSpec:
    """What the runtime must know of ``encoder.onnx``."""

    backbone: str
    """Name of the network, for people."""

    image_size: int
    """S: side in pixels of the square images it takes."""

    levels: tuple[Level, ...]
    """Pyramid levels, in the order of the features."""

    mask_resize: Literal["area", "bilinear"] = "area"
    """How the frame's mask becomes a level's mask."""

    input: str = "images"
    """Name of the image input: uint8 (N,S,S,3), RGB."""

    parts: tuple[Part, ...] = ("mean",)
    """What an exemplar's features are made of, in their order."""

    @property
    def features(self) -> int:
        """F, the length of an exemplar's feature vector."""
        channels = sum(level.channels for level in self.levels)
        return sum(len(GEOMETRY) if part == "geometry" else channels for part in self.parts)


@dataclass(frozen=True)
class CaptionerSpec:
    """What the runtime must know of the captioner's two graphs."""

    contexts: tuple[TensorSpec, ...]
    """Per-unit tensors that every step reads."""

    states: tuple[TensorSpec, ...]
    """Per-row tensors that a step reads (``NAME_in``) and writes (``NAME``)."""

    exemplars: int = 15
    """K it was trained with; another K works if the graph allows it."""

    phrase_vector: int = 0
    """D of the word vectors, where captioner_init predicts a phrase vector; 0: it does not."""


@dataclass(frozen=True)
class LanguageModelSpec:
    """What the runtime must know of ``lm_step.onnx``."""

    states: tuple[TensorSpec, ...]
    """Per-row tensors, as for the captioner; zeros at first."""


@dataclass(frozen=True)
class VocabularySpec:
    """Special tokens of the vocabulary; the words are in ``tokenizer.json``."""

    size: int
    """V, number of tokens."""

    start: int
    """Token every description starts from; never part of one."""

    stop: int
    """Token that ends a description."""

    pad: int
    """Filler of training batches; never generated."""

    unk: int
    """Stands for words outside the vocabulary."""

    style: Literal["words", "sentences"] = "words"
    """How text is put together: words as they are, or sentences with a capital (the paper)."""


@dataclass(frozen=True)
class SearchDefaults:
    """Search settings the bundle was measured with; a user may change each."""

    beam_size: int = 50
    """Hypotheses kept a unit (paper: 50)."""

    length: int = 15
    """Longest description in tokens, the stop token included (paper's code: 15)."""

    pmi_weight: float = 0.2
    """λ of log p(d|E) - λ log p(d) (paper: 0.2)."""

    forbid: tuple[int, ...] = ()
    """Tokens never generated (start, pad, unk in bundles trained here; none in converted ones)."""

    no_repeat: int = 0
    """A description may not hold an n-gram of this length twice; 0 allows it (the paper)."""

    strategy: Strategy = "rerank"
    """``rerank``: beam search and then PMI (the paper); ``consensus``: of these hypotheses the one
    that the others agree with most; ``beam``: beam search on log p(d|E) alone; ``greedy``: a beam
    of one."""

    sharpness: float = 1.0
    """``consensus``: hypotheses count by exp(sharpness * PMI); 0: all alike."""

    predicted: float = 0.0
    """``consensus``: how much the predicted phrase vector counts at most, all hypotheses together
    being 1; nothing where the captioner predicts none."""

    legacy: bool = False
    """Repeat the quirks of the paper's code: one term too many in log p(d) of the reranking, λ
    inside each step of ``beam`` and ``greedy``, masks that fade at the border."""


@dataclass(frozen=True)
class Calibration:
    """Logistic regression of "a person would call this description right" on its scores."""

    weights: Mapping[str, float]
    """Weight of each input, by its name in `CALIBRATION_INPUTS`."""

    bias: float
    """confidence = 1 / (1 + exp(-(bias + sum of weight * input)))."""


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle as it was when the bundle was made."""

    sha256: str
    """Hexadecimal SHA-256."""

    bytes: int
    """Size."""


@dataclass(frozen=True)
class Manifest:
    """``bundle.json``, parsed."""

    name: str
    """Name of the bundle, as shown to users."""

    version: str
    """Version of these weights."""

    license: str
    """SPDX expression, or words, for the weights."""

    encoder: EncoderSpec
    """The encoder graph."""

    captioner: CaptionerSpec
    """The captioner graphs."""

    language_model: LanguageModelSpec
    """The language model graph."""

    vocabulary: VocabularySpec
    """Special tokens."""

    search: SearchDefaults = field(default_factory=SearchDefaults)
    """Search settings it was measured with."""

    calibration: Calibration | None = None
    """How confidences are computed; None: hypotheses have none."""

    files: Mapping[str, FileEntry] = field(default_factory=dict)
    """Every file of the bundle but the manifest."""

    training: Mapping[str, Any] = field(default_factory=dict)
    """What made it: data, recipe, seeds, figures. For people; the runtime does not read it."""


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose manifest was read and whose files are there."""

    path: Path
    """The folder."""

    manifest: Manifest
    """Its manifest."""

    sha256: str
    """Hash of ``bundle.json``, and so of all files: names these weights exactly."""

    def file(self, name: str) -> Path:
        """Path of one file."""
        return self.path / name


def default_bundle_path() -> Path:
    """The bundle that ships in the package."""
    return Path(__file__).parent / "models" / "default"


def load_bundle(path: str | Path | None = None, *, verify: bool = True) -> Bundle:
    """Read a bundle's manifest and check its files (sizes; with ``verify`` hashes too).

    Raises BundleError naming the file that is missing, damaged or of a newer format; word vectors,
    which are few, are read too.
    """
    folder = Path(path) if path is not None else default_bundle_path()
    manifest_path = folder / MANIFEST
    if not manifest_path.is_file():
        raise BundleError(
            f"{folder} is not a bundle: it has no {MANIFEST}",
            hint="give the folder that `milan-onnx bundle show` accepts, or leave --bundle out",
        )
    manifest = parse_manifest(manifest_path)
    for name in REQUIRED:
        if name not in manifest.files:
            raise BundleError(f"bundle {folder} is damaged: its manifest lists no {name}")
    if manifest.search.strategy == "consensus" and WORD_VECTORS not in manifest.files:
        raise BundleError(
            f"bundle {folder} is damaged: its search is consensus, and its manifest lists no "
            f"{WORD_VECTORS}"
        )
    for name in manifest.files:
        problem = _file_problem(folder, name, manifest.files[name], verify)
        if problem:
            raise BundleError(
                f"bundle {folder} is damaged: {problem}", hint="copy or install it again"
            )
    if WORD_VECTORS in manifest.files:
        length = read_word_vectors(folder / WORD_VECTORS, manifest.vocabulary.size).shape[1]
        _check_phrase_vector(folder, manifest.captioner.phrase_vector, length)
    return Bundle(folder, manifest, sha256_file(manifest_path))


def _check_phrase_vector(folder: Path, predicted: int, length: int) -> None:
    """Raises BundleError where the predicted phrase vectors are of another length than words'."""
    if predicted not in (0, length):
        raise BundleError(
            f"bundle {folder} is damaged: its captioner predicts phrase vectors of {predicted} "
            f"numbers, and its word vectors have {length}"
        )


def read_word_vectors(path: Path, size: int) -> NDArray[np.float16]:
    """The vectors float16 (size, D) of a vocabulary, mapped from their file.

    Raises BundleError where the file is no such array, or one of its numbers is not finite.
    """
    import numpy as np

    mend = "copy or install the bundle again"
    try:
        # Mapped: a header that promises more than there is costs no memory.
        found: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
        shape, kind = found.shape, found.dtype
    except Exception as error:  # NumPy's reader has many, and its advice is for other files
        raise BundleError(f"{path} is not an array in NumPy's format", hint=mend) from error
    if len(shape) != 2 or shape[0] != size or shape[1] < 1 or kind != np.float16:
        raise BundleError(
            f"{path} holds {kind} {shape}, word vectors of {size} tokens are float16 ({size}, D)",
            hint=mend,
        )
    if not np.isfinite(found).all():
        raise BundleError(f"{path} holds numbers that are not finite", hint=mend)
    return found


def verify_files(bundle: Bundle) -> dict[str, str]:
    """For each file, what is wrong with it; '' where it is as the manifest says."""
    entries = bundle.manifest.files
    return {name: _file_problem(bundle.path, name, entries[name], True) for name in sorted(entries)}


def write_manifest(folder: Path, manifest: Manifest) -> Bundle:
    """Hash the files of a folder and write its ``bundle.json``; returns the bundle."""
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name != MANIFEST)
    entries = {n: FileEntry(sha256_file(folder / n), (folder / n).stat().st_size) for n in names}
    body = asdict(manifest) | {"files": {n: asdict(e) for n, e in entries.items()}}
    write_json(folder / MANIFEST, {"format": FORMAT, "format_version": FORMAT_VERSION, **body})
    return load_bundle(folder)


def parse_manifest(path: Path) -> Manifest:
    """Parse and check ``bundle.json``. Raises BundleError naming what is wrong."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise BundleError(f"{path} is not a bundle manifest: its format is not {FORMAT!r}")
    version = value.get("format_version")
    if version not in READABLE or isinstance(version, bool):
        newer = isinstance(version, int) and version > FORMAT_VERSION
        raise BundleError(
            f"{path} has format version {version}, this program reads version {FORMAT_VERSION}",
            hint="upgrade milan-onnx" if newer else "make the bundle again with `make bundle`",
        )
    try:
        manifest = _manifest(value, version)
        _check_values(manifest)
        return manifest
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BundleError(f"{path} is not a valid bundle manifest ({reason})") from error


def _manifest(value: Mapping[str, Any], version: int) -> Manifest:
    encoder = dict(value["encoder"])
    encoder["levels"] = tuple(_build(Level, level) for level in encoder["levels"])
    encoder["parts"] = ("mean",) if version == 1 else tuple(encoder.get("parts", ("mean",)))
    captioner = dict(value["captioner"])
    captioner["contexts"] = _tensors(captioner["contexts"])
    captioner["states"] = _tensors(captioner["states"])
    search = dict(value["search"])
    search["forbid"] = tuple(search.get("forbid", ()))
    return Manifest(
        name=str(value["name"]),
        version=str(value["version"]),
        license=str(value["license"]),
        encoder=_build(EncoderSpec, encoder),
        captioner=_build(CaptionerSpec, captioner),
        language_model=LanguageModelSpec(_tensors(value["language_model"]["states"])),
        vocabulary=_build(VocabularySpec, value["vocabulary"]),
        search=_build(SearchDefaults, search),
        calibration=_calibration(value.get("calibration")),
        files={n: _build(FileEntry, e) for n, e in value["files"].items()},
        training=dict(value.get("training", {})),
    )


def _calibration(value: Mapping[str, Any] | None) -> Calibration | None:
    if value is None:
        return None
    return _build(Calibration, {**value, "weights": dict(value["weights"])})


def _tensors(values: list[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(v["name"], tuple(v["shape"]), v.get("dtype", "float32")) for v in values
    )


def _build(kind: type[T], value: Mapping[str, Any]) -> T:
    """A dataclass from a JSON object; keys of later minor versions are ignored."""
    kinds = get_type_hints(kind)
    known = {k: v for k, v in value.items() if k in kinds}
    for name, given in known.items():
        wanted = PLAIN.get(kinds[name], object)
        if not isinstance(given, wanted) or (isinstance(given, bool) and wanted is not object):
            raise TypeError(f"its {name} is {given!r}")
    return kind(**known)


def _check_values(manifest: Manifest) -> None:
    """Numbers must be in range. Raises ValueError naming the first that is not."""
    encoder, search, vocabulary = manifest.encoder, manifest.search, manifest.vocabulary
    tokens = (vocabulary.start, vocabulary.stop, vocabulary.pad, vocabulary.unk, *search.forbid)
    states = (*manifest.captioner.states, *manifest.language_model.states)
    right = {
        "image_size": 1 <= encoder.image_size <= LARGEST_SIDE,
        "levels": bool(encoder.levels)
        and all(min(level.channels, level.height, level.width) > 0 for level in encoder.levels),
        "mask_resize": encoder.mask_resize in ("area", "bilinear"),
        "parts": bool(encoder.parts)
        and all(part in PARTS for part in encoder.parts)
        and len(set(encoder.parts)) == len(encoder.parts),
        "beam_size": 1 <= search.beam_size <= LARGEST_BEAM,
        "length": 1 <= search.length <= LARGEST_LENGTH,
        "pmi_weight": math.isfinite(search.pmi_weight),
        "no_repeat": search.no_repeat >= 0,
        "strategy": search.strategy in STRATEGIES,
        "sharpness": math.isfinite(search.sharpness) and search.sharpness >= 0,
        "predicted": math.isfinite(search.predicted) and search.predicted >= 0,
        "phrase_vector": manifest.captioner.phrase_vector >= 0,
        "legacy": isinstance(search.legacy, bool),
        "vocabulary": all(isinstance(t, int) and 0 <= t < vocabulary.size for t in tokens),
        "style": vocabulary.style in ("words", "sentences"),
        "states": all(isinstance(n, int) and n > 0 for state in states for n in state.shape),
    }
    for name, good in right.items():
        if not good:
            raise ValueError(f"its {name} is out of range")
    if manifest.calibration is not None:
        _check_calibration(manifest.calibration, manifest.captioner)


def _check_calibration(calibration: Calibration, captioner: CaptionerSpec) -> None:
    """Raises ValueError naming an input that is not known or not there, or a weight that is no
    number."""
    for name in calibration.weights:
        if name not in CALIBRATION_INPUTS:
            raise ValueError(
                f"its calibration has the input {name!r}, known are {', '.join(CALIBRATION_INPUTS)}"
            )
    for number in (*calibration.weights.values(), calibration.bias):
        if isinstance(number, bool) or not math.isfinite(number):
            raise ValueError(f"its calibration has the number {number!r}")
    if {"predicted", "certainty"} & calibration.weights.keys() and not captioner.phrase_vector:
        raise ValueError("its calibration needs a predicted phrase vector, and there is none")
    by_exemplar = [len(tensor.shape) == 2 for tensor in captioner.contexts[:1]]
    if "coherence" in calibration.weights and not all(by_exemplar or [False]):
        raise ValueError(
            "its calibration has the input 'coherence', and the captioner's first context no row "
            "an exemplar"
        )


def _file_problem(folder: Path, name: str, entry: FileEntry, verify: bool) -> str:
    if Path(name).name != name:
        return f"the name {name!r} leads out of the folder"
    path = folder / name
    if not path.is_file():
        return f"{name} is missing"
    size = path.stat().st_size
    if size != entry.bytes:
        return f"{name} has {size} bytes, the manifest says {entry.bytes}"
    if verify and sha256_file(path) != entry.sha256:
        return f"{name} does not match its sha256"
    return ""
