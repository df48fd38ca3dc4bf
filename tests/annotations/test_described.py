"""Files of described units: read, refused line by line, and the same to the encoder as a run's."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import milan_onnx
from milan_onnx.annotations import DescribedUnits, annotated_features, describes_units
from milan_onnx.applications.reopened import exemplar_features
from milan_onnx.bundle import load_bundle
from milan_onnx.errors import BadInput, ProbeError
from milan_onnx.exemplars import exemplar_masks
from milan_onnx.progress import Silent
from milan_onnx.regions import decode_rle, run_lengths
from milan_onnx.reporting import run_geometry, run_probe
from milan_onnx.runtime import Describer, Device
from tests.annotations.described import GRID, rows_of, write_described, write_rows
from tests.conftest import SHARED
from tests.export.toy_data import encode_rle
from tests.toy import SIZE, toy_photos

Row = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos for a file beside them."""
    toy_photos(tmp_path / "images")
    return tmp_path


@pytest.fixture
def rows() -> list[Row]:
    """Four units."""
    return rows_of("a", "train", 4, np.random.default_rng(1), annotators=2)


def test_units_are_read_as_they_were_written(folder: Path, rows: list[Row]) -> None:
    rows[1]["notes"][0].pop("also")
    rows[2]["notes"][1]["also"] = ""
    for name in ("units.jsonl", "units.jsonl.gz"):
        path = write_rows(folder / name, rows)
        assert describes_units(path)
        units = DescribedUnits(path).units
        assert [u.key for u in units] == [f"a/{row['layer']}/{row['unit']}" for row in rows]
        notes = rows[0]["notes"]
        assert units[0].phrases == (
            notes[0]["description"],
            notes[0]["also"],
            notes[1]["description"],
            notes[1]["also"],
        )
        assert len(units[1].phrases) == len(units[2].phrases) == 3
        assert units[3].coherence == np.mean([n["coherence"] for n in rows[3]["notes"]])
        assert [u.line for u in units] == [1, 2, 3, 4]
    assert not describes_units(folder / "images/00.png")


def test_masks_are_repeated_or_averaged(folder: Path, rows: list[Row]) -> None:
    mask = np.zeros((GRID, GRID), bool)
    mask[4:9, 2:12] = True
    thin = np.zeros((GRID, GRID), bool)
    thin[3, 5] = True
    for rank, drawn in enumerate((mask, thin, ~mask & False)):
        rows[0]["exemplars"][rank]["rle"] = encode_rle(drawn)
    source = DescribedUnits(write_rows(folder / "units.jsonl", rows))
    np.testing.assert_array_equal(source.mask(0, 0, GRID), mask)
    large = source.mask(0, 0, 3 * GRID)
    np.testing.assert_array_equal(large, mask.repeat(3, 0).repeat(3, 1))
    share = mask.reshape(4, 4, 4, 4).mean((1, 3))
    np.testing.assert_array_equal(source.mask(0, 0, 4), share >= 0.5)
    assert source.mask(0, 1, 4).sum() == 1 and source.mask(0, 1, 4)[0, 1]
    assert not source.mask(0, 2, 4).any() and not source.mask(0, 2, 48).any()


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_run_lengths_of_several_masks_are_those_of_each(mask: np.ndarray) -> None:
    texts = [encode_rle(mask), encode_rle(~mask), encode_rle(mask[:1])]
    together = run_lengths(texts)
    for text, runs in zip(texts, together, strict=True):
        alone = run_lengths([text])[0]
        np.testing.assert_array_equal(runs[: len(alone)], alone)
        assert not runs[len(alone) :].any()
    np.testing.assert_array_equal(decode_rle(texts[0], *mask.shape), mask)


@given(st.lists(st.integers(32, 255), max_size=40))
def test_any_text_is_run_lengths_or_refused(codes: list[int]) -> None:
    with contextlib.suppress(ProbeError):
        assert run_lengths(["".join(map(chr, codes))]).min() >= 0


def change(path: str, value: Any) -> Callable[[Row], None]:
    """Sets a value of a row; ``...`` takes it away."""

    def do(row: Row) -> None:
        *parents, last = (int(p) if p.isdigit() else p for p in path.split("."))
        place: Any = row
        for parent in parents:
            place = place[parent]
        if value is ...:
            del place[last]
        else:
            place[last] = value

    return do


BAD = [
    (change("tensor", ...), "no tensor"),
    (change("unit", "7"), "its unit is '7', not a number from 0"),
    (change("unit", True), "its unit is True"),
    (change("split", 3), "its split is not text"),
    (change("network", " "), "an empty network"),
    (change("frame", []), "its frame is not a JSON object"),
    (change("frame.crop", 32), "the frame's crop is 32, not [height, width]"),
    (change("frame.resize", "x"), "the frame's resize is 'x'"),
    (change("frame.interpolation", "cubic"), "the frame's interpolation is 'cubic'"),
    (change("grid", 0), "its grid is 0"),
    (change("grid", 8), f"has {GRID * GRID} cells, not those of a 8x8 grid"),
    (change("exemplars", []), "it has no exemplars"),
    (change("exemplars", [3]), "its exemplars are not a list of JSON objects"),
    (change("exemplars.1.rle", "~~"), "the mask on images/"),
    (change("exemplars.1.rle", "0P"), "damaged run lengths"),
    (change("exemplars.0.activation", "big"), "an activation that is no number"),
    (change("exemplars.0.activation", float("nan")), "an activation that is not finite"),
    (change("exemplars.0.image", "../x.png"), "../x.png is outside the folder"),
    (change("exemplars.0.image", "/etc/x.png"), "/etc/x.png is outside the folder"),
    (change("exemplars.0.image", "a\\..\\..\\x.png"), "is outside the folder"),
    (change("exemplars.0.image", "images/gone.png"), "images/gone.png: no such file"),
    (change("notes", {}), "its notes are not a list of JSON objects"),
    (change("notes.0.description", " "), "an empty phrase"),
    (change("notes.0.also", "  "), "an empty phrase"),
    (change("notes.1.coherence", 4), "coherence 4 is none of 0, 1, 2, 3"),
    (change("notes.1.coherence", ...), "no coherence"),
    (change("unit", 0), "unit 0 of block.10 in a was on line 1 already"),
]


@pytest.mark.parametrize(("damage", "text"), BAD, ids=[text for _, text in BAD])
def test_a_bad_line_is_named(
    folder: Path, rows: list[Row], damage: Callable[[Row], None], text: str
) -> None:
    damage(rows[2])
    with pytest.raises(BadInput) as caught:
        DescribedUnits(write_rows(folder / "units.jsonl", rows))
    assert "has 1 bad entry: line 3: " in str(caught.value) and text in str(caught.value)


def test_all_bad_lines_are_named_together(folder: Path, rows: list[Row]) -> None:
    lines: list[Any] = [*rows, "{", "[]", "", '{"unit": "\xe9"}']
    path = write_rows(folder / "units.jsonl", lines)
    path.write_bytes(path.read_bytes().replace("\xe9".encode(), b"\xe9"))
    with pytest.raises(BadInput) as caught:
        DescribedUnits(path)
    for text in ("3 bad", "line 5: not JSON", "line 6: not a JSON object", "line 8: not UTF-8"):
        assert text in str(caught.value)
    write_rows(path, ["x"] * 23)
    with pytest.raises(BadInput, match=r"23 bad entries: .*line 20: .*; and 3 more"):
        DescribedUnits(path)
    packed = write_rows(folder / "units.jsonl.gz", rows).read_bytes()
    path.write_bytes(packed[:-30])
    with pytest.raises(BadInput, match="its compression is damaged"):
        DescribedUnits(path)
    path.write_bytes(b"\n")
    with pytest.raises(BadInput, match="describes no unit"):
        DescribedUnits(path)
    with pytest.raises(BadInput, match=r"cannot read .*: no such file"):
        DescribedUnits(folder / "gone.jsonl")


def test_photos_that_cannot_be_decoded_are_all_named(folder: Path, rows: list[Row]) -> None:
    source = DescribedUnits(write_rows(folder / "units.jsonl", rows))
    photos = [source.photo(unit, rank) for unit in range(4) for rank in range(3)]
    for unit in (0, 2):
        (folder / rows[unit]["exemplars"][0]["image"]).write_bytes(b"nothing")
    with pytest.raises(BadInput) as caught:
        list(source.frames(photos, SIZE))
    for unit in (0, 2):
        expected = f"line {unit + 1}: {rows[unit]['exemplars'][0]['image']}: a text file"
        assert expected in str(caught.value)


def test_units_of_a_file_are_to_the_encoder_what_they_were_to_describe(
    subject_path: Path, bundle_path: Path, tmp_path: Path
) -> None:
    """A run's exemplars, written as described units: the same frames, masks and features."""
    photos = toy_photos(tmp_path / "images", 24)
    run = milan_onnx.describe(
        subject_path,
        layers=["relu6"],
        images=photos,
        out=tmp_path / "run",
        bundle=bundle_path,
        options=milan_onnx.DescribeOptions(exemplars=4, validity=False, report=False),
    )
    layer, view = run.layers[0], run_geometry(run)
    names = run_probe(run, None).names
    rows = []
    for unit in range(layer.units):
        levels = layer.thresholds[unit].repeat(4)
        masks = exemplar_masks(layer.maps[unit], levels, SIZE, SIZE)
        exemplars = [
            {"image": f"images/{names[i]}", "activation": 1, "rle": encode_rle(mask)}
            for i, mask in zip(layer.ids[unit], masks, strict=True)
        ]
        rows += rows_of("a", "val", 1, np.random.default_rng(0))
        rows[-1] |= {"unit": unit, "grid": SIZE, "exemplars": exemplars}
        rows[-1]["frame"] = {"resize": view.resize, "crop": list(view.crop)}
    source = DescribedUnits(write_rows(tmp_path / "units.jsonl", json.loads(json.dumps(rows))))
    encoder = Describer(load_bundle(bundle_path), Device("cpu")).encoder()
    units = range(layer.units)
    found = annotated_features(source, units, encoder, 2, Silent())
    expected = exemplar_features(run, run.labels, run_probe(run, None), encoder, 1, Silent())
    assert len(found) == len(expected) == 12
    np.testing.assert_allclose(np.stack(found), np.stack(expected), rtol=1e-5, atol=1e-6)


def test_one_photo_in_two_frames_is_two_frames(folder: Path, rows: list[Row]) -> None:
    rows[1]["exemplars"] = copy.deepcopy(rows[0]["exemplars"])
    rows[2]["exemplars"] = copy.deepcopy(rows[0]["exemplars"])
    rows[1]["frame"] = {"resize": 33, "crop": [32, 32]}
    source = DescribedUnits(write_rows(folder / "units.jsonl", rows))
    assert source.photo(0, 0) == source.photo(2, 0) != source.photo(1, 0)
    frames = dict(source.frames([source.photo(0, 0), source.photo(1, 0)], SIZE))
    assert (frames[source.photo(0, 0)] != frames[source.photo(1, 0)]).any()


@pytest.mark.shared
def test_all_shared_units_are_read() -> None:
    path = SHARED / "data" / "units.jsonl.gz"
    if not path.is_file():
        pytest.skip("../shared/data/units.jsonl.gz is not here")
    source = DescribedUnits(path)
    assert len(source.units) == 8761
    assert {unit.split for unit in source.units} == {"train", "val"}
    assert source.mask(0, 0, 224).shape == (224, 224)


def test_described_files_are_of_three_networks(tmp_path: Path) -> None:
    source = DescribedUnits(write_described(tmp_path))
    assert [unit.network for unit in source.units] == ["a"] * 6 + ["b"] * 6 + ["c"] * 8
    some = source.chosen(lambda unit: unit.split == "val")
    assert len(some.units) == 8 and some.photo(0, 0) == source.photo(12, 0)
    np.testing.assert_array_equal(some.mask(0, 0, SIZE), source.mask(12, 0, SIZE))
    assert some.digest([0]) == source.digest([12]) != source.digest([13])
