"""What each idea of a training recipe is worth, and what more described units are worth.

    python -m benchmarks.ablation --data ../shared/data --work training --out ablation.json

``--work`` is a folder where the stage ``features`` of the recipe has run; its features serve all
variants. Each is the recipe without one thing: a source of units, a part of the features (reduced
to no component), the second task, the exemplars' spread; or the recipe with a part of the described
units. It is trained to the end, and judged on the described units of the split val by ``milan-onnx
evaluate``. Prints a row a variant as it comes; what ``--out`` has already is not done again.
``--set`` changes the recipe of all variants, such as ``--set captioner.steps=1000``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from milan_onnx.export.recipe import load_recipe

SHARED = ("features", "classes.npy", "encoder.onnx")
"""What variants take from the work folder."""
WHOLE = "whole recipe"
PARTS = {"1/8": 0.125, "1/4": 0.25, "1/2": 0.5}
"""The learning curve."""


def variants(recipe: str, changes: Sequence[str] = ()) -> dict[str, list[str]]:
    """Each variant's settings, by what it is called."""
    table = load_recipe(recipe, changes)
    found: dict[str, list[str]] = {WHOLE: []}
    for source, share in table.get("shares", {}).items():
        if source != "annotated" and share > 0:
            found[f"without units of {source}"] = [f"shares.{source}=0"]
    for part in table["parts"]:
        found[f"without the part {part}"] = [f"sizes.reduced.{part}=0"]
    if table["captioner"].get("phrase_vector"):
        found["without phrase vectors"] = ["captioner.phrase_vector=0"]
    if table["sizes"].get("spread"):
        found["without spread of exemplars"] = ["sizes.spread=false"]
    for name, part in PARTS.items():
        found[f"{name} of the units"] = [f"part={part}"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON of all figures")
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--variants", nargs="*", help="only these, by name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    known = variants(given.recipe, given.changes)
    if unknown := [name for name in given.variants or () if name not in known]:
        parser.error(f"no variant is called {unknown[0]!r}; there are {', '.join(known)}")
    results: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    for name in given.variants or known:
        if name not in results:
            results[name] = judge(train(given, name, known[name]), given)
            given.out.write_text(json.dumps(results, indent=1))
        print(name, json.dumps(results[name]), flush=True)


def train(given: argparse.Namespace, name: str, settings: Sequence[str]) -> Path:
    """The bundle of a variant."""
    folder = given.work / "ablation" / name.replace("/", "-of-").replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    for shared in SHARED:
        if (given.work / shared).exists() and not (folder / shared).exists():
            (folder / shared).symlink_to((given.work / shared).resolve())
    line = ["train", given.recipe, "--data", given.data, "--work", folder, "--device", "cpu"]
    line += ["--threads", given.threads, "--seed", given.seed]
    line += [part for change in (*given.changes, *settings) for part in ("--set", change)]
    with (folder / "log.txt").open("a") as log:
        run(line, given.threads, stdout=log, stderr=log)
        export = ["export", folder, "--out", folder / "bundle", "--overwrite"]
        run(export, given.threads, stdout=log, stderr=log)
    return folder / "bundle"


def judge(bundle: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Figures of its descriptions, by column."""
    line = ["evaluate", "--units", given.data / "units.jsonl.gz", "--split", "val", "--json"]
    line += ["--no-nearest", "--bundle", bundle, "--device", "cpu", "--quiet"]
    found = json.loads(run(line, given.threads, stdout=subprocess.PIPE).stdout)
    figures: dict[str, Any] = found["rows"][0]["figures"]
    return figures


def run(line: Sequence[Any], threads: int, **streams: Any) -> subprocess.CompletedProcess[str]:
    """``milan-onnx`` with a command line."""
    tool = Path(sys.executable).with_name("milan-onnx")
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [str(tool), *map(str, line)]
    return subprocess.run(command, check=True, text=True, env=environment, **streams)


if __name__ == "__main__":
    main()
