"""Direct phrase scoring: how well a phrase that no label holds describes each unit.

A caption names what is likeliest to be said, so a concept may be seen and never named: no caption
of the paper's own audit says "woman". log p(phrase|E) - λ log p(phrase) asks of each unit itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from milan_onnx.applications.reopened import exemplar_features, run_bundle, search_settings
from milan_onnx.errors import PhraseUnknown
from milan_onnx.labels import UnitLabel
from milan_onnx.progress import Reporter
from milan_onnx.reporting import run_probe
from milan_onnx.run import Run
from milan_onnx.runtime import Describer, choose_device, choose_threads
from milan_onnx.runtime.scoring import phrase_array
from milan_onnx.wording import normalise

UNITS = 64
"""Units scored in one call."""


@dataclass(frozen=True)
class Scoring:
    """Where a run's photos and captioner are, and on what to score."""

    images: str | Path | None = None
    """The run's photos, where they have moved."""

    bundle: Path | None = None
    """The run's captioner, where it has moved."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    threads: int | None = None
    """Batches in flight; None: the processors this process may use. Changes no result."""


@dataclass(frozen=True)
class PhraseScores:
    """Scores of phrases for units, in nats."""

    labels: tuple[UnitLabel, ...]
    """The units (U,): those that have something to describe."""

    phrases: tuple[str, ...]
    """The phrases that the captioner can say (P,)."""

    unknown: tuple[PhraseUnknown, ...]
    """Why others could not be scored."""

    log_p_given_exemplars: NDArray[np.float64]
    """log p(phrase|E) (U, P)."""

    log_p: NDArray[np.float64]
    """log p(phrase) (P,)."""

    pmi: NDArray[np.float64]
    """log p(phrase|E) - λ log p(phrase) (U, P), with the run's λ."""


def score_phrases(
    run: Run, phrases: Sequence[str], scoring: Scoring, say: Reporter, *, spellings: bool = False
) -> PhraseScores:
    """Score phrases for all units of a run that have something to describe.

    ``spellings``: score instead of each phrase all ways to write it that the captioner knows, such
    as "faces" for "face"; they have the phrase's `milan_onnx.wording.normalise`.
    Raises RunError where the run's photos are gone or others, BundleError where its captioner is.
    """
    labels = tuple(label for label in run.labels if label.description is not None)
    bundle = run_bundle(run, scoring.bundle)
    device, threads = choose_device(scoring.device), choose_threads(scoring.threads)
    say.choice("device", device)
    say.choice("threads", threads)
    describer = Describer(bundle, device.value, threads.value)
    known, tokens, unknown = _known(describer, phrases, spellings)
    probe = run_probe(run, scoring.images)
    workers = threads.value if device.value.name == "cpu" else 1  # a GPU is filled by one
    features = exemplar_features(run, labels, probe, describer.encoder(), workers, say)
    given = np.zeros((len(labels), len(known)))
    array = phrase_array(tokens)
    with say.stage("score", len(labels), "units") as meter:
        for start in range(0, len(labels), UNITS):
            part = np.stack(features[start : start + UNITS])
            unit = np.arange(len(part)).repeat(len(known))
            found = describer.score(part, unit, np.tile(array, (len(part), 1)))
            given[start : start + UNITS] = found.reshape(len(part), len(known))
            meter(len(part))
    log_p = describer.prior(array)
    weight = search_settings(run).pmi_weight
    return PhraseScores(labels, known, unknown, given, log_p, given - weight * log_p)


def _known(
    describer: Describer, phrases: Sequence[str], spellings: bool
) -> tuple[tuple[str, ...], list[tuple[int, ...]], tuple[PhraseUnknown, ...]]:
    """Phrases that the captioner can say, their tokens, and why it cannot say the others."""
    found: dict[str, tuple[int, ...]] = {}
    unknown: list[PhraseUnknown] = []
    written = Spellings(describer.vocabulary) if spellings else None
    for phrase in dict.fromkeys(phrases):
        ways = written.of(phrase) if written else ()
        try:
            for way in ways or (phrase,):
                found[way] = describer.tokens(way)
        except PhraseUnknown as error:
            unknown.append(error)
    return tuple(found), list(found.values()), tuple(unknown)


class Spellings:
    """The ways to write a phrase with the words of a vocabulary."""

    def __init__(self, words: Iterable[str]) -> None:
        self._words = frozenset(words)
        ways: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for word in sorted(self._words):
            ways[normalise(word)].append(word)
        self._ways: Mapping[tuple[str, ...], Sequence[str]] = dict(ways)

    def of(self, phrase: str) -> tuple[str, ...]:
        """As it was written, where that is known, then other numbers and spellings; or none."""
        own = phrase.lower()
        words = [self._ways.get((word,), ()) for word in normalise(phrase)]
        ways = [" ".join(way) for way in product(*words)] if words else []
        given = [own] if all(word in self._words for word in own.split()) else []
        return tuple(dict.fromkeys([*given, *ways]))
