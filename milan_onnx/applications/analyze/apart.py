"""Words that set one group of units apart from another: weighted log-odds with a prior.

Monroe, Colaresi and Quinn, "Fightin' Words" (2008): the log-odds of a word in one group less those
in the other, both shrunk towards the word's share in the two together (an informative Dirichlet
prior), divided by the standard error. So a word that is said once does not lead the list.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from milan_onnx.applications.analyze.reading import Reading

PRIOR = 500.0
"""Weight of the prior: as if each group had said so many more words, drawn from both."""
DECIMALS = 4


@dataclass(frozen=True)
class WordScore:
    """How much more one group says a word than another."""

    word: str
    """The word in the form that is said most."""

    here: int
    """Units of the group whose description holds it."""

    there: int
    """Units of the other group."""

    z: float
    """Standard errors by which the group's log-odds are above the other's; 4 decimals."""


def words_apart(here: Sequence[Reading], there: Sequence[Reading]) -> tuple[WordScore, ...]:
    """All words of two groups of units, what the first says more in front; ties by the word.

    A unit counts a word once. Empty where either group says nothing.
    """
    counts = Counter(word for unit in here for word in unit.vocabulary)
    others = Counter(word for unit in there for word in unit.vocabulary)
    if not counts or not others:
        return ()
    forms = _forms([*here, *there])
    scores = log_odds(counts, others)
    order = sorted(scores, key=lambda word: (-scores[word], word))
    return tuple(WordScore(forms[w], counts[w], others[w], scores[w]) for w in order)


def log_odds(here: Counter[str], there: Counter[str], prior: float = PRIOR) -> dict[str, float]:
    """The z-score of each word of two groups, 4 decimals; exchanged groups give its negative."""
    total_here, total_there = here.total(), there.total()
    both = total_here + total_there
    scores = {}
    for word in here.keys() | there.keys():
        alpha = prior * (here[word] + there[word]) / both
        seen, other = here[word] + alpha, there[word] + alpha
        gap = _logit(seen, total_here + prior) - _logit(other, total_there + prior)
        scores[word] = round(gap / math.sqrt(1 / seen + 1 / other), DECIMALS) + 0.0
    return scores


def _logit(count: float, total: float) -> float:
    """The log-odds; a word that is all that is said has the rest of one unit left over."""
    return math.log(count / max(total - count, 1.0))


def _forms(units: Sequence[Reading]) -> dict[str, str]:
    """How each word is said most; ties by the form."""
    said: dict[str, Counter[str]] = {}
    for unit in units:
        for word, form in unit.vocabulary.items():
            said.setdefault(word, Counter())[form] += 1
    return {word: min(forms, key=lambda f: (-forms[f], f)) for word, forms in said.items()}
