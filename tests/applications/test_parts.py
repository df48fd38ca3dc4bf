"""The parts of evaluation: intervals, baselines, virtual units, truths, NetDissect's label."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_onnx.annotations.virtual import (
    Pool,
    VirtualUnit,
    draw_units,
    exemplar_mask,
    make_pool,
)
from milan_onnx.applications.evaluate import baselines
from milan_onnx.applications.evaluate.answers import Answer, variety, verdicts
from milan_onnx.applications.evaluate.hypernyms import hypernyms_of
from milan_onnx.applications.evaluate.intervals import Bootstrap
from milan_onnx.applications.evaluate.netdissect import iou
from milan_onnx.applications.evaluate.truth import read_truth
from milan_onnx.applications.reopened import Place
from milan_onnx.errors import BadInput, UsageError
from milan_onnx.progress import Silent
from milan_onnx.regions import NameTable, Region

TABLE = NameTable.read()
PLACES = (Place("conv", ("conv", "features.0"), 4), Place("logits", ("logits", "fc"), 3))


# --- figures ---------------------------------------------------------------------------------


def test_verdicts_count_labels_and_general_names() -> None:
    answers = [Answer(("dogs", "dog"), ("animals",)), Answer(("cars",))]
    found = verdicts(answers, [["animals", "brown dogs"], []])
    assert {name: values.tolist() for name, values in found.items()} == {
        "label_top1": [0, 0],
        "label_top5": [1, 0],
        "any_top1": [1, 0],
        "any_top5": [1, 0],
    }


def test_only_five_descriptions_count() -> None:
    texts = ["a1", "a2", "a3", "a4", "a5", "dogs"]
    assert verdicts([Answer(("dogs",))], [texts])["label_top5"].tolist() == [0]


def test_variety_counts_labels_and_words() -> None:
    found = variety([["red dogs"], ["red dogs"], ["dogs"], []], words=10)
    assert found == {"distinct": 0.5, "vocabulary": 0.2}


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of 200 samples of clustered units, about 95 % of the intervals hold the true mean."""
    rng = np.random.default_rng(0)
    held = 0
    for sample in range(200):
        ability = rng.beta(2, 2, 40).repeat(6)  # units of a concept stand or fall together
        values = (rng.random(240) < ability).astype(np.float64)
        figure = Bootstrap(np.arange(40).repeat(6).tolist(), sample, 400).mean(values)
        assert figure.low is not None
        assert figure.high is not None
        held += figure.low <= 0.5 <= figure.high
    assert 178 <= held <= 199


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_an_interval_holds_the_mean_of_its_sample(values: list[float], size: int) -> None:
    clusters = [index // size for index in range(len(values))]
    figure = Bootstrap(clusters, 1, 200).mean(np.array(values))
    assert figure.low is not None
    assert figure.high is not None
    assert min(values) - 1e-9 <= figure.low <= figure.high <= max(values) + 1e-9
    assert figure.value == pytest.approx(np.mean(values))


def test_differences_are_paired() -> None:
    """Where one way is always better by the same, the interval of the difference is a point."""
    values = np.random.default_rng(2).random(50)
    figure = Bootstrap(range(50), 0).mean((values + 0.1) - values)
    assert (figure.low, figure.high) == (pytest.approx(0.1), pytest.approx(0.1))


# --- baselines -------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 8), min_size=1, max_size=40), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_shuffling_never_gives_a_unit_its_own_cluster(clusters: list[int], seed: int) -> None:
    own = [[f"of {cluster}"] for cluster in clusters]
    ways = list(baselines.shuffled(own, clusters, seed))
    assert len(ways) == min(baselines.ROTATIONS, len(set(clusters)) - 1)
    for dealt in ways:
        assert len(dealt) == len(own)
        assert all(mine != theirs for mine, theirs in zip(own, dealt, strict=True))
    assert len({str(dealt) for dealt in ways}) == len(ways)


def test_constant_is_the_commonest() -> None:
    texts = [["b", "x"], ["a"], ["b"], ["c"], []]
    assert baselines.constant(texts) == [["b", "a", "c"]] * 5


# --- virtual units ---------------------------------------------------------------------------


def region(label: str, photo: int, kind: str = "box", source: str = "s") -> Region:
    box = (8.0 * (photo % 3), 8.0, 24.0, 30.0)
    return Region(source, f"{photo:03d}.png", kind, label, "val", 64, 64, box=box)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pool() -> Pool:
    regions = [region("dog", i) for i in range(20)] + [
        region("dalmatian", 20 + i) for i in range(2)
    ]
    regions += [region("unknown thing", 30 + i % 4) for i in range(6)]
    regions += [region("rare", 50), region("rare", 51)]
    regions += [region("apple", 60 + i, "whole") for i in range(3)]
    outside = Region("s", "070.png", "box", "dog", "val", 128, 64, box=(0.0, 0.0, 20.0, 64.0))
    return make_pool([*regions, outside], TABLE, 64)


def test_labels_with_one_name_are_one_concept(pool: Pool) -> None:
    found = {concept.name: len(concept.regions) for concept in pool.concepts}
    assert found == {"dogs": 22, "unknown thing": 6, "apples": 3}
    assert [concept.name for concept in pool.too_few] == ["rare"]
    assert pool.out_of_view == 1


def test_units_are_drawn_as_defined(pool: Pool) -> None:
    units = draw_units(pool, TABLE, 90, 15, seed=3)
    assert Counter(unit.concept for unit in units) == {
        "dogs": 30,
        "unknown thing": 30,
        "apples": 30,
    }
    odd_counts = Counter[int]()
    for unit in units:
        shown = [pool.shown[place].region for place in unit.regions]
        assert len(unit.regions) == {"dogs": 15, "unknown thing": 6, "apples": 3}[unit.concept]
        assert len(set(unit.regions)) == len(unit.regions)
        own = next(c for c in pool.concepts if c.name == unit.concept)
        odd = [r for r, place in zip(shown, unit.regions, strict=True) if place not in own.regions]
        assert len(odd) <= len(shown) // 5
        photos = {pool.shown[place].region.image for place in own.regions}
        assert not photos & {r.image for r in odd}
        if unit.concept == "dogs":
            odd_counts[len(odd)] += 1
            assert len({r.image for r in shown}) == 15
        if unit.concept == "unknown thing":
            assert len({r.image for r in shown if r not in odd}) == 4
    assert set(odd_counts) == {0, 1, 2, 3}
    assert units == draw_units(pool, TABLE, 90, 15, seed=3)
    assert units != draw_units(pool, TABLE, 90, 15, seed=4)


def test_what_counts_as_right(pool: Pool) -> None:
    dogs = next(u for u in draw_units(pool, TABLE, 3, 15, 0) if u.concept == "dogs")
    assert dogs.names == ("dogs", "dog")  # too few are dalmatians
    assert "animals" in dogs.general
    unknown = next(u for u in draw_units(pool, TABLE, 3, 15, 0) if u.concept == "unknown thing")
    assert (unknown.names, unknown.general) == (("unknown thing",), ())


def test_masks_are_exact_or_as_a_unit_would_mark_them(pool: Pool) -> None:
    units = draw_units(pool, TABLE, 60, 15, seed=1)
    exact, blobs = Counter[str](), Counter[str]()
    for unit in units:
        for rank, place in enumerate(unit.regions):
            mask = exemplar_mask(pool, unit, rank)
            assert mask.any()
            same = np.array_equal(mask, pool.shown[place].mask(64))
            kind = pool.shown[place].region.kind
            (exact if same else blobs)[kind] += 1
    assert min(exact["box"], blobs["box"], exact["whole"], blobs["whole"]) > 10
    assert np.array_equal(exemplar_mask(pool, units[0], 1), exemplar_mask(pool, units[0], 1))


def test_fewer_units_than_concepts(pool: Pool) -> None:
    assert len({unit.concept for unit in draw_units(pool, TABLE, 2, 15, 0)}) == 2


def test_masks_differ_between_units_of_the_same_regions(pool: Pool) -> None:
    apples = [u for u in draw_units(pool, TABLE, 30, 15, 0) if u.concept == "apples"]

    def masks(unit: VirtualUnit) -> bytes:
        return b"".join(exemplar_mask(pool, unit, rank).tobytes() for rank in range(3))

    assert len({masks(unit) for unit in apples}) > 1


# --- NetDissect ------------------------------------------------------------------------------


def test_iou_sums_over_exemplars() -> None:
    rng = np.random.default_rng(0)
    masks, others = rng.random((2, 3, 8, 8)) < 0.4
    absent = np.zeros((8, 8), bool)
    found = iou(masks, [{"a": others[0]}, {"a": others[1], "b": masks[1]}, {"c": absent}])
    a = np.stack([others[0], others[1], absent])
    b = np.stack([absent, masks[1], absent])
    for name, other in (("a", a), ("b", b)):
        assert found[name] == pytest.approx((masks & other).sum() / (masks | other).sum())
    assert found["c"] == 0


# --- truths ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "kind", "expected"),
    [
        ("a.txt", "dogs\ncats, kittens\ncars\n", "classes", ("cats", "kittens")),
        ("a.json", '["dogs", "cats, kittens", "cars"]', "classes", ("cats", "kittens")),
        ("a.json", '{"0": "dogs", "1": "cats, kittens", "2": "x"}', "classes", ("cats", "kittens")),
        (
            "a.tsv",
            "layer\tunit\tsummary\nfc\t1\tcats\nfc\t1\tpets\n",
            "annotations",
            ("cats", "pets"),
        ),
        ("a.csv", "unit,accepted,layer\n1,cats; pets,fc\n", "answers", ("cats", "pets")),
        ("a.jsonl", '{"layer": "fc", "unit": 1, "accepted": ["cats"]}\n', "answers", ("cats",)),
        ("a", '[{"layer": "fc", "unit": 1, "accepted": "cats"}]', "answers", ("cats",)),
    ],
)
def test_truths_are_told_apart(
    tmp_path: Path, name: str, text: str, kind: str, expected: tuple[str, ...]
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    truth = read_truth(path, PLACES, say=Silent())
    assert truth.kind.value == kind
    assert truth.phrases["logits", 1] == expected


def bad(path: Path, data: bytes | str, **more: object) -> str:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(BadInput) as caught:
        read_truth(path, PLACES, say=Silent(), **more)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("a.txt", "dogs\n\ncars\n", "line 2: an empty phrase"),
        ("a.txt", "dogs\ncats,\ncars\n", "line 2: an empty phrase"),
        ("a.txt", b"\xff\xfed\0o\0", "line 1: the file is UTF-16"),
        ("a.txt", "dogs\nc\0ts\ncars\n", "line 2: a null character"),
        ("a.json", '["dogs",\n 3,\n"x"]', "line 2: the name of unit 1 is not text"),
        ("a.json", '["dogs",\n"cats"', "line 2: not JSON"),
        ("a.json", '{"0": "a", "0": "b", "1": "c", "2": "d"}', "0 is there twice"),
        ("a.json", '{"0": "a", "1": "c", "7": "d"}', "layer logits has no unit 7"),
        ("a.jsonl", '{"layer": "fc", "unit": 1}\n', "line 1: no accepted"),
        ("a.jsonl", '{"layer": "fc", "unit": 1.5, "accepted": "x"}\n', "1.5 is not a unit"),
        ("a.jsonl", '{"layer": "fc", "unit": true, "accepted": "x"}\n', "True is not a unit"),
        ("a.jsonl", '{"layer": "fc", "unit": 1, "accepted": []}\n', "line 1: an empty phrase"),
        ("a.jsonl", '\n{"layer": "fc"\n', "line 2: not JSON"),
        ("a.jsonl", "[1]\n", "line 1: not a JSON object"),
        (
            "a.jsonl",
            '{"layer": "fc", "unit": 1, "accepted": "x"}\n'
            '{"layer": "logits", "unit": 1, "accepted": "y"}\n',
            "line 2: unit 1 of logits was on line 1 already",
        ),
        ("a.csv", "layer,unit\nfc,1\n", "the header has not one column summary"),
        ("a.csv", 'layer,unit,summary\nfc,1,"open\n', "line 2: not CSV"),
        (
            "a.csv",
            'layer,unit,summary\nfc,1,"two\nlines"\nconv9,1,x\n',
            "line 4: the run has no layer 'conv9'",
        ),
        (
            "a.csv",
            "layer,unit,summary,annotator\nfc,1,x,7\nfc,1,y,8\nfc,1,z,7\n",
            "line 4: unit 1 of fc was on line 2 already",
        ),
        ("a.csv", "layer,unit,summary\n", "says nothing of any unit"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, data: bytes | str, text: str) -> None:
    assert text in bad(tmp_path / name, data)


def test_twenty_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    text = bad(tmp_path / "a.csv", "layer,unit,summary\n" + "conv9,1,x\n" * 31)
    assert "has 31 bad entries" in text
    assert "line 21:" in text
    assert "line 22:" not in text
    assert "and 11 more" in text


def test_class_names_that_fit_no_layer(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\nb\n")
    with pytest.raises(UsageError, match="--layer"):
        read_truth(path, PLACES, say=Silent())
    with pytest.raises(UsageError, match="unknown --kind"):
        read_truth(path, PLACES, kind="poems", say=Silent())  # type: ignore[arg-type]


def test_of_a_class_the_first_name_is_meant(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("goldfish, Carassius auratus\nx\ny\n")
    truth = read_truth(path, PLACES, say=Silent())
    answer = truth.answer(("logits", 0), hypernyms_of(TABLE))
    assert answer.said == ("goldfish",)
    assert answer.label == ("goldfish", "Carassius auratus")
    assert {"fish", "animals"} <= set(answer.general)
