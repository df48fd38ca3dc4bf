"""The sentence model against recorded values of its PyTorch original."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from milan_onnx.applications.sentences import (
    PACKAGE,
    SentenceModel,
    model_folder,
    read_safetensors,
)
from milan_onnx.applications.similarity import Similarity, choose_similarity
from milan_onnx.errors import EnvironmentUnfit, ExtraMissing
from milan_onnx.progress import Silent

# By transformers 4.57.6 and torch 2.13.0, mean pooling, all-MiniLM-L6-v2; the last three are also
# the values that its model card's example shows.
RECORDED = {
    ("dogs", "a dog"): 0.61625,
    ("dogs", "animals"): 0.81098,
    ("dogs", "cars"): 0.49034,
    ("the color red", "red areas"): 0.60797,
    ("electric ray", "fish"): 0.19680,
    ("That is a happy person", "That is a happy dog"): 0.69458,
    ("That is a happy person", "That is a very happy person"): 0.94291,
    ("That is a happy person", "Today is a sunny day"): 0.25688,
}


@pytest.fixture(scope="module")
def model() -> SentenceModel:
    pytest.importorskip("tokenizers")
    try:
        return SentenceModel()
    except ExtraMissing as error:
        pytest.skip(str(error))


def test_cosines_are_those_of_the_original(model: SentenceModel) -> None:
    for (one, other), recorded in RECORDED.items():
        left, right = model.vectors([one, other])
        assert float(left @ right) == pytest.approx(recorded, abs=2e-5)
        assert np.linalg.norm(left) == pytest.approx(1, abs=1e-6)


def test_a_vector_does_not_depend_on_the_other_sentences(model: SentenceModel) -> None:
    sentences = ["dogs", "the dogs in the green grass", "cats", "crimson areas", "blue areas"]
    fresh = SentenceModel()
    alone = [fresh.vectors([sentence])[0] for sentence in sentences[:2]]
    together = model.vectors(sentences)
    np.testing.assert_array_equal(np.stack(alone), together[:2])


def test_similarity_is_the_mean_over_phrases(model: SentenceModel) -> None:
    similarity = Similarity(model)
    values = similarity(["dogs", "dogs", "", "dogs"], [["a dog"], ["a dog", "cars"], ["x"], []])
    expected = [0.61625, (0.61625 + 0.49034) / 2, 0, 0]
    np.testing.assert_allclose(values, expected, atol=2e-5)


def test_importing_the_weights_package_is_not_needed(model: SentenceModel) -> None:
    assert PACKAGE not in sys.modules


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{model_folder.__module__}.PACKAGE", "milan_no_such_package")
    assert choose_similarity(None, Silent()) is None
    with pytest.raises(ExtraMissing, match=r"milan-onnx\[evaluate\]"):
        choose_similarity(True, Silent())


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(EnvironmentUnfit, match="is damaged"):
        SentenceModel(tmp_path)


def test_safetensors_come_back(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"__metadata__":{}}'
    data = np.array([1.5, -2], "<f4").tobytes()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + data)
    found = read_safetensors(tmp_path / "x")
    np.testing.assert_array_equal(found["a"], np.array([[1.5], [-2]], np.float32))
