"""The search against a plain step-by-step reference, and against enumeration."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from milan_onnx.bundle import Bundle, SearchDefaults, load_bundle
from milan_onnx.runtime import Describer, Device
from milan_onnx.runtime.prior import log_prior
from milan_onnx.runtime.search import RankedBeams, find_beams, search
from milan_onnx.runtime.stepping import Captioner, LanguageModel
from tests.toy import FEATURES, toy_bundle

K = 6


def networks(describer: Describer) -> tuple[Captioner, LanguageModel]:
    """Its captioner and language model."""
    return describer._captioner, describer._language_model


class Reference:
    """One hypothesis at a time, each from its start, in Python lists."""

    def __init__(self, describer: Describer, bundle: Bundle, features: np.ndarray) -> None:
        self.describer = describer
        self.vocabulary = bundle.manifest.vocabulary
        self.features = features
        self._cache: dict[tuple[int, tuple[int, ...]], np.ndarray] = {}
        self._states: dict[tuple[int, tuple[int, ...]], tuple] = {}

    def next_log_probs(self, unit: int, tokens: tuple[int, ...]) -> np.ndarray:
        """log p(w | tokens, E) of every w (V,)."""
        key = (unit, tokens)
        if key not in self._cache:
            captioner = self.describer._captioner
            zero = np.zeros(1, np.int64)
            if tokens:
                self.next_log_probs(unit, tokens[:-1])
                contexts, states = self._states[unit, tokens[:-1]]
            else:
                contexts, states, _ = captioner.start(self.features[unit : unit + 1])
            last = tokens[-1] if tokens else self.vocabulary.start
            step = captioner.step(
                contexts, zero, states, zero, np.array([last]), self.vocabulary.size
            )
            full = np.empty(self.vocabulary.size)
            full[step.next_token[0]] = step.log_prob[0]
            self._cache[key] = full
            self._states[key] = (contexts, step.states)
        return self._cache[key]

    def beams(self, unit: int, options: SearchDefaults) -> list[tuple[float, tuple[int, ...]]]:
        beam: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        for _ in range(options.length):
            grown = []
            for score, tokens in beam:
                if tokens and tokens[-1] == self.vocabulary.stop:
                    grown.append((score, tokens))
                    continue
                log_probs = self.next_log_probs(unit, tokens)
                best = np.argsort(-log_probs, kind="stable")[: options.beam_size]
                grown += [
                    (score + float(log_probs[w]), (*tokens, int(w)))
                    for w in best
                    if w not in options.forbid and not repeats((*tokens, int(w)), options.no_repeat)
                ]
            beam = sorted(grown, key=lambda h: (-h[0], h[1]))[: options.beam_size]
        return beam


def repeats(tokens: tuple[int, ...], n: int) -> bool:
    grams = [tokens[i : i + n] for i in range(len(tokens) - n + 1)] if n else []
    return len(set(grams)) < len(grams)


def naive_log_prior(describer: Describer, tokens: tuple[int, ...], start: int) -> float:
    model, zero = describer._language_model, np.zeros(1, np.int64)
    states, total, last = model.start(), 0.0, start
    for token in tokens:
        log_prob, states = model.step(states, zero, np.array([last]), zero, np.array([token]))
        total, last = total + float(log_prob[0]), token
    return total


def unpadded(beams: RankedBeams, unit: int, rank: int) -> tuple[int, ...]:
    return tuple(int(t) for t in beams.tokens[unit, rank] if t >= 0)


def features(units: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((units, K, FEATURES)).astype(np.float32)


@pytest.mark.parametrize("no_repeat", [0, 1, 2])
def test_same_fifty_beams_as_the_plain_reference(
    bundle: Bundle, describer: Describer, no_repeat: int
) -> None:
    units = 32 if no_repeat == 0 else 6
    options = replace(bundle.manifest.search, no_repeat=no_repeat, length=9)
    x = features(units)
    reference = Reference(describer, bundle, x)
    vocabulary = bundle.manifest.vocabulary
    found = find_beams(*networks(describer), x, vocabulary, options)
    ranked = search(*networks(describer), x, vocabulary, options)
    different = 0
    for unit in range(units):
        expected = reference.beams(unit, options)
        ours = [tuple(int(t) for t in row if t >= 0) for row in found.tokens[unit]]
        assert set(ours) == {tokens for _, tokens in expected}
        scores = np.array([score for score, _ in expected])
        np.testing.assert_allclose(found.score[unit], scores, atol=2e-5)
        # Near ties may swap places between two ways to compute the same number.
        different += [tokens for _, tokens in expected] != ours
        pmi = {
            t: s - options.pmi_weight * naive_log_prior(describer, t, vocabulary.start)
            for s, t in expected
        }
        best = max(pmi, key=lambda t: pmi[t])
        assert abs(pmi[best] - ranked.pmi[unit, 0]) < 1e-4
        assert pmi[unpadded(ranked, unit, 0)] > pmi[best] - 1e-4
    assert different <= units // 8


def test_reaches_the_true_maximum_of_a_tiny_vocabulary(tmp_path: Path) -> None:
    words = ("a", "b", "c")
    bundle = toy_bundle(tmp_path, seed=3, words=words)
    describer = Describer(bundle, Device("cpu"))
    vocabulary = bundle.manifest.vocabulary
    options = replace(bundle.manifest.search, beam_size=400, length=5, pmi_weight=0.7)
    x = features(5, seed=4)
    reference = Reference(describer, bundle, x)
    ranked = search(*networks(describer), x, vocabulary, options)
    sequences = [
        (*body, vocabulary.stop)
        for length in range(options.length)
        for body in itertools.product(range(len(words)), repeat=length)
    ] + list(itertools.product(range(len(words)), repeat=options.length))
    priors = {s: naive_log_prior(describer, s, vocabulary.start) for s in sequences}
    for unit in range(5):
        pmi = {}
        for tokens in sequences:
            given = sum(
                float(reference.next_log_probs(unit, tokens[:i])[t]) for i, t in enumerate(tokens)
            )
            pmi[tokens] = given - options.pmi_weight * priors[tokens]
        best = max(pmi, key=lambda t: pmi[t])
        assert unpadded(ranked, unit, 0) == best
        assert ranked.pmi[unit, 0] == pytest.approx(pmi[best], abs=1e-4)
        assert np.isfinite(ranked.pmi[unit]).sum() == len(sequences)


def test_results_do_not_depend_on_the_batch(bundle: Bundle, describer: Describer) -> None:
    x = features(40, seed=9)
    options, vocabulary = bundle.manifest.search, bundle.manifest.vocabulary
    models = networks(describer)
    together = search(*models, x, vocabulary, options)
    alone = [search(*models, x[u : u + 1], vocabulary, options) for u in range(40)]
    for unit in range(40):
        np.testing.assert_array_equal(together.tokens[unit], alone[unit].tokens[0])
        assert together.pmi[unit].tobytes() == alone[unit].pmi[0].tobytes()


def test_trie_equals_one_sequence_at_a_time(bundle: Bundle, describer: Describer) -> None:
    rng = np.random.default_rng(2)
    vocabulary = bundle.manifest.vocabulary
    tokens = np.full((60, 8), -1, np.int64)
    for row in tokens:
        length = rng.integers(0, 9)
        row[:length] = rng.integers(0, 4, length)
        if 0 < length < 8 and rng.random() < 0.7:
            row[length - 1] = vocabulary.stop
    found = log_prior(describer._language_model, tokens, vocabulary)
    for row, value in zip(tokens, found, strict=True):
        sequence = tuple(int(t) for t in row if t >= 0)
        expected = naive_log_prior(describer, sequence, vocabulary.start)
        assert value == pytest.approx(expected, abs=1e-5)


def test_candidates_read_differently_and_descend(describer: Describer) -> None:
    done: list[int] = []
    units = list(describer.describe(features(70), candidates=7, progress=done.append))
    assert done == [32, 32, 6]
    assert len(units) == 70
    for hypotheses in units:
        texts = [h.description for h in hypotheses]
        assert len(set(texts)) == len(texts) == 7
        scores = [h.pmi for h in hypotheses]
        assert scores == sorted(scores, reverse=True)
        for h in hypotheses:
            assert h.pmi == pytest.approx(h.log_p_given_exemplars - 0.2 * h.log_p, abs=1e-9)
            assert "<" not in h.description


def shipped_features(describer: Describer, units: int) -> np.ndarray:
    """Features (units, 15, F) of random patches of built-in images."""
    from milan_onnx.probe import open_probe

    rng, encoder = np.random.default_rng(1), describer.encoder()
    size = encoder.image_size
    probe = open_probe(None, synthetic=16)
    frames = [np.asarray(probe.image(i).resize((size, size))) for i in range(16)]
    maps = encoder.maps(np.stack(frames))
    found = np.empty((units, 15, encoder.spec.features), np.float32)
    for unit in range(units):
        for rank in range(15):
            masks = np.zeros((1, size, size), bool)
            top, left = rng.integers(0, size - 60, 2)
            masks[0, top : top + 60, left : left + 60] = True
            found[unit, rank] = encoder.pool(maps, int(rng.integers(16)), masks)[0]
    return found


def test_shipped_bundle_gives_the_reference_beams() -> None:
    bundle = load_bundle()
    describer = Describer(bundle, Device("cpu"))
    options, vocabulary = bundle.manifest.search, bundle.manifest.vocabulary
    x = shipped_features(describer, 3)
    reference = Reference(describer, bundle, x)
    found = find_beams(*networks(describer), x, vocabulary, options)
    for unit in range(len(x)):
        expected = reference.beams(unit, options)
        ours = [tuple(int(t) for t in row if t >= 0) for row in found.tokens[unit]]
        # The last places may be near ties, decided either way by the last bits.
        shared = set(ours) & {tokens for _, tokens in expected}
        assert len(shared) >= options.beam_size - 1
        scores = np.array([score for score, _ in expected])
        np.testing.assert_allclose(found.score[unit], scores, atol=1e-4)
