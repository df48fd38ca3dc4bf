"""A batch of units of many requests: encoded together, and each searched or scored as it asks.

What a unit is answered does not depend on its company: one image more in a run of the encoder, or
one unit more in a search, changes no bit of the others (docs/architecture.md, Determinism). The
paper's own ranking (``legacy``) is the exception: it looks at all units searched together, so there
a request's units are searched with one another and with nobody else's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from time import perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from milan_onnx.bundle import Bundle, SearchDefaults
from milan_onnx.runtime import Describer, Device, Encoder, Hypothesis, in_order
from milan_onnx.runtime.scoring import phrase_array
from milan_onnx.runtime.search import BATCH as SEARCHED_TOGETHER
from milan_onnx.serve.captioning.recent import Recent

Floats = NDArray[np.float32]
Parts = Sequence[Sequence[bytes]]
T = TypeVar("T")
R = TypeVar("R")

ENCODED_TOGETHER = 8
POOLED_TOGETHER = 64


@dataclass(frozen=True)
class Region:
    """One exemplar: an image, and where in it."""

    key: bytes
    """Hash of the image's file: equal ones are encoded once."""

    frame: NDArray[np.uint8]
    """uint8 (S, S, 3), S the encoder's side."""

    mask: NDArray[np.uint8]
    """The mask bool (S, S), packed to bits."""


@dataclass(frozen=True)
class Describe:
    """Ask for descriptions."""

    search: SearchDefaults
    """How they are searched."""

    candidates: int
    """How many are told."""


@dataclass(frozen=True)
class Score:
    """Ask for scores of phrases."""

    phrases: tuple[tuple[int, ...], ...]
    """Their token ids, the stop token included."""


@dataclass(frozen=True)
class PhraseScore:
    """Scores of one phrase, in nats."""

    log_p_given_exemplars: float
    """log p(d|E)."""

    log_p: float
    """log p(d)."""


@dataclass(frozen=True)
class Unit:
    """What is asked about one unit."""

    regions: tuple[Region, ...]
    """Its exemplars."""

    task: Describe | Score
    """What is to be done."""

    request: Hashable
    """Which request it is of."""

    @property
    def together(self) -> bool:
        """Whether it is ranked with the other units of its request."""
        return isinstance(self.task, Describe) and self.task.search.legacy


Answer = Sequence[Hypothesis] | Sequence[PhraseScore] | Exception
NO_ANSWER = RuntimeError("the batch left a unit out")


@dataclass(frozen=True)
class Cost:
    """What a batch took."""

    encoding: float
    """Seconds of encoding and pooling."""

    searching: float
    """Seconds of search and scores."""

    encoded: int
    """Distinct images that went through the encoder."""

    recalled: int
    """Distinct images whose maps were there."""


@dataclass(frozen=True)
class Maps:
    """Feature maps of one image."""

    levels: list[Floats]
    """float32 (1, C, h, w) a level."""

    @property
    def nbytes(self) -> int:
        """Bytes of all levels."""
        return sum(level.nbytes for level in self.levels)

    @staticmethod
    def of(levels: Sequence[Floats], image: int) -> Maps:
        """Those of one image of a batch: copies, since a view would keep the whole batch."""
        return Maps([level[image : image + 1].copy() for level in levels])


class Engine:
    """The captioner at work. One thread at a time calls `run`."""

    def __init__(self, bundle: Bundle, device: Device, threads: int, cache: int) -> None:
        """``threads`` slices of a batch are under way at once; ``cache``: bytes of feature maps.

        Raises BundleError where a graph does not load.
        """
        self.bundle = bundle
        self.describer = Describer(bundle, device)
        self.encoder = self.describer.encoder()
        self.threads = threads
        self._maps: Recent[Maps] = Recent(cache)

    def run(self, units: Sequence[Unit]) -> tuple[list[Answer], Cost]:
        """An answer for each unit; an error is the answer to those that it is about."""
        start = perf_counter()
        encoding = _Encoding(self.encoder, self._maps, units)
        for work, parts in encoding.parts(self.threads):
            self._each(work, parts)
        middle = perf_counter()
        answers: list[Answer] = [NO_ANSWER] * len(units)
        for group in _groups(units):
            features = np.stack([encoding.features[i] for i in group])
            told = self._answered([units[i] for i in group], features)
            for index, answer in zip(group, told, strict=True):
                answers[index] = answer
        done = perf_counter()
        cost = Cost(middle - start, done - middle, len(encoding.unknown), len(encoding.known))
        return answers, cost

    def _answered(self, units: Sequence[Unit], features: Floats) -> Sequence[Answer]:
        """Answers of units of one group; ``features`` (U, K, F)."""
        try:
            if isinstance(units[0].task, Score):
                return self._scored(units, features)
            return self._described(units, features)
        except Exception as error:
            return [error] * len(units)

    def _described(self, units: Sequence[Unit], features: Floats) -> list[Answer]:
        tasks = [unit.task for unit in units if isinstance(unit.task, Describe)]
        search, most = tasks[0].search, max(task.candidates for task in tasks)

        def describe(rows: Sequence[int]) -> list[list[Hypothesis]]:
            part = features[rows[0] : rows[-1] + 1]
            return list(self.describer.describe(part, search, candidates=most))

        rows = range(len(units))
        slices = [rows] if search.legacy else _even(rows, self.threads, 1, SEARCHED_TOGETHER)
        found = [texts for part in self._each(describe, slices) for texts in part]
        return [texts[: task.candidates] for texts, task in zip(found, tasks, strict=True)]

    def _scored(self, units: Sequence[Unit], features: Floats) -> list[Answer]:
        asked = [unit.task.phrases for unit in units if isinstance(unit.task, Score)]
        rows = {phrase: row for row, phrase in enumerate(dict.fromkeys(chain(*asked)))}
        table, row = phrase_array(list(rows)), np.array([rows[p] for p in chain(*asked)], np.int64)
        unit = np.arange(len(units)).repeat([len(phrases) for phrases in asked])
        given, prior = self.describer.score(features, unit, table[row]), self.describer.prior(table)
        scores = map(PhraseScore, given.tolist(), prior[row].tolist())
        return [list(islice(scores, len(phrases))) for phrases in asked]

    def _each(self, work: Callable[[T], R], parts: Iterable[T]) -> list[R]:
        return [made for _, made in in_order(work, parts, self.threads)]


class _Encoding:
    """Features of the exemplars of a batch."""

    def __init__(self, encoder: Encoder, cache: Recent[Maps], units: Sequence[Unit]) -> None:
        self._encoder, self._cache = encoder, cache
        self.features = [
            np.empty((len(unit.regions), encoder.spec.features), np.float32) for unit in units
        ]
        """Of each unit float32 (K, F), filled by `parts`."""
        self._uses: dict[bytes, list[_Use]] = defaultdict(list)
        for features, unit in zip(self.features, units, strict=True):
            for slot, region in enumerate(unit.regions):
                self._uses[region.key].append(_Use(region, features, slot))
        self.known = {k: maps for k in self._uses if (maps := cache.get(k)) is not None}
        """Maps of the images that were encoded before."""
        self.unknown = [key for key in self._uses if key not in self.known]
        """Images that are not known."""

    def parts(self, threads: int) -> Iterator[tuple[Callable[[Sequence[bytes]], None], Parts]]:
        """The work, to be done in any order and by several threads at once."""
        # A lone image costs the encoder as much as two.
        yield self._encode, _even(self.unknown, threads, 2, ENCODED_TOGETHER)
        yield self._recall, _even(list(self.known), threads, 1, ENCODED_TOGETHER)

    def _encode(self, keys: Sequence[bytes]) -> None:
        levels = self._encoder.maps(np.stack([self._uses[key][0].region.frame for key in keys]))
        for image, key in enumerate(keys):
            self._pool(key, levels, image)
            if self._cache.limit:
                self._cache.put(key, Maps.of(levels, image))

    def _recall(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self._pool(key, self.known[key].levels, 0)

    def _pool(self, key: bytes, levels: list[Floats], image: int) -> None:
        maps = self._encoder.image(levels, image)
        for part in _parts(self._uses[key], POOLED_TOGETHER):
            vectors = maps.pool(np.stack([self._mask(use.region) for use in part]))
            for use, vector in zip(part, vectors, strict=True):
                use.features[use.slot] = vector

    def _mask(self, region: Region) -> NDArray[np.bool_]:
        side = self._encoder.image_size
        flat = np.unpackbits(region.mask, count=side * side)
        return flat.view(np.bool_).reshape(side, side)


@dataclass(frozen=True)
class _Use:
    """A region of an image, and where its features go."""

    region: Region
    features: Floats
    slot: int


def _groups(units: Sequence[Unit]) -> list[list[int]]:
    """Which units can be answered together: as many exemplars, and the same search."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, unit in enumerate(units):
        task: Hashable = "score"
        if isinstance(unit.task, Describe):
            task = (unit.task.search, unit.request if unit.together else None)
        groups[(len(unit.regions), task)].append(index)
    return list(groups.values())


def _even(items: Sequence[T], parts: int, least: int, most: int) -> list[Sequence[T]]:
    """Items in so many parts of about the same size, or in more where they would be too large."""
    return list(_parts(items, min(most, max(least, -(-len(items) // parts)))))


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
