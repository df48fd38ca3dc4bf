"""The parts that jobs are made of, one by one: search, events, paths, forms, workers' words."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milan_onnx.labels import Candidate, UnitLabel
from milan_onnx.run import Run
from milan_onnx.serve.errors import Refusal
from milan_onnx.serve.jobs.browsing import OpenRun, hit_json, said_texts, search
from milan_onnx.serve.jobs.events import EventWriter, Signal, follow, read_events
from milan_onnx.serve.jobs.folders import upload_name
from milan_onnx.serve.jobs.places import permitted, within
from milan_onnx.serve.jobs.store import Store, taken_in
from milan_onnx.serve.jobs.telling import LONGEST_TEXT, Teller
from milan_onnx.wording import normalise

WORDS = ("red dog", "dogs", "cats", "grey areas", "the red dots", "dogs and cats", "areas of sky")
PMIS = st.sampled_from([None, -1.0, 0.0, 2.5])


@st.composite
def labels(draw: st.DrawFn) -> list[UnitLabel]:
    """Labels of two layers, many of them equal but for their place."""
    made = []
    for layer in ("a", "b/c"):
        for unit in range(draw(st.integers(0, 8))):
            texts = draw(st.lists(st.sampled_from(WORDS), max_size=3))
            candidates = tuple(Candidate(text, 0.0, 0.0, 0.0) for text in texts)
            description, pmi = (texts[0] if texts else None), draw(PMIS)
            flags = draw(st.sampled_from([(), ("abstained",)]))
            made.append(
                UnitLabel(
                    *("0" * 64, layer, unit, description, pmi, pmi, pmi, candidates, (), 0.0),
                    flags,
                )
            )
    return made


def opened(made: Sequence[UnitLabel]) -> OpenRun:
    words = [tuple(frozenset(normalise(text)) for text in said_texts(label)) for label in made]
    return OpenRun(Run({}, tuple(made), ()), {}, words, {}, ())


@given(labels(), st.sampled_from(["dogs", "Red", "dog cat", "zebra", "areas sky", ""]))
def test_a_search_finds_every_label_that_says_all_words_in_a_total_order(
    made: list[UnitLabel], query: str
) -> None:
    wanted = set(normalise(query))
    found = search(opened(made), query, None)
    places = [(hit.label.layer, hit.label.unit) for hit in found]
    assert len(set(places)) == len(places)
    right = {
        (label.layer, label.unit)
        for label in made
        if not wanted or any(wanted <= set(normalise(text)) for text in said_texts(label))
    }
    assert set(places) == right
    assert [hit.said_by for hit in found] == sorted(hit.said_by for hit in found)
    # The order depends on what is said alone, not on the order of what is searched.
    again = search(opened(sorted(made, key=lambda x: (x.layer, x.unit))), query, None)
    assert [hit.label for hit in again] == [hit.label for hit in found]
    one = search(opened(made), query, "a")
    assert [hit.label for hit in one] == [hit.label for hit in found if hit.label.layer == "a"]


def test_labels_that_abstain_come_after_those_that_do_not() -> None:
    base = UnitLabel("0" * 64, "a", 0, "dogs", 9.0, 0.0, 0.0, (), (), 0.0, ("abstained",))
    made = [base, replace(base, unit=1, flags=(), pmi=1.0), replace(base, unit=2, flags=())]
    assert [hit.label.unit for hit in search(opened(made), "dog", None)] == [2, 1, 0]


def test_of_labels_that_say_the_same_the_surer_come_first() -> None:
    base = UnitLabel("0" * 64, "a", 0, "dogs", 9.0, 0.0, 0.0, (), (), 0.0, confidence=0.3)
    made = [base, replace(base, unit=1, pmi=1.0, confidence=0.9), replace(base, unit=2, pmi=10.0)]
    assert [hit.label.unit for hit in search(opened(made), "dog", None)] == [1, 2, 0]
    assert hit_json(opened(made), search(opened(made), "dog", None)[0])["confidence"] == 0.9


def test_events_survive_a_line_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    for number in range(3):
        writer.write({"type": "note", "text": str(number)})
    writer.close()
    with path.open("ab") as file:
        file.write(b'{"number":4,"type":"no')
    assert [event["number"] for event in read_events(path)] == [1, 2, 3]
    writer = EventWriter(path)
    writer.write({"type": "note", "text": "after"})
    writer.close()
    assert [event["number"] for event in read_events(path, after=2)] == [3, 4]
    assert json.loads(path.read_text().splitlines()[-1])["text"] == "after"


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=40), st.integers(0, 40))
def test_a_follower_misses_nothing_and_repeats_nothing(sizes: list[int], after: int) -> None:
    """Whatever it reads between writes, also where lines are longer than what is read at once."""

    async def work(path: Path) -> list[int]:
        signal, over = Signal(), False

        async def writing() -> None:
            nonlocal over
            writer = EventWriter(path)
            for size in sizes:
                writer.write({"type": "note", "text": "x" * size * 40})
                signal.fire()
                if size % 3 == 0:
                    await asyncio.sleep(0)
            writer.close()
            over = True
            signal.fire()

        task = asyncio.create_task(writing())
        found = [
            event["number"]
            async for event in follow(path, after, lambda: signal, lambda: over)
            if event is not None
        ]
        await task
        return found

    with tempfile.TemporaryDirectory() as folder:
        numbers = asyncio.run(work(Path(folder) / "events.jsonl"))
    assert numbers == list(range(after + 1, len(sizes) + 1))


def test_paths_are_inside_or_refused(tmp_path: Path) -> None:
    allowed, other = tmp_path / "allowed", tmp_path / "allowed-not"
    (allowed / "deep").mkdir(parents=True)
    other.mkdir()
    (allowed / "deep" / "m.onnx").touch()
    (other / "m.onnx").touch()
    (allowed / "out").symlink_to(other)
    (allowed / "in").symlink_to(allowed / "deep")
    (allowed / "round").symlink_to(allowed / "round")
    inside = (allowed / "deep" / "m.onnx").resolve()
    for text in ("deep/m.onnx", str(inside), "in/m.onnx", "deep/../deep/m.onnx"):
        assert permitted(text, [tmp_path / "none", allowed], "model") == inside
    for text in ("out/m.onnx", "../allowed-not/m.onnx", str(other / "m.onnx"), "/", "round"):
        with pytest.raises(Refusal) as caught:
            permitted(text, [allowed], "model")
        assert caught.value.status_code in (403, 404)
        assert str(other.resolve()) not in str(caught.value.detail).replace(text, "")
    with pytest.raises(Refusal, match="no folder is allowed"):
        permitted("deep/m.onnx", [], "model")
    assert within(inside, [allowed]) and not within(allowed / "out" / "m.onnx", [allowed])


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("resnet18.onnx", "resnet18.onnx"),
        ("../../etc/cron.d/x", "x.onnx"),
        ("C:\\models\\my net (2).onnx", "my-net-2.onnx"),
        (".onnx", "model.onnx"),
        ("…", "model.onnx"),
        ("a" * 300, "a" * 100 + ".onnx"),
    ],
)
def test_an_upload_is_kept_under_a_safe_name(given_name: str, kept: str) -> None:
    assert upload_name(given_name) == kept


def test_what_a_worker_says_is_bounded_and_one_line() -> None:
    stream = io.BytesIO()
    teller = Teller(stream)
    teller.note("two\nlines and a \ud800 and " + "long " * LONGEST_TEXT)
    with teller.stage("scan", 3, "images") as meter:
        meter(3)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["type"] for line in lines] == ["note", "progress", "progress"]
    assert len(lines[0]["text"]) == LONGEST_TEXT and "\n" not in lines[0]["text"]
    assert lines[-1]["done"] == lines[-1]["total"] == 3


def test_a_run_whose_end_nobody_wrote_is_done(tmp_path: Path) -> None:
    """The service was killed between its worker's last word and its own."""
    store = Store(tmp_path / "store")
    with taken_in(store) as place:
        job = store.update(store.add("name", {"model": "m"}, place), state="running")
    store.close()
    (store.folder(job.id) / "run").mkdir()
    (store.folder(job.id) / "run" / "manifest.json").write_text("{}")
    (store.folder(job.id) / ".run.partial-x").mkdir()
    for _ in range(2):
        again = Store(tmp_path / "store")
        found = again.get(job.id)
        again.close()
        assert found is not None and found.state == "done" and found.finished is not None
    names = sorted(path.name for path in store.folder(job.id).iterdir())
    assert names == ["outcome.json", "request.json", "run"]


def test_a_request_that_was_not_finished_is_forgotten_at_the_next_start(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (store.incoming() / "half").write_bytes(b"x")
    with taken_in(store) as place:
        whole = store.add("name", {"model": "m"}, place)
    store.close()
    again = Store(tmp_path / "store")
    assert [path.name for path in (tmp_path / "store" / "runs").iterdir()] == [whole.id]
    assert again.in_state("queued") == [whole]
    again.remove(whole)
    assert again.ages() == [] and not list((tmp_path / "store" / "runs").iterdir())
    again.close()
