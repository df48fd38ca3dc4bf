"""What is learned from: phrases, batches, exemplars, losses, and what long features become."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from milan_onnx.errors import UsageError  # noqa: E402
from milan_onnx.export.captioner import Captioner, CaptionerConfig  # noqa: E402
from milan_onnx.export.components import principal_components  # noqa: E402
from milan_onnx.export.loop import LoopPlan, train  # noqa: E402
from milan_onnx.export.onnx_export import vocabulary_spec  # noqa: E402
from milan_onnx.export.training import (  # noqa: E402
    Encoding,
    Examples,
    Sampler,
    captioner_training,
    cross_entropy,
    prepare_all,
    tokenise,
    vocabulary,
)

PLAN = LoopPlan(steps=1, batch=32)


def examples(texts: list[str], first: int = 0, weight: float = 1.0) -> Examples:
    units = np.arange(first, first + len(texts))
    weights = np.full(len(texts), weight)
    return Examples(units, tuple(texts), weights, weights)


def sampler(found: Examples, plan: LoopPlan = PLAN, seed: int = 0) -> Sampler:
    return Sampler(found, np.random.default_rng(seed), plan)


# --- phrases -------------------------------------------------------------------------------------


def test_words_are_lowercase_and_punctuation_stands_alone() -> None:
    assert tokenise("The dog's T-shirt, red.") == ["the", "dog's", "t-shirt", ",", "red", "."]
    words = vocabulary(["red dogs", "red cats", "dogs"], fewest=1)
    assert words == ("red", "dogs", "cats")
    assert vocabulary(["red dogs", "red cats", "dogs"], fewest=2) == ("red", "dogs")


def test_phrases_become_inputs_and_targets() -> None:
    words = ("red", "dogs", "cats")
    spec = vocabulary_spec(words)
    inputs, targets = Encoding(words, spec).encode(["red dogs", "blue", "cats red dogs"], length=3)
    assert inputs.tolist() == [[spec.start, 0, 1], [spec.start, spec.unk, spec.pad],
                               [spec.start, 2, 0]]  # fmt: skip
    assert targets.tolist() == [[0, 1, spec.stop], [spec.unk, spec.stop, spec.pad],
                                [2, 0, spec.stop]]  # fmt: skip


def test_joined_examples_are_drawn_by_their_shares() -> None:
    parts = [examples(["a"] * 8, weight=3.0), examples(["b b"] * 2, 8), examples([])]
    joined = Examples.joined(parts, [0.75, 0.25, 5.0], [0.25, 0.75, 5.0])
    assert joined.unit.tolist() == list(range(10)) and len(joined) == 10
    assert joined.weight[:8].sum() == pytest.approx(0.75)
    assert joined.weight[8:].sum() == pytest.approx(0.25)
    draws = sampler(joined, replace(PLAN, alike=False))
    for done, share in ((0.0, 0.75), (0.2, 0.75), (0.45, 0.5), (0.7, 0.25), (1.0, 0.25)):
        drawn = np.concatenate([draws.draw(done) for _ in range(200)])
        assert (drawn < 8).mean() == pytest.approx(share, abs=0.03)
    with pytest.raises(UsageError, match="no unit is left"):
        Examples.joined([examples([])], [1.0], [1.0])


# --- batches -------------------------------------------------------------------------------------


def test_batches_hold_phrases_of_like_length() -> None:
    texts = [" ".join(["word"] * (1 + number % 12)) for number in range(240)]
    alike, mixed = (sampler(examples(texts), replace(PLAN, alike=a)) for a in (True, False))
    spread = [[np.ptp([len(texts[row].split()) for row in draws.draw(0)]) for _ in range(30)]
              for draws in (alike, mixed)]  # fmt: skip
    assert np.mean(spread[0]) < 4 < 9 < np.mean(spread[1])
    lengths = [len(texts[row].split()) for _ in range(100) for row in alike.draw(0)]
    assert len(lengths) == 3200 and set(lengths) == set(range(1, 13))


def test_batches_are_the_same_for_a_seed() -> None:
    found = examples([f"{number} dogs" for number in range(50)])
    a, b, c = (sampler(found, seed=seed) for seed in (4, 4, 5))
    first = a.draw(0)
    np.testing.assert_array_equal(first, b.draw(0))
    assert (first != c.draw(0)).any()


@given(st.lists(st.integers(1, 15), min_size=1, max_size=9), st.integers(1, 15), st.integers(0, 9))
def test_places_are_exemplars_that_a_unit_has(counts: list[int], wanted: int, seed: int) -> None:
    """Never what only fills up, and each before one comes again."""
    places = sampler(examples(["a"]), seed=seed).places(np.array(counts), wanted)
    assert places.shape == (len(counts), wanted)
    for row, count in zip(places.tolist(), counts, strict=True):
        assert set(row) <= set(range(count))
        assert len(set(row[:count])) == min(count, wanted)
        times = np.bincount(row, minlength=count)
        assert times.max() - times.min() <= 1


def test_places_come_in_any_order() -> None:
    draws = sampler(examples(["a"]))
    seen = {tuple(draws.places(np.array([3]), 3)[0].tolist()) for _ in range(200)}
    assert len(seen) == math.factorial(3)


def test_some_batches_have_fewer_exemplars() -> None:
    draws = sampler(examples(["a"]))
    found = [draws.exemplars(15) for _ in range(2000)]
    assert {*found} >= {1, 2, 3, *range(6, 16)} and not {4, 5} & {*found}
    full = sampler(examples(["a"]), replace(PLAN, fewer_exemplars=0.0))
    assert {full.exemplars(15) for _ in range(50)} == {15}
    assert {draws.exemplars(3) for _ in range(50)} == {3}


# --- losses --------------------------------------------------------------------------------------


def test_cross_entropy_leaves_padding_out_and_smooths() -> None:
    log_probs = torch.log_softmax(torch.randn(2, 3, 5), -1)
    targets = torch.tensor([[1, 2, 4], [0, 4, 4]])
    rows = [(0, 0, 1), (0, 1, 2), (1, 0, 0)]
    plain = -torch.stack([log_probs[row] for row in rows]).mean()
    even = -torch.stack([log_probs[n, t].mean() for n, t, _ in rows]).mean()
    torch.testing.assert_close(cross_entropy(log_probs, targets, 4), plain)
    torch.testing.assert_close(cross_entropy(log_probs, targets, 4, 0.1), 0.9 * plain + 0.1 * even)


def test_a_captioner_learns_phrases_and_to_predict_their_vectors(tmp_path) -> None:
    """Two kinds of unit, two phrases; the second task has its own weight in the loss."""
    rng, words = np.random.default_rng(0), ("red", "dogs", "blue", "cars")
    encoding = Encoding(words, vocabulary_spec(words))
    table = rng.standard_normal((40, 4, 12)).astype(np.float16)
    table[:20, :, 0] += 4
    found = examples(["red dogs"] * 20 + ["blue cars"] * 20)
    vectors = torch.eye(6)[[0] * 20 + [1] * 20]
    torch.manual_seed(0)
    sizes = CaptionerConfig(12, encoding.spec.size, 8, 16, 8, 10, phrase_vector=6, spread=True)
    model = Captioner(sizes)
    table = prepare_all(model, table)
    plan = LoopPlan(steps=60, batch=16, rate=2e-2, validate_every=20, phrase_vector=1.0)
    counts = np.full(40, 4)
    what = captioner_training(
        model, table, counts, found, found, encoding, rng, plan,
        length=5, recipe="x", phrase_vectors=vectors,
    )  # fmt: skip
    before = what.validate()
    assert train(what, plan, tmp_path / "captioner.pt", lambda text: None) < 0.2 < before
    with torch.no_grad():
        model.eval()
        _, h, c = model.begin(torch.from_numpy(table).float())
        predicted = model.phrase_vector(torch.cat([h, c], 1))
        alike = torch.nn.functional.cosine_similarity(predicted, vectors)
    assert alike.mean() > 0.9


# --- components ----------------------------------------------------------------------------------


def sample() -> torch.Tensor:
    """Two parts: eight numbers that two hidden ones make, and three of their own."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(500, 2, generator=generator)
    mixing = torch.randn(2, 8, generator=generator)
    return torch.cat([hidden @ mixing, torch.randn(500, 3, generator=generator)], dim=1)


def test_principal_components_keep_what_varies() -> None:
    values, widths = sample(), {"mean": 8, "geometry": 3}
    found = principal_components(values, widths, {"mean": 2})
    assert found.shape == (11, 5)
    reduced = values @ found
    torch.testing.assert_close(reduced[:, 2:], values[:, 8:])
    assert reduced[:, :2].square().mean().item() == pytest.approx(1, abs=1e-3)
    # Two components carry all of the first part: it comes back from them.
    back = torch.linalg.lstsq(reduced[:, :2], values[:, :8]).solution
    torch.testing.assert_close(reduced[:, :2] @ back, values[:, :8], atol=1e-3, rtol=1e-3)
    variances = (values @ found)[:, :2].square().mean(0)
    assert variances[0] > variances[1]


def test_principal_components_do_not_depend_on_chance() -> None:
    values, widths = sample(), {"mean": 8, "geometry": 3}
    found = principal_components(values, widths, {"mean": 2})
    shuffled = values[torch.randperm(500, generator=torch.Generator().manual_seed(1))]
    again = principal_components(shuffled, widths, {"mean": 2})
    torch.testing.assert_close(found, again, atol=1e-4, rtol=1e-4)
    first = found[:8, :2]
    assert (first.gather(0, first.abs().argmax(0, keepdim=True)) > 0).all()


def test_a_part_may_be_left_out_and_one_that_never_varies_stays_finite() -> None:
    values, widths = sample(), {"mean": 8, "geometry": 3}
    assert principal_components(values, widths, {"mean": 0}).shape == (11, 3)
    values[:, :8] = 0
    assert torch.isfinite(principal_components(values, widths, {"mean": 2})).all()
