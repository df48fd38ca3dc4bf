"""Published checkpoints: read without running them, checked, converted, held against PyTorch."""

from __future__ import annotations

import contextlib
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from benchmarks.original.networks import FEATURES, features_of  # noqa: E402
from milan_onnx.bundle import load_bundle  # noqa: E402
from milan_onnx.cli.app import app  # noqa: E402
from milan_onnx.errors import BadInput  # noqa: E402
from milan_onnx.export.original.checkpoint import read_checkpoint  # noqa: E402
from milan_onnx.export.original.convert import convert, modules  # noqa: E402
from milan_onnx.export.original.pickles import Refused, load_pickle  # noqa: E402
from milan_onnx.runtime import Describer  # noqa: E402
from milan_onnx.runtime import search as searching  # noqa: E402
from milan_onnx.runtime.device import Device  # noqa: E402
from tests.export.original import (  # noqa: E402
    WORDS,
    Recipe,
    Standin,
    plain_beam,
    plain_prior,
    shuffled_words,
    write_standin,
)
from tests.export.pooling import pool_pyramid  # noqa: E402

SHARED = Path(__file__).parents[2].parent / "shared/reference/original"
STOP = len(WORDS) + 1


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Standin:
    return write_standin(tmp_path_factory.mktemp("standin"), Recipe())


@pytest.fixture(scope="module")
def describer(small: Standin, tmp_path_factory: pytest.TempPathFactory) -> Describer:
    out = tmp_path_factory.mktemp("bundle") / "small"
    return Describer(convert(small.path, out), Device("cpu"))


def units(count: int, config: str = "resnet18", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (3 * rng.standard_normal((count, 5, FEATURES[config]))).astype(np.float32)


# --- parity --------------------------------------------------------------------------------------


def pictures_and_masks() -> tuple[np.ndarray, np.ndarray]:
    """Four images (N,224,224,3), and masks (N,224,224): whole, part, thin and empty."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    masks = np.zeros((4, 224, 224), bool)
    masks[0] = True
    masks[1, 40:180, 60:200] = True
    masks[2, 100:103, 17:20] = True  # vanishes at most levels
    return images, masks


def pooled_by_the_original(standin: Standin, config: str) -> np.ndarray:
    images, masks = pictures_and_masks()
    floats = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    weights = torch.from_numpy(masks)[:, None].float()
    with torch.inference_mode():
        return features_of(standin.decoder, config, floats, weights).numpy()


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape and not found[3].any()
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("config", ["alexnet", "resnet50"])
def test_encoders_pool_as_the_original(config: str, tmp_path: Path) -> None:
    standin = write_standin(tmp_path, Recipe(config))
    encoder = Describer(convert(standin.path, tmp_path / "bundle"), Device("cpu")).encoder()
    images, masks = pictures_and_masks()
    maps = encoder.maps(images)
    found = np.concatenate([encoder.pool(maps, i, masks[i : i + 1]) for i in range(4)])
    assert found.shape[1] == FEATURES[config]
    assert_close(found, pooled_by_the_original(standin, config))


def test_resnet101_pools_as_the_original_before_its_graph_is_written(tmp_path: Path) -> None:
    """Its graph is ResNet-50's with more of the same blocks, and would take longest to write."""
    config = "resnet101"
    standin = write_standin(tmp_path, Recipe(config, module="confection._config"))
    encoder = modules(read_checkpoint(standin.path))[0].encoder
    images, masks = (torch.from_numpy(array) for array in pictures_and_masks())
    with torch.inference_mode():
        found = pool_pyramid(encoder(images), masks, encoder.mask_resize).numpy()
    assert_close(found, pooled_by_the_original(standin, config))


def test_default_search_is_the_papers(small: Standin, describer: Describer) -> None:
    features = units(6)
    options = describer.bundle.manifest.search
    assert (options.beam_size, options.length, options.pmi_weight) == (16, 15, 0.2)
    assert options.forbid == () and not options.legacy
    models = (describer._captioner, describer._language_model)
    found = searching.search(*models, features, describer.bundle.manifest.vocabulary, options)
    for unit in range(len(features)):
        values = torch.from_numpy(features[unit])
        beams = plain_beam(small.decoder, values, 16, 15, STOP)
        scored = [(b.given - 0.2 * plain_prior(small.decoder, b.tokens, STOP), b) for b in beams]
        best = max(scored, key=lambda pair: pair[0])
        assert tuple(t for t in found.tokens[unit, 0].tolist() if t >= 0) == best[1].tokens
        assert found.pmi[unit, 0] == pytest.approx(best[0], abs=1e-4)
        assert found.log_p_given_exemplars[unit, 0] == pytest.approx(best[1].given, abs=1e-4)


def test_legacy_counts_one_term_too_many(small: Standin, describer: Describer) -> None:
    features = units(40, seed=3)
    options = describer.bundle.manifest.search
    models = (describer._captioner, describer._language_model)
    vocabulary = describer.bundle.manifest.vocabulary
    beams = searching.find_beams(*models, features, vocabulary, options)
    longest = searching.longest_of(beams)
    quirky = replace(options, legacy=True)
    ranked = searching.rank(beams, *models, features, vocabulary, quirky, longest)
    for unit in range(0, 40, 8):
        for place in (0, 7):
            tokens = tuple(t for t in ranked.tokens[unit, place].tolist() if t >= 0)
            extra = tokens[-1] == STOP and len(tokens) < longest
            expected = plain_prior(small.decoder, tokens, STOP, extra)
            assert ranked.log_p[unit, place] == pytest.approx(expected, abs=1e-4)
    texts = {
        legacy: [h[0].description for h in describer.describe(features, o)]
        for legacy, o in ((True, quirky), (False, options))
    }
    differ = sum(a != b for a, b in zip(texts[True], texts[False], strict=True))
    print(f"legacy and default differ in {differ} of 40 units")
    assert 0 < differ < 40


@torch.inference_mode()
def test_legacy_greedy_and_beam_weigh_each_step(small: Standin, describer: Describer) -> None:
    features = units(3, seed=5)
    options = replace(describer.bundle.manifest.search, legacy=True, strategy="greedy")
    found = list(describer.describe(features, options))
    models = (describer._captioner, describer._language_model)
    vocabulary = describer.bundle.manifest.vocabulary
    beams = searching.find_beams(*models, features, vocabulary, options)
    for unit in range(3):
        values, total, tokens = torch.from_numpy(features[unit])[None], 0.0, []
        h, c = small.decoder.start(values)
        for _ in range(15):  # on and on after the stop token
            last = torch.tensor([tokens[-1] if tokens else STOP - 1])
            log_prob, h, c = small.decoder.step(last, values, h, c)
            prior = small.decoder.lm(torch.tensor([[STOP - 1, *tokens]]))[0, -1]
            step = log_prob[0] - 0.2 * prior
            tokens.append(int(step.argmax()))
            total += float(step.max())
        assert beams.tokens[unit, 0].tolist() == tokens
        assert beams.score[unit, 0] == pytest.approx(total, abs=1e-4)
        cut = tokens[: tokens.index(STOP) + 1] if STOP in tokens else tokens
        assert found[unit][0].tokens == tuple(cut)
    beam = next(describer.describe(features[:1], replace(options, strategy="beam")))
    best = beam[0]
    expected = best.log_p_given_exemplars - 0.2 * best.log_p
    assert best.pmi == pytest.approx(expected, abs=1e-4)


def test_plain_strategies_need_no_language_model(small: Standin, describer: Describer) -> None:
    features = units(2, seed=7)
    options, vocabulary = describer.bundle.manifest.search, describer.bundle.manifest.vocabulary
    models = (describer._captioner, describer._language_model)
    for strategy, size in (("beam", 16), ("greedy", 1)):
        chosen = replace(options, strategy=strategy)
        found = searching.search(*models, features, vocabulary, chosen)
        for unit in range(len(features)):
            values = torch.from_numpy(features[unit])
            best = plain_beam(small.decoder, values, size, 15, STOP)[0]
            assert tuple(t for t in found.tokens[unit, 0].tolist() if t >= 0) == best.tokens
            assert found.pmi[unit, 0] == pytest.approx(best.given, abs=1e-4)


def test_texts_are_written_as_the_original_does(describer: Describer) -> None:
    ids = {word: index for index, word in enumerate(WORDS)}
    words = "red - blue dogs , cats n't . a cats of".split()
    text = describer.text(np.array([ids[w] for w in words]))
    assert text == "Red-blue dogs, cats n't. A cats of"


def test_language_model_in_another_order_is_put_in_order(tmp_path: Path) -> None:
    same = write_standin(tmp_path, Recipe(seed=4))
    state = read_checkpoint(same.path).state
    order = shuffled_words(WORDS)
    rows = [WORDS.index(word) for word in order] + list(range(len(WORDS), len(WORDS) + 4))

    def reorder(saved: dict[str, Any]) -> None:
        for name in ("lm.embedding.weight", "lm.output.0.weight", "lm.output.0.bias"):
            saved["state_dict"][name] = saved["state_dict"][name][rows]

    (tmp_path / "other").mkdir()
    recipe = Recipe(seed=4, lm_words=order, change=reorder)
    found = read_checkpoint(write_standin(tmp_path / "other", recipe).path)
    assert found.notes == ("the language model's vocabulary was put in the captioner's order",)
    for name, value in found.state.items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


# --- the original's own file ----------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/reference/original is not there")
def test_the_originals_outputs_are_reproduced(tmp_path: Path) -> None:
    made = convert(SHARED / "standin-resnet18.pth", tmp_path / "bundle", legacy=True)
    expected, captions = (
        np.load(SHARED / "expected.npz"),
        json.loads((SHARED / "captions.json").read_text()),
    )
    describer = Describer(made, Device("cpu"))
    encoder, found = describer.encoder(), []
    for images, masks in zip(expected["images"], expected["masks"], strict=True):
        maps = encoder.maps(np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
        found += [encoder.pool(maps, k, masks[k].astype(bool)) for k in range(15)]
    pooled = np.concatenate(found).reshape(3, 15, -1)
    np.testing.assert_allclose(pooled, expected["features"][:3], atol=1e-4)

    features, options = expected["features"], made.manifest.search
    models, vocabulary = (describer._captioner, describer._language_model), made.manifest.vocabulary
    beams = searching.find_beams(*models, features, vocabulary, options)
    longest = searching.longest_of(beams)
    padded = np.where(beams.tokens < 0, vocabulary.stop, beams.tokens)[:, :, :longest]
    np.testing.assert_array_equal(padded, expected["beam_tokens"])
    np.testing.assert_allclose(beams.score, expected["beam_scores"], atol=1e-4)
    ranked = searching.rank(beams, *models, features, vocabulary, options, longest)
    best = np.where(ranked.tokens < 0, vocabulary.stop, ranked.tokens)[:, 0, :longest]
    np.testing.assert_array_equal(best, expected["rerank_tokens"])
    np.testing.assert_allclose(ranked.pmi[:, 0], expected["rerank_scores"], atol=1e-4)
    for name, weight in (("greedy_mi", 0.2), ("greedy", 0.0)):
        chosen = replace(options, strategy="greedy", pmi_weight=weight)
        greedy = searching.find_beams(*models, features, vocabulary, chosen)
        np.testing.assert_array_equal(greedy.tokens[:, 0], expected[f"{name}_tokens"])
        np.testing.assert_allclose(greedy.score[:, 0], expected[f"{name}_scores"], atol=1e-4)
    texts = [h[0].description for h in describer.describe(features)]
    assert texts == captions["captions"]


# --- refusals ------------------------------------------------------------------------------------


class Runs:
    """A pickle that would run a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "evil.pth"
    for evil in (Runs(mark), {"properties": {}, "state_dict": {"x": Runs(mark)}}):
        torch.save(evil, path)
        with pytest.raises(Refused, match="asks for"):
            load_pickle(path)
        assert not mark.exists()


@pytest.mark.parametrize(
    "program, named",
    [
        (b"cos\nsystem\n(S'touch MARK'\ntR.", "os.system"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"ctorch.serialization\nload\n(S'x'\ntR.", "torch.serialization.load"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x01x\x85R.", "posix.system"),
        (b"(S'x'\nios\nsystem\n.", "os.system"),
        (b"cthinc.config\nConfig.mro\n.", "thinc.config.Config.mro"),
    ],
)
def test_names_outside_the_list_are_refused_by_name(
    program: bytes, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/data.pkl", program)
    with pytest.raises(Refused, match=named):
        load_pickle(path)


def test_attributes_set_by_one_file_do_not_reach_the_next(small: Standin, tmp_path: Path) -> None:
    path = tmp_path / "sets.pth"
    program = b"c_codecs\nencode\n(N(dS'__defaults__'\n(S'utf-7'\ntstb."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sets/data.pkl", program)
    with contextlib.suppress(BadInput):
        load_pickle(path)
    assert read_checkpoint(small.path).words == WORDS


def rewrite(path: Path, out: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """The archive with some records changed, or left out where ``change`` gives none."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            data = change(name, source.read(name))
            if data is not None:
                target.writestr(name, data)
    return out


def test_damaged_archives_are_named(small: Standin, tmp_path: Path) -> None:
    out = tmp_path / "bad.pth"
    with pytest.raises(BadInput, match="is missing"):
        load_pickle(rewrite(small.path, out, lambda n, d: None if n.endswith("data/3") else d))
    with pytest.raises(BadInput, match="bytes, its pickle says"):
        load_pickle(rewrite(small.path, out, lambda n, d: d[:-4] if n.endswith("data/3") else d))
    cut = rewrite(small.path, out, lambda n, d: d[:-40] if n.endswith("data.pkl") else d)
    with pytest.raises(BadInput, match="pickle is damaged"):
        load_pickle(cut)
    out.write_bytes(small.path.read_bytes()[:10_000])
    with pytest.raises(BadInput, match="not a PyTorch archive"):
        load_pickle(out)
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        load_pickle(tmp_path / "nothing.pth")


@pytest.mark.parametrize(
    "arguments", ["offset", "size", "stride", "negative", "float", "storage", "huge"]
)
def test_tensors_must_lie_inside_their_storage(arguments: str, tmp_path: Path) -> None:
    sane: dict[str, Any] = {"offset": 0, "size": (2, 2), "stride": (2, 1)}
    sane |= {
        "offset": {"offset": 1},
        "size": {"size": (2, 3)},
        "stride": {"stride": (3, 1)},
        "negative": {"stride": (-2, 1)},
        "float": {"offset": 0.5},
        "storage": {},
        "huge": {"size": (2**40, 2**40), "stride": (0, 0)},
    }[arguments]

    class Tensor:
        def __reduce__(self) -> Any:
            storage = 7 if arguments == "storage" else Storage()
            return torch._utils._rebuild_tensor_v2, (
                storage, sane["offset"], sane["size"], sane["stride"], False, None,
            )  # fmt: skip

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> Any:
            if isinstance(value, Storage):
                return ("storage", torch.FloatStorage, "0", "cpu", 4)
            return None

    path = tmp_path / "bad.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bad/data/0", b"\0" * 16)
        with archive.open("bad/data.pkl", "w") as stream:
            Pickler(stream, 2).dump(Tensor())
    with pytest.raises(BadInput, match="tensor"):
        load_pickle(path)


def changed(change: Callable[[dict[str, Any]], Any]) -> Recipe:
    return Recipe(change=change)


def put(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(saved: dict[str, Any]) -> None:
        for name in path[:-1]:
            saved = saved[name]
        saved[path[-1]] = value

    return change


def weights(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def work(saved: dict[str, Any]) -> None:
        value = change(saved["state_dict"][name])
        saved["state_dict"][name] = value

    return work


def drop(name: str) -> Callable[[dict[str, Any]], None]:
    def work(saved: dict[str, Any]) -> None:
        del saved["state_dict"][name]

    return work


NAN = float("nan")
CASES = {
    "another config": (put("properties", "encoder", "properties", "config", value="vit"), "'vit'"),
    "another encoder": (put("children", "encoder", value="SpatialConvEncoder"), "SpatialConv"),
    "no language model": (put("properties", "lm", value=None), "no language model"),
    "a missing tensor": (drop("init_h.0.bias"), "it lacks init_h.0.bias"),
    "another shape": (weights("output.1.bias", lambda t: t[:-1]), r"output.1.bias is \(15,\)"),
    "a wrong vocabulary": (
        put(
            "properties", "indexer", "properties", "vocab", "properties", "tokens",
            value=(*WORDS, "more"),
        ),
        r"embedding.weight is \(16, 7\), not \(17, 7\)",
    ),
    "a word twice": (
        put(
            "properties", "indexer", "properties", "vocab", "properties", "tokens",
            value=(*WORDS[:-1], "and"),
        ),
        "a word twice",
    ),
    "other words in the language model": (
        put(
            "properties", "lm", "properties", "indexer", "properties", "vocab", "properties",
            "tokens", value=(*WORDS[:-1], "green"),
        ),
        "differ in the words blue, green",
    ),
    "no stop token": (put("properties", "indexer", "properties", "stop", value=False), "<stop>"),
    "NaN weights": (weights("lm.output.0.bias", lambda t: t * NAN), "lm.output.0.bias holds NaN"),
    "whole numbers": (weights("init_h.0.bias", lambda t: t.long()), "init_h.0.bias is torch.int64"),
    "no tensor": (weights("init_h.0.bias", lambda t: t.tolist()), "which is no tensor"),
    "an unknown tensor": (put("state_dict", "more.weight", value=torch.zeros(2)), "more.weight"),
    "another fork": (lambda saved: {"model": saved["state_dict"]}, "no `properties`"),
    "no size": (put("properties", "hidden_size", value="large"), "hidden_size is 'large'"),
    "settings of another kind": (put("properties", "indexer", value=[1]), "indexer is no dict"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_unusable_checkpoints_get_one_sentence(case: str, tmp_path: Path) -> None:
    change, named = CASES[case]
    path = write_standin(tmp_path, changed(change)).path
    with pytest.raises(BadInput, match=named) as caught:
        convert(path, tmp_path / "bundle")
    assert "\n" not in str(caught.value) and caught.value.exit_code == 5
    assert not (tmp_path / "bundle").exists()


def test_leftovers_are_dropped_when_asked(tmp_path: Path) -> None:
    def leave(saved: dict[str, Any]) -> None:
        saved["state_dict"]["old.weight"] = torch.zeros(3)
        saved["state_dict"]["reranker.x"] = torch.zeros(3)  # the CLIP reranker's: never used

    path = write_standin(tmp_path, changed(leave)).path
    with pytest.raises(BadInput, match=r"old\.weight; convert without these by --allow-unexpected"):
        read_checkpoint(path)
    found = read_checkpoint(path, allow_unexpected=True)
    assert found.notes == ("dropped, as nothing uses them: old.weight",)


# --- the command ---------------------------------------------------------------------------------


def test_the_command_converts(small: Standin, tmp_path: Path) -> None:
    tool = str(Path(sys.executable).with_name("milan-onnx"))
    out = tmp_path / "bundle"
    line = [tool, "convert", str(small.path), "-o", str(out), "--legacy"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == f"{out}\n"
    assert "against PyTorch: encoder" in done.stderr
    found = load_bundle(out)
    assert found.manifest.search.legacy and found.manifest.vocabulary.style == "sentences"
    assert found.manifest.training["sha256"] in found.file("MODEL_CARD.md").read_text()
    again = CliRunner().invoke(app, line[1:])  # a process each would import PyTorch again
    assert again.exit_code == 2 and "already holds a bundle" in again.stderr
    bad = CliRunner().invoke(app, ["convert", __file__, "-o", str(tmp_path / "no")])
    assert bad.exit_code == 5 and "is not a PyTorch archive" in bad.stderr
    assert "Traceback" not in bad.stderr and not (tmp_path / "no").exists()
