"""The built-in set is the same everywhere, balanced and varied."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from milan_onnx.geometry import Geometry
from milan_onnx.probe import Loader, SyntheticProbe, open_probe
from milan_onnx.probe.synthetic import patterns, scenes, shapes, text, textures
from milan_onnx.probe.synthetic.families import ROUND

FAMILIES = {family.__name__: family for family in ROUND}


def test_it_is_what_opens_without_a_source():
    probe = open_probe(None)
    assert len(probe) == 1000 and probe.source == "synthetic:1000:seed0"
    assert probe.names[0].startswith("synthetic/0000-scene-")
    assert open_probe(None, synthetic=5, seed=3).source == "synthetic:5:seed3"


def test_an_image_depends_on_seed_and_number_alone():
    first, longer = SyntheticProbe(60), SyntheticProbe(200)
    for i in (41, 3, 59, 0, 17):
        np.random.seed(i)
        assert first.read(i) == longer.read(i) == SyntheticProbe(60).read(i)
    assert list(first.names) == list(longer.names[:60])
    assert SyntheticProbe(60, seed=1).read(3) != first.read(3)


def test_another_process_draws_the_same():
    code = (
        "from milan_onnx.probe import SyntheticProbe; import hashlib; p = SyntheticProbe(40);"
        "print(hashlib.sha256(b''.join(p.read(i) for i in range(40))).hexdigest())"
    )
    runs = {subprocess.check_output([sys.executable, "-c", code]) for _ in range(2)}
    assert len(runs) == 1


def test_threads_do_not_change_the_drawings():
    geometry = Geometry((64, 64), 64)
    one, many = (Loader(SyntheticProbe(120), geometry, batch_size=16, workers=n) for n in (1, 6))
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a.images, b.images)
    assert one.digests == many.digests and len(one.digests) == 120


def test_names_are_distinct_tidy_and_say_what_is_there():
    names = SyntheticProbe(1000).names
    assert len(set(names)) == 1000
    for name in names:
        assert name.startswith("synthetic/") and name.endswith(".png")
        assert all(c.isascii() and (c.isalnum() or c in "/-.>") for c in name), name
    for word in ("red", "vertical-stripes", "checkerboard", "brick-wall", "scene-sea", "thing-face",
                 "letter-A", "stop-sign", "many-", "outline-", "solid-light-blue"):  # fmt: skip
        assert any(word in name for name in names), word


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_every_family_can_be_drawn(family):
    draw = FAMILIES[family]
    for k in range(48):
        rng = np.random.Generator(np.random.Philox(key=k))
        image = draw(rng, k).paint(64)
        assert image.mode == "RGB" and image.size == (64, 64)


def test_any_prefix_is_balanced():
    modules = (patterns, textures, shapes, text, scenes)
    for start in range(0, len(ROUND), 10):
        part = {family.__module__ for family in ROUND[start : start + 10]}
        assert len(part) >= 4
    assert {family.__module__ for family in ROUND} == {module.__name__ for module in modules}


def test_drawings_are_varied():
    probe = SyntheticProbe(200, size=64)
    images = np.stack([np.asarray(probe.image(i)) for i in range(200)]).astype(np.float32)
    assert len({image.tobytes() for image in images}) == 200
    assert 90 < images.mean() < 170
    assert (images.std(axis=(1, 2, 3)) > 15).mean() > 0.8


def test_other_sizes_and_bounds():
    probe = SyntheticProbe(10, size=100)
    assert probe.image(9).size == (100, 100)
    assert len(probe.read(0)) == 100 * 100 * 3
    with pytest.raises(IndexError):
        probe.image(10)


def test_importing_the_package_does_not_import_pillow():
    code = "import milan_onnx.probe, sys; print('PIL' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code]).strip() == b"False"
