"""log p(d|E) of given phrases: how likely the captioner finds them, for any exemplars.

The search finds the best description of a unit; this scores a description that is already there,
by teacher forcing: the sum over its tokens, the stop token included, of log p(token | tokens
before, E) (MILAN section 3). E may be the exemplars of a unit (K of them), or one region (K=1).

Phrases of a unit are scored on their prefix trie: each distinct beginning is stepped once, and so
are attention and recurrence for all that continue it. Scores do not depend on what else is scored
in the same call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from milan_onnx.bundle import VocabularySpec
from milan_onnx.errors import PhraseUnknown
from milan_onnx.runtime.stepping import Captioner, CaptionerStep, States, continued

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

END = -1
"""What follows the last token of a phrase in an array of phrases."""
PIECES = re.compile(r"[\w'-]+|[^\w\s]")


def phrase_tokens(
    phrase: str, words: Mapping[int, str], vocabulary: VocabularySpec
) -> tuple[int, ...]:
    """Token ids of a phrase, the stop token included; ``words`` are the vocabulary's, by id.

    Raises PhraseUnknown naming the words that the vocabulary does not have, or an empty phrase.
    """
    tokens = {word: token for token, word in words.items()}
    pieces = [
        piece
        for chunk in phrase.lower().split()
        for piece in ([chunk] if chunk in tokens else PIECES.findall(chunk))
    ]
    unknown = [piece for piece in dict.fromkeys(pieces) if piece not in tokens]
    if unknown or not pieces:
        reason = f"does not know {', '.join(map(repr, unknown))}" if unknown else "needs words"
        raise PhraseUnknown(
            f"the phrase {phrase!r} cannot be scored: the captioner {reason}",
            hint="say it in other words" if unknown else "give a phrase",
        )
    return (*(tokens[piece] for piece in pieces), vocabulary.stop)


def phrase_array(phrases: Sequence[Sequence[int]]) -> Ids:
    """Phrases of token ids as one array (Q, length), -1 after the end."""
    length = max((len(phrase) for phrase in phrases), default=0)
    array = np.full((len(phrases), length), END, np.int64)
    for row, phrase in enumerate(phrases):
        array[row, : len(phrase)] = phrase
    return array


def score_phrases(
    captioner: Captioner, features: Floats, unit: Ids, phrases: Ids, start: int
) -> NDArray[np.float64]:
    """log p(phrase|E) of Q pairs of a unit and a phrase, in nats: float64 (Q,).

    ``features``: float32 (U, K, F), the exemplars of each unit; ``unit`` (Q,): which of them a pair
    is about; ``phrases`` (Q, length): its token ids, -1 after the end; ``start``: the start token.
    A phrase without the stop token is scored as a beginning, one without tokens has the score 0.
    """
    total = np.zeros(len(phrases))
    active = np.flatnonzero(phrases[:, 0] >= 0) if phrases.shape[1] else np.empty(0, np.int64)
    if not active.size:
        return total
    contexts, states, _ = captioner.start(features)
    # A row is a distinct beginning of a unit's phrases; its parent is the one a token shorter.
    row = np.array(unit, np.int64)
    row_unit = np.arange(len(features))
    parent, token = row_unit, np.full(len(features), start)
    parent_unit = row_unit
    for column in range(phrases.shape[1]):
        edges, edge = _edges(row[active], phrases[active, column])
        step = _step(captioner, contexts, parent_unit, states, parent, token, edges)
        total[active] += step.target_log_prob.astype(np.float64)[edge]
        goes_on = continued(phrases[active], column)
        active, edge = active[goes_on], edge[goes_on]
        if not active.size:
            break
        kept, row[active] = np.unique(edge, return_inverse=True)
        used, parent = np.unique(edges[0][kept], return_inverse=True)
        states = [state[used] for state in step.states]
        parent_unit, token = row_unit[used], edges[1][kept]
        row_unit = parent_unit[parent]
    return total


def _edges(rows: Ids, tokens: Ids) -> tuple[tuple[Ids, Ids], Ids]:
    """The distinct (row, next token), and which of them each pair is."""
    base = int(tokens.max()) + 1
    codes, code = np.unique(rows * base + tokens, return_inverse=True)
    return (codes // base, codes % base), code


def _step(
    captioner: Captioner,
    contexts: States,
    unit: Ids,
    states: States,
    parent: Ids,
    token: Ids,
    edges: tuple[Ids, Ids],
) -> CaptionerStep:
    """A step whose rows do not depend on their number: a lone one is run as two."""
    if len(unit) == 1:
        unit, states = unit.repeat(2), [state.repeat(2, axis=0) for state in states]
    if len(parent) == 1:
        parent, token = parent.repeat(2), token.repeat(2)
    return captioner.step(contexts, unit, states, parent, token, 1, *edges)
