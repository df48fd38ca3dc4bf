"""The text metrics of the paper's tables, by the packages that its authors used or their heirs.

``bleu``       BLEU of the whole set (Papineni et al. 2002), by sacrebleu, 0 to 1
``rouge``      ROUGE-L F1 (Lin 2004), by rouge-score, of each unit the best over its phrases
``bertscore``  BERTScore F1 (Zhang et al. 2020), by bert-score: roberta-large, inverse document
               frequencies of the true phrases, rescaled with its baseline, the best over phrases

Descriptions and phrases are lowercased and lose spaces and full stops at both ends, as there. A
unit without a description scores 0. None of them means much without its baselines: on human
annotations one constant description was found to beat every method (docs/evaluate.md).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import EnvironmentUnfit, ExtraMissing, UsageError

Values = NDArray[np.float64]
Phrases = Sequence[Sequence[str]]

METRICS = ("bleu", "rouge", "bertscore")
PACKAGES = {"bleu": "sacrebleu", "rouge": "rouge_score.rouge_scorer", "bertscore": "bert_score"}
BERTSCORE = "roberta-large"
LANGUAGE = "en"


class TextMetrics:
    """Some of the metrics, on units whose true phrases are known."""

    def __init__(
        self, names: Sequence[str], phrases: Phrases, *, bertscore_model: str | None = None
    ) -> None:
        """``phrases``: some of each unit. ``bertscore_model``: another than roberta-large, without
        rescaling where bert-score has no baseline for it.

        Raises UsageError for an unknown name, ExtraMissing naming the package that is not
        installed, EnvironmentUnfit where the model of BERTScore cannot be had.
        """
        unknown = [name for name in names if name not in METRICS]
        if unknown:
            known = ", ".join(METRICS)
            raise UsageError(f"no text metric is named {unknown[0]!r}", hint=f"there are {known}")
        self.names = tuple(name for name in METRICS if name in names)
        self._packages = {name: _package(name) for name in self.names}
        self._phrases = [[_plain(text) for text in of_unit] for of_unit in phrases]
        if "bertscore" in self.names:
            self._bert = _bert_scorer(self._packages["bertscore"], self._phrases, bertscore_model)

    def each(self, descriptions: Sequence[str]) -> dict[str, Values]:
        """What each unit scores (U,), by column; 0 where it has no description or no phrase."""
        said = [_plain(text) for text in descriptions]
        columns: dict[str, Values] = {}
        if "rouge" in self.names:
            columns["rouge"] = self._rouge(said)
        if "bertscore" in self.names:
            columns["bertscore"] = self._bertscore(said)
        return columns

    def whole(self, descriptions: Sequence[str]) -> dict[str, float]:
        """What the set scores, by column."""
        if "bleu" not in self.names:
            return {}
        said = [_plain(text) for text in descriptions]
        most = max((len(phrases) for phrases in self._phrases), default=0)
        # sacrebleu wants the first phrase of every unit, then the second, ...; None: there is none.
        streams = [
            [phrases[i] if i < len(phrases) else None for phrases in self._phrases]
            for i in range(most)
        ]
        if not said or not most:
            return {"bleu": 0.0}
        return {"bleu": float(self._packages["bleu"].corpus_bleu(said, streams).score) / 100}

    def _rouge(self, said: Sequence[str]) -> Values:
        scorer = self._packages["rouge"].RougeScorer(["rougeL"])
        scores = np.zeros(len(said))
        for unit, (text, phrases) in enumerate(zip(said, self._phrases, strict=True)):
            if text and phrases:
                scores[unit] = scorer.score_multi(phrases, text)["rougeL"].fmeasure
        return scores

    def _bertscore(self, said: Sequence[str]) -> Values:
        scores = np.zeros(len(said))
        units = [i for i, text in enumerate(said) if text and self._phrases[i]]
        if units:
            _, _, f1 = self._bert.score([said[i] for i in units], [self._phrases[i] for i in units])
            scores[units] = np.asarray(f1, np.float64)
        return scores


def _plain(text: str) -> str:
    return text.lower().strip(". ")


def _package(name: str) -> Any:
    try:
        return importlib.import_module(PACKAGES[name])
    except ImportError as error:
        package = PACKAGES[name].partition(".")[0].replace("_", "-")
        raise ExtraMissing(
            f"the text metric {name} needs the package {package}",
            hint=f"pip install {package}, or milan-onnx[metrics] for all of them",
        ) from error


def _bert_scorer(package: Any, phrases: Phrases, model: str | None) -> Any:
    sentences = [text for of_unit in phrases for text in of_unit]
    settings: dict[str, Any] = {"lang": LANGUAGE, "idf": True, "idf_sents": sentences}
    try:
        if model is None:
            settings |= {"rescale_with_baseline": True}
        else:
            settings |= {"model_type": model, "num_layers": _layers(model)}
        return package.BERTScorer(**settings)
    except (OSError, ValueError, ImportError) as error:
        raise EnvironmentUnfit(
            f"the model {model or BERTSCORE} of BERTScore cannot be loaded: "
            f"{str(error).splitlines()[0]}",
            hint="let it be downloaded once, or give a folder with --bertscore-model",
        ) from error


def _layers(model: str) -> int:
    """Layers of another model: its embeddings are taken after the last."""
    config = importlib.import_module("transformers").AutoConfig.from_pretrained(model)
    return int(config.num_hidden_layers)
