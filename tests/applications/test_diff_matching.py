"""Assignment and matching of units: against brute force, and against known permutations."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from milan_onnx.applications.diff.assignment import assign
from milan_onnx.applications.diff.matching import (
    Correlations,
    by_activations,
    by_number,
    choose_match,
    overlaps,
)
from milan_onnx.exemplars import LayerExemplars

PHOTOS = 64
LEVEL = 0.5


def layer(
    fingerprint: NDArray[np.float64], sample: NDArray[np.int64] | None = None
) -> LayerExemplars:
    """A layer whose photos are those of its fingerprints."""
    values = fingerprint.astype(np.float32)
    photos = values.shape[1]
    ids = np.argsort(-values, axis=1, kind="stable")[:, :5].astype(np.int64)
    lowest = values.min(axis=1)
    return LayerExemplars(
        layer="x",
        ids=ids,
        activations=np.take_along_axis(values, ids, axis=1),
        maps=np.take_along_axis(values, ids, axis=1)[:, :, None, None],
        thresholds=np.quantile(values, 0.8, axis=1).astype(np.float32),
        bottomed=np.quantile(values, 0.8, axis=1).astype(np.float32) <= lowest,
        maximum=values.max(axis=1),
        sample=np.arange(photos) if sample is None else sample,
        fingerprint=values,
        images=photos,
        method="tail",
    )


def noise(units: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal((units, PHOTOS))


# --- assignment ------------------------------------------------------------------------------


@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 6),
    most=st.sampled_from([1, 3, 1000]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=300)
def test_the_total_is_the_greatest(rows: int, columns: int, most: int, seed: int) -> None:
    weights = np.random.default_rng(seed).integers(-most, most + 1, (rows, columns))
    chosen = assign(weights)
    given_away = chosen[chosen >= 0]
    assert len(set(given_away.tolist())) == len(given_away) == min(rows, columns)
    total = weights[chosen >= 0, given_away].sum()
    wide = weights if rows <= columns else weights.T
    best = max(
        wide[range(len(wide)), list(p)].sum() for p in permutations(range(wide.shape[1]), len(wide))
    )
    assert total == best
    np.testing.assert_array_equal(assign(weights), chosen)


def test_a_hard_case_is_solved_too() -> None:
    """Products: every row wants the last column, and only one order of all is best."""
    weights = np.outer(np.arange(60), np.arange(60))
    np.testing.assert_array_equal(assign(weights), np.arange(60))


# --- matching --------------------------------------------------------------------------------


@given(units=st.integers(1, 40), seed=st.integers(0, 2**32 - 1), blur=st.sampled_from([0, 0.3]))
@settings(deadline=None, max_examples=100)
def test_permuted_units_are_matched_back(units: int, seed: int, blur: float) -> None:
    rng = np.random.default_rng(seed)
    before = noise(units, seed)
    order = rng.permutation(units)
    seen = before + blur * noise(units, seed + 1)
    after = seen[order] * rng.uniform(0.1, 9, (units, 1))
    match = by_activations(Correlations(layer(before), layer(after)), LEVEL, "")
    np.testing.assert_array_equal(match.before, np.arange(units))
    np.testing.assert_array_equal(order[match.after], match.before)


def test_many_noisy_units_are_matched_back() -> None:
    """512 rectified units with shared causes, of which the second model sees each with noise."""
    rng = np.random.default_rng(7)
    causes = rng.standard_normal((40, 256))
    before = np.maximum(rng.standard_normal((512, 40)) @ causes / 6, 0)
    order = rng.permutation(512)
    after = np.maximum(before[order] + 0.3 * rng.standard_normal((512, 256)), 0)
    match = by_activations(Correlations(layer(before), layer(after)), LEVEL, "")
    back = (order[match.after] == match.before).sum()
    assert back >= 0.99 * 512
    np.testing.assert_array_equal(np.unique(match.after), np.sort(match.after))


def test_a_layer_matches_itself_even_where_units_are_copies() -> None:
    values = noise(20)
    values[7] = values[3]
    values[12] = values[3] * 2
    values[15] = 0
    values[16] = 0
    match = by_activations(Correlations(layer(values), layer(values)), LEVEL, "")
    np.testing.assert_array_equal(match.before, np.arange(20))
    np.testing.assert_array_equal(match.after, np.arange(20))
    assert np.isnan(match.correlations[15:17]).all()


def test_units_that_compute_something_else_stay_unmatched() -> None:
    before, after = noise(12), noise(12)
    after[[2, 5]] = noise(2, seed=99)
    match = by_activations(Correlations(layer(before), layer(after)), LEVEL, "")
    assert sorted(set(range(12)) - set(match.before.tolist())) == [2, 5]
    np.testing.assert_array_equal(match.before, match.after)


def test_units_that_do_not_vary_are_matched_by_their_exemplars() -> None:
    """Active outside the sample alone, dead, and saturated: none has a correlation."""
    one = layer(noise(6))
    still, activations = np.array(one.fingerprint), np.array(one.activations)
    still[[0, 1, 2]] = [[0], [0], [6]]
    activations[1] = 0  # dead: none of its exemplars excites it
    first = replace(
        one,
        fingerprint=still,
        activations=activations,
        thresholds=np.zeros(6, np.float32),
        bottomed=np.array([True, True, False, False, False, False]),
    )
    order = [4, 2, 0, 5, 1, 3]
    names = ("ids", "activations", "thresholds", "bottomed", "fingerprint")
    second = replace(first, **{name: np.asarray(getattr(first, name))[order] for name in names})
    match = by_activations(Correlations(first, second), LEVEL, "")
    assert [order[unit] for unit in match.after.tolist()] == match.before.tolist() == [*range(6)]


def test_rows_that_are_not_finite_have_no_correlation() -> None:
    values = noise(4)
    odd = values.copy()
    odd[1, 3] = np.inf
    odd[2] = 1e30 * values[2]
    found = Correlations(layer(values), layer(odd)).pairs(np.arange(4), np.arange(4))
    assert np.isnan(found[1])
    np.testing.assert_allclose(found[[0, 2, 3]], 1, atol=1e-6)


def test_samples_of_other_sizes_are_aligned_by_photo() -> None:
    values = noise(5)
    some = np.random.default_rng(1).permutation(PHOTOS)[:30]
    found = Correlations(layer(values), layer(values[:, some], some))
    assert found.photos == 30
    np.testing.assert_allclose(found.pairs(np.arange(5), np.arange(5)), 1)


def test_overlaps() -> None:
    some = [frozenset({1, 2}), frozenset[int]()]
    found = overlaps(some, [frozenset({2, 3}), frozenset[int](), frozenset({1, 2})])
    np.testing.assert_allclose(found, [[1 / 3, 0, 1], [0, 1, 0]])
    assert overlaps([], some).shape == (0, 2)


# --- the choice ------------------------------------------------------------------------------


def chosen(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[str, str]:
    match = choose_match(Correlations(layer(before), layer(after)), LEVEL)
    return match.how.value, match.how.reason


def test_the_choice_follows_what_the_units_do() -> None:
    values = noise(30)
    blurred = values + 0.5 * noise(30, seed=1)
    how, why = chosen(values, blurred)
    assert (how, why) == ("number", "30 of 30 units correlate best with the one of their number")
    turned = np.roll(np.arange(30), 7)
    how, why = chosen(values, blurred[turned])
    assert how == "activations"
    assert "only 0 of 30 units" in why and "30 of 30 find one" in why
    partly = np.append(np.arange(20), np.roll(np.arange(20, 30), 3))
    assert chosen(values, values[partly])[0] == "number"
    how, why = chosen(values, noise(30, seed=2))
    assert how == "number"
    assert "but only" in why
    how, why = chosen(values, values[3:])
    assert how == "activations"
    assert why.startswith("the layers have 30 and 27 units")
    assert chosen(np.zeros((4, PHOTOS)), np.zeros((4, PHOTOS))) == (
        "number",
        "no activation varies",
    )


def test_units_that_all_look_alike_are_still_told_apart() -> None:
    """A cause that all share makes every pair correlate; the own unit still does so best."""
    common = 5 * noise(1)
    values = common + noise(30)
    assert (
        Correlations(layer(values), layer(values)).table(np.arange(30), np.arange(30)).min() > 0.8
    )
    assert chosen(values, values + 0.1 * noise(30, seed=3))[0] == "number"
    assert chosen(values, values[::-1] + 0.1 * noise(30, seed=3))[0] == "activations"


def test_by_number_takes_what_both_have() -> None:
    one, other = layer(noise(5)), layer(noise(3))
    match = by_number(one, other, None, "why")
    assert match.before.tolist() == match.after.tolist() == [0, 1, 2]
    assert np.isnan(match.correlations).all()
    known = by_number(one, other, Correlations(one, other), "why").correlations
    assert known == pytest.approx([1, 1, 1])
