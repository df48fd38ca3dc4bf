"""Correlation, average precision and the bar, against plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_onnx.describing.figures import average_precision, mean, pearson, quantile_bar

numbers = st.lists(st.integers(-4, 4), min_size=2, max_size=30)


@given(numbers, st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_correlation(values: list[int], seed: int) -> None:
    x = np.array(values, np.float64)
    y = np.random.default_rng(seed).integers(-3, 4, len(x)).astype(np.float64)
    found = pearson(x, y)
    if x.std() == 0 or y.std() == 0:
        assert found is None
    else:
        assert found == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
        assert pearson(-3 * x + 7, y) == pytest.approx(-found, abs=1e-9)


def test_correlation_of_what_has_no_numbers() -> None:
    huge = np.array([1e308, -1e308, 1e300])
    assert pearson(huge, huge) == pytest.approx(1)
    assert pearson(np.array([1.0, np.inf]), np.array([1.0, 2.0])) is None
    assert pearson(np.array([]), np.array([])) is None


def plain_precision(scores: list[int], positive: list[bool]) -> float:
    """Sum over the distinct scores, from the largest, of the gain in recall times precision."""
    total, area, before = sum(positive), 0.0, 0.0
    for bar in sorted(set(scores), reverse=True):
        taken = [p for s, p in zip(scores, positive, strict=True) if s >= bar]
        recall = sum(taken) / total
        area += (recall - before) * sum(taken) / len(taken)
        before = recall
    return area


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=30), st.randoms()
)
@settings(deadline=None)
def test_average_precision(pairs: list[tuple[int, bool]], random: object) -> None:
    scores, positive = [s for s, _ in pairs], [p for _, p in pairs]
    found = average_precision(np.array(scores, np.float64), np.array(positive))
    if all(positive) or not any(positive):
        assert found is None
        return
    assert found == pytest.approx(plain_precision(scores, positive))
    random.shuffle(pairs)  # type: ignore[attr-defined]
    again = average_precision(
        np.array([s for s, _ in pairs], np.float64), np.array([p for _, p in pairs])
    )
    assert again == found


def test_average_precision_of_a_perfect_and_a_blind_score() -> None:
    positive = np.array([True] * 3 + [False] * 9)
    assert average_precision(np.arange(12.0)[::-1], positive) == 1
    assert average_precision(np.zeros(12), positive) == 0.25


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.sampled_from([0.05, 0.2, 0.5]))
@settings(deadline=None)
def test_at_most_the_level_passes_the_bar(values: list[int], level: float) -> None:
    bar = quantile_bar([float(v) for v in values], level)
    assert sum(v > bar for v in values) <= level * len(values) + 1e-9
    lower = [v for v in values if v < bar]
    if lower:  # it is the smallest such bar
        assert sum(v > max(lower) for v in values) > level * len(values) - 1e-9


def test_means_leave_out_what_is_not_there() -> None:
    assert mean([0.5, None, 0.25]) == 0.375
    assert mean([None]) is None
