"""Fitting confidences: what is planted is found, and nobody judges themselves."""

from __future__ import annotations

import numpy as np
import pytest

from milan_onnx.applications import calibrate as cal
from milan_onnx.applications.evaluate.calibration import calibration_error, reliability

UNITS, LAYERS = 2000, 10
TRUE = {"agreement": 3.0, "pmi": 1.5, "words": -0.6}


def planted(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    """Inputs, whether right (drawn by a logistic model of them), and layers."""
    rng = np.random.default_rng(seed)
    inputs = {
        "agreement": rng.uniform(-0.2, 1, UNITS),
        "pmi": rng.normal(-2, 1, UNITS),
        "words": rng.integers(1, 6, UNITS).astype(float),
        "coherence": rng.uniform(0, 1, UNITS),
    }
    odds = sum(weight * inputs[name] for name, weight in TRUE.items()) + 3
    right = rng.random(UNITS) < 1 / (1 + np.exp(-odds))
    return inputs, right, [f"layer{unit % LAYERS}" for unit in range(UNITS)]


def test_planted_weights_are_found_and_confidences_hold() -> None:
    inputs, right, layers = planted()
    found, confidence = cal.fit(inputs, right, layers)
    for name, weight in TRUE.items():
        assert found.weights[name] == pytest.approx(weight, abs=0.45)
    assert found.bias == pytest.approx(3, abs=0.8)
    assert confidence.shape == (UNITS,) and ((confidence > 0) & (confidence < 1)).all()
    assert calibration_error(reliability(confidence, right.astype(float))) < 0.04
    assert confidence[right].mean() > confidence[~right].mean() + 0.1


def test_an_input_that_counts_the_wrong_way_is_left_out() -> None:
    """Units that agree more, or are more coherent, and are less often right: chance, not sense."""
    inputs, right, layers = planted()
    inputs["coherence"] = np.where(right, 0.2, 0.8) + np.random.default_rng(1).normal(0, 0.1, UNITS)
    found, _ = cal.fit(inputs, right, layers)
    assert "coherence" not in found.weights
    alone, _ = cal.fit({k: v for k, v in inputs.items() if k != "coherence"}, right, layers)
    for name, weight in alone.weights.items():
        assert found.weights[name] == pytest.approx(weight, abs=1e-6)
    # Of ``words`` more may mean less.
    assert found.weights["words"] < 0


def test_a_group_is_judged_by_the_others_only() -> None:
    """What is true of one layer alone changes that layer's confidences not at all."""
    inputs, right, layers = planted()
    mine = np.array([layer == "layer3" for layer in layers])
    table = np.stack([inputs[name] for name in TRUE], axis=1)
    rising = np.array([name in cal.RISING for name in TRUE])
    group = np.unique(layers, return_inverse=True)[1]
    changed = right ^ mine
    before, after = (
        cal._crossed(table, truth.astype(float), group, rising, 1.0) for truth in (right, changed)
    )
    np.testing.assert_array_equal(before[mine], after[mine])
    assert np.abs(before[~mine] - after[~mine]).max() > 0.01
    weights, bias = cal._regress(table[~mine], right[~mine].astype(float), rising, 1.0)
    np.testing.assert_allclose(before[mine], cal._sigmoid(table[mine] @ weights + bias))


@pytest.mark.parametrize("all_right", [True, False])
def test_units_that_are_all_right_or_all_wrong_give_numbers(all_right: bool) -> None:
    inputs, _, layers = planted()
    found, confidence = cal.fit(inputs, np.full(UNITS, all_right), layers)
    assert np.isfinite([*found.weights.values(), found.bias, *confidence]).all()
    assert (np.round(confidence) == all_right).all()


def test_the_scale_of_an_input_means_nothing() -> None:
    inputs, right, layers = planted()
    _, plain = cal.fit(inputs, right, layers)
    _, scaled = cal.fit({**inputs, "pmi": 1000 * inputs["pmi"] + 7}, right, layers)
    np.testing.assert_allclose(plain, scaled, atol=1e-6)
