"""Confidences against the formula, and when there is none."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from milan_onnx.bundle import CALIBRATION_INPUTS, Calibration, write_manifest
from milan_onnx.runtime import Describer, Device, Hypothesis
from milan_onnx.runtime.confidence import calibration_inputs, coherence, confidence
from tests.runtime.test_search import features
from tests.toy import toy_bundle

STOP = 9
CONSENSUS = {"agreement": 0.5, "predicted": 0.75, "certainty": 0.25}
FOUND = Hypothesis("red dogs", 3.0, -6.0, -30.0, (1, 2, STOP), **CONSENSUS)
WEIGHTS = dict(zip(CALIBRATION_INPUTS, (1.0, 0.5, -0.25, 2.0, -0.125, 4.0, 3.0, -2.0), strict=True))


def test_inputs_are_means_by_token() -> None:
    assert calibration_inputs(FOUND, 0.25, STOP) == {
        "agreement": 0.5,
        "log_p_given_exemplars": -2.0,
        "log_p": -10.0,
        "pmi": 1.0,
        "words": 2.0,
        "coherence": 0.25,
        "predicted": 0.75,
        "certainty": 0.25,
    }
    unfinished = replace(FOUND, tokens=(1, 2, 3))
    assert calibration_inputs(unfinished, None, STOP)["words"] == 3
    unknown = calibration_inputs(replace(FOUND, tokens=(), **dict.fromkeys(CONSENSUS)), None, STOP)
    assert set(unknown.values()) == {None}


def test_confidence_is_the_logistic_function() -> None:
    inputs = calibration_inputs(FOUND, 0.25, STOP)
    total = -1 + 0.5 - 1.0 + 2.5 + 2.0 - 0.25 + 1.0 + 2.25 - 0.5
    found = confidence(Calibration(WEIGHTS, -1.0), inputs)
    assert found == pytest.approx(1 / (1 + math.exp(-total)))
    turned = dict(reversed(WEIGHTS.items()))
    assert confidence(Calibration(turned, -1.0), inputs) == found
    assert confidence(Calibration({}, 1e6), inputs) == 1
    assert confidence(Calibration({}, -1e6), inputs) == 0


@pytest.mark.parametrize("name", ["agreement", "coherence", "predicted", "certainty"])
def test_without_an_input_that_counts_there_is_none(name: str) -> None:
    inputs = calibration_inputs(FOUND, 0.25, STOP) | {name: None}
    assert confidence(Calibration({name: 1.0}, 0.0), inputs) is None
    assert confidence(Calibration({"pmi": 1.0}, 0.0), inputs) is not None


@given(context=arrays(np.float32, (3, 5, 4), elements=st.floats(-8, 8, width=16)))
def test_coherence_is_the_mean_cosine_of_pairs(context: np.ndarray) -> None:
    found = coherence(context)
    for unit in range(3):
        rows = context[unit].astype(np.float64)
        cosines = []
        for a, b in itertools.combinations(rows, 2):
            length = np.linalg.norm(a) * np.linalg.norm(b)
            cosines.append(a @ b / length if length else 0.0)
        assert found[unit] == pytest.approx(np.mean(cosines), abs=1e-9)
        assert coherence(context[unit : unit + 1]).tobytes() == found[unit : unit + 1].tobytes()


def test_one_exemplar_has_no_coherence() -> None:
    assert np.isnan(coherence(np.ones((2, 1, 3), np.float32))).all()


def test_every_candidate_of_a_calibrated_bundle_has_one(tmp_path: Path) -> None:
    made = toy_bundle(tmp_path, vectors=3, predicted=True, calibration=Calibration(WEIGHTS, 0.5))
    search = replace(made.manifest.search, strategy="consensus")
    bundle = write_manifest(made.path, replace(made.manifest, search=search))
    assert bundle.manifest.calibration == Calibration(WEIGHTS, 0.5)
    describer = Describer(bundle, Device("cpu"))
    x, stop = features(5), bundle.manifest.vocabulary.stop
    alike = coherence(describer._captioner.start(x).contexts[0])
    assert len(set(alike.tolist())) == 5
    for unit, hypotheses in enumerate(describer.describe(x)):
        for one in hypotheses:
            inputs = calibration_inputs(one, float(alike[unit]), stop)
            assert one.confidence == confidence(Calibration(WEIGHTS, 0.5), inputs)
            assert one.confidence is not None
    ranked = next(describer.describe(x, replace(search, strategy="rerank")))
    assert {one.confidence for one in ranked} == {None}
    lone = next(describer.describe(x[:, :1]))
    assert {one.confidence for one in lone} == {None}
