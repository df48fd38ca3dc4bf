"""The paper's spurious-text experiment: find the units that read, delete them, see better.

    python examples/spurious-text/run.py [--out FOLDER] [--seeds 3] [--photos CLASS_FOLDERS]

For each seed: draw photos, train a small network on them, half with the name of their class in a
corner; describe its units with `milan-onnx describe`; ablate those whose descriptions are about
text with `milan-onnx edit`, as many as the accuracy on clean validation photos bears; and test on
photos that bear the name of another class. Prints a table over seeds and writes results.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from network import export, train
from photos import Photos, arrays, save

WORDS = ("text", "word", "letter", "lettering", "writing")
LAYER = "3"
"""The last convolution: what strokes and edges of words are to earlier layers, all photos need."""
ROWS = ("before", "after", "random", "sort-all")


def milan(*arguments: object) -> None:
    """Run the command; end where it does."""
    program = Path(sys.executable).parent / "milan-onnx"
    done = subprocess.run([str(program), *map(str, arguments)], stdout=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"milan-onnx {arguments[0]} ended with {done.returncode}")


def experiment(folder: Path, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One network from first to last."""
    photos = Photos(arguments.side, seed, arguments.photos)
    print(f"seed {seed}: drawing", flush=True)
    spurious = photos.split("train", arguments.count, "own", share=0.5)
    probe = save(photos.split("validation", arguments.count // 4, "own", 0.5), folder / "probe")
    clean = save(photos.split("test", arguments.tested, "none"), folder / "clean")
    adversarial = save(photos.split("test", arguments.tested, "other"), folder / "adversarial")
    model = train(*arrays(spurious), len(photos.classes), epochs=arguments.epochs, seed=seed)
    export(model, arguments.side, folder / "model.onnx")
    side = arguments.side
    milan(
        "describe", folder / "model.onnx", "-i", probe, "-o", folder / "run", "--overwrite",
        "--no-validity", "--no-cache", "--resize", 0, "--crop", side, "--mean", "0,0,0",
        "--std", "1,1,1", "-l", LAYER,
    )  # fmt: skip
    milan(
        "edit", folder / "model.onnx", "--run", folder / "run", "-i", clean,
        "--adversarial", adversarial, "-o", folder / "edited.onnx", "--overwrite",
        "--json", folder / "edit.json", "--look", arguments.look, "--most", arguments.most,
        "--tolerance", arguments.tolerance, "--order", arguments.order,
        *(word for match in arguments.words for word in ("--match", match)),
    )  # fmt: skip
    return json.loads((folder / "edit.json").read_text())


def interval(values: list[float]) -> dict[str, float]:
    """Mean over seeds with its 95 % interval (Student's t)."""
    t = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}
    mean, count = float(np.mean(values)), len(values)
    half = t[count] * float(np.std(values, ddof=1)) / count**0.5 if count in t else float("nan")
    return {"mean": mean, "low": mean - half, "high": mean + half}


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracies over seeds."""
    found: dict[str, Any] = {}
    for judged in results[0]["judged"]:
        name = judged["images"]
        of_seed = [next(j for j in r["judged"] if j["images"] == name) for r in results]
        accuracy = {row: [j["accuracy"][row]["value"] for j in of_seed] for row in ROWS}
        found[name] = {row: interval(values) for row, values in accuracy.items()}
        gains = np.subtract(accuracy["after"], accuracy["before"]).tolist()
        found[name]["after - before"] = interval(gains)
        found[name]["by seed"] = accuracy
    found["selected"] = [len(r["selected"]) for r in results]
    found["ablated"] = [len(r["ablated"]) for r in results]
    return found


def show(found: dict[str, Any], seconds: float) -> None:
    for name in ("clean", "adversarial"):
        print(f"\n| {name} photos | accuracy, mean over seeds [95 %] |\n| --- | --- |")
        for row in (*ROWS, "after - before"):
            figure = found[name][row]
            print(f"| {row} | {figure['mean']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}] |")
    print(f"\nunits that say text: {found['selected']}, ablated: {found['ablated']}")
    print(f"{seconds / 60:.1f} minutes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("spurious-text"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--photos", type=Path, help="class folders, instead of drawn photos")
    parser.add_argument("--words", nargs="+", default=WORDS, help="what text units say")
    parser.add_argument("--count", type=int, default=200, help="training photos a class")
    parser.add_argument("--tested", type=int, default=60, help="test photos a class")
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--look", type=int, default=1)
    parser.add_argument("--most", type=int, default=80)
    parser.add_argument("--tolerance", type=float, default=0.01)
    parser.add_argument("--order", default="greedy")
    arguments = parser.parse_args()
    start = time.monotonic()
    results = []
    for seed in range(arguments.seeds):
        folder = arguments.out / f"seed{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        results.append(experiment(folder, seed, arguments))
    found = summary(results)
    (arguments.out / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    show(found, time.monotonic() - start)


if __name__ == "__main__":
    main()
