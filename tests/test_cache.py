"""Runs that were made before come from the cache; whatever changes a result makes another one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import milan_onnx
from milan_onnx.cache import CONTENT, ENTRY, Cache, Key, choose_folder
from milan_onnx.describing import DescribeOptions, finishing, run_key
from tests.conftest import Command
from tests.test_generator import generator
from tests.toy import FLOAT, Graph, toy_bundle, toy_subject

PHOTOS = 24


def photo(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 44, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A model, a bundle and photos, one of them broken."""
    toy_subject(tmp_path / "m.onnx")
    toy_bundle(tmp_path / "b")
    (tmp_path / "photos").mkdir()
    for number in range(PHOTOS):
        photo(number).save(tmp_path / "photos" / f"{number:02}.png")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(200))
    return tmp_path


LINE = ("describe", "m.onnx", "-l", "relu1", "-l", "relu6", "--bundle", "b", "-i", "photos")


def contents(run: Path) -> dict[str, bytes]:
    """All files of a run but the manifest."""
    files = [path for path in run.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in sorted(files)}


def manifest(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A manifest without its environment, and that."""
    whole = json.loads((run / "manifest.json").read_text())
    environment = whole.pop("environment")
    return whole, environment


# --- the same run -------------------------------------------------------------------------------


@pytest.mark.parametrize("validity", [(), ("--validity", "--exemplars", "3")])
def test_the_second_run_is_the_first_without_a_scan(
    milan: Command, place: Path, validity: tuple[str, ...]
) -> None:
    line, kept = (*LINE, "--format", "csv", *validity), ("--cache", "cache")
    first = milan(*line, *kept, "-o", "one", cwd=place)
    second = milan(*line, *kept, "-o", "two", "--threads", 1, "--batch-size", 3, cwd=place)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "scan:" in first.stderr
    for stage in ("scan:", "encode:", "describe:", "validate:", "batch:"):
        assert stage not in second.stderr
    assert "cache: made before" in second.stderr
    assert first.stdout == second.stdout
    said = [line for line in first.stderr.splitlines() if line.startswith("probe images: 24")]
    assert said and said[0] in second.stderr.splitlines()
    assert set(contents(place / "one")) > {"report.html", "labels.csv", "labels.jsonl"}
    assert contents(place / "one") == contents(place / "two")
    (one, before), (two, now) = manifest(place / "one"), manifest(place / "two")
    assert one == two
    assert set(now) - set(before) == {"from_cache"}
    assert {name: now[name] for name in before} == before
    fresh = milan(*line, "-o", "three", "--no-cache", cwd=place)
    assert "scan:" in fresh.stderr
    assert contents(place / "three") == contents(place / "two")


def test_what_moved_is_told_as_it_is_now(milan: Command, place: Path) -> None:
    line = ("--bundle", "b", "-l", "relu1", "--cache", "cache")
    assert milan("describe", "m.onnx", *line, "-i", "photos", cwd=place).returncode == 0
    (place / "m.onnx").rename(place / "renamed.onnx")
    (place / "photos").rename(place / "moved")
    (place / "b").rename(place / "c")
    line = ("--bundle", "c", *line[2:])
    done = milan("describe", "renamed.onnx", *line, "-i", "moved", cwd=place)
    assert "cache: made before" in done.stderr
    run = milan_onnx.load_run(place / "renamed-run")
    assert run.manifest["model"]["name"] == "renamed.onnx"
    assert "moved" in run.manifest["probe"]["name"]
    environment = run.manifest["environment"]
    assert environment["images"] == "moved"
    assert environment["model_path"] == "renamed.onnx"
    assert environment["bundle_path"] == "c"
    page = (place / "renamed-run" / "report.html").read_text()
    assert "renamed.onnx" in page and "m.onnx (" not in page.replace("renamed.onnx", "")
    again = milan("report", "renamed-run", "-o", "again.html", cwd=place)
    assert again.returncode == 0, again.stderr
    assert (place / "again.html").read_text() == page


def test_the_library_keeps_nothing_unasked_and_takes_a_cache(place: Path) -> None:
    options = DescribeOptions(report=False)
    arguments = (place / "m.onnx", "relu1", place / "photos")
    cache = Cache(place / "cache")
    fresh = milan_onnx.describe(*arguments, bundle=place / "b", options=options)
    assert not cache.folder.exists()
    milan_onnx.describe(*arguments, bundle=place / "b", options=options, cache=cache)
    said: list[milan_onnx.UnitLabel] = []
    run = milan_onnx.describe(
        *arguments, bundle=place / "b", options=options, cache=cache, on_label=said.append
    )
    assert run.manifest["environment"]["from_cache"] == cache.entries()[0].key
    assert tuple(said) == run.labels
    assert [x.description for x in run.labels] == [x.description for x in fresh.labels]
    np.testing.assert_array_equal(run.layers[0].maps, fresh.layers[0].maps)


def test_a_generators_run_is_kept(place: Path, milan: Command) -> None:
    latents, rng = place / "zs.npy", np.random.default_rng(1)
    generator(place / "g.onnx")
    np.save(latents, rng.normal(size=(30, 6)))
    np.save(place / "ys.npy", rng.integers(0, 5, 30))
    line = ("describe", "g.onnx", "-l", "block0", "--latents", "zs.npy", "--classes", "ys.npy")
    line = (*line, "--bundle", "b", "--cache", "cache", "--no-report")
    assert milan(*line, "-o", "one", cwd=place).returncode == 0
    assert "cache: made before" in milan(*line, "-o", "two", cwd=place).stderr
    assert contents(place / "one") == contents(place / "two")
    values = np.load(latents)
    values[0, 0] += 1
    np.save(latents, values)
    assert "cache: made before" not in milan(*line, "-o", "three", cwd=place).stderr


# --- another run --------------------------------------------------------------------------------


def key(place: Path, **changed: Any) -> str:
    asked = {"model": place / "m.onnx", "layers": ["relu1"], "images": place / "photos"}
    asked |= {"bundle": place / "b", "options": DescribeOptions()} | changed
    return run_key(**asked).sha256


def flip(path: Path, position: int = -1) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def flip_weight(path: Path) -> None:
    model = onnx.load(path)
    weights = model.graph.initializer[0]
    raw = bytearray(weights.raw_data)
    raw[0] ^= 1
    weights.raw_data = bytes(raw)
    onnx.save(model, path)


def same_time(change: Callable[[Path], None]) -> Callable[[Path], None]:
    """A change that leaves the file's time and size as they were."""

    def changed(path: Path) -> None:
        before = path.stat()
        change(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size == before.st_size

    return changed


CHANGES: dict[str, Callable[[Path], object]] = {
    "a bit of the model": lambda p: same_time(flip_weight)(p / "m.onnx"),
    "a bit of a photo": lambda p: same_time(flip)(p / "photos" / "00.png"),
    "a bit of a photo that is not usable": lambda p: flip(p / "photos" / "broken.jpg"),
    "a photo's name": lambda p: (p / "photos" / "00.png").rename(p / "photos" / "99.png"),
    "a photo more": lambda p: photo(99).save(p / "photos" / "zz.png"),
    "a photo less": lambda p: (p / "photos" / "05.png").unlink(),
    "two photos swapped": lambda p: swap(p / "photos" / "01.png", p / "photos" / "02.png"),
    "another bundle": lambda p: (shutil.rmtree(p / "b"), toy_bundle(p / "b", seed=9)),
    "preprocessing beside the model": lambda p: (p / "preprocessor_config.json").write_text(
        '{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1], "do_resize": false}'
    ),
}


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_a_file_is_another_run(place: Path, change: str) -> None:
    before = key(place)
    assert key(place) == before
    CHANGES[change](place)
    assert key(place) != before


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_subject(tmp_path_factory.mktemp("original") / "m.onnx")


def built_in_key(model: Path, bundle: Path) -> str:
    options = DescribeOptions(synthetic=20)
    return run_key(model, ["relu1"], bundle=bundle, options=options).sha256


@given(number=st.integers(0, 4), place=st.integers(0, 10**6), bits=st.integers(1, 255))
@settings(max_examples=10, deadline=None)
def test_any_other_weight_is_another_run(
    original: Path, bundle_path: Path, number: int, place: int, bits: int
) -> None:
    whole = original.read_bytes()
    weights = onnx.load(original).graph.initializer[number].raw_data
    changed = bytearray(whole)
    changed[whole.index(weights) + place % len(weights)] ^= bits
    other = original.with_name("other.onnx")
    other.write_bytes(changed)
    assert built_in_key(other, bundle_path) != built_in_key(original, bundle_path)


OPTIONS: dict[str, Any] = {
    "exemplars": 14,
    "quantile": 0.98,
    "beam_size": 7,
    "pmi_weight": 0.7,
    "strategy": "greedy",
    "legacy": True,
    "candidates": 2,
    "validity": True,
    "validity_level": 0.1,
    "abstain_below": 0.5,
    "limit": 20,
    "tail_memory": 0,
    "preprocessing": {"mean": [0.5], "std": [0.5]},
    "layout": "channels_first",
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_that_changes_the_result_is_another_run(place: Path, option: str) -> None:
    options = replace(DescribeOptions(), **{option: OPTIONS[option]})
    assert key(place, options=options) != key(place)


def test_every_option_is_known_to_the_key_or_changes_nothing() -> None:
    """A new option must be thought of: it belongs to one of these."""
    nothing = {
        *("threads", "batch_size", "reduce"),  # the same bytes on a CPU; in the key on a GPU
        *("report", "overwrite", "milan_format", "formats", "write_metadata", "metadata_out"),
    }
    elsewhere = {
        "device",  # as it was chosen: ``arithmetic``
        "inputs",
        *("latents", "classes", "image_output", "image_range"),  # ``generator`` and ``photos``
        *("synthetic", "seed"),
    }
    names = set(DescribeOptions.__dataclass_fields__)
    assert names == nothing | elsewhere | set(OPTIONS)


@pytest.mark.parametrize(
    "options",
    [{"threads": 1}, {"batch_size": 3}, {"report": False}, {"overwrite": True}, {"reduce": "host"}],
)
def test_an_option_that_changes_nothing_is_the_same_run(
    place: Path, options: dict[str, Any]
) -> None:
    assert key(place, options=DescribeOptions(**options)) == key(place)


def test_layers_and_their_order_are_another_run(place: Path) -> None:
    keys = [key(place, layers=x) for x in (["relu1"], ["relu6"], ["relu1", "relu6"])]
    keys.append(key(place, layers=["relu6", "relu1"]))
    assert len(set(keys)) == 4


def test_built_in_images_go_by_count_and_seed(place: Path) -> None:
    options = [{"synthetic": 30}, {"synthetic": 31}, {"synthetic": 30, "seed": 1}]
    keys = [key(place, images=None, options=DescribeOptions(**some)) for some in options]
    assert len(set(keys)) == 3


def test_archives_go_by_what_is_in_them(place: Path) -> None:
    for suffix in ("zip", "tar", "gztar"):
        archive = Path(shutil.make_archive(str(place / "photos"), suffix, place / "photos"))
        keys = [key(place, images=archive), key(place, images=archive)]
        fewer = DescribeOptions(limit=20)
        keys += [key(place, images=archive, options=fewer)]
        photo(77).save(place / "photos" / "03.png")
        shutil.make_archive(str(place / "photos"), suffix, place / "photos")
        keys += [key(place, images=archive), key(place, images=archive, options=fewer)]
        assert keys[0] == keys[1]
        assert len(set(keys)) == 4
        photo(3).save(place / "photos" / "03.png")
        if suffix != "gztar":  # a compressed file is told by its own bytes
            assert keys[0] == key(place)


def test_shards_go_by_what_is_in_them(place: Path) -> None:
    for number in range(2):
        shutil.make_archive(str(place / f"shard-{number}"), "gztar", place / "photos")
        (place / f"shard-{number}.tar.gz").rename(place / f"shard-{number}.tgz")
    images = place / "shard-{0..1}.tgz"
    before = key(place, images=images)
    assert key(place, images=images) == before
    photo(77).save(place / "photos" / "03.png")
    shutil.make_archive(str(place / "x"), "gztar", place / "photos")
    (place / "x.tar.gz").rename(place / "shard-1.tgz")
    assert key(place, images=images) != before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("milan_onnx.__version__", "0.0.9"),
        ("milan_onnx.describing.recalling.program_digest", lambda: "another program"),
        ("milan_onnx.describing.recalling.installed_runtimes", lambda: {"onnxruntime": "0"}),
        ("milan_onnx.describing.recalling.libraries", lambda: {"numpy": "0"}),
        ("milan_onnx.describing.recalling.arithmetic", lambda device: {"device": device}),
        ("milan_onnx.describing.recalling.SCHEMA_VERSION", 99),
    ],
)
def test_another_program_or_machine_is_another_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    before = key(place)
    monkeypatch.setattr(name, value)
    assert key(place) != before


def test_a_changed_photo_is_described_as_without_a_cache(milan: Command, place: Path) -> None:
    line = (*LINE, "--cache", "cache", "--no-report")
    assert milan(*line, "-o", "one", cwd=place).returncode == 0
    photo(77).save(place / "photos" / "03.png")
    assert milan(*line, "-o", "two", cwd=place).returncode == 0
    assert milan(*LINE, "--no-report", "-o", "three", "--no-cache", cwd=place).returncode == 0
    assert contents(place / "two") == contents(place / "three")
    assert contents(place / "two") != contents(place / "one")


def test_photos_that_change_under_a_run_are_not_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(place / "cache")
    scan = finishing.scan_layers

    def scan_and_touch(*job: Any) -> Any:
        found = scan(*job)
        photo(55).save(place / "photos" / "00.png")
        return found

    monkeypatch.setattr(finishing, "scan_layers", scan_and_touch)
    milan_onnx.describe(
        place / "m.onnx", "relu1", place / "photos", place / "run", bundle=place / "b", cache=cache
    )
    assert cache.entries() == []


def test_a_layer_may_differ_in_company(bundle_path: Path, tmp_path: Path) -> None:
    """Why whole runs are kept and not layers: an output keeps the nodes around it from folding."""
    g = Graph(3)
    x = g.op("Conv", "input", g.weight(8, 3, 3, 3), name="conv")
    numbers = [g.constant(g.rng.random(8).astype(np.float32) + 0.5) for _ in range(4)]
    x = g.op("BatchNormalization", x, *numbers, name="bn")
    shapes = [("input", FLOAT, ["N", 3, 32, 32])], [("bn", FLOAT, ["N", 8, 30, 30])]
    model = g.save(tmp_path / "m.onnx", *shapes)
    options = DescribeOptions(synthetic=20, report=False)
    alone = milan_onnx.describe(model, ["bn"], bundle=bundle_path, options=options)
    both = milan_onnx.describe(model, ["conv", "bn"], bundle=bundle_path, options=options)
    one, other = alone.layer("bn").activations, both.layer("bn").activations
    np.testing.assert_allclose(one, other, rtol=1e-4)
    assert not np.array_equal(one, other)


# --- the folder ---------------------------------------------------------------------------------


def fill_with(text: str) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner" / "text").write_text(text)

    return fill


class Ear:
    """Collects what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "changed": lambda p: flip(p / CONTENT / "inner" / "text"),
    "gone": lambda p: (p / CONTENT / "inner" / "text").unlink(),
    "more": lambda p: (p / CONTENT / "more").write_text("x"),
    "entry cut": lambda p: (p / ENTRY).write_text("{"),
    "entry of deep brackets": lambda p: (p / ENTRY).write_text("[" * 100_000),
    "entry no object": lambda p: (p / ENTRY).write_text("[]"),
    "other facts": lambda p: (p / ENTRY).write_text(
        (p / ENTRY).read_text().replace('"a": 1', '"a": 2')
    ),
    "newer": lambda p: (p / ENTRY).write_text(
        (p / ENTRY).read_text().replace('"format_version": 1', '"format_version": 2')
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_said_removed_and_made_again(tmp_path: Path, damage: str) -> None:
    ear = Ear()
    cache, wanted = Cache(tmp_path / "c", say=ear), Key({"a": 1})  # type: ignore[arg-type]
    cache.keep(wanted, "text", fill_with("hello"))
    found = cache.find(wanted)
    assert found is not None and (found / "inner" / "text").read_text() == "hello"
    DAMAGE[damage](tmp_path / "c" / wanted.sha256)
    ear.notes.clear()
    assert cache.find(wanted) is None
    assert "is damaged and not used" in ear.notes[0]
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["CACHEDIR.TAG"]
    cache.keep(wanted, "text", fill_with("hello"))
    assert cache.find(wanted) is not None


def test_a_damaged_run_is_described_again(milan: Command, place: Path) -> None:
    line = (*LINE, "--cache", "cache", "--no-report")
    assert milan(*line, "-o", "one", cwd=place).returncode == 0
    (file,) = (place / "cache").glob("*/content/labels.jsonl")
    file.write_text(file.read_text().replace('"unit":1,', '"unit":2,'))
    done = milan(*line, "-o", "two", cwd=place)
    assert done.returncode == 0
    assert "labels.jsonl is not as it was written" in done.stderr
    assert "scan:" in done.stderr
    assert contents(place / "two") == contents(place / "one")
    assert "cache: made before" in milan(*line, "-o", "three", cwd=place).stderr


def test_what_was_least_used_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", most=10_000)
    keys = [Key({"n": number}) for number in range(4)]
    for number, wanted in enumerate(keys[:3]):
        cache.keep(wanted, "text", fill_with("x" * 2500))
        os.utime(tmp_path / "c" / wanted.sha256 / ENTRY, (number, number))
    assert cache.find(keys[0]) is not None
    cache.keep(keys[3], "text", fill_with("x" * 2500))
    assert [cache.find(k) is not None for k in keys] == [True, False, True, True]
    assert sum(entry.bytes for entry in cache.entries()) <= 10_000


def test_what_is_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", most=1000)
    small, large = Key({"n": 1}), Key({"n": 2})
    cache.keep(small, "text", fill_with("x"))
    cache.keep(large, "text", fill_with("x" * 2000))
    assert cache.find(large) is None
    assert not list((tmp_path / "c").glob(".*"))


def test_an_interrupt_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path / "c").keep(Key({}), "text", fill)
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["CACHEDIR.TAG"]


def test_processes_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    """They keep, find, trim and clear the same few entries; whoever finds one finds it whole."""
    code = """
import random, sys
from pathlib import Path
from milan_onnx.cache import Cache, Key

def fill(folder):
    for name in range(5):
        (folder / str(name)).write_text(str(number) * 300)

random.seed(int(sys.argv[2]))
cache = Cache(Path(sys.argv[1]), most=9_000)
for _ in range(60):
    number = random.randrange(6)
    found = cache.find(Key({"n": number}))
    if found is None:
        cache.keep(Key({"n": number}), "text", fill)
    else:
        try:
            texts = [(found / str(name)).read_text() for name in range(5)]
        except FileNotFoundError:
            continue  # removed while it was read: a miss, never another content
        assert texts == [str(number) * 300] * 5, texts
    if random.random() < 0.03:
        cache.clear()
"""
    line = [sys.executable, "-c", code, str(tmp_path / "c")]
    workers = [subprocess.Popen([*line, str(seed)], stderr=subprocess.PIPE) for seed in range(4)]
    for worker in workers:
        _, said = worker.communicate(timeout=60)
        assert worker.returncode == 0, said.decode()
    cache = Cache(tmp_path / "c")
    for number in range(6):
        found = cache.find(Key({"n": number}))
        assert found is None or (found / "0").read_text() == str(number) * 300
    cache.clear()
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["CACHEDIR.TAG"]


def test_other_files_of_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine.txt").write_text("x")
    cache = Cache(tmp_path, most=0)
    cache.keep(Key({}), "text", fill_with("x"))
    cache.clear()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["CACHEDIR.TAG", "mine", "mine.txt"]


# --- the commands -------------------------------------------------------------------------------


def test_where_the_cache_is() -> None:
    home = Path.home()
    assert choose_folder(Path("x"), {"MILAN_ONNX_CACHE": "y"}).value == Path("x")
    assert choose_folder(None, {"MILAN_ONNX_CACHE": "y"}).value == Path("y")
    assert choose_folder(None, {"MILAN_ONNX_CACHE": "off"}).value is None
    if sys.platform == "linux":
        assert choose_folder(None, {}).value == home / ".cache" / "milan-onnx"
        found = choose_folder(None, {"XDG_CACHE_HOME": "/c"}).value
        assert found == Path("/c/milan-onnx")


def test_the_cache_is_shown_cleared_and_said(milan: Command, place: Path) -> None:
    line = (*LINE, "--cache", "cache")
    done = milan(*line, "-o", "one", cwd=place)
    assert "cache: cache (--cache)" in done.stderr
    shown = milan("cache", "show", "--cache", "cache", cwd=place).stdout.splitlines()
    assert [row.split("\t")[3].split(" ")[0] for row in shown[1:]] == ["report", "run"]
    entries = json.loads(milan("cache", "show", "--cache", "cache", "--json", cwd=place).stdout)
    wanted = milan("cache", "key", *LINE[1:], cwd=place)
    assert wanted.stdout.strip() in {entry["key"] for entry in entries}, wanted.stderr
    cleared = milan("cache", "clear", "--cache", "cache", cwd=place)
    assert cleared.stdout == "2 removed from cache\n"
    assert milan("cache", "path", "--cache", "cache", cwd=place).stdout == "cache\n"
    assert milan("cache", "show", "--cache", "none", cwd=place).stdout.splitlines() == shown[:1]
    off = milan("cache", "show", cwd=place)
    assert (off.returncode, "there is no cache" in off.stderr) == (2, True)


def test_a_cache_that_cannot_be_is_an_error_only_where_it_was_named(
    milan: Command, place: Path
) -> None:
    line = (*LINE, "--no-report", "-o", "run")
    named = milan(*line, "--cache", "/proc/none", cwd=place)
    assert named.returncode == 4
    assert named.stderr.splitlines()[-1].startswith("error: cannot write /proc/none")
    assert not (place / "run").exists()
    both = milan(*line, "--cache", "c", "--no-cache", cwd=place)
    assert (both.returncode, "exclude each other" in both.stderr) == (2, True)
    program = [sys.executable, "-m", "milan_onnx", *line]
    environment = os.environ | {"MILAN_ONNX_CACHE": "/proc/none"}
    done = subprocess.run(program, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning: no cache: cannot write /proc/none" in done.stderr
