"""log p(d) of many descriptions at once, on their prefix trie.

The hypotheses of a beam, and of different units, share most of their beginnings, and the language
model does not see the unit: each distinct prefix is stepped once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from milan_onnx.bundle import VocabularySpec
from milan_onnx.runtime.stepping import LanguageModel, continued

Ids = NDArray[np.int64]


def log_prior(
    language_model: LanguageModel, tokens: Ids, vocabulary: VocabularySpec
) -> NDArray[np.float64]:
    """log p(d) of token sequences (S, length), -1 after the end; float64 (S,).

    The stop token counts where it is there: an unfinished description is scored as a beginning.
    """
    total = np.zeros(len(tokens))
    states = language_model.start()
    node = np.zeros(len(tokens), np.int64)  # which prefix, among those of this length
    parent, token = np.zeros(1, np.int64), np.array([vocabulary.start])
    active = np.flatnonzero(tokens[:, 0] >= 0) if tokens.shape[1] else np.empty(0, np.int64)
    for column in range(tokens.shape[1]):
        if active.size == 0:
            break
        edges = np.stack((node[active], tokens[active, column]), axis=1)
        children, child = np.unique(edges, axis=0, return_inverse=True)
        log_prob, states = language_model.step(
            states, parent, token, np.ascontiguousarray(children[:, 0]), children[:, 1].copy()
        )
        child = child.reshape(-1)
        total[active] += log_prob.astype(np.float64)[child]
        goes_on = continued(tokens[active], column)
        active, child = active[goes_on], child[goes_on]
        # Only prefixes that some description continues are stepped further.
        kept, place = np.unique(child, return_inverse=True)
        node[active] = place
        used, parent = np.unique(children[kept, 0], return_inverse=True)
        states = [state[used] for state in states]
        parent, token = parent.astype(np.int64), children[kept, 1].copy()
    return total
