"""What units that look alike are called: the described units nearest to a unit vote on its phrase.

A baseline without training. Features of exemplars are standardised over the described units,
clipped, and divided by the square root of their level's channels, so that levels weigh alike; a
unit is the mean over its exemplars, and beside it their standard deviation at a lower weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from milan_onnx.annotations import AnnotatedUnit, AnnotatedUnits, FeatureCache
from milan_onnx.applications.evaluate.answers import TOP
from milan_onnx.applications.similarity import Similarity
from milan_onnx.bundle import EncoderSpec
from milan_onnx.errors import UsageError
from milan_onnx.progress import Reporter
from milan_onnx.runtime import Encoder
from milan_onnx.runtime.encoding import Floats

VOTERS = 8
CLIP = 6.0
SPREAD = 0.3
"""Weight of the exemplars' standard deviation beside their mean."""
SOFTNESS = 0.15
"""A voter counts exp(-(d - d_min) / (SOFTNESS x mean d)), d squared distances of the voters."""
BLOCK = 128
"""Units looked at together."""
LOOKED_AT = 4 * VOTERS
"""Units whose distance is found again exactly: products of matrices differ in their last bits."""
Features = Sequence[Floats] | NDArray[np.float16]


@dataclass(frozen=True)
class Known:
    """Described units to look among."""

    units: Sequence[AnnotatedUnit]
    """What was said of them."""

    vectors: Floats
    """Where they are: float32 (units, 2F)."""

    scale: Scale
    """How others come to lie among them."""


@dataclass(frozen=True)
class Scale:
    """How features are made comparable."""

    mean: NDArray[np.float64]
    """Mean over all exemplars (F,)."""

    spread: NDArray[np.float64]
    """Standard deviation over all exemplars (F,), 1 where it is 0."""

    root: NDArray[np.float64]
    """Square root of the number of channels of each feature's level (F,)."""

    used: slice
    """Which of an exemplar's features are looked at: the averages under its mask, F of them."""

    @staticmethod
    def of(features: Features, spec: EncoderSpec) -> Scale:
        """The scale of described units' features, read a block at a time.

        Raises UsageError where the bundle's features have no part ``mean``.
        """
        used = _mean_part(spec)
        count, total = 0, np.zeros(used.stop - used.start)
        squares = np.zeros_like(total)
        for part in _blocks(features):
            rows = part.reshape(-1, part.shape[-1])[:, used]
            count += len(rows)
            total += rows.sum(0)
            squares += np.square(rows).sum(0)
        mean = total / count
        spread = np.sqrt(np.maximum(squares / count - mean**2, 0))
        channels = np.array([level.channels for level in spec.levels])
        root = np.sqrt(np.repeat(channels, channels))
        return Scale(mean, np.where(spread > 1e-6, spread, 1.0), root, used)

    def vectors(self, features: Features) -> Floats:
        """Units as float32 (units, 2F)."""
        found = []
        for part in _blocks(features):
            own = part[..., self.used]
            scaled = np.clip((own - self.mean) / self.spread, -CLIP, CLIP) / self.root
            found.append(np.concatenate([scaled.mean(1), SPREAD * scaled.std(1)], axis=1))
        return np.concatenate(found).astype(np.float32)


def _mean_part(spec: EncoderSpec) -> slice:
    """Where the part ``mean`` lies among an exemplar's features."""
    if "mean" not in spec.parts:
        raise UsageError("the bundle's features have no part mean", hint="give --no-nearest")
    before = replace(spec, parts=spec.parts[: spec.parts.index("mean")]).features
    return slice(before, before + replace(spec, parts=("mean",)).features)


def _blocks(features: Features) -> Iterator[NDArray[np.float64]]:
    """Features float64 (n, K, F) of some units at a time; alone where K changes."""
    if isinstance(features, np.ndarray):
        for start in range(0, len(features), BLOCK):
            yield features[start : start + BLOCK].astype(np.float64)
        return
    for one in features:
        yield one[None].astype(np.float64)


def known_units(
    source: AnnotatedUnits,
    units: Sequence[int],
    encoder: Encoder,
    name: str,
    folder: Path | None,
    workers: int,
    say: Reporter,
) -> Known:
    """Encode described units of a source; ``folder`` keeps their features (`FeatureCache`).

    ``name``: the encoder's (`encoder_name`).
    """
    with TemporaryDirectory(prefix="milan-onnx-features-") as temporary:
        most = max(source.units[unit].exemplars for unit in units)
        place = folder or Path(temporary)
        cache = FeatureCache(place, source, encoder, name, units=units, exemplars=most)
        cache.fill(workers, say)
        scale = Scale.of(cache.filled(), encoder.spec)
        vectors = scale.vectors(cache.filled())
    return Known([source.units[unit] for unit in units], vectors, scale)


def nearest_phrases(
    known: Known, features: Sequence[Floats], similarity: Similarity
) -> list[list[str]]:
    """The five phrases that the nearest described units favour, of each unit (K, F), best first.

    A phrase of a voter gets the sum over the voters of their weight times its cosine with the
    nearest of their phrases; ties in alphabetical order.
    """
    if not features:
        return []
    found = []
    for places, distances in _voters(known.vectors, known.scale.vectors(features)):
        said = [known.units[place].phrases for place in places.tolist()]
        found.append(_elected(said, _weights(distances), similarity))
    return found


def _weights(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    width = SOFTNESS * float(distances.mean())
    return np.exp(-(distances - distances.min()) / width) if width else np.ones(len(distances))


def _elected(
    said: Sequence[Sequence[str]], weights: NDArray[np.float64], similarity: Similarity
) -> list[str]:
    phrases = sorted({text for texts in said for text in texts})
    everything = [text for texts in said for text in texts]
    cosines = similarity.cosines(phrases, everything)
    ends = np.cumsum([len(texts) for texts in said])
    nearest = np.stack([part.max(1) for part in np.split(cosines, ends[:-1], axis=1)], axis=1)
    votes = np.round((nearest * weights).sum(1), 6)
    return [phrases[i] for i in np.argsort(-votes, kind="stable")[:TOP].tolist()]


def _voters(
    known: Floats, asked: Floats
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """The nearest of ``known`` (N, 2F) to each of ``asked``: places and squared distances."""
    lengths = np.square(known).sum(1)
    for start in range(0, len(asked), BLOCK):
        block = asked[start : start + BLOCK]
        rough = lengths - 2 * (block @ known.T)
        for vector, row in zip(block, rough, strict=True):
            near = np.sort(np.argsort(row, kind="stable")[:LOOKED_AT])
            exact = np.square(known[near].astype(np.float64) - vector).sum(1)
            order = np.argsort(exact, kind="stable")[:VOTERS]
            yield near[order], exact[order]
