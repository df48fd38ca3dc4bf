"""Which hypothesis of a unit the others agree with most: minimum Bayes risk over the beam.

Of hypotheses with posterior weights w_i, take the one whose expected similarity to the truth is
largest: argmax_i sum_j w_j sim(i, j) (Bickel & Doksum, 1977; Kumar & Byrne, HLT-NAACL 2004). The
weights are exp(sharpness * PMI), normalised. sim is the cosine of phrase vectors: the sum of the
vectors of a phrase's distinct words. A phrase without a vector is like itself (1) and nothing else
(0).

All of it is float64, and of one unit alone: company in a batch changes no bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from milan_onnx.bundle import read_word_vectors

Scores = NDArray[np.float64]
Ids = NDArray[np.int64]

RESOLUTION = 1e-6
"""Agreements that differ by less are ties."""


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


def agreements(phrases: Scores, pmi: Scores, sharpness: float) -> Scores:
    """sum_j w_j sim(i, j) of H hypotheses with phrase vectors (H, D) and PMI (H,): (H,)."""
    weights = np.exp(sharpness * (pmi - pmi.max()))
    weights /= weights.sum()
    mean = (weights[:, None] * phrases).sum(axis=0)
    nothing = ~phrases.any(axis=1)
    return np.asarray((phrases * mean).sum(axis=1) + np.where(nothing, weights, 0))


def most_agreed(agreement: Scores) -> int:
    """The first of the hypotheses with the highest agreement."""
    return int(np.round(agreement / RESOLUTION).argmax())
