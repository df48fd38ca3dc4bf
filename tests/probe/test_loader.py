"""Batches: in order, without holes, the same for any number of threads, and no thread left."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from milan_onnx.errors import ProbeError
from milan_onnx.geometry import Geometry
from milan_onnx.probe import (
    Loaded,
    Loader,
    ProbeSet,
    Unusable,
    describe_skips,
    frames,
    open_probe,
    probe_digest,
)
from tests.probe.helpers import encoded, fill, make_tar, make_zip, picture, png

SMALL = Geometry((6, 5), 8)


class FakeProbe(ProbeSet):
    """Images whose every pixel is their number; some are unusable; counts what is alive."""

    name, source = "fake", "fake"

    def __init__(self, count: int, bad: frozenset[int] = frozenset(), delay: float = 0) -> None:
        self._names = [f"{i:03d}.png" for i in range(count)]
        self._bad, self._delay = bad, delay
        self.loaded: list[int] = []

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def read(self, index: int) -> bytes:
        return bytes([index % 256])

    def load(self, index: int) -> Loaded:
        self.loaded.append(index)
        time.sleep(self._delay * (index % 3))
        if index in self._bad:
            raise Unusable("bad")
        value = index % 256
        how = "grey" if index % 5 == 0 else ""
        return Loaded(Image.new("RGB", (8, 8), (value,) * 3), how, f"{index:064d}")


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("milan-probe")]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 40),
    bad=st.frozensets(st.integers(0, 39)),
    batch_size=st.integers(1, 12),
    workers=st.integers(1, 5),
    every=st.integers(1, 3),
)
def test_batches_are_the_same_for_any_number_of_workers(count, bad, batch_size, workers, every):
    ids = range(0, count, every)
    good = [i for i in ids if i not in bad]
    loader = Loader(FakeProbe(count, bad), SMALL, batch_size=batch_size, workers=workers, ids=ids)
    if not good:
        with pytest.raises(ProbeError, match="none of the"):
            list(loader)
        return
    batches = list(loader)
    assert [i for b in batches for i in b.ids] == good
    assert all(len(b.ids) == batch_size for b in batches[:-1])
    assert 0 < len(batches[-1].ids) <= batch_size
    for batch in batches:
        assert batch.images.shape == (len(batch.ids), 6, 5, 3)
        assert (batch.images == batch.ids.astype(np.uint8)[:, None, None, None]).all()
    assert [s.id for s in loader.skipped] == [i for i in ids if i in bad]
    assert [c.id for c in loader.converted] == [i for i in good if i % 5 == 0]
    assert list(loader.digests) == good
    assert not threads()


def test_order_holds_when_decoding_takes_unequal_time():
    loader = Loader(FakeProbe(60, delay=0.002), SMALL, batch_size=7, workers=4)
    assert [int(i) for b in loader for i in b.ids] == list(range(60))


def test_memory_is_bounded():
    probe = FakeProbe(200)
    iterator = iter(Loader(probe, SMALL, batch_size=10, workers=3))
    next(iterator)
    time.sleep(0.1)
    # The batch handed out, one more, and a frame for each worker.
    assert len(probe.loaded) <= 10 + 10 + 3
    iterator.close()


def test_decoding_goes_on_while_the_caller_works():
    probe = FakeProbe(100)
    iterator = iter(Loader(probe, SMALL, batch_size=10, workers=2))
    next(iterator)
    deadline = time.monotonic() + 5
    while len(probe.loaded) < 20 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(probe.loaded) >= 20
    iterator.close()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_in_the_loop_stops_the_threads(error):
    probe = FakeProbe(1000, delay=0.001)
    with pytest.raises(error):
        for _ in Loader(probe, SMALL, batch_size=4, workers=3):
            raise error
    assert not threads()
    assert len(probe.loaded) < 50


@pytest.mark.alone
def test_break_stops_the_threads():
    started = time.monotonic()
    for _ in Loader(FakeProbe(1000, delay=0.01), SMALL, batch_size=4, workers=3):
        break
    assert not threads() and time.monotonic() - started < 2


def test_an_interrupt_while_waiting_stops_the_threads(monkeypatch):
    from concurrent.futures import Future

    calls = iter(range(100))

    def interrupted(self: Future, timeout: float | None = None) -> object:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return original(self, timeout)

    original = Future.result
    monkeypatch.setattr(Future, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(Loader(FakeProbe(1000, delay=0.001), SMALL, batch_size=4, workers=3))
    assert not threads()


def test_a_bug_in_a_worker_is_raised():
    class Buggy(FakeProbe):
        def load(self, index: int) -> Loaded:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(Loader(Buggy(5), SMALL, batch_size=2, workers=2))
    assert not threads()


def test_no_ids_is_no_error():
    assert list(Loader(FakeProbe(5), SMALL, batch_size=2, ids=[])) == []


def test_wrong_arguments():
    with pytest.raises(ValueError, match="batch_size"):
        Loader(FakeProbe(5), SMALL, batch_size=0)
    with pytest.raises(ValueError, match="ascending"):
        Loader(FakeProbe(5), SMALL, batch_size=1, ids=[1, 1])


def test_iterating_again_begins_anew():
    loader = Loader(FakeProbe(10, frozenset({3})), SMALL, batch_size=4)
    first = [b.ids.tolist() for b in loader]
    assert first == [b.ids.tolist() for b in loader]
    assert len(loader.skipped) == 1 and len(loader.digests) == 9


def mixed(folder: Path) -> Path:
    fill(folder, ["a.png", "b.png", "z.png"])
    (folder / "broken.jpg").write_bytes(encoded(picture(), "JPEG")[:-300])
    (folder / "grey.png").write_bytes(encoded(picture(9).convert("L")))
    (folder / "text.jpg").write_text("not a photo")
    return folder


def test_skips_conversions_and_digests_of_real_files(tmp_path):
    loader = Loader(open_probe(mixed(tmp_path)), SMALL, batch_size=2, workers=2)
    assert [b.ids.tolist() for b in loader] == [[0, 1], [3, 5]]
    assert loader.digests[0] == hashlib.sha256(png(0)).hexdigest()
    assert describe_skips(len(loader.digests), loader.skipped, loader.converted) == (
        "probe images: 4 usable; "
        "2 skipped (broken.jpg: truncated file; text.jpg: a text file, not an image), "
        "1 converted (grey.png: 1-channel to RGB)"
    )


def test_long_lists_are_cut():
    loader = Loader(FakeProbe(40, frozenset(range(1, 39))), SMALL, batch_size=8)
    list(loader)
    text = describe_skips(len(loader.digests), loader.skipped, loader.converted)
    assert "38 skipped" in text and text.count(": bad") == 10 and "; and 28 more)" in text


def test_nothing_usable_is_an_error(tmp_path):
    for k in range(5):
        (tmp_path / f"{k}.jpg").write_text("x")
    loader = Loader(open_probe(tmp_path), SMALL, batch_size=2)
    with pytest.raises(
        ProbeError, match=r"none of the 5 probe images can be used \(0\.jpg: .* 2 more"
    ):
        list(loader)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_every_source_gives_the_same_frames(tmp_path, kind):
    files = {f"{i:02d}.png": png(i) for i in range(30)}
    path = tmp_path / f"x.{kind}"
    if kind == "folder":
        fill(path, list(files))
    elif kind == "zip":
        make_zip(path, files)
    else:
        make_tar(path, files, "w:gz" if kind == "tar.gz" else "w")
    loader = Loader(open_probe(path), SMALL, batch_size=8, workers=4)
    images = np.concatenate([b.images for b in loader])
    np.testing.assert_array_equal(images, [SMALL.frame(picture(i)) for i in range(30)])
    assert loader.digests == {i: hashlib.sha256(png(i)).hexdigest() for i in range(30)}


def test_frames_again_at_another_geometry(tmp_path):
    probe = open_probe(mixed(tmp_path))
    big = Geometry((12, 12), 14)
    got = list(frames(probe, [5, 0, 3], big, workers=2))
    assert [i for i, _ in got] == [5, 0, 3]
    for index, frame in got:
        np.testing.assert_array_equal(frame, big.frame(probe.image(index)))
    with pytest.raises(ProbeError, match=r"broken\.jpg can no longer be used: truncated"):
        list(frames(probe, [0, 2], big))
    assert not threads()


def test_probe_digest_depends_on_names_ids_and_bytes():
    names = ["a", "b", "c"]
    one = probe_digest({0: "x", 2: "y"}, names)
    assert one == probe_digest({2: "y", 0: "x"}, names) and len(one) == 64
    others = [({0: "x"}, names), ({0: "x", 1: "y"}, names), ({0: "y", 2: "x"}, names),
              ({0: "x", 2: "y"}, ["a", "b", "d"])]  # fmt: skip
    assert one not in [probe_digest(digests, n) for digests, n in others]
