"""BLEU, ROUGE-L and BERTScore of descriptions, as the paper's tables have them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from milan_onnx.applications.evaluate.text_metrics import TextMetrics
from milan_onnx.errors import EnvironmentUnfit, ExtraMissing, UsageError

TRUE = [["Wheels of cars.", "car wheels"], ["red objects"], ["blue sky", "the sky", "sky."]]
SAID = ["wheels of cars", "green things", "the sky"]


def test_bleu_is_that_of_the_whole_set_with_all_phrases() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    found = TextMetrics(["bleu"], TRUE).whole(SAID)
    streams = [
        ["wheels of cars", "red objects", "blue sky"],
        ["car wheels", None, "the sky"],
        [None, None, "sky"],
    ]
    wanted = sacrebleu.corpus_bleu(SAID, streams).score / 100
    assert found == {"bleu": pytest.approx(wanted)}
    exact = ["A pair of red car wheels"] * 3
    assert TextMetrics(["bleu"], [[text] for text in exact]).whole(exact)["bleu"] == (
        pytest.approx(1)
    )


def test_rouge_is_the_best_over_phrases_by_longest_common_subsequence() -> None:
    pytest.importorskip("rouge_score")
    said = ["cars with wheels", "green things", ""]
    found = TextMetrics(["rouge"], TRUE).each(said)["rouge"]
    # "wheels of cars" and "cars with wheels" share one word in order: P = R = 1/3; with "car
    # wheels" one of three and one of two: F = 0.4.
    np.testing.assert_allclose(found, [0.4, 0, 0])


def test_case_and_full_stops_do_not_count() -> None:
    pytest.importorskip("rouge_score")
    metrics = TextMetrics(["rouge", "bleu"], [["Dogs with long ears. "]])
    assert metrics.each(["dogs with long ears"])["rouge"] == pytest.approx([1])
    assert metrics.whole([" dogs with long ears."])["bleu"] == pytest.approx(1)


def test_a_set_without_phrases_scores_nothing() -> None:
    pytest.importorskip("sacrebleu")
    assert TextMetrics(["bleu"], [[], []]).whole(["a", "b"]) == {"bleu": 0}


def test_an_unknown_metric_is_named() -> None:
    with pytest.raises(UsageError, match="'meteor'"):
        TextMetrics(["meteor"], TRUE)


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ExtraMissing, match="needs the package sacrebleu") as caught:
        TextMetrics(["bleu"], TRUE)
    assert "milan-onnx[metrics]" in caught.value.hint


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT, untrained."""
    # bert-score imports transformers and that torchvision, which may lack compiled operators.
    importlib.import_module("milan_onnx.export.backbones").import_torchvision_models()
    pytest.importorskip("bert_score")
    transformers = importlib.import_module("transformers")
    folder = tmp_path_factory.mktemp("bert")
    words = sorted({w for of in TRUE for text in of for w in text.lower().strip(".").split()})
    words += ["green", "things"]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", "utf-8")
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64)
    tokenizer.save_pretrained(folder)
    importlib.import_module("torch").manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def test_bertscore_is_the_best_over_phrases(bert: Path) -> None:
    scores = TextMetrics(["bertscore"], TRUE, bertscore_model=str(bert))
    found = scores.each(["Wheels of cars", "green things", ""])["bertscore"]
    assert found[0] == pytest.approx(1, abs=1e-5)
    assert 0 < found[1] < 0.999
    assert found[2] == 0


def test_a_model_of_bertscore_that_is_not_there_is_named(tmp_path: Path) -> None:
    pytest.importorskip("bert_score")
    with pytest.raises(EnvironmentUnfit, match="cannot be loaded"):
        TextMetrics(["bertscore"], TRUE, bertscore_model=str(tmp_path / "nothing"))
