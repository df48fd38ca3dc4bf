"""Parquet files: which columns, names, order, little memory, and what is said of odd ones."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from milan_onnx.errors import ExtraMissing, ProbeError
from milan_onnx.geometry import Geometry
from milan_onnx.probe import Loader, Unusable, open_probe, parquet
from tests.probe.helpers import fill, make_parquet, make_tar, png

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet as pq  # noqa: E402

FILES = {f"d/{i}.png": png(i) for i in range(7)}


def table(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def photos(count: int = 3) -> list[bytes]:
    return [png(i) for i in range(count)]


@pytest.mark.parametrize("rows", [None, 1, 3])
def test_hugging_face_form_is_read_in_any_order(tmp_path, rows):
    probe = open_probe(make_parquet(tmp_path / "p.parquet", FILES, rows=rows))
    assert list(probe.names) == list(FILES)
    assert "column image (the only one of bytes)" in probe.name
    for i in (0, 6, 2, 2, 1, 5, 0, 3, 4):
        assert probe.read(i) == png(i)
    probe.close()
    assert probe.read(4) == png(4)


def test_names_come_from_a_column_or_the_row(tmp_path):
    named = table(tmp_path / "a.parquet", jpg=photos(), __key__=["k/1", None, "\n"])
    assert list(open_probe(named).names) == ["k/1", "a.parquet#1", "�"]
    bare = table(tmp_path / "b.parquet", png=photos(2), text=["x", "y"])
    assert list(open_probe(bare).names) == ["b.parquet#0", "b.parquet#1"]
    empty = [{"bytes": png(i), "path": None} for i in range(2)]
    other = table(tmp_path / "c.parquet", image=empty, file_name=["m.png", "n" * 2000])
    assert list(open_probe(other).names) == ["m.png", "c.parquet#1"]
    large = pa.array(photos(1), pa.large_binary())
    assert open_probe(table(tmp_path / "d.parquet", bytes=large)).read(0) == png(0)


def test_the_column_is_chosen_by_name_or_asked_for(tmp_path):
    both = table(tmp_path / "p.parquet", mask=photos(), jpg=[png(7)] * 3, image=photos())
    probe = open_probe(both)
    assert "column image (by its name)" in probe.name and probe.read(1) == png(1)
    asked = open_probe(f"{both}#jpg")
    assert "column jpg (as asked for)" in asked.name and asked.read(1) == png(7)
    assert asked.source == f"{both}#jpg"
    with pytest.raises(ProbeError, match="no column label of photos"):
        open_probe(f"{both}#label")
    lone = table(tmp_path / "q.parquet", data=photos(), label=[0, 1, 2])
    assert "column data (the only one of bytes)" in open_probe(lone).name
    two = table(tmp_path / "r.parquet", left=photos(), right=photos())
    with pytest.raises(ProbeError, match=r"no one column of photos \(it has left: binary, right:"):
        open_probe(two)


def test_folders_and_ranges_are_one_set(tmp_path):
    for n in range(3):
        some = {f"{n}{k}.png": png(10 * n + k) for k in range(2)}
        make_parquet(tmp_path / f"s-{n}.parquet", some)
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "_metadata.parquet").write_text("not one")
    expected = [f"s-{n}.parquet/{n}{k}.png" for n in range(3) for k in range(2)]
    for source in (tmp_path, f"{tmp_path}/s-{{0..2}}.parquet", f"{tmp_path}/s-{{0,1,2}}.parquet"):
        probe = open_probe(source)
        assert list(probe.names) == expected
        assert [probe.read(i) for i in (5, 0, 3)] == [png(21), png(0), png(11)]
    table(tmp_path / "s-0.parquet", image=photos(1))
    assert open_probe(tmp_path).names[0] == "s-0.parquet#0"
    fill(tmp_path, ["photo.png"])
    assert list(open_probe(tmp_path).names) == ["photo.png"]


def test_shards_that_are_called_the_same_keep_their_folders(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        make_tar(tmp_path / folder / "0.tar", {"x.jpg": png(1), "x.json": b"{}", "x.cls": b"3"})
    probe = open_probe(f"{tmp_path}/{{a,b}}/0.tar")
    assert list(probe.names) == ["a/0.tar/x.jpg", "b/0.tar/x.jpg"]
    fill(tmp_path / "c", ["y.png"])
    union = open_probe(f"{tmp_path}/b/0.tar::{tmp_path}/c")
    assert list(union.names) == ["0.tar/x.jpg", "c/y.png"] and union.read(1) == png(0)


def test_odd_rows_are_unusable_and_leave_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_BYTES", 5000)
    rows = [
        {"bytes": png(0), "path": "a"},
        None,
        {"bytes": None, "path": "elsewhere.png"},
        {"bytes": bytes(6000), "path": "big"},
        {"bytes": b"", "path": "empty"},
        {"bytes": png(5), "path": "f"},
    ]
    probe = open_probe(table(tmp_path / "p.parquet", image=rows))
    assert list(probe.names) == ["a", "p.parquet#1", "elsewhere.png", "big", "empty", "f"]
    loader = Loader(probe, Geometry((8, 8), 8), batch_size=4, workers=2)
    assert [batch.ids.tolist() for batch in loader] == [[0, 5]]
    reasons = [skipped.reason for skipped in loader.skipped]
    assert reasons == [
        "no bytes in its row",
        "no bytes in its row",
        "a file of 0 MiB is over the limit of 256 MiB",
        "empty file",
    ]


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"image": [1, 2]}, "image: int64"),
        ({"image": ["a", "b"]}, "image: string"),
        ({"image": [[b"x"], [b"y"]]}, "image: list"),
        ({"image": [[{"bytes": b"x"}]]}, "image: list"),
        ({"image": [{"bytes": "text"}]}, "image: struct"),
        ({"image": [{"path": "a.png"}]}, "image: struct"),
        ({"a.b": [b"x"]}, "a.b: binary"),
        ({"x": [None, None]}, "x: null"),
        ({"e\x1bvil": [1]}, "e�vil: int64"),
    ],
)
def test_files_without_a_column_of_photos_are_refused(tmp_path, columns, what):
    with pytest.raises(ProbeError, match=f"no one column of photos .it has .*{what}") as caught:
        open_probe(table(tmp_path / "p.parquet", **columns))
    assert "FILE.parquet#COLUMN" in caught.value.hint


def test_columns_of_one_name_are_refused(tmp_path):
    twice = pa.Table.from_arrays([pa.array(photos(1))] * 2, names=["image", "image"])
    pq.write_table(twice, tmp_path / "p.parquet")
    with pytest.raises(ProbeError, match="no one column of photos"):
        open_probe(tmp_path / "p.parquet")


def test_no_rows_are_no_photos(tmp_path):
    nothing = pa.table({"image": pa.array([], pa.binary())})
    pq.write_table(nothing, tmp_path / "p.parquet")
    with pytest.raises(ProbeError, match="holds no rows"):
        open_probe(tmp_path / "p.parquet")


def test_broken_files_are_said_or_their_rows_unusable(tmp_path):
    whole = make_parquet(tmp_path / "p.parquet", FILES, rows=2).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "q.parquet"
    outcomes = set()
    for turn in range(120):
        data = bytearray(whole[: int(rng.integers(0, len(whole)))] if turn % 3 == 0 else whole)
        # Every other time near the footer, where the columns are described.
        first = 0 if turn % 2 else max(0, len(data) - 2500)
        for place in rng.integers(first, max(1, len(data)), 4):
            if data:
                data[place] = int(rng.integers(256))
        path.write_bytes(bytes(data))
        try:
            probe = open_probe(path)
        except ProbeError as error:
            outcomes.add("refused")
            assert str(path) in error.message and "\n" not in error.message
            continue
        for index in range(min(len(probe), 50)):
            try:
                assert isinstance(probe.read(index), bytes)
                outcomes.add("read")
            except Unusable as error:
                outcomes.add("unusable")
                assert str(error)
    assert outcomes >= {"refused", "read"}


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_damage_costs_the_same_rows_whoever_asks_when(tmp_path, workers):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"image": photos(18)}), path, row_group_size=6, compression="none")
    place = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    data[place.data_page_offset : place.data_page_offset + 8] = b"\xff" * 8
    path.write_bytes(data)
    probe = open_probe(path)
    loader = Loader(probe, Geometry((8, 8), 8), batch_size=3, workers=workers)
    ids = [i for batch in loader for i in batch.ids.tolist()]
    assert ids == [*range(6), *range(12, 18)]
    assert len({skipped.reason for skipped in loader.skipped}) == 1
    with pytest.raises(Unusable, match="damaged in the parquet file"):
        probe.read(6)
    assert probe.read(12) == png(12)


def test_opening_reads_no_photo_and_reading_holds_few(tmp_path):
    path = tmp_path / "p.parquet"
    images = [os.urandom(1 << 20) for _ in range(48)]
    # Pages of a photo each, in one row group.
    pq.write_table(pa.table({"image": images}), path, write_batch_size=1, use_dictionary=False)
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    tracemalloc.start()
    probe = open_probe(path)
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()
    largest = 0
    for index in (0, 1, 2, 20, 21, 47):
        assert probe.read(index) == images[index]
        largest = max(largest, pool.bytes_allocated() - before)
    assert largest < 16 << 20


def test_a_value_that_a_dictionary_repeats_is_not_multiplied(tmp_path):
    rows, size = 600, 1 << 20
    same = pa.array([0] * rows, pa.int16())
    images = pa.DictionaryArray.from_arrays(same, pa.array([b"x" * size]))
    names = pa.DictionaryArray.from_arrays(same, pa.array(["n" * size]))
    path = tmp_path / "p.parquet"
    pq.write_table(
        pa.table({"image": images, "path": names}),
        path,
        store_schema=False,
        dictionary_pagesize_limit=1 << 30,
    )
    assert path.stat().st_size < size
    pool = pa.default_memory_pool()
    before = pool.max_memory()
    probe = open_probe(path)
    assert len(probe.read(0)) == len(probe.read(9)) == size
    assert probe.names[7] == "p.parquet#7"
    assert pool.max_memory() - before < 200 << 20


def test_passed_images_are_kept_within_bounds(tmp_path, monkeypatch):
    files = {f"{i}.png": bytes([i]) * 1000 for i in range(20)}
    probe = open_probe(make_parquet(tmp_path / "p.parquet", files))
    monkeypatch.setattr(parquet, "CACHE_BYTES", 3000)
    opened, opener = [], probe._opened
    monkeypatch.setattr(probe, "_opened", lambda: opened.append(1) or opener())
    for i in (2, 0, 1, 4, 3):
        assert probe.read(i)[0] == i
    assert len(opened) == 1
    assert probe.read(19)[0] == 19 and probe._held == 3000
    assert probe.read(5)[0] == 5 and len(opened) == 2


def test_pyarrow_is_named_where_it_is_missing(tmp_path, monkeypatch):
    path = make_parquet(tmp_path / "p.parquet", FILES)

    def missing(name: str) -> object:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(parquet.importlib, "import_module", missing)
    with pytest.raises(ExtraMissing, match=r"needs pyarrow, .*cpu,parquet") as caught:
        open_probe(path)
    assert caught.value.exit_code == 4
