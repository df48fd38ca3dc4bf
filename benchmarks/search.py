"""PMI search with rerank: units a second, the original's form in eager PyTorch and the runtime.

    python -m benchmarks.search [--units 64] [--rounds 3] [--original ../shared/reference/original]
                                [--json FILE]

Captioners: one of the published dimensions (F=3904, hidden 512, 5,000 words) with random weights,
whose captions never end; with --original the checkpoint that the original's authors' code was run
on with its features, and the same widened to the published dimensions, which behaves as trained
ones do; and the default bundle, which PyTorch has no part in. Both sides describe the same features
and must give the same captions. The original's search copies every hypothesis's features at each
step; the opponent is also timed without that, which is kinder than faithful.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import Contest, ratio_text, report
from benchmarks.original.decoding import ended, rerank
from benchmarks.original.networks import FEATURES, Decoder, load_decoder
from milan_onnx.bundle import Bundle, SearchDefaults, load_bundle
from milan_onnx.export.original.checkpoint import read_checkpoint
from milan_onnx.export.original.convert import convert
from milan_onnx.runtime import Describer, choose_threads
from milan_onnx.runtime.device import Device
from tests.export.original import Recipe, write_standin

PUBLISHED = {
    "embedding": 128,
    "hidden": 512,
    "attention": 512,
    "lm_embedding": 128,
    "lm_hidden": 512,
    "lm_layers": 2,
}
VOCABULARY = 5000
SPECIALS = 4
EXEMPLARS = 15


@dataclass(frozen=True)
class Case:
    """A captioner and what it is to describe."""

    name: str
    """For the table."""

    describer: Describer
    """The runtime."""

    options: SearchDefaults
    """Its settings."""

    features: np.ndarray
    """float32 (U, K, F)."""

    decoder: Decoder | None = None
    """The opponent; None: there is none."""

    def runtime(self) -> list[tuple[int, ...]]:
        """Tokens of each unit's best caption."""
        found = self.describer.describe(self.features, self.options, candidates=1)
        return [unit[0].tokens if unit else () for unit in found]

    def original(self, carry_features: bool = True) -> list[tuple[int, ...]]:
        """The same from the opponent, all units at once."""
        assert self.decoder is not None
        stop = self.describer.bundle.manifest.vocabulary.stop
        settings = {"beam": self.options.beam_size, "length": self.options.length}
        found = rerank(
            self.decoder,
            torch.from_numpy(self.features),
            stop,
            weight=self.options.pmi_weight,
            carry_features=carry_features,
            **settings,
        )
        return [ended(row, stop) for row in found.tokens.tolist()]


def random_checkpoint(folder: Path) -> Path:
    """Published dimensions and random weights; no caption ends, which is the most work there is."""
    words = tuple(f"w{i}" for i in range(VOCABULARY - SPECIALS))
    return write_standin(folder, Recipe("resnet50", words, beam_size=50, sizes=PUBLISHED)).path


def widened_checkpoint(folder: Path, original: Path) -> Path:
    """A trained checkpoint brought to the published dimensions: more features, which count for
    nothing, and more words, which are never said. Its captions end when the trained one's do."""
    trained = read_checkpoint(original)

    def fill(saved: dict) -> None:
        state = saved["state_dict"]
        for name, value in trained.state.items():
            if not name.startswith("encoder."):
                state[name] = _widened(name, value, state[name].shape, len(trained.words))

    words = (*trained.words, *(f"w{i}" for i in range(VOCABULARY - trained.vocabulary)))
    recipe = Recipe("resnet50", words, beam_size=50, sizes=PUBLISHED, change=fill)
    return write_standin(folder, recipe).path


def _widened(name: str, value: Tensor, shape: torch.Size, words: int) -> Tensor:
    """A tensor in the wider model's shape: zeros for what is new, but for the words' biases."""
    if "embedding" in name or ("output" in name and "attend" not in name):  # the specials stay last
        new = torch.zeros(shape[0] - len(value), *value.shape[1:])
        if name.endswith("bias"):
            new -= 30
        return torch.cat((value[:words], new, value[words:]))
    wide = torch.zeros(shape)
    wide[tuple(slice(size) for size in value.shape)] = value
    return wide


def random(folder: Path, units: int, threads: int) -> Case:
    path = random_checkpoint(folder)
    bundle = convert(path, folder / "random")
    rng = np.random.default_rng(1)
    features = rng.gamma(0.6, 1.0, (units, EXEMPLARS, FEATURES["resnet50"])).astype(np.float32)
    name = f"published dimensions, no caption ends, {units} units"
    return _case(name, bundle, features, threads, load_decoder(path))


def trained(folder: Path, original: Path, units: int, threads: int) -> Case:
    path = widened_checkpoint(folder, original / "standin-resnet18.pth")
    bundle = convert(path, folder / "wide")
    known = np.load(original / "expected.npz")["features"]
    # More units than were recorded: mixed of their exemplars.
    rng = np.random.default_rng(1)
    pick = rng.integers(0, len(known), (units - len(known), 1)), np.arange(EXEMPLARS)[None]
    more = known[pick[0], rng.permuted(np.tile(pick[1], (units - len(known), 1)), axis=1)]
    mixed = 0.7 * more + 0.3 * known[rng.permutation(len(known))[: len(more)]]
    features = np.zeros((units, EXEMPLARS, FEATURES["resnet50"]), np.float32)
    features[:, :, : known.shape[2]] = np.concatenate((known, mixed))
    name = f"published dimensions, {units} units"
    return _case(name, bundle, features, threads, load_decoder(path))


def reference(folder: Path, original: Path, threads: int) -> Case:
    path = original / "standin-resnet18.pth"
    bundle = convert(path, folder / "standin")
    features = np.load(original / "expected.npz")["features"]
    name = f"the original's own check, {len(features)} units"
    return _case(name, bundle, features, threads, load_decoder(path))


def default(units: int, threads: int) -> Case:
    bundle = load_bundle(None)
    manifest = bundle.manifest
    rng = np.random.default_rng(2)
    shape = (units, EXEMPLARS, manifest.encoder.features)
    features = rng.gamma(0.6, 1.0, shape).astype(np.float32)
    describer = Describer(bundle, Device("cpu"), threads)
    return Case(f"default bundle, {units} units", describer, manifest.search, features)


def _case(
    name: str, bundle: Bundle, features: np.ndarray, threads: int, decoder: nn.Module
) -> Case:
    options = replace(bundle.manifest.search, legacy=True, strategy="rerank")
    assert isinstance(decoder, Decoder)
    return Case(name, Describer(bundle, Device("cpu"), threads), options, features, decoder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--original", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    threads = choose_threads().value
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = [
            random(folder, min(16, arguments.units), threads),
            default(arguments.units, threads),
        ]
        if arguments.original:
            cases.insert(1, trained(folder, arguments.original, arguments.units, threads))
            cases.insert(0, reference(folder, arguments.original, threads))
        rows, values = [], []
        for case in cases:
            row, value = contest(case, arguments.rounds)
            rows.append(row)
            values.append(value)
    head = ["captioner", "runtime, units/s", "the original's form", "times"]
    report(
        [*head, "without copying features", "times", "same captions"], rows, values, arguments.json
    )
    speeds = [value["units_per_second"]["runtime"] for value in values[-2:]]
    print(f"\nthe default bundle is {speeds[1] / speeds[0]:.1f} times as fast as the one before it")


def contest(case: Case, rounds: int) -> tuple[list[str], dict[str, object]]:
    """A row of the table and its figures."""
    captions: dict[str, list[tuple[int, ...]]] = {}
    ways: dict[str, Callable[[], object]] = {
        "runtime": lambda: captions.update(runtime=case.runtime())
    }
    if case.decoder is not None:
        ways["original"] = lambda: captions.update(original=case.original())
        ways["kinder"] = lambda: captions.update(kinder=case.original(carry_features=False))
    timed = Contest()
    timed.run(ways, rounds)
    units = len(case.features)
    speeds = {way: units / timed.seconds(way) for way in ways}
    length = np.mean([len(c) for c in captions["runtime"]])
    value = {"case": case.name, "rounds": timed.rounds, "units_per_second": speeds}
    value |= {"tokens": length}
    row = [case.name, f"{speeds['runtime']:.1f}"]
    if case.decoder is None:
        return [*row, *["–"] * 5], value
    for way in ("original", "kinder"):
        row += [f"{speeds[way]:.2f}", ratio_text(timed.ratio(way, "runtime"))]
    same = [a == b for a, b in zip(captions["runtime"], captions["original"], strict=True)]
    value |= {"same": sum(same)}
    return [*row, f"{sum(same)} of {units}"], value


if __name__ == "__main__":
    main()
