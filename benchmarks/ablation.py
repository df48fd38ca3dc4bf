"""What each idea of the training recipe is worth: short runs with and without it, on val.

    python benchmarks/ablation.py --data ../shared/data --work training --out ablation.json

``--work`` is a folder where the stages ``features``, ``drawings`` and ``units`` have run. Each
variant trains the captioner and the language model for a fraction of the default bundle's steps and
is judged by ``benchmarks/quality.py`` on the same units: planted ones, virtual ones of val, and the
class units of EfficientNet-Lite1 on the first ``--photos``. Prints a row a variant as it comes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PARTS = ("planted", "virtual", "classes")
STAGES = ("captioner", "refine", "lm")
KINDS = (
    "exact masks",
    "coarse masks",
    "class maps",
    "backgrounds",
    "pixels",
    "outlines",
    "drawings",
)


def without_samples(*left_out: str) -> list[str]:
    """The setting that trains on all kinds of samples but these."""
    return [f"samples={json.dumps([kind for kind in KINDS if kind not in left_out])}"]


def both(setting: str) -> list[str]:
    """A setting for the units of both loops."""
    return [f"units.{setting}", f"mixed.{setting}"]


# Each idea of the recipe, and the settings that take it away.
VARIANTS = {
    "": [],
    "real-units": both("real=0"),
    "class-probabilities": ["classes=false"],
    "class-maps": without_samples("class maps", "backgrounds"),
    "coarse-masks": without_samples("coarse masks"),
    "general-names": both("mix.general=0"),
    "siblings": both("siblings=0"),
    "pixels": [*both("mix.pixels=0"), *both("mix.colour=0"), *both("mix.coloured=0")],
    "drawings": without_samples("drawings"),
    "distractors": both("clean=1"),
    "fewer-exemplars": ["captioner.fewer_exemplars=0"],
    "noise": ["captioner.noise=0"],
    "refine": ["refine.steps=0"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON of all figures")
    parser.add_argument(
        "--variants", nargs="*", choices=VARIANTS, default=list(VARIANTS), help="ideas to leave out"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--photos", type=int, default=3000, help="for the class units")
    given = parser.parse_args()
    results: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    for variant in given.variants:
        name = variant or "whole recipe"
        if name not in results:
            results[name] = judge(train(given, variant), given)
            given.out.write_text(json.dumps(results, indent=1))
        print(name, json.dumps(results[name]), flush=True)


def train(given: argparse.Namespace, variant: str) -> Path:
    """A bundle of the short recipe without one idea; its path."""
    folder = given.work / "ablation" / (variant or "whole")
    folder.mkdir(parents=True, exist_ok=True)
    for shared in ("features", "drawings", "units", "encoder.onnx"):
        if not (folder / shared).exists():
            (folder / shared).symlink_to((given.work / shared).resolve())
    tool = str(Path(sys.executable).with_name("milan-onnx"))
    command = [tool, "train", "short", "--data", str(given.data), "--work", str(folder)]
    command += ["--threads", str(given.threads), "--device", "cpu"]
    command += [part for stage in STAGES for part in ("--stage", stage)]
    command += [part for setting in VARIANTS[variant] for part in ("--set", setting)]
    export = [tool, "export", str(folder), "--out", str(folder / "bundle"), "--overwrite"]
    with (folder / "log.txt").open("w") as log:
        for line in (command, export):
            subprocess.run(line, check=True, stdout=log, stderr=log, env=quiet(given.threads))
    return folder / "bundle"


def judge(bundle: Path, given: argparse.Namespace) -> dict[str, Any]:
    """The figures that benchmarks/quality.py gives."""
    out = bundle.parent / "quality.json"
    command = [sys.executable, str(Path(__file__).with_name("quality.py")), "--bundle", str(bundle)]
    command += ["--data", str(given.data), "--work", str(given.work / "ablation" / "judged")]
    command += ["--out", str(out), "--limit", str(given.photos), "--parts", *PARTS]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=quiet(given.threads))
    found = json.loads(out.read_text())
    figures = {part: found[part]["rows"][0]["figures"] for part in ("virtual", "classes")}
    return {"planted": found["planted"]["share_right"], **figures}


def quiet(threads: int) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


if __name__ == "__main__":
    main()
