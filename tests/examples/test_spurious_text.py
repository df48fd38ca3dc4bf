"""The spurious-text example: its photos bear what they should, and the whole of it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "spurious-text"


@pytest.fixture
def photos(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(FOLDER)
    import photos  # type: ignore[import-not-found]

    yield photos
    sys.modules.pop("photos")


def test_photos_are_the_same_each_time_and_differ_by_part(photos: ModuleType) -> None:
    made = photos.Photos(48, 3)
    first, again = (photos.arrays(made.split("test", 2, "other")) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1].tolist() == sorted([*range(10)] * 2)
    other, _ = photos.arrays(made.split("train", 2, "other"))
    assert not np.array_equal(first[0], other)


def test_half_bear_text_and_it_changes_corners_only(photos: ModuleType) -> None:
    made = photos.Photos(48, 3)
    plain, _ = photos.arrays(made.split("train", 8, "none"))
    half, _ = photos.arrays(made.split("train", 8, "own", share=0.5))
    changed = (plain != half).any(axis=3)
    marked = changed.any(axis=(1, 2))
    assert 0.3 < marked.mean() < 0.7
    assert not changed[:, 18:30, :].any(), "text stays near the upper and the lower edge"


def test_the_wrong_name_is_never_the_own_one(photos: ModuleType) -> None:
    made = photos.Photos(48, 3)
    rng = np.random.default_rng(0)
    for label, name in enumerate(made.classes):
        said = {made._said("other", label, rng) for _ in range(200)}
        assert said == set(made.classes) - {name}


def test_class_folders_are_parted_without_overlap(photos: ModuleType, tmp_path: Path) -> None:
    source = photos.save(photos.Photos(48, 1).split("train", 10, "none"), tmp_path)
    made = photos.Photos(48, 0, source)
    frames = {part: photos.arrays(made.split(part, 99, "none"))[0] for part in photos.SHARES}
    assert [len(found) for found in frames.values()] == [60, 20, 20]
    seen = [frame.tobytes() for found in frames.values() for frame in found]
    assert len(set(seen)) == 100


def test_all_of_it_runs(tmp_path: Path) -> None:
    line = [sys.executable, str(FOLDER / "run.py"), "--out", str(tmp_path), "--seeds", "1"]
    line += ["--count", "16", "--tested", "2", "--side", "48", "--epochs", "1", "--tolerance", "1"]
    # Words that any captioner says: what this one would call text is not the question.
    said = "and or of in text letters shapes areas objects edges lines red green blue black white"
    line += ["--most", "2", "--order", "sorted", "--words", *said.split()]
    done = subprocess.run(line, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert set(found["adversarial"]) >= {"before", "after", "random", "sort-all"}
    assert found["ablated"] == [2] and "after - before" in done.stdout
