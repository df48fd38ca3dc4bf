"""A training run from a recipe: its stages, its bundle.

The work folder holds what stages leave, and ``run.json``: the recipe with all settings, the data
and the seed, so that a run goes on, and exports, from its folder alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from milan_onnx import bundle
from milan_onnx.bundle import Bundle
from milan_onnx.errors import DeviceUnavailable, UsageError
from milan_onnx.export.recipe import build, load_recipe
from milan_onnx.export.run import Options, Recipe, TrainingRun
from milan_onnx.files import staged_folder, write_json
from milan_onnx.progress import Reporter, Silent

RUN = "run.json"


def train(
    recipe: str,
    data: Path,
    work: Path,
    *,
    changes: Sequence[str] = (),
    seed: int = 0,
    stages: Sequence[str] = (),
    device: str = "cpu",
    threads: int | None = None,
    workers: int = 2,
    say: Reporter | None = None,
) -> TrainingRun:
    """Run the stages of a recipe (a TOML file, or one that ships) in a work folder.

    What is done already is not done again, and what was interrupted goes on. ``changes`` are
    settings KEY=VALUE that replace the recipe's. Raises UsageError for a recipe that is none, or a
    folder of another run; BadInput for data that cannot be used.
    """
    table = load_recipe(recipe, changes)
    about = {"recipe": table, "data": str(data), "seed": seed}
    _claim(work, about)
    if threads is not None:
        torch.set_num_threads(threads)
    say = say or Silent()
    run = _run(table, data, work, say, seed, _device(device), workers)
    wanted = list(stages) or list(run.stages)
    for stage in wanted:
        if stage not in run.stages:
            known = ", ".join(run.stages)
            raise UsageError(f"this recipe has no stage {stage!r}", hint=f"known are {known}")
    for stage in (stage for stage in run.stages if stage in wanted):
        started = perf_counter()
        run.do(stage)
        say.note(f"{stage}: done in {perf_counter() - started:.0f} s")
    return run


def export(
    work: Path, out: Path, *, overwrite: bool = False, say: Reporter | None = None
) -> Bundle:
    """Write the bundle of a finished run to a folder.

    Raises UsageError where the folder holds no run, or one that is not finished.
    """
    path = work / RUN
    if not path.is_file():
        raise UsageError(f"{work} holds no training run", hint="give the --work of `train`")
    about, say = json.loads(path.read_text("utf-8")), say or Silent()
    run = _run(about["recipe"], Path(about["data"]), work, say, about["seed"])
    with staged_folder(out, overwrite=overwrite, marker=bundle.MANIFEST, what="bundle") as folder:
        try:
            made = run.export(folder)
        except FileNotFoundError as error:
            raise UsageError(
                f"{work} is not trained to the end: it has no {Path(error.filename).name}",
                hint="run `train` with it again; it goes on where it was",
            ) from error
    total = sum(entry.bytes for entry in made.manifest.files.values())
    say.note(f"export: {out}, {total / 1e6:.1f} MB, {made.sha256[:12]}")
    return bundle.load_bundle(out)


def _run(
    table: Mapping[str, Any],
    data: Path,
    work: Path,
    say: Reporter,
    seed: int,
    device: str = "cpu",
    workers: int = 1,
) -> TrainingRun:
    recipe = build(Recipe, table, "the recipe")
    return TrainingRun(Options(recipe, data, work, say, seed, workers, device))


def _claim(work: Path, about: Mapping[str, Any]) -> None:
    """Write what the run is into its folder, or find that it is the same."""
    path = work / RUN
    plain = json.loads(json.dumps(about))
    if path.is_file():
        found = json.loads(path.read_text("utf-8"))
        if (found["recipe"], found["seed"]) != (plain["recipe"], plain["seed"]):
            raise UsageError(
                f"{work} holds a run of another recipe or seed", hint="give another --work"
            )
    work.mkdir(parents=True, exist_ok=True)
    write_json(path, plain)


def _device(name: str) -> str:
    kind = name.partition(":")[0]
    if kind == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if kind not in ("cpu", "cuda"):
        raise UsageError(f"no device is named {name!r}", hint="give auto, cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable(
            "PyTorch finds no CUDA device", hint="use --device cpu, or install PyTorch for CUDA"
        )
    return name
