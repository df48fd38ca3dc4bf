"""Which hypothesis of a unit the others agree with most: minimum Bayes risk over the beam.

Of hypotheses with posterior weights w_i, take the one whose expected similarity to the truth is
largest: argmax_i sum_j w_j sim(i, j) (Bickel & Doksum, 1977; Kumar & Byrne, HLT-NAACL 2004). The
weights are exp(sharpness * PMI), normalised. sim is the eighth power of the cosine of phrase
vectors, 0 where that is negative: nearly the same counts, and what is only akin hardly, else the
best would be whatever names two things at once. A phrase vector is the sum of the vectors of the
phrase's distinct words. A phrase without one is like itself (1) and nothing else (0).

The further candidates are those that together with it most likely hold the truth: each is the one
that adds most to sum_j w_j max_i sim(i, j) over the candidates i (greedy facility location,
Cornuejols et al. 1977).

The captioner may predict the phrase vector of the truth itself. It is then one hypothesis more that
is never told: the beam knows what can be said in words, the prediction is not scattered over the
ways to say it, but lies between things where several may be true. Its weight is ``predicted`` times
(1 - A)^2, A the highest agreement of the others: where they agree, it does not count.

All of it is float64, and of one unit alone: company in a batch changes no bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from milan_onnx.bundle import read_word_vectors

Scores = NDArray[np.float64]
Ids = NDArray[np.int64]

RESOLUTION = 1e-6
"""Agreements that differ by less are ties."""
POWER = 8
"""Of the cosine, in the similarity: chosen on described units (docs/training-log.md)."""
DOUBT = 2
"""Power of 1 - A in the weight of a prediction: chosen on described, planted and class units."""


def word_table(path: Path, words: Sequence[int], size: int) -> Scores:
    """The vectors of a vocabulary of ``size`` tokens: float64 (size + 1, D).

    Tokens that are not among ``words``, the special ones, and the last row, which -1 stands for,
    are zeros. Raises BundleError as `milan_onnx.bundle.read_word_vectors`.
    """
    found = read_word_vectors(path, size)
    table = np.zeros((size + 1, found.shape[1]))
    rows = sorted(words)
    table[rows] = found[rows]
    return table


def phrase_vectors(tokens: Ids, vectors: Scores) -> Scores:
    """Vectors (H, D) of phrases of token ids (H, length), -1 after the end: of length 1, or zeros.

    ``vectors``: as of `word_table`. Repeated words count once.
    """
    words = np.sort(tokens, axis=1)
    words[:, 1:][words[:, 1:] == words[:, :-1]] = -1
    total = np.zeros((len(words), vectors.shape[1]))
    for column in words.T:  # in the order of the token ids: equal sets of words, equal bits
        total += vectors[column]
    length = np.sqrt((total * total).sum(axis=1, keepdims=True))
    phrases = np.zeros_like(total)
    np.divide(total, length, out=phrases, where=length > 0)
    return phrases


def similarities(phrases: Scores) -> Scores:
    """sim(i, j) of phrase vectors (H, D): (H, H), ones on the diagonal."""
    cosine = np.einsum("id,jd->ij", phrases, phrases)  # no BLAS: its last bits vary
    found = np.clip(cosine, 0, 1) ** POWER
    np.fill_diagonal(found, 1.0)
    return np.asarray(found)


def with_prediction(
    similarity: Scores, weights: Scores, predicted: Scores, weight: float
) -> tuple[Scores, Scores]:
    """Similarities (H, H + 1) and weights (H + 1,) with a predicted phrase vector as the last.

    ``predicted`` (H,): cosine of each hypothesis with it; ``weight``: its own where no hypothesis
    agrees with another, all H being 1.
    """
    counted = weight * (1 - agreements(similarity, weights).max()) ** DOUBT
    last = np.clip(predicted, 0, 1) ** POWER
    return np.c_[similarity, last], np.append(weights, counted) / (1 + counted)


def cosines(phrases: Scores, vector: Scores) -> Scores:
    """Cosine (H,) of phrase vectors (H, D) with another (D,); 0 where one is all zeros."""
    length = np.sqrt((vector * vector).sum())
    found = np.einsum("id,d->i", phrases, vector)
    return np.asarray(found / length if length else found)


def posterior(pmi: Scores, sharpness: float) -> Scores:
    """Weights (H,) of hypotheses with PMI (H,); they sum to 1."""
    weights = np.exp(sharpness * (pmi - pmi.max()))
    return np.asarray(weights / weights.sum())


def agreements(similarity: Scores, weights: Scores) -> Scores:
    """sum_j w_j sim(i, j) of H hypotheses: (H,), 0 to 1.

    ``similarity`` (H, n), ``weights`` (n,): the hypotheses, and a prediction where there is one.
    """
    return np.asarray((similarity * weights).sum(axis=1))


def covering(similarity: Scores, weights: Scores, agreement: Scores) -> Iterator[int]:
    """The hypotheses in the order in which they are told; the first of equal ones first.

    The one of highest agreement, then always the one that adds most. ``similarity`` (H, n),
    ``weights`` (n,), ``agreement`` (H,).
    """
    left = list(range(len(similarity)))
    covered = np.zeros(len(weights))
    added = agreement
    while left:
        best = left[int(np.round(added[left] / RESOLUTION).argmax())]
        left.remove(best)
        yield best
        covered = np.maximum(covered, similarity[best])
        added = (np.maximum(covered, similarity) * weights).sum(axis=1)
