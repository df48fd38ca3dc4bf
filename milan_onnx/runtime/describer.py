"""A loaded bundle: images and masks in, described units out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from milan_onnx import bundle as contract
from milan_onnx.bundle import Bundle, EncoderSpec, SearchDefaults
from milan_onnx.errors import BundleError, UsageError
from milan_onnx.runtime import search as searching
from milan_onnx.runtime.confidence import calibration_inputs, coherence, confidence
from milan_onnx.runtime.consensus import (
    Scores,
    agreements,
    cosines,
    covering,
    phrase_vectors,
    posterior,
    similarities,
    with_prediction,
    word_table,
)
from milan_onnx.runtime.device import Device
from milan_onnx.runtime.hypothesis import Hypothesis
from milan_onnx.runtime.pooling import ImageMaps
from milan_onnx.runtime.prior import log_prior
from milan_onnx.runtime.scoring import phrase_tokens, score_phrases
from milan_onnx.runtime.session import Session, in_order
from milan_onnx.runtime.stepping import Captioner, LanguageModel
from milan_onnx.runtime.vocabulary import read_vocabulary

Floats = NDArray[np.float32]
Told = tuple[int, dict[str, float]]
"""Rank of a hypothesis by PMI, and what `consensus` found of it, by the fields of Hypothesis."""


class Features(Protocol):
    """Features float32 (U, K, F), read in slices of units; an array is one."""

    def __len__(self) -> int:
        """U."""

    def __getitem__(self, part: slice, /) -> Floats:
        """Those of some units."""


class Describer:
    """The captioner, the language model and the encoder of a bundle on a device."""

    def __init__(self, bundle: Bundle, device: Device, threads: int = 1) -> None:
        """Load the graphs; ``threads`` batches of units are searched at once.

        Raises BundleError where a graph does not load, or a file is damaged.
        """
        self.bundle = bundle
        self._device = device
        self._threads = threads
        manifest = bundle.manifest
        self._captioner = Captioner(
            manifest.captioner,
            self._session(contract.CAPTIONER_INIT),
            self._session(contract.CAPTIONER_STEP),
        )
        self._language_model = LanguageModel(
            manifest.language_model, self._session(contract.LM_STEP)
        )
        path = bundle.file(contract.TOKENIZER)
        words = manifest.vocabulary
        self._vocabulary = read_vocabulary(path, words.size, words.style)
        self._said = np.zeros(words.size + 1, np.bool_)  # the last is for what follows an end
        self._said[list(self._vocabulary.words)] = True
        self._vectors: NDArray[np.float64] | None = None
        if contract.WORD_VECTORS in manifest.files:
            path = bundle.file(contract.WORD_VECTORS)
            self._vectors = word_table(path, list(self._vocabulary.words), words.size)

    def encoder(self) -> Encoder:
        """The image encoder; loaded on demand, and freed with the returned object."""
        return Encoder(self.bundle.manifest.encoder, self._session(contract.ENCODER))

    def describe(
        self,
        features: Features,
        options: SearchDefaults | None = None,
        *,
        candidates: int = 5,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Iterator[list[Hypothesis]]:
        """The best hypotheses of each unit, best first, as batches are done.

        ``features``: float32 (U, K, F), or what is read like it in slices of units. Texts that read
        the same count once (the better one), empty ones, but for ``legacy``, not at all. Raises
        UsageError for a search that the bundle has no word vectors for.
        """
        options = options or self.bundle.manifest.search
        _check_search(self.bundle, options)
        for beams in self._ranked(features, options):
            progress(len(beams.tokens))
            for unit in range(len(beams.tokens)):
                yield self._hypotheses(beams, unit, candidates, options)

    def _ranked(
        self, features: Features, options: SearchDefaults
    ) -> Iterator[searching.RankedBeams]:
        """The hypotheses of batches of units, several batches at once."""
        models = self._captioner, self._language_model
        rest = self.bundle.manifest.vocabulary, options
        starts = range(0, len(features), searching.BATCH)

        def batch(start: int) -> Floats:
            return features[start : start + searching.BATCH]

        if not options.legacy:
            found = in_order(
                lambda s: searching.search(*models, batch(s), *rest), starts, self._threads
            )
            yield from (beams for _, beams in found)
            return
        # The paper's code ranks by the longest description of all that it searched together.
        beams = list(
            in_order(
                lambda s: searching.find_beams(*models, batch(s), *rest), starts, self._threads
            )
        )
        longest = max((searching.longest_of(found) for _, found in beams), default=0)

        def rank(pair: tuple[int, searching.Beams]) -> searching.RankedBeams:
            return searching.rank(pair[1], *models, batch(pair[0]), *rest, longest)

        yield from (ranked for _, ranked in in_order(rank, beams, self._threads))

    def _hypotheses(
        self, beams: searching.RankedBeams, unit: int, candidates: int, options: SearchDefaults
    ) -> list[Hypothesis]:
        found: dict[str, Hypothesis] = {}
        for rank, known in self._order(beams, unit, options):
            if len(found) == candidates:
                break
            text = self.text(beams.tokens[unit, rank])
            if not text and not options.legacy:  # stopped at once: says nothing
                continue
            if text not in found:
                found[text] = self._hypothesis(text, beams, unit, rank, known)
        return list(found.values())

    def _order(
        self, beams: searching.RankedBeams, unit: int, options: SearchDefaults
    ) -> Iterator[Told]:
        """The hypotheses of a unit in the order that they are told in."""
        ranks = range(int(np.isfinite(beams.pmi[unit]).sum()))
        if options.strategy != "consensus" or self._vectors is None:
            return ((rank, {}) for rank in ranks)
        tokens = beams.tokens[unit, ranks.start : ranks.stop]
        words = np.where(self._said[tokens], tokens, -1)
        first: dict[tuple[int, ...], int] = {}
        for rank, row in enumerate(words.tolist()):
            first.setdefault(tuple(word for word in row if word >= 0), rank)
        if not options.legacy:
            first.pop((), None)
        if not first:
            return iter(())
        distinct = list(first.values())
        phrases = phrase_vectors(words[distinct], self._vectors)
        similarity = similarities(phrases)
        weights = posterior(beams.pmi[unit, distinct], options.sharpness)
        known: dict[str, Scores] = {}
        if beams.phrase_vector is not None:
            predicted = cosines(phrases, beams.phrase_vector[unit].astype(np.float64))
            certainty = np.full(len(predicted), (weights * predicted).sum())
            known |= {"predicted": predicted, "certainty": certainty}
            similarity, weights = with_prediction(similarity, weights, predicted, options.predicted)
        known["agreement"] = agreements(similarity, weights)
        order = covering(similarity, weights, known["agreement"])
        return ((distinct[i], {k: float(v[i]) for k, v in known.items()}) for i in order)

    def _hypothesis(
        self,
        text: str,
        beams: searching.RankedBeams,
        unit: int,
        rank: int,
        known: Mapping[str, float],
    ) -> Hypothesis:
        found = Hypothesis(
            text,
            float(beams.pmi[unit, rank]),
            float(beams.log_p_given_exemplars[unit, rank]),
            float(beams.log_p[unit, rank]),
            tuple(t for t in beams.tokens[unit, rank].tolist() if t >= 0),
            **known,
        )
        calibration = self.bundle.manifest.calibration
        if calibration is None:
            return found
        alike = None if beams.coherence is None else float(beams.coherence[unit])
        alike = None if alike is None or np.isnan(alike) else alike
        inputs = calibration_inputs(found, alike, self.bundle.manifest.vocabulary.stop)
        return replace(found, confidence=confidence(calibration, inputs))

    def coherence(self, features: Floats) -> NDArray[np.float64]:
        """How alike the exemplars of units float32 (U, K, F) are to the captioner: float64 (U,)
        (see `confidence.coherence`)."""
        return coherence(self._captioner.start(features).contexts[0])

    @property
    def words(self) -> int:
        """Number of words it can say."""
        return len(self._vocabulary.words)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The words it can say, as it writes them."""
        return tuple(self._vocabulary.words.values())

    def tokens(self, phrase: str) -> tuple[int, ...]:
        """Token ids of a phrase, the stop token included, as `score` takes them.

        Raises PhraseUnknown naming the words that the vocabulary does not have.
        """
        return phrase_tokens(phrase, self._vocabulary.words, self.bundle.manifest.vocabulary)

    def score(
        self, features: Floats, unit: NDArray[np.int64], phrases: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """log p(phrase|E) of pairs of a unit and a phrase (see `scoring.score_phrases`).

        ``features``: float32 (U, K, F); ``unit`` (Q,); ``phrases``: token ids (Q, length), -1 after
        the end (`scoring.phrase_array`). Returns float64 (Q,).
        """
        start = self.bundle.manifest.vocabulary.start
        return score_phrases(self._captioner, features, unit, phrases, start)

    def prior(self, phrases: NDArray[np.int64]) -> NDArray[np.float64]:
        """log p(phrase) of the language model, in nats: float64 (Q,); ``phrases`` as of `score`."""
        return log_prior(self._language_model, phrases, self.bundle.manifest.vocabulary)

    def text(self, tokens: NDArray[np.int64]) -> str:
        """The words of token ids (length,), -1 after the end."""
        return self._vocabulary.text(tokens.tolist())

    def _session(self, name: str) -> Session:
        path = self.bundle.file(name)
        return Session(path.read_bytes(), self._device, what=str(path), error=BundleError)


class Encoder:
    """Features of exemplars: the backbone once an image, the pooling once a mask."""

    def __init__(self, spec: EncoderSpec, session: Session) -> None:
        self.spec = spec
        self._session = session

    @staticmethod
    def load(path: Path, spec: EncoderSpec, device: Device) -> Encoder:
        """The encoder of an ``encoder.onnx``. Raises BundleError where it does not load."""
        return Encoder(spec, Session(path.read_bytes(), device, what=str(path), error=BundleError))

    @property
    def image_size(self) -> int:
        """Side of the square frames it takes, pixels."""
        return self.spec.image_size

    def maps(self, frames: NDArray[np.uint8]) -> list[Floats]:
        """Feature maps of frames uint8 (N,S,S,3): one float32 (N,C,h,w) a level."""
        levels = self.spec.levels
        # A lone image would take other kernels, with other last bits than among others.
        fed = frames if len(frames) > 1 else frames.repeat(2, axis=0)
        maps = self._session.run({self.spec.input: fed}, [level.name for level in levels])
        for level, found in zip(levels, maps, strict=True):
            shape = (len(fed), level.channels, level.height, level.width)
            if found.shape != shape or found.dtype != np.float32:
                raise BundleError(
                    f"level {level.name} of the encoder is {found.dtype} {found.shape}, "
                    f"its manifest says float32 {shape}",
                    hint="make or install the bundle again",
                )
        return [found[: len(frames)] for found in maps]

    def image(self, maps: Sequence[Floats], image: int) -> ImageMaps:
        """The maps of one of the images, to be pooled several times."""
        levels = [level[image] for level in maps]
        return ImageMaps(levels, self.spec.mask_resize, self.spec.parts)

    def pool(self, maps: Sequence[Floats], image: int, masks: NDArray[np.bool_]) -> Floats:
        """Features float32 (n, F) of one of the images under masks bool (n,S,S)."""
        return self.image(maps, image).pool(masks)


def search_options(bundle: Bundle, **given: Any) -> SearchDefaults:
    """The bundle's search settings with what the user set: all that is not None.

    Raises UsageError for a search that the bundle has no word vectors for.
    """
    given = {name: value for name, value in given.items() if value is not None}
    options = replace(bundle.manifest.search, **given)
    _check_search(bundle, options)
    return options


def _check_search(bundle: Bundle, options: SearchDefaults) -> None:
    if options.strategy == "consensus" and contract.WORD_VECTORS not in bundle.manifest.files:
        raise UsageError(
            f"the search consensus needs word vectors, and the bundle {bundle.manifest.name} has "
            "none",
            hint="search with rerank, or use another bundle",
        )
