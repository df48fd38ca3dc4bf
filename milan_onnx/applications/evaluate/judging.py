"""From descriptions and answers to rows of figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from milan_onnx.applications.evaluate import baselines
from milan_onnx.applications.evaluate.answers import (
    Answer,
    Descriptions,
    Values,
    firsts,
    variety,
    verdicts,
)
from milan_onnx.applications.evaluate.intervals import Bootstrap, Figure
from milan_onnx.applications.evaluate.result import Row
from milan_onnx.applications.evaluate.text_metrics import TextMetrics
from milan_onnx.applications.similarity import Similarity

COLUMNS = {
    "label_top1": "label@1",
    "label_top5": "label@5",
    "any_top1": "label or general@1",
    "any_top5": "label or general@5",
    "similarity": "similarity",
    "best5": "best of five",
    "bleu": "BLEU",
    "rouge": "ROUGE-L",
    "bertscore": "BERTScore",
    "distinct": "distinct/unit",
    "vocabulary": "vocabulary used",
}
NEAREST = "nearest described units"
ORDER = ("ours", "no PMI", "greedy", NEAREST, "shuffled", "constant", "NetDissect")


class AnyJudge(Protocol):
    """Judges descriptions of the same units in some columns."""

    @property
    def words(self) -> int:
        """Words of the bundle; 0 where the share of them that is used is no column."""

    def values(self, descriptions: Descriptions) -> dict[str, Values]:
        """What each unit scores (U,), by column."""

    def whole(self, descriptions: Descriptions) -> dict[str, float]:
        """What all units score together, by column."""

    def shuffled(self, descriptions: Descriptions) -> tuple[dict[str, Values], dict[str, float]]:
        """Both with descriptions of other clusters, averaged over several rotations."""

    def bootstrap(self) -> Bootstrap:
        """The bootstrap over the clusters."""


@dataclass(frozen=True)
class Judge:
    """Judges descriptions of the same units."""

    answers: Sequence[Answer]
    """What counts as right, of each unit."""

    clusters: Sequence[str]
    """Which units stand or fall together."""

    words: int
    """Words of the bundle."""

    similarity: Similarity | None
    """Sentence similarity, where it is installed."""

    seed: int
    """Seed of the bootstrap and of the shuffling."""

    metrics: TextMetrics | None = None
    """The paper's text metrics, where they are asked for."""

    def values(self, descriptions: Descriptions) -> dict[str, Values]:
        """What each unit scores (U,), by column."""
        columns = verdicts(self.answers, descriptions)
        if self.similarity is not None:
            said = [answer.said for answer in self.answers]
            columns["similarity"] = self.similarity(firsts(descriptions), said)
        if self.metrics is not None:
            columns |= self.metrics.each(firsts(descriptions))
        return columns

    def whole(self, descriptions: Descriptions) -> dict[str, float]:
        """What all units score together, by column."""
        return self.metrics.whole(firsts(descriptions)) if self.metrics is not None else {}

    def shuffled(self, descriptions: Descriptions) -> tuple[dict[str, Values], dict[str, float]]:
        """Both with descriptions of other clusters, averaged over several rotations."""
        dealt = list(baselines.shuffled(descriptions, self.clusters, self.seed))
        whole = mean_of([self.whole(way) for way in dealt])
        values = mean_of([self.values(way) for way in dealt])
        return values, {column: float(value) for column, value in whole.items()}

    def bootstrap(self) -> Bootstrap:
        """The bootstrap over the clusters."""
        return Bootstrap(self.clusters, self.seed)


def judge(
    judge: AnyJudge, found: Mapping[str, Descriptions]
) -> tuple[tuple[Row, ...], dict[str, dict[str, Figure]]]:
    """Rows of descriptions that were found (``ours`` first) and of the baselines that follow from
    ours, and the paired differences between ours and each of the others."""
    ours = found["ours"]
    said: dict[str, Descriptions] = {**found, "constant": baselines.constant(ours)}
    values = {name: judge.values(texts) for name, texts in said.items()}
    whole = {name: judge.whole(texts) for name, texts in said.items()}
    values["shuffled"], whole["shuffled"] = judge.shuffled(ours)
    bootstrap = judge.bootstrap()
    rows: list[Row] = []
    for name in (*ORDER, *values):
        if name in values and name not in [row.name for row in rows]:
            wide = {**whole[name], **(variety(said[name], judge.words) if name in found else {})}
            figures = {column: bootstrap.mean(v) for column, v in values[name].items()}
            rows.append(Row(name, figures | {c: Figure(value) for c, value in wide.items()}))
    return tuple(rows), _differences(bootstrap, values)


def mean_of(ways: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each column over several ways; no column for no way."""
    return {c: np.mean([way[c] for way in ways], axis=0) for c in (ways[0] if ways else ())}


def columns_of(rows: Sequence[Row]) -> dict[str, str]:
    """The columns that some row has, with their titles."""
    return {c: text for c, text in COLUMNS.items() if any(c in row.figures for row in rows)}


def _differences(
    bootstrap: Bootstrap, values: Mapping[str, Mapping[str, Values]]
) -> dict[str, dict[str, Figure]]:
    return {
        f"ours - {name}": {
            column: bootstrap.mean(values["ours"][column] - v) for column, v in columns.items()
        }
        for name, columns in values.items()
        if name != "ours"
    }
