"""A unit's answer is the same bytes alone and in any company, with whatever is cached."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from milan_onnx.bundle import default_bundle_path, load_bundle
from milan_onnx.runtime import Device, Hypothesis
from milan_onnx.serve.captioning.engine import (
    Answer,
    Describe,
    Engine,
    Maps,
    PhraseScore,
    Score,
    Unit,
)
from milan_onnx.serve.captioning.recent import Recent
from milan_onnx.serve.captioning.regions import read_picture, read_stencil, region
from tests.serve.exemplars import blob, photo, png


def pool_of(engine: Engine, count: int) -> list[Unit]:
    """Units that share some photos, with several searches and numbers of exemplars."""
    side, search = engine.encoder.image_size, engine.bundle.manifest.search
    searches = [search, replace(search, pmi_weight=1.0), replace(search, strategy="greedy")]
    searches += [replace(search, strategy="beam", beam_size=4)]
    words = engine.describer.vocabulary
    made = []
    for number in range(count):
        rng = random.Random(number)
        regions = []
        for exemplar in range(rng.choice([1, 1, 3])):
            picture = read_picture("a", png(photo(rng.randrange(8))), side, 10**6)
            stencil = read_stencil("m", png(blob(100 * number + exemplar)), side, 10**6, False)
            regions.append(region(picture, stencil, "a", "m"))
        said = " ".join(rng.choices(words, k=2)), rng.choice(words)
        task = Describe(rng.choice(searches), rng.choice([1, 3, 5]))
        tasks = [task, task, Score(tuple(map(engine.describer.tokens, said)))]
        made.append(Unit(tuple(regions), rng.choice(tasks), number))
    return made


def exact(answer: Answer) -> object:
    """What must not differ in any bit."""
    assert not isinstance(answer, Exception), answer
    assert all(isinstance(one, Hypothesis | PhraseScore) for one in answer)
    return list(answer)


def answers(engine: Engine, units: Sequence[Unit]) -> list[object]:
    return [exact(answer) for answer in engine.run(units)[0]]


@pytest.fixture(scope="module")
def toy(bundle_path: Path) -> tuple[Engine, list[Unit], list[object]]:
    """The toy captioner, units, and what it says of each alone."""
    engine = Engine(load_bundle(bundle_path), Device("cpu"), 2, 200_000)
    units = pool_of(engine, 24)
    return engine, units, [answers(engine, [unit])[0] for unit in units]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_company_changes_nothing(
    toy: tuple[Engine, list[Unit], list[object]], data: st.DataObject
) -> None:
    engine, units, alone = toy
    which = data.draw(st.lists(st.integers(0, len(units) - 1), min_size=1, max_size=64))
    assert answers(engine, [units[i] for i in which]) == [alone[i] for i in which]


def test_neither_threads_nor_the_cache_change_anything(
    toy: tuple[Engine, list[Unit], list[object]], bundle_path: Path
) -> None:
    _, units, alone = toy
    for threads, cache in ((1, 0), (3, 0), (3, 1 << 30)):
        engine = Engine(load_bundle(bundle_path), Device("cpu"), threads, cache)
        for _ in range(2):
            assert answers(engine, units) == alone


def test_company_changes_nothing_for_the_built_in_captioner() -> None:
    engine = Engine(load_bundle(default_bundle_path()), Device("cpu"), 2, 4 << 20)
    units = pool_of(engine, 12)
    together = answers(engine, units)
    rng = random.Random(0)
    order = rng.sample(range(12), 12)
    assert answers(engine, [units[i] for i in order]) == [together[i] for i in order]
    assert [answers(engine, [unit])[0] for unit in units] == together


def test_units_of_a_request_are_ranked_together_where_the_search_asks_so(
    toy: tuple[Engine, list[Unit], list[object]],
) -> None:
    engine, units, _ = toy
    legacy = replace(engine.bundle.manifest.search, legacy=True)
    asked = [
        replace(unit, task=Describe(legacy, 5), request=i % 2, regions=unit.regions[:1])
        for i, unit in enumerate(units)
    ]
    mixed = answers(engine, asked)
    for request in (0, 1):
        mine = [i for i, unit in enumerate(asked) if unit.request == request]
        assert answers(engine, [asked[i] for i in mine]) == [mixed[i] for i in mine]


def test_a_task_that_fails_fails_alone(toy: tuple[Engine, list[Unit], list[object]]) -> None:
    engine, units, alone = toy
    bad = replace(units[0], task=Describe(replace(engine.bundle.manifest.search, beam_size=-1), 1))
    found, _ = engine.run([units[1], bad, units[2]])
    assert isinstance(found[1], Exception)
    assert [exact(found[0]), exact(found[2])] == alone[1:3]


def test_maps_are_kept_within_their_bytes_and_the_last_used_stay() -> None:
    cache: Recent[Maps] = Recent(3000)
    level = np.zeros((1, 250), np.float32)
    for key in (b"a", b"b", b"c"):
        cache.put(key, Maps([level]))
    assert cache.get(b"a") is not None
    cache.put(b"d", Maps([level]))
    assert cache.get(b"b") is None and cache.get(b"a") is not None
    cache.put(b"large", Maps([np.zeros((1, 1000), np.float32)]))
    assert cache.get(b"large") is None and cache.get(b"d") is not None


def test_equal_images_are_encoded_once(bundle_path: Path) -> None:
    engine = Engine(load_bundle(bundle_path), Device("cpu"), 2, 1 << 30)
    units = pool_of(engine, 24)
    photos = {one.key for unit in units for one in unit.regions}
    assert len(photos) == 8 < sum(len(unit.regions) for unit in units)
    costs = [engine.run(units)[1] for _ in range(2)]
    assert [(cost.encoded, cost.recalled) for cost in costs] == [(8, 0), (0, 8)]
